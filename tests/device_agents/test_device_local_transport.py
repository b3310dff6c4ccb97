"""The transport to this machine: exit codes, lines, limits, ends, whole files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agents.errors import ProtocolError, TransportError, TransportTimeout
from device_agents.transport import MAX_LINE_BYTES, Transport, killing_signal

ECHO = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
FOREVER = "import threading; print('ready', flush=True); threading.Event().wait()"


def python(script: str) -> list[str]:
    """Return the argv that runs a script."""
    return [sys.executable, "-c", script]


def test_a_command_returns_code_and_both_outputs(transport: Transport) -> None:
    """Exit code, stdout and stderr come apart."""
    done = transport.run(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"), 20)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_arguments_are_never_seen_by_a_shell(transport: Transport) -> None:
    """What would be a command to a shell is only text."""
    done = transport.run([*python("import sys; print(sys.argv[1])"), "$(id); *"], 20)
    assert done.stdout == b"$(id); *\n"


def test_a_command_past_its_time_is_ended(transport: Transport) -> None:
    """A command that hangs is killed and reported."""
    with pytest.raises(TransportTimeout, match=r"0\.1 s"):
        transport.run(python(FOREVER), 0.1)


def test_a_missing_program_is_a_transport_error(transport: Transport) -> None:
    """The message names the program."""
    with pytest.raises(TransportError, match="/no/such/program"):
        transport.run(["/no/such/program"], 1)


def test_lines_go_both_ways(transport: Transport) -> None:
    """A process answers line by line, and the end of its input is the end of its output."""
    process = transport.stream(python(ECHO))
    for word in (b"one", b"two"):
        process.write_line(word, 20)
        assert process.read_line(20) == word.upper()
    process.close_stdin()
    assert process.read_line(20) is None
    assert process.wait(20) == 0


def test_more_than_a_pipe_holds_is_written_while_stderr_is_emptied(transport: Transport) -> None:
    """A process that fills stderr before it reads its input does not block us for ever."""
    script = "import sys; sys.stderr.write('e' * 300_000 + 'end'); print(len(sys.stdin.readline()), flush=True)"
    process = transport.stream(python(script))
    process.write_line(b"x" * 500_000, 20)
    assert process.read_line(20) == b"500001"
    assert process.wait(20) == 0
    assert process.stderr_tail().endswith("end")
    assert len(process.stderr_tail()) < 10_000


def test_a_line_without_end_is_refused(transport: Transport) -> None:
    """A line above the limit is a protocol error, not memory."""
    process = transport.stream(python(f"import sys; sys.stdout.write('x' * {MAX_LINE_BYTES + 2})"))
    with pytest.raises(ProtocolError):
        process.read_line(20)


def test_the_longest_line_is_read(transport: Transport) -> None:
    """The limit itself is allowed."""
    process = transport.stream(python(f"print('x' * {MAX_LINE_BYTES})"))
    line = process.read_line(20)
    assert line is not None
    assert len(line) == MAX_LINE_BYTES


def test_a_silent_process_is_a_timeout(transport: Transport) -> None:
    """Waiting for a line has an end, and so has waiting for the process."""
    process = transport.stream(python(FOREVER))
    assert process.read_line(20) == b"ready"
    with pytest.raises(TransportTimeout):
        process.read_line(0.05)
    with pytest.raises(TransportTimeout):
        process.wait(0.05)


def test_kill_ends_the_whole_group(transport: Transport, ends_within: Callable[[int, float], bool]) -> None:
    """What a process started ends with it, and a second kill is harmless."""
    script = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {FOREVER!r}]); print(p.pid, flush=True)"
    )
    process = transport.stream(python(script + "; p.wait()"))
    words = {process.read_line(20), process.read_line(20)}  # in either order
    grandchild = int(next(word for word in words if word and word != b"ready"))
    process.kill()
    process.kill()
    assert ends_within(grandchild, 20)


def test_closing_the_transport_ends_its_processes(
    transport: Transport, ends_within: Callable[[int, float], bool]
) -> None:
    """Nothing is left running when the way to the device is given up."""
    process = transport.stream(python("import os; print(os.getpid(), flush=True); " + FOREVER))
    pid = int(process.read_line(20) or b"0")
    transport.close()
    assert ends_within(pid, 20)


def test_writing_to_a_process_that_does_not_read_is_a_transport_error(transport: Transport) -> None:
    """Nobody reads, or nobody lives: that is said, not ignored."""
    process = transport.stream(python("import os; os.close(0); print('closed', flush=True)"))
    assert process.read_line(20) == b"closed"
    with pytest.raises(TransportError, match="no longer reads"):
        process.write_line(b"hello", 5)
    assert process.wait(20) == 0
    with pytest.raises(TransportError, match="has ended"):
        process.write_line(b"hello", 5)


def test_push_and_pull_replace_whole_files(transport: Transport, tmp_path: Path) -> None:
    """A copy overwrites its target and leaves nothing beside it."""
    source, there, back = tmp_path / "source", tmp_path / "there" / "file", tmp_path / "back"
    there.parent.mkdir()
    there.write_bytes(b"old")
    source.write_bytes(b"new")
    transport.push(source, str(there))
    transport.pull(str(there), back)
    assert back.read_bytes() == b"new"
    assert [path.name for path in there.parent.iterdir()] == ["file"]


def test_a_failed_push_leaves_the_target_alone(transport: Transport, tmp_path: Path) -> None:
    """A missing source changes nothing and says so."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(TransportError, match="cannot copy"):
        transport.push(tmp_path / "missing", str(target))
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (139, "SIGSEGV"), (0, None), (1, None), (255, None)])
def test_exit_codes_tell_signals(code: int, name: str | None) -> None:
    """Local and shell conventions are both understood."""
    assert killing_signal(code) == name
