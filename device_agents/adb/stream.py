"""The seam under the ADB transport: a stream of bytes to a service on the device, and who opens one.

A stream never blocks but in `wait`; what a client wants to send and what came stand in a Duplex, so that neither side
can wait for the other for ever. It knows no service. Read next: `server.py` and `direct.py`, which open streams;
`shell_v2.py` and `sync.py`, which speak over them.
"""

from __future__ import annotations

import time
from typing import Protocol

from device_agents.errors import LinkLost, TransportTimeout

READ_BYTES = 1 << 18  # four chunks of the file service at once


class ByteStream(Protocol):
    """Bytes to and from one service on the device; memory on this side is bounded by the wire's flow control."""

    def read(self, limit: int) -> bytes | None:
        """Return up to `limit` bytes that are there, b"" at the end, None when nothing is there yet.

        Raises LinkLost when the connection broke.
        """

    def write(self, data: memoryview) -> int:
        """Take as much of `data` as there is room for now and return how many bytes that was; LinkLost at the end."""

    def wait(self, timeout_s: float, *, to_read: bool, to_write: bool) -> bool:
        """Wait until a read or a write would do something; False when the time is over."""

    def close(self) -> None:
        """Give the stream back; harmless twice."""


class Connector(Protocol):
    """A way to one device that opens streams, making a new connection when the last one broke."""

    name: str  # for messages: the device's address

    def open(self, service: str, timeout_s: float) -> ByteStream:
        """Open a service such as "sync:". Raises DeviceNotReady, TransportError, ProtocolError."""

    def features(self, timeout_s: float) -> frozenset[str]:
        """Return what the device says it can do, such as "shell_v2"; errors as with `open`."""

    def close(self) -> None:
        """End the connection and every stream over it; harmless twice, and a later `open` makes a new one."""


class Duplex:
    """What waits in both directions of a stream; `name` is for messages."""

    def __init__(self, stream: ByteStream, name: str) -> None:
        self.name = name
        self.incoming = bytearray()
        self.ended = False
        self._stream = stream
        self._outgoing = bytearray()

    @property
    def unsent(self) -> int:
        """Count the bytes that still wait to go out."""
        return len(self._outgoing)

    def queue(self, data: bytes) -> None:
        """Put bytes behind those that wait to go out; `advance` sends them."""
        self._outgoing += data

    def advance(self, deadline: float, *, reading: bool = True) -> None:
        """Move bytes in both directions, waiting until some move. `deadline` is on time.monotonic.

        Raises TransportTimeout past the deadline, LinkLost when the connection broke or when bytes for a stream that
        has ended wait to go out.
        """
        while not self._move(reading):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._stream.wait(left_s, to_read=reading, to_write=bool(self._outgoing)):
                raise TransportTimeout(f"{self.name}: nothing moved in time")

    def take(self, size: int, deadline: float) -> bytes:
        """Return exactly `size` bytes. Raises as `advance`, and LinkLost when the stream ends before."""
        while len(self.incoming) < size:
            if self.ended:
                raise LinkLost(f"{self.name}: the connection ended in the middle of an answer")
            self.advance(deadline)
        taken = bytes(self.incoming[:size])
        del self.incoming[:size]
        return taken

    def close(self) -> None:
        """Close the stream; what waits to go out is dropped, what came can still be taken."""
        self.ended = True
        self._outgoing.clear()
        self._stream.close()

    def _move(self, reading: bool) -> bool:
        moved = self.ended
        if reading and not self.ended:
            chunk = self._stream.read(READ_BYTES)
            if chunk is not None:
                moved = True
                self.incoming += chunk
                self.ended = not chunk
        if self._outgoing and not self.ended:
            with memoryview(self._outgoing) as waiting:
                count = self._stream.write(waiting)
            del self._outgoing[:count]
            moved = moved or count > 0
        if self._outgoing and self.ended:
            raise LinkLost(f"{self.name}: the connection ended")
        return moved
