"""A command on the device: spoken to in lines (ShellProcess), or run to its end (run_to_end).

The first line that a command writes is its process group, as `shell.py` makes it; it is not passed on. Memory is
bounded: where nobody takes lines, the process on the device waits. Read next: `transport.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from device_agents.adb.shell_v2 import STDOUT, ShellStream
from device_agents.errors import DeviceError, LinkLost, TransportError, TransportTimeout
from device_agents.lines import LineBuffer
from device_agents.shell import group_of
from device_agents.transport import MAX_LINE_BYTES, Completed

MAX_OUTPUT_BYTES = 1 << 26  # of a command that is run to its end; nothing that we run says a hundredth of it
_STDERR_TAIL_BYTES = 8192  # enough for a traceback; a chatty library must not fill our memory
_ROOM_BYTES = MAX_LINE_BYTES + (1 << 16)  # of lines that nobody took yet: one of the longest, and some
_KILL_WAIT_S = 10.0  # a killed process lingers only while the kernel frees its memory


class ShellProcess:
    """A running command that is spoken to in lines; `end_group` ends a process group over another stream."""

    def __init__(self, shell: ShellStream, end_group: Callable[[int], None]) -> None:
        self._shell = shell
        self._name = shell.name
        self._end_group = end_group
        self._lines = LineBuffer(shell.name)
        self._stderr = bytearray()
        self._group: int | None = None
        self._stdin_open = True
        self._killed = False

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing is left to be ended, as far as is known here."""
        return self._killed or self._shell.exit_code is not None

    def write_line(self, line: bytes, timeout_s: float) -> None:
        """Write one line, taking in meanwhile what the process writes."""
        if self.has_ended or not self._stdin_open:
            raise TransportError(f"{self._name} no longer reads its input: it has ended, or its input was closed")
        self._shell.queue_input(line + b"\n")
        self._flush(timeout_s)

    def read_line(self, timeout_s: float) -> bytes | None:
        """Return the next line, or None once the process has ended and no whole line is left."""
        deadline = time.monotonic() + timeout_s
        complaint = f"no line from {self._name} within {timeout_s:g} s"
        is_late = False
        while True:
            line = self._take_line()
            if line is not None or self.has_ended:
                return line
            is_late = self._advance_again(deadline, complaint, is_late)

    def close_stdin(self) -> None:
        """Close the process's standard input."""
        if self._stdin_open and not self.has_ended:
            self._stdin_open = False
            self._shell.queue_end_of_input()
            with contextlib.suppress(TransportError):  # an end of the link or of the process is an end of its input
                self._flush(_KILL_WAIT_S)

    def kill(self) -> None:
        """End the process's whole group; where the link is lost, its own end on the device is its watchdog's work."""
        if self._killed:
            return
        self._killed = True
        try:
            with contextlib.suppress(DeviceError):  # the group may be gone by now, and so may the link
                self._end()
        finally:
            self._shell.close()

    def wait(self, timeout_s: float) -> int:
        """Return the exit code, 128+n for signal n."""
        deadline = time.monotonic() + timeout_s
        is_late = False
        while (code := self._shell.exit_code) is None:
            if self._killed:
                raise LinkLost(f"{self._name} was ended, and said no exit code any more")
            is_late = self._advance_again(deadline, f"{self._name} did not end within {timeout_s:g} s", is_late)
        return code

    def stderr_tail(self) -> str:
        """Return the end of stderr; bytes that are no UTF-8 are replaced."""
        return self._stderr.decode("utf-8", "replace")

    def _take_line(self) -> bytes | None:
        line = self._lines.take()
        if line is not None and self._group is None:
            self._group = group_of(line)
            line = self._lines.take()
        return line

    def _flush(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        complaint = f"{self._name} did not read its input within {timeout_s:g} s"
        is_late = False
        while self._shell.unsent:
            is_late = self._advance_again(deadline, complaint, is_late)
            if self._shell.exit_code is not None:
                raise TransportError(f"{self._name} no longer reads its input: it has ended")

    def _advance_again(self, deadline: float, complaint: str, is_late: bool) -> bool:
        """Move bytes and return whether that was the last time: a process that writes without end is late, too."""
        if is_late:
            raise TransportTimeout(complaint)
        is_late = time.monotonic() >= deadline
        self._advance(deadline, complaint)
        return is_late

    def _advance(self, deadline: float, complaint: str) -> None:
        """Move bytes until some moved. Raises TransportTimeout with the complaint."""
        try:
            pieces = self._shell.advance(deadline, reading=len(self._lines) < _ROOM_BYTES)
        except TransportTimeout as error:
            raise TransportTimeout(complaint) from error
        for kind, piece in pieces:
            if kind == STDOUT:
                self._lines.feed(piece)
            else:
                self._stderr += piece
                del self._stderr[:-_STDERR_TAIL_BYTES]

    def _end(self) -> None:
        """End the group and read to the exit code, dropping lines; the last words on stderr explain much."""
        deadline = time.monotonic() + _KILL_WAIT_S
        is_late = False
        while self._group is None and self._shell.exit_code is None:
            line = self._lines.take()
            if line is None:
                is_late = self._advance_again(deadline, f"{self._name} did not say its process group", is_late)
            else:
                self._group = group_of(line)
        with contextlib.suppress(TransportTimeout):  # does the stream still stand, or has it ended without our notice?
            self._advance(time.monotonic(), "nothing new")
        if self._group is not None and self._shell.is_open:
            self._end_group(self._group)
        while self._shell.exit_code is None:
            self._lines = LineBuffer(self._name)
            is_late = self._advance_again(deadline, f"{self._name} does not die", is_late)


def run_to_end(shell: ShellStream, end_group: Callable[[int], None], timeout_s: float) -> Completed:
    """Collect a command's output until it ends, within `timeout_s`.

    Raises TransportTimeout, or TransportError for output above MAX_OUTPUT_BYTES, once its group is ended.
    """
    out, err = bytearray(), bytearray()
    deadline = time.monotonic() + timeout_s
    try:
        while shell.exit_code is None:
            for kind, piece in shell.advance(deadline):
                (out if kind == STDOUT else err).extend(piece)
            _check_size(shell.name, len(out) + len(err))
    except LinkLost:  # what watches the command on the device ends it
        raise
    except TransportTimeout as error:
        _end_early(shell, end_group, out)
        raise TransportTimeout(f"{shell.name} did not end within {timeout_s:g} s and was ended") from error
    except BaseException:  # an interrupt, too, leaves nothing running there
        _end_early(shell, end_group, out)
        raise
    finally:
        shell.close()
    group, _, rest = out.partition(b"\n")
    group_of(bytes(group))
    return Completed(shell.exit_code, bytes(rest), bytes(err))


def _check_size(name: str, size_bytes: int) -> None:
    if size_bytes > MAX_OUTPUT_BYTES:
        raise TransportError(f"{name} wrote more than {MAX_OUTPUT_BYTES} bytes and was ended")


def _end_early(shell: ShellStream, end_group: Callable[[int], None], out: bytearray) -> None:
    """End a command that has not ended, once it has said which group it is; before that the closing ends it."""
    shell.close()
    if b"\n" in out[:16]:
        with contextlib.suppress(DeviceError):  # it may just have ended, and the link may be lost
            end_group(group_of(bytes(out.partition(b"\n")[0])))
