"""Commands over an SSH connection: one that runs to its end, and one that is spoken to in lines.

What arrives is handled in the loop's thread; callers wait on a condition, so that a line is theirs as soon as it is
there. A device that writes for ever is stopped by the channel's window. It does not connect: `ssh_link.py` does.
Read next: `shell.py`, which writes the command lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

from device_agents.errors import LinkLost, ProtocolError, TransportError, TransportTimeout
from device_agents.lines import LineBuffer
from device_agents.shell import command_line, group_of, kill_line, watched_line
from device_agents.ssh_loop import LoopThread
from device_agents.strict_json import clean_text
from device_agents.transport import MAX_LINE_BYTES, Completed

_STDERR_TAIL_BYTES = 8192  # enough for a traceback; a chatty library must not fill our memory
_OUTPUT_BYTES = 16 << 20  # of a command that runs to its end; facts about a device take a few KiB
_UNSENT_BYTES = 1 << 16  # as much as a pipe holds
_START_S = 30.0  # a shell starts in milliseconds, on an emulated device in a second
_KILL_S = 10.0  # a killed process lingers only while the kernel frees its memory
_LAST_WORDS_S = 1.0  # what a process wrote before it ended may come after the news of its end

_Channel = asyncssh.SSHClientChannel[bytes]
_Session = TypeVar("_Session", bound="asyncssh.SSHClientSession[bytes]")


async def run_command(connection: asyncssh.SSHClientConnection, argv: Sequence[str], timeout_s: float) -> Completed:
    """Run a command without input to its end; past its time its whole group is ended and TransportTimeout raised."""
    channel, output = await _open(connection, watched_line(argv), lambda: _Output(argv[0]))
    try:
        async with asyncio.timeout(timeout_s):
            await output.ended.wait()
        if output.overflowed:
            await _end_group(connection, output.group)
            raise ProtocolError(f"{argv[0]} wrote more than {_OUTPUT_BYTES} bytes and was ended")
        return output.completed(channel.get_returncode())
    except TimeoutError as error:
        await _end_group(connection, output.group)
        raise TransportTimeout(f"{argv[0]} did not end within {timeout_s:g} s and was ended") from error
    finally:
        channel.close()  # ends the command too, where none of the above could: its watchdog sees its input end


async def start_process(connection: asyncssh.SSHClientConnection, argv: Sequence[str], loop: LoopThread) -> SshProcess:
    """Start a process to speak with in lines; `loop` is the one that the connection lives in."""
    channel, process = await _open(connection, command_line(argv), lambda: SshProcess(argv[0], connection, loop))
    try:
        async with asyncio.timeout(_START_S):
            await process.started.wait()
        process.take_group()
    except TimeoutError as error:
        channel.close()
        raise TransportTimeout(f"{argv[0]} did not start within {_START_S:g} s") from error
    except BaseException:
        channel.close()
        raise
    return process


async def _open(
    connection: asyncssh.SSHClientConnection, line: str, session: Callable[[], _Session]
) -> tuple[_Channel, _Session]:
    """Open a channel without a terminal and start a command line in it."""
    opened: list[_Session] = []

    def make() -> _Session:
        opened.append(session())
        return opened[0]

    try:
        channel, _ = await connection.create_session(make, line, encoding=None, request_pty=False, x11_forwarding=False)
    except asyncssh.ChannelOpenError as error:
        if connection.is_closed() or error.reason == "SSH connection closed":
            raise LinkLost("the connection to the device was lost") from error
        raise TransportError(
            f"the device starts no command: {clean_text(error.reason)}; are too many running?"
        ) from error
    except (asyncssh.Error, OSError) as error:
        raise LinkLost("the connection to the device was lost") from error
    return channel, opened[0]


async def _end_group(connection: asyncssh.SSHClientConnection, group: int) -> None:
    """End a process group over a channel of its own; the link may be lost, and its end is theirs."""
    if group == 0:
        return
    with contextlib.suppress(TransportError, TimeoutError):
        channel, output = await _open(connection, kill_line(group), lambda: _Output("kill"))
        try:
            async with asyncio.timeout(_KILL_S):
                await output.ended.wait()
        finally:
            channel.close()


class _Output(asyncssh.SSHClientSession[bytes]):
    """Gathers what a command writes, up to a limit."""

    def __init__(self, name: str) -> None:
        self.ended = asyncio.Event()  # also by too much output
        self.overflowed = False
        self._name = name
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._lost = False

    @property
    def group(self) -> int:
        """The command's process group, 0 as long as it has not said one."""
        head, newline, _ = self._stdout.partition(b"\n")
        return group_of(bytes(head)) if newline else 0

    def completed(self, exit_code: int | None) -> Completed:
        """Return what came once the channel has ended."""
        if exit_code is None:
            kind, how = (LinkLost, "was lost") if self._lost else (TransportError, "was closed")
            raise kind(f"the connection to the device {how} while {self._name} ran")
        if self.group == 0:
            said = bytes(self._stderr or self._stdout)[-200:].decode("utf-8", "replace").strip()
            raise TransportError(f"the device started no shell for {self._name}: {said!r}, exit code {exit_code}")
        _, _, stdout = self._stdout.partition(b"\n")
        return Completed(exit_code, bytes(stdout), bytes(self._stderr))

    def data_received(self, data: bytes, datatype: int | None) -> None:
        kept = self._stderr if datatype == EXTENDED_DATA_STDERR else self._stdout
        if len(kept) + len(data) > _OUTPUT_BYTES:
            self.overflowed = True
            self.ended.set()
        else:
            kept += data

    def eof_received(self) -> bool:
        return True  # our side stays open: its end would end the command

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc is not None
        self.ended.set()


