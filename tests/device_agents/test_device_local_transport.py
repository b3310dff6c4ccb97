"""What the transport to this machine does beyond the contract of all transports."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.errors import TransportError
from device_agents.transport import Transport, killing_signal


def test_writing_to_a_process_that_closed_its_input_is_a_transport_error(transport: Transport) -> None:
    """Here, where no wire lies between, it is known at once that nobody reads."""
    process = transport.stream(["sh", "-c", "exec 0<&-; echo closed; sleep 1000"])
    assert process.read_line(20) == b"closed"
    with pytest.raises(TransportError, match="no longer reads"):
        process.write_line(b"hello", 5)
    process.kill()


def test_a_copy_says_both_names(transport: Transport, tmp_path: Path) -> None:
    """Which file, and where to."""
    with pytest.raises(TransportError, match=r"cannot copy .*missing to .*target: No such file"):
        transport.push(tmp_path / "missing", str(tmp_path / "target"))


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (139, "SIGSEGV"), (0, None), (1, None), (255, None)])
def test_exit_codes_tell_signals(code: int, name: str | None) -> None:
    """Local and shell conventions are both understood."""
    assert killing_signal(code) == name
