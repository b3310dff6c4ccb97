"""The file service of adbd: many files to the device in one go, one file from it.

A message is a four-letter id and a u32 (little-endian), then data. Files are sent one behind the other without waiting
for each answer. What the device sends is distrusted: no name or path of its choosing is ever used here.
It renames nothing: `transport.py` sends to a folder beside the target and moves the files from there.
Source: SYNC.TXT of the Android Debug Bridge.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from device_agents.adb.stream import ByteStream, Duplex
from device_agents.errors import InvalidRequest, LinkLost, ProtocolError, TransportError, TransportTimeout
from device_agents.strict_json import clean_text

MAX_CHUNK_BYTES = 1 << 16  # adbd refuses more in one DATA
MAX_PULL_BYTES = 1 << 32  # nothing that we fetch is near it, and a device must not fill this disk
STALL_S = 60.0  # without one byte moving: flash storage pauses for seconds, not for a minute
_MAX_PATH_BYTES = 1024
_MAX_REASON_BYTES = 1 << 12
_UNSENT_BYTES = 1 << 20  # read from disk ahead of the wire
_HEADER = struct.Struct("<4sI")
_STAT_REST = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Sending:
    """A local file, the path on the device that it is written to, and the place that it is meant for in the end."""

    local: Path
    path: str
    target: str


class SyncClient:
    """One open stream of the service "sync:"; `name` is for messages."""

    def __init__(self, stream: ByteStream, name: str) -> None:
        self._name = name
        self._duplex = Duplex(stream, name)

    def send_all(self, files: Sequence[Sending]) -> None:
        """Write files; folders that are missing there are made.

        Raises TransportError naming the first file that could not be written; how much of it and of those after it
        lies on the device is then unknown.
        """
        answered = 0
        for file in files:
            for block in _blocks(file):
                self._duplex.queue(block)
                while self._duplex.unsent > _UNSENT_BYTES:
                    self._advance()
                answered += self._answers(files, answered)
        while answered < len(files):
            if self._duplex.ended:
                raise LinkLost(f"{self._name}: the connection ended before {files[answered].target} was written")
            self._advance()
            answered += self._answers(files, answered)

    def receive(self, remote: str, sink: BinaryIO) -> None:
        """Read a regular file into `sink`. Raises TransportError when there is none that we may read."""
        path = _path(remote)
        self._duplex.queue(_HEADER.pack(b"STAT", len(path)) + path + _HEADER.pack(b"RECV", len(path)) + path)
        self._expect_file(remote)
        total = 0
        while True:
            kind, number = self._header()
            if kind == b"DONE":
                return
            if kind == b"FAIL":
                raise TransportError(f"cannot read {remote} on {self._name}: {self._reason(number)}")
            if kind != b"DATA" or number > MAX_CHUNK_BYTES:
                raise ProtocolError(f"{self._name} answered {kind!r} with {number} to a request for a file")
            total += number
            if total > MAX_PULL_BYTES:
                raise ProtocolError(f"{self._name} sends more than {MAX_PULL_BYTES} bytes for {remote}")
            sink.write(self._take(number))

    def close(self) -> None:
        """Close the stream."""
        self._duplex.close()

    def _expect_file(self, remote: str) -> None:
        kind, mode = self._header()
        if kind != b"STAT":
            raise ProtocolError(f"{self._name} answered {kind!r} to a request for the kind of a file")
        self._take(_STAT_REST.size)  # its size and time, which a file in /proc does not have
        if mode == 0:
            raise TransportError(f"cannot read {remote} on {self._name}: there is no such file, or it is out of reach")
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise TransportError(f"cannot read {remote} on {self._name}: it is no regular file")

    def _answers(self, files: Sequence[Sending], answered: int) -> int:
        """Count the files that the device says are written, of those answers that have come."""
        count = 0
        while len(self._duplex.incoming) >= _HEADER.size:
            kind, number = self._header()
            if answered + count >= len(files):
                raise ProtocolError(f"{self._name} answered for more files than it was sent")
            if kind == b"FAIL":
                target = files[answered + count].target
                raise TransportError(f"cannot write {target} on {self._name}: {self._reason(number)}")
            if kind != b"OKAY":
                raise ProtocolError(f"{self._name} answered {kind!r} to a file")
            count += 1
        return count

    def _reason(self, size: int) -> str:
        if size > _MAX_REASON_BYTES:
            raise ProtocolError(f"{self._name} sent an error text of {size} bytes")
        return clean_text(self._take(size).decode("utf-8", "replace")) or "it gave no reason"

    def _header(self) -> tuple[bytes, int]:
        kind, number = _HEADER.unpack(self._take(_HEADER.size))
        return kind, number

    def _take(self, size: int) -> bytes:
        return self._duplex.take(size, time.monotonic() + STALL_S)

    def _advance(self) -> None:
        try:
            self._duplex.advance(time.monotonic() + STALL_S)
        except TransportTimeout as error:
            raise TransportTimeout(f"{self._name} took nothing for {STALL_S:g} s; is its storage stuck?") from error


def _blocks(file: Sending) -> Iterator[bytes]:
    """Yield the messages that write one file."""
    try:
        with file.local.open("rb") as source:
            status = os.fstat(source.fileno())
            # The execute bit is all that counts of the mode: who else may read it is the folder's to say.
            mode = stat.S_IFREG | (0o755 if status.st_mode & stat.S_IXUSR else 0o644)
            request = b"%s,%d" % (_path(file.path), mode)
            yield _HEADER.pack(b"SEND", len(request)) + request
            while chunk := source.read(MAX_CHUNK_BYTES):
                yield _HEADER.pack(b"DATA", len(chunk)) + chunk
            yield _HEADER.pack(b"DONE", int(status.st_mtime) & 0xFFFFFFFF)
    except OSError as error:
        raise TransportError(f"cannot copy {file.local} to {file.target}: {error.strerror}") from error


def _path(remote: str) -> bytes:
    path = remote.encode()
    if len(path) > _MAX_PATH_BYTES - 16 or b"\0" in path or not path.startswith(b"/"):
        raise InvalidRequest(f"path {clean_text(remote[:80])!r} on the device is not absolute or too long")
    return path
