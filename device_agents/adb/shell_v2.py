"""The shell protocol, version 2: one command on the device with stdin, stdout, stderr and exit code apart.

A frame is an id (0 stdin, 1 stdout, 2 stderr, 3 exit, 4 close stdin), a length (u32, little-endian) and its data.
Data is passed on as it comes, so that a long frame needs no memory; the device is distrusted.
It makes no command lines and opens no streams: `transport.py` does. Read next: `process.py`.
Source: shell_protocol.h of the Android Debug Bridge.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from device_agents.adb.stream import ByteStream, Duplex
from device_agents.errors import LinkLost, ProtocolError

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
MAX_FRAME_BYTES = 1 << 20  # the largest packet of the protocol below; what is above did not come from an honest daemon
_HEADER = struct.Struct("<BI")
_CHUNK_BYTES = 1 << 15  # of standard input in one frame


def frame(kind: int, data: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEADER.pack(kind, len(data)) + data


class FrameReader:
    """Cuts what came into (id, data) pieces; the data of a long frame comes in several pieces."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kind = STDOUT
        self._left = 0

    def pieces(self, incoming: bytearray) -> Iterator[tuple[int, bytes]]:
        """Take whole pieces off the front of `incoming`. Raises ProtocolError for what is no frame of a device."""
        while self._left or self._begin(incoming):
            piece = bytes(incoming[: self._left])
            if not piece and self._left:
                return
            del incoming[: len(piece)]
            self._left -= len(piece)
            yield self._kind, piece

    def _begin(self, incoming: bytearray) -> bool:
        if len(incoming) < _HEADER.size:
            return False
        self._kind, self._left = _HEADER.unpack_from(incoming)
        del incoming[: _HEADER.size]
        if self._kind not in {STDOUT, STDERR, EXIT} or self._left > MAX_FRAME_BYTES:
            raise ProtocolError(f"{self._name} sent a shell frame of id {self._kind} with {self._left} bytes")
        if self._kind == EXIT and self._left != 1:
            raise ProtocolError(f"{self._name} sent an exit code of {self._left} bytes")
        return True


class ShellStream:
    """One command's stream, its exit code once it came; `name` is for messages."""

    def __init__(self, stream: ByteStream, name: str) -> None:
        self.name = name
        self.exit_code: int | None = None
        self._duplex = Duplex(stream, name)
        self._frames = FrameReader(name)

    @property
    def is_open(self) -> bool:
        """Tell whether anything can come or go."""
        return not self._duplex.ended

    @property
    def unsent(self) -> int:
        """Count the bytes of standard input that still wait to go out."""
        return self._duplex.unsent

    def queue_input(self, data: bytes) -> None:
        """Put data for standard input behind what waits to go out."""
        for start in range(0, len(data), _CHUNK_BYTES):
            self._duplex.queue(frame(STDIN, data[start : start + _CHUNK_BYTES]))

    def queue_end_of_input(self) -> None:
        """Close standard input behind what waits to go out."""
        self._duplex.queue(frame(CLOSE_STDIN))

    def advance(self, deadline: float, *, reading: bool = True) -> list[tuple[int, bytes]]:
        """Move bytes until some moved; return the pieces of stdout and stderr that came.

        Raises TransportTimeout past the deadline, LinkLost when the stream ends without an exit code.
        """
        self._duplex.advance(deadline, reading=reading)
        output: list[tuple[int, bytes]] = []
        for kind, piece in self._frames.pieces(self._duplex.incoming):
            if kind == EXIT:
                self.exit_code = piece[0]
                self.close()
                return output
            output.append((kind, piece))
        if self._duplex.ended:
            raise LinkLost(f"{self.name}: the connection ended while it ran")
        return output

    def close(self) -> None:
        """Close the stream."""
        self._duplex.close()
