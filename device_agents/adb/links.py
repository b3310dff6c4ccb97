"""The TCP link to a device's own adbd, which loses no byte and notices a peer that vanished.

It knows no packets. Read next: `packets.py`; `usb.py` for the other link.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

from device_agents.adb import sockets
from device_agents.errors import LinkLost, TransportTimeout


class TcpLink:
    """A connection to an adbd that listens on the network."""

    packet_bytes = 1

    def __init__(self, host: str, port: int, timeout_s: float, dead_after_s: float = sockets.DEAD_AFTER_S) -> None:
        """Connect. Raises DeviceOffline."""
        self.name = f"adb://{f'[{host}]' if ':' in host else host}:{port}"
        self._dead_after_s = dead_after_s
        self._socket = sockets.connect(host, port, timeout_s, dead_after_s)
        self._socket.settimeout(0)
        self._readable = _poll(self._socket, select.POLLIN)
        self._writable = _poll(self._socket, select.POLLOUT)

    def read(self, size: int, timeout_s: float | None) -> bytes:
        """Return exactly `size` bytes."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        data = bytearray(size)
        with memoryview(data) as view:
            filled = 0
            while filled < size:
                filled += self._read_some(view[filled:], deadline)
        return bytes(data)

    def write(self, data: bytes) -> None:
        """Send all of `data`, waiting while the device reads slowly."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                if not self._writable.poll(self._dead_after_s * 1000):
                    raise LinkLost(f"{self.name} took nothing for {self._dead_after_s:g} s") from None
            except OSError as error:
                raise LinkLost(f"{self.name}: the connection broke: {error.strerror}") from error

    def interrupt(self) -> None:
        """Shut the connection down, which wakes a reader."""
        with contextlib.suppress(OSError):  # it broke before
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self.interrupt()
        self._socket.close()

    def _read_some(self, view: memoryview, deadline: float | None) -> int:
        while True:
            try:
                count = self._socket.recv_into(view)
            except BlockingIOError:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._readable.poll(None if left_s is None else left_s * 1000):
                    raise TransportTimeout(f"{self.name} did not answer in time") from None
                continue
            except OSError as error:
                raise LinkLost(f"{self.name}: the connection broke: {error.strerror}") from error
            if count == 0:
                raise LinkLost(f"{self.name} closed the connection")
            return count


def _poll(connection: socket.socket, events: int) -> select.poll:
    poll = select.poll()
    poll.register(connection, events)
    return poll
