"""The command lines for a device's shell, run through every shell that is installed here."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requirements import require

from device_agents.errors import ProtocolError, TransportError
from device_agents.shell import command_line, group_of, kill_line, quoted, watched_line

pytestmark = pytest.mark.slow  # real processes, one after the other

SHELLS = ("dash", "bash", "mksh", "busybox")
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
FOR_EVER = "sleep 1000 & sleep 1000 & echo ready; wait"


class DeviceShell:
    """A shell of the device, by the name that our lines give it, and what runs in it."""

    def __init__(self, folder: Path, shell: str) -> None:
        (folder / "sh").symlink_to(str(shutil.which(shell)))
        self.environment = {"PATH": f"{folder}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, line: str, alive: int | None = None) -> subprocess.Popen[bytes]:
        """Run a line as a daemon does: in a session of its own, with open pipes. `alive` is passed on."""
        pipe = subprocess.PIPE
        argv, kept = ["sh", "-c", line], () if alive is None else (alive,)
        process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, env=self.environment, start_new_session=True, pass_fds=kept, bufsize=0
        )
        self.started.append(process)
        return process

    def run(self, line: str) -> tuple[int, bytes]:
        """Run a line to its end, while its input stays open, and return its exit code and output."""
        process = self.start(line)
        assert process.stdout is not None
        out = process.stdout.read()
        return process.wait(30), out

    def close(self) -> None:
        """Leave nothing running."""
        for process in self.started:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            subprocess.run(["/bin/sh", "-c", kill_line(process.pid)], check=True)
            process.wait(30)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceShell]:
    """Every shell in turn."""
    require(shutil.which(request.param), f"{request.param} is not installed")
    device = DeviceShell(tmp_path_factory.mktemp("shell"), request.param)
    yield device
    device.close()


@pytest.fixture
def group_pipe() -> Iterator[tuple[int, Callable[[], bool]]]:
    """Give an end of a pipe to pass to processes, and what waits until the last of them has ended."""
    reading, writing = os.pipe()
    left = [writing]

    def all_ended() -> bool:
        while left:
            os.close(left.pop())
        return bool(select.select([reading], [], [], 20)[0]) and os.read(reading, 1) == b""

    yield writing, all_ended
    while left:
        os.close(left.pop())
    os.close(reading)


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Read the next line of what a process says."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip(b"\n")


@pytest.mark.parametrize("line_of", [command_line, watched_line])
@given(words=st.lists(WORDS, min_size=1, max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arguments_arrive_unchanged(shell: DeviceShell, line_of: Callable[..., str], words: list[str]) -> None:
    """Blanks, quotes, dollars, newlines, globs and letters of any script reach the command as they were given."""
    code, out = shell.run(line_of(["printf", "%s\\0", *words]))
    _, _, said = out.partition(b"\n")
    assert code == 0
    assert said.decode().split("\0") == [*words, ""]


@pytest.mark.parametrize("login_shell", ["dash", "bash", "mksh", "busybox", "zsh", "fish"])
def test_any_login_shell_passes_arguments_on(login_shell: str, tmp_path: Path) -> None:
    """The daemon gives a line to the shell of the user; two of them read quotes and leading signs in their own way."""
    found = shutil.which(login_shell)
    require(found, f"{login_shell} is not installed")
    words = ["a\\b", "\\\\", "end\\", "\\'", "it's", "=ls", "%self", "~", "{a,b}", "!!", "two\nlines", ""]
    argv = [found, *(["sh"] if login_shell == "busybox" else []), "-c", command_line(["printf", "%s\\0", *words])]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60)
    assert done.stdout.partition(b"\n")[2].decode().split("\0") == [*words, ""]


@given(WORDS)
def test_no_backslash_stands_in_single_quotes(word: str) -> None:
    """It means something to fish there; in double quotes a doubled one is a backslash to every shell."""
    line = quoted(word)
    pieces = re.findall(r"""'([^'\\]*)'|"(')"|"(\\\\)\"""", line)
    if line.startswith("'"):
        assert "".join(plain + quote + backslash[:1] for plain, quote, backslash in pieces) == word
    else:
        assert line == word
        assert re.fullmatch(r"[\w./:,@+-][\w./:,@+=-]*", line, re.ASCII)


@pytest.mark.parametrize("line_of", [command_line, watched_line])
def test_the_first_line_is_the_process_group(shell: DeviceShell, line_of: Callable[..., str]) -> None:
    """The number is that of the session which the daemon made for the command."""
    process = shell.start(line_of(["true"]))
    assert group_of(first_line(process)) == process.pid


@pytest.mark.parametrize("line_of", [command_line, watched_line])
@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_is_the_commands(shell: DeviceShell, line_of: Callable[..., str], code: int) -> None:
    """Whatever the lines around it do, the command's own exit code comes back."""
    assert shell.run(line_of(["sh", "-c", f"exit {code}"]))[0] == code


