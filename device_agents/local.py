"""The transport to this machine: subprocesses and file copies.

It gives every process a group of its own, so that an end reaches whatever that process started and a Ctrl-C in the
terminal reaches only us. It does not choose what to run.
Read next: `session.py`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from device_agents.errors import TransportError, TransportTimeout
from device_agents.lines import LineBuffer
from device_agents.transport import Completed
from device_agents.whole_file import whole_file

_STDERR_TAIL_BYTES = 8192  # enough for a traceback; a chatty library must not fill our memory
_ANYBODY_WRITES = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_KILL_WAIT_S = 10.0  # a killed process lingers only while the kernel frees its memory


class LocalTransport:
    """Run commands on this machine with the environment of this process."""

    def __init__(self) -> None:
        self._processes: list[LocalProcess] = []

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end; past `timeout_s` its whole group is ended and TransportTimeout raised."""
        process = None
        try:
            with _interrupts_wait():
                process = _start(argv, subprocess.DEVNULL)
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TransportTimeout(f"{argv[0]} did not end within {timeout_s:g} s and was ended") from error
        finally:
            if process is not None:
                _end_group(process)
                _close_pipes(process)
        return Completed(process.returncode, out, err)

    def stream(self, argv: Sequence[str]) -> LocalProcess:
        """Start a process to speak with in lines."""
        with _interrupts_wait():
            process = LocalProcess(_start(argv, subprocess.PIPE), argv[0])
            self._processes.append(process)
        return process

    def push(self, local: Path, remote: str) -> None:
        """Copy a file beside its target and rename it, so that the target is never half a file.

        A file that nobody may write is the same one under both names where both are on one disk: hundreds of megabytes
        of models need no second copy, which the disk would be busy with while they are measured.
        """
        _put(local, Path(remote), _link_or_copy)

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy files one after the other: on one disk they would only wait for each other."""
        for remote, local in files.items():
            self.push(local, remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file beside its target and rename it, so that the target is never half a file."""
        _put(Path(remote), local, shutil.copy)

    def close(self) -> None:
        """End every process that this transport started."""
        while self._processes:
            self._processes.pop().kill()


class LocalProcess:
    """A child process with non-blocking pipes: no thread reads them, each call waits on all that can happen."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process = process
        self._name = name
        self._lines = LineBuffer(name)
        self._stderr = bytearray()
        self._selector = selectors.DefaultSelector()
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(_fd(pipe), False)
        self._selector.register(_fd(process.stdout), selectors.EVENT_READ)
        self._selector.register(_fd(process.stderr), selectors.EVENT_READ)
        self._stdout_open = True

    def write_line(self, line: bytes, timeout_s: float) -> None:
        """Write one line, waiting while the pipe is full."""
        data = memoryview(line + b"\n")
        deadline = time.monotonic() + timeout_s
        while data:
            try:
                data = data[os.write(_fd(self._process.stdin), data) :]
            except BlockingIOError:
                self._wait_writable(deadline, timeout_s)
            except OSError as error:
                raise TransportError(f"{self._name} no longer reads its input: {error.strerror}") from error

    def read_line(self, timeout_s: float) -> bytes | None:
        """Return the next line, or None once stdout has ended and no whole line is left."""
        deadline = time.monotonic() + timeout_s
        is_late = False  # checked apart from `ready`: a process may write to stderr without end
        while True:
            line = self._lines.take()
            if line is not None or not self._stdout_open:
                return line
            left_s = deadline - time.monotonic()
            ready = [] if is_late else self._selector.select(max(0.0, left_s))
            if not ready:
                raise TransportTimeout(f"no line from {self._name} within {timeout_s:g} s")
            is_late = left_s <= 0
            for key, _ in ready:
                self._drain(key.fd)

    def close_stdin(self) -> None:
        """Close the process's standard input."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def kill(self) -> None:
        """End the process's whole group and release its pipes."""
        _end_group(self._process)
        self._release()

    def wait(self, timeout_s: float) -> int:
        """Return the exit code, −n for signal n."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TransportTimeout(f"{self._name} did not end within {timeout_s:g} s") from error
        self._release()
        return code

    def stderr_tail(self) -> str:
        """Return the end of stderr; bytes that are no UTF-8 are replaced."""
        return self._stderr.decode("utf-8", "replace")

    def _drain(self, fd: int) -> None:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self._selector.unregister(fd)
            self._stdout_open = self._stdout_open and fd != _fd(self._process.stdout)
        elif fd == _fd(self._process.stdout):
            self._lines.feed(chunk)
        else:
            self._stderr += chunk
            del self._stderr[:-_STDERR_TAIL_BYTES]

    def _wait_writable(self, deadline: float, timeout_s: float) -> None:
        # stderr is emptied meanwhile: a process blocked on a full stderr would never read its input.
        with selectors.DefaultSelector() as selector:
            selector.register(_fd(self._process.stdin), selectors.EVENT_WRITE)
            for key in list(self._selector.get_map().values()):
                selector.register(key.fd, selectors.EVENT_READ)
            ready = selector.select(max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TransportTimeout(f"{self._name} did not read its input within {timeout_s:g} s")
        for key, events in ready:
            if events & selectors.EVENT_READ:
                self._drain(key.fd)

    def _release(self) -> None:
        if self._process.stderr is not None and not self._process.stderr.closed:
            for key in list(self._selector.get_map().values()):
                self._drain(key.fd)  # the last words of a process that died explain its death
        self._selector.close()
        self._stdout_open = False
        _close_pipes(self._process)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let a Ctrl-C act only after the block: between a process's start and its being noted it would leave an orphan."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread alone
        return
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)  # None: whoever set it was no Python code
    if seen:
        signal.raise_signal(signal.SIGINT)


def _start(argv: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(list(argv), stdin=stdin, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)
    except OSError as error:
        raise TransportError(f"cannot start {argv[0]}: {error.strerror}") from error


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:
        return  # already waited for: its number may belong to someone else by now
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_KILL_WAIT_S)
    except subprocess.TimeoutExpired as error:
        raise TransportTimeout(f"process {process.pid} does not die; is its disk or device stuck?") from error


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _fd(pipe: IO[Any] | None) -> int:
    if pipe is None or pipe.closed:
        raise TransportError("the process has ended and its pipes are closed")
    return pipe.fileno()


def _put(source: Path, target: Path, copy: Callable[[Path, Path], object]) -> None:
    try:
        with whole_file(target, durable=False) as beside:
            copy(source, beside)
    except OSError as error:
        raise TransportError(f"cannot copy {source} to {target}: {error.strerror}") from error


def _link_or_copy(source: Path, beside: Path) -> None:
    if not source.stat().st_mode & _ANYBODY_WRITES:
        with contextlib.suppress(OSError):  # another disk, or one without such links
            beside.hardlink_to(source)
            return
    shutil.copy(source, beside)  # with its mode: what can be executed here can be there
