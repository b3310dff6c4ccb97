"""The seam between a session and a device: run, stream, push, push_all, pull, close.

A transport moves bytes and starts processes; it knows nothing of jobs, rows or runners. An argv is always a list of
arguments, never a line for a shell: a transport whose wire carries one string quotes it itself.
Paths on the device are POSIX strings, because the device may not be this machine.
A call on a broken link raises LinkLost, and the next call makes a new one: whether to try again is the caller's to say.
Read next: `local.py`, the transport to this machine; `ssh.py` and `adb/transport.py`, those to others.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MAX_LINE_BYTES = 1 << 20  # the longest honest line, 20,000 samples on two clocks, takes about 800 KB


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended: its exit code (−n or 128+n when signal n killed it) and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class RemoteProcess(Protocol):
    """A running process on the device that is spoken to in lines."""

    def write_line(self, line: bytes, timeout_s: float) -> None:
        """Write one line; the newline is added here. Raises TransportError when nobody reads."""

    def read_line(self, timeout_s: float) -> bytes | None:
        """Return the next line of stdout without its newline, or None at the end of the stream.

        Raises TransportTimeout when no whole line came in time, ProtocolError for a line above MAX_LINE_BYTES.
        """

    def close_stdin(self) -> None:
        """Close the process's standard input: the polite way to end a runner."""

    def kill(self) -> None:
        """End the process and all that it started, now; harmless when it has ended."""

    def wait(self, timeout_s: float) -> int:
        """Return the exit code (see Completed). Raises TransportTimeout when it still runs."""

    def stderr_tail(self) -> str:
        """Return the last few KiB of stderr read so far."""


class Transport(Protocol):
    """A way to one device."""

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end. Raises TransportTimeout (the command is ended) or TransportError."""

    def stream(self, argv: Sequence[str]) -> RemoteProcess:
        """Start a process to speak with in lines. Raises TransportError."""

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device; `remote` is whole or absent at any moment. Raises TransportError."""

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy many files, local ones by their path on the device, each as whole as with `push`."""

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device; `local` is whole or absent at any moment. Raises TransportError."""

    def close(self) -> None:
        """Give back what the transport holds; harmless twice."""


def killing_signal(exit_code: int) -> str | None:
    """Return the name of the signal that an exit code tells of ("SIGSEGV"), or None for an ordinary end.

    A local process reports −n; a shell on the far side of a wire reports 128+n.
    """
    number = -exit_code if exit_code < 0 else exit_code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