class SshProcess(asyncssh.SSHClientSession[bytes]):
    """A process on the device; see RemoteProcess. The methods that asyncssh calls run in the loop's thread."""

    def __init__(self, name: str, connection: asyncssh.SSHClientConnection, loop: LoopThread) -> None:
        self.started = asyncio.Event()  # its first line, or its end, is there
        self._exited = asyncio.Event()
        self._name, self._connection, self._loop = name, connection, loop
        self._channel: _Channel
        self._changed = threading.Condition()  # guards all below
        self._group = 0
        self._exit_code: int | None = None
        self._lines = LineBuffer(name)
        self._stderr = bytearray()
        self._unsent = bytearray()  # written here and not yet given to the channel
        self._full = False  # the channel has enough to send
        self._paused = False  # we have enough to read
        self._stdin_open = True
        self._stdout_open = True
        self._closed = False
        self._lost = False

    def write_line(self, line: bytes, timeout_s: float) -> None:
        """Write one line, waiting while more is under way than the device takes."""
        with self._changed:
            self._check_writable()
            if not self._unsent:  # else the flush to come takes this line too
                self._loop.soon(self._flush)
            self._unsent += line
            self._unsent += b"\n"
            if not self._changed.wait_for(lambda: self._has_room() or self._closed, timeout_s):
                raise TransportTimeout(f"{self._name} did not read its input within {timeout_s:g} s")
            if not self._has_room():
                self._check_writable()

    def read_line(self, timeout_s: float) -> bytes | None:
        """Return the next line, or None once stdout has ended and no whole line is left."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (line := self._lines.take()) is None:
                if not self._stdout_open:
                    self._check_link()
                    return None
                self._resume()
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TransportTimeout(f"no line from {self._name} within {timeout_s:g} s")
                self._changed.wait(left_s)
            if len(self._lines) < MAX_LINE_BYTES // 2:
                self._resume()
            return line

    def close_stdin(self) -> None:
        """Close the process's standard input after what was written to it."""
        with self._changed:
            self._stdin_open = False
            self._loop.soon(self._write_eof)

    def kill(self) -> None:
        """End the process's whole group and its channel; on a lost link its own watchdog has to."""
        with self._changed:
            if self._closed:
                return
        self._loop.call(self._end())

    def wait(self, timeout_s: float) -> int:
        """Return the exit code, −n for signal n."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._exit_code is not None, timeout_s):
                raise TransportTimeout(f"{self._name} did not end within {timeout_s:g} s")
            self._changed.wait_for(lambda: self._closed or self._paused, _LAST_WORDS_S)
            if self._exit_code is None:
                self._check_link()
                raise TransportError(f"{self._name} was given up before it said how it ended")
            return self._exit_code

    def stderr_tail(self) -> str:
        """Return the end of stderr; bytes that are no UTF-8 are replaced."""
        with self._changed:
            return self._stderr.decode("utf-8", "replace")

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to end."""
        with self._changed:
            return self._closed

    def take_group(self) -> None:
        """Read the process group from the first line, once `started` is set."""
        with self._changed:
            line = self._lines.take()
            if line is None:
                self._check_link()
                raise TransportError(f"the device started no shell for {self._name}: {self.stderr_tail()[-200:]!r}")
            self._group = group_of(line)

    def _check_link(self) -> None:
        if self._lost:
            raise LinkLost(f"the connection to the device was lost while {self._name} ran")

    def _check_writable(self) -> None:
        self._check_link()
        if self._closed or self._exit_code is not None:
            raise TransportError(f"{self._name} has ended and no longer reads its input")
        if not self._stdin_open:
            raise TransportError(f"the input of {self._name} was closed")

    def _has_room(self) -> bool:
        return not self._full and len(self._unsent) < _UNSENT_BYTES

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.soon(self._channel.resume_reading)

    async def _end(self) -> None:
        try:
            with contextlib.suppress(OSError):  # where the server has no channel left for a command that kills:
                self._channel.kill()  # a newer one does it itself, for others than root,
                self._channel.write_eof()  # and a runner ends when its input does
            await _end_group(self._connection, self._group)
            async with asyncio.timeout(_KILL_S):
                await self._exited.wait()
        except TimeoutError as error:
            raise TransportTimeout(f"{self._name} does not die; is the device's disk or the link stuck?") from error
        finally:
            self._channel.close()

    def _flush(self) -> None:
        with self._changed, contextlib.suppress(OSError):  # a closed channel tells its readers and writers itself
            data = bytes(self._unsent)
            self._unsent.clear()
            self._changed.notify_all()
            self._channel.write(data)

    def _write_eof(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.write_eof()

    def connection_made(self, chan: _Channel) -> None:
        """Keep the channel."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take in output; what is too much waits in the channel and then on the device."""
        with self._changed:
            if datatype == EXTENDED_DATA_STDERR:
                self._stderr += data
                del self._stderr[:-_STDERR_TAIL_BYTES]
                return
            self._lines.feed(data)
            if len(self._lines) > MAX_LINE_BYTES and not self._paused:
                self._paused = True
                self._channel.pause_reading()
            self._changed.notify_all()
        if b"\n" in data:
            self.started.set()

    def eof_received(self) -> bool:
        """Note the end of both outputs."""
        with self._changed:
            self._stdout_open = False
            self._changed.notify_all()
        self.started.set()
        return True  # it may still read

    def pause_writing(self) -> None:
        """Note that the channel has enough to send."""
        with self._changed:
            self._full = True

    def resume_writing(self) -> None:
        """Note that the channel can take more."""
        with self._changed:
            self._full = False
            self._changed.notify_all()

    def exit_status_received(self, status: int) -> None:
        """Note an exit code."""
        self._note_exit(status)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Note the signal that ended the process."""
        del signal, core_dumped, msg, lang
        self._note_exit(self._channel.get_returncode())

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the channel, with an error when it is that of the link."""
        with self._changed:
            self._closed, self._stdout_open, self._lost = True, False, exc is not None
            self._changed.notify_all()
        self.started.set()
        self._exited.set()

    def _note_exit(self, exit_code: int | None) -> None:
        with self._changed:
            self._exit_code = exit_code
            self._changed.notify_all()
        self._exited.set()