@pytest.mark.parametrize("line_of", [command_line, watched_line])
def test_a_missing_program_is_told_from_one_that_fails(shell: DeviceShell, line_of: Callable[..., str]) -> None:
    """Its name stands in the error; an exit code of 127 alone could be the command's own."""
    code, out = shell.run(line_of(["no such program; reboot", "x"]))
    assert code == 127
    with pytest.raises(TransportError, match="no such program; reboot"):
        group_of(out.rstrip(b"\n"))


def test_a_command_reads_its_own_input(shell: DeviceShell) -> None:
    """What is written to the line's input reaches the command, and its end as well."""
    process = shell.start(command_line(["cat"]))
    group_of(first_line(process))
    out, _ = process.communicate(b"one\ntwo", timeout=30)
    assert (process.returncode, out) == (0, b"one\ntwo")


def test_a_watched_command_has_no_input(shell: DeviceShell) -> None:
    """It reads an end at once, although the link is open."""
    process = shell.start(watched_line(["cat"]))
    group_of(first_line(process))
    assert first_line(process) == b""
    assert process.wait(30) == 0


def test_a_watched_command_ends_with_the_link(shell: DeviceShell, group_pipe: tuple[int, Callable[[], bool]]) -> None:
    """When its standard input closes, the command, its children and the shells around it all end."""
    passed, all_ended = group_pipe
    process = shell.start(watched_line(["sh", "-c", FOR_EVER]), passed)
    group_of(first_line(process))
    assert first_line(process) == b"ready"
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert all_ended()


def test_a_watched_command_that_ends_leaves_nothing(
    shell: DeviceShell, group_pipe: tuple[int, Callable[[], bool]]
) -> None:
    """Although the link stays open, no watcher goes on holding it: adbd tells no exit code before the last one ends."""
    passed, all_ended = group_pipe
    process = shell.start(watched_line(["true"]), passed)
    assert process.wait(30) == 0
    assert all_ended()


@pytest.mark.parametrize("line_of", [command_line, watched_line])
def test_a_group_is_ended_with_its_children(
    shell: DeviceShell, group_pipe: tuple[int, Callable[[], bool]], line_of: Callable[..., str]
) -> None:
    """A second line ends all that the first one started, and does no harm when nothing is left."""
    passed, all_ended = group_pipe
    process = shell.start(line_of(["sh", "-c", FOR_EVER]), passed)
    group = group_of(first_line(process))
    assert first_line(process) == b"ready"
    assert shell.run(kill_line(group)) == (0, b"")
    assert all_ended()
    assert shell.run(kill_line(group)) == (0, b"")


@pytest.mark.parametrize("line", [b"", b"0", b"1", b"-5", b"12x", b" 5", b"1" * 11, b"5\n", "٣".encode()], ids=repr)
def test_what_is_no_process_group_is_refused(line: bytes) -> None:
    """A group of 0, 1 or -1 would end our own processes or everything; other words are another protocol."""
    with pytest.raises(ProtocolError):
        group_of(line)


@pytest.mark.parametrize("line_of", [command_line, watched_line])
def test_an_argument_with_nul_is_refused(line_of: Callable[..., str]) -> None:
    """No command can take one, and a wire would cut the line there."""
    with pytest.raises(ProtocolError, match="NUL"):
        line_of(["printf", "a\0b"])
