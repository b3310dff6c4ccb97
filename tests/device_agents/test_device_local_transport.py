"""What the transport to this machine does beyond the contract of all transports."""

from __future__ import annotations

import errno
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


def test_what_nobody_may_write_is_not_copied_on_its_own_disk(transport: Transport, tmp_path: Path) -> None:
    """It has two names, of which either may go; what can be written is copied, and so is all that is pulled."""
    fixed, open_, names = tmp_path / "fixed", tmp_path / "open", [tmp_path / name for name in ("a", "b", "c")]
    for path, mode in ((fixed, 0o444), (open_, 0o644)):
        path.write_bytes(b"content")
        path.chmod(mode)
    transport.push(fixed, str(names[0]))
    transport.push(fixed, str(names[0]))
    transport.push(open_, str(names[1]))
    transport.pull(str(fixed), names[2])
    assert [name.samefile(fixed) for name in names] == [True, False, False]
    fixed.unlink()
    assert [name.read_bytes() for name in names] == 3 * [b"content"]


def test_what_cannot_be_linked_is_copied(transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from one disk to another."""

    def other_disk(*names: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", other_disk)
    fixed, target = tmp_path / "fixed", tmp_path / "target"
    fixed.write_bytes(b"content")
    fixed.chmod(0o444)
    transport.push(fixed, str(target))
    assert target.read_bytes() == b"content"
    assert not target.samefile(fixed)


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (139, "SIGSEGV"), (0, None), (1, None), (255, None)])
def test_exit_codes_tell_signals(code: int, name: str | None) -> None:
    """Local and shell conventions are both understood."""
    assert killing_signal(code) == name
