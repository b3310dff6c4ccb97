"""TCP sockets for ADB: small packets go at once, a peer that vanished is noticed, a socket can be a ByteStream.

It speaks no protocol. Read next: `server.py`, `links.py`.
"""

from __future__ import annotations

import select
import socket

from device_agents.errors import DeviceOffline, LinkLost

# A cut cable is noticed within this, traffic or not: longer than a Wi-Fi roam, shorter than a person's patience.
DEAD_AFTER_S = 20.0


def connect(host: str, port: int, timeout_s: float, dead_after_s: float = DEAD_AFTER_S) -> socket.socket:
    """Connect to a TCP port. Raises DeviceOffline when nobody answers there within `timeout_s`."""
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise DeviceOffline(
            f"cannot connect to {host}:{port}: {reason}; is it on, and does adb listen there "
            "(after a restart a phone wants `adb tcpip 5555` over USB again)?"
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _notice_death(connection, dead_after_s)
    return connection


def _notice_death(connection: socket.socket, dead_after_s: float) -> None:
    """Let the kernel probe a silent peer, and give up on one that acknowledges nothing."""
    seconds = max(1, round(dead_after_s / 4))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Names that not every system has: keepalive alone is then the kernel's own slow one.
    for name, value in (
        ("TCP_KEEPIDLE", seconds),
        ("TCP_KEEPINTVL", seconds),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", round(dead_after_s * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


class SocketStream:
    """A connected socket as a ByteStream; `name` is for messages."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._socket = connection
        self._name = name
        self._poll = select.poll()
        self._ahead = b""
        connection.settimeout(0)

    def unread(self, data: bytes) -> None:
        """Put bytes back that were read too far, before anything else is read."""
        self._ahead = data + self._ahead

    def read(self, limit: int) -> bytes | None:
        """Return what is there, b"" at the end, None when nothing is there yet."""
        if self._ahead:
            ahead, self._ahead = self._ahead[:limit], self._ahead[limit:]
            return ahead
        try:
            return self._socket.recv(limit)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkLost(f"{self._name}: the connection broke: {error.strerror}") from error

    def write(self, data: memoryview) -> int:
        """Take as much as fits into the kernel's buffer."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkLost(f"{self._name}: the connection broke: {error.strerror}") from error

    def wait(self, timeout_s: float, *, to_read: bool, to_write: bool) -> bool:
        """Wait until the socket is ready; an end or an error counts as ready."""
        wanted = (select.POLLIN if to_read else 0) | (select.POLLOUT if to_write else 0)
        if self._socket.fileno() < 0 or (to_read and self._ahead):
            return True  # closed: the next read says so
        self._poll.register(self._socket, wanted)
        return bool(self._poll.poll(max(0.0, timeout_s) * 1000))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
