"""Scripted peers of the ADB transport over real sockets: daemons and servers that do what real ones here never do."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

HEADER = struct.Struct("<4s5I")
GREETING = b"device::ro.product.name=fake;features=shell_v2,cmd"
VERSION = 0x01000001


@dataclass(frozen=True)
class Heard:
    """A packet that the daemon was sent."""

    command: bytes
    arg0: int
    arg1: int
    data: bytes


class Line:
    """One connection, seen from the daemon's or server's side."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def exactly(self, size: int) -> bytes:
        """Read so many bytes; EOFError when the other side has closed."""
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    # a daemon's

    def hear(self) -> Heard:
        """Read a packet, and check what an honest host owes."""
        command, arg0, arg1, size, total, magic = HEADER.unpack(self.exactly(HEADER.size))
        data = self.exactly(size)
        assert magic == int.from_bytes(command, "little") ^ 0xFFFFFFFF
        assert total in {0, sum(data) & 0xFFFFFFFF}
        return Heard(command, arg0, arg1, data)

    def tell(self, command: bytes, arg0: int, arg1: int, data: bytes = b"") -> None:
        """Send a packet."""
        self.say(packet(command, arg0, arg1, data))

    def greet(self, banner: bytes = GREETING, version: int = VERSION, max_data: int = 1 << 20) -> Heard:
        """Let the host in at once; return its greeting."""
        heard = self.hear()
        self.tell(b"CNXN", version, max_data, banner)
        return heard

    def accept(self, remote_id: int = 77) -> Heard:
        """Open the stream that the host asks for; return its request."""
        heard = self.hear()
        assert heard.command == b"OPEN"
        self.tell(b"OKAY", remote_id, heard.arg0)
        return heard

    # a server's

    def request(self) -> str:
        """Read a request to an adb server."""
        return self.exactly(int(self.exactly(4), 16)).decode()

    def okay(self, text: str | None = None) -> None:
        """Answer it."""
        self.say(b"OKAY" + (sized(text) if text is not None else b""))

    def fail(self, reason: str) -> None:
        """Refuse it."""
        self.say(b"FAIL" + sized(reason))


def packet(command: bytes, arg0: int, arg1: int, data: bytes = b"") -> bytes:
    """Return a packet with its checksum."""
    magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
    return HEADER.pack(command, arg0, arg1, len(data), sum(data) & 0xFFFFFFFF, magic) + data


def sized(text: str) -> bytes:
    """Return a text behind four hex digits of its length."""
    return b"%04x%s" % (len(text.encode()), text.encode())


Script = Callable[[Line], None]


class Fake:
    """Listens on a port of its own and plays a script for each connection; what one raised is told at the end."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._errors: list[BaseException] = []
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self.port: int = self._listener.getsockname()[1]
        self._threads[0].start()

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()
        assert not self._errors, self._errors

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._play, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with connection:
            try:
                self._script(Line(connection))
            except (EOFError, OSError):
                pass  # the host went away, as it may
            except BaseException as error:  # noqa: BLE001 # told in the test's own thread
                self._errors.append(error)


@pytest.fixture
def fake() -> Iterator[Callable[[Script], Fake]]:
    """Start peers that play scripts."""
    started: list[Fake] = []

    def start(script: Script) -> Fake:
        started.append(Fake(script))
        return started[-1]

    yield start
    for one in started:
        one.close()
