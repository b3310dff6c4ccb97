"""Packets of the ADB protocol over a link of bytes, read with distrust and written whole.

A header is six u32, little-endian: command, two arguments, length, checksum, and the command's bits turned over.
It knows no streams. Read next: `links.py` below it, `mux.py` above it.
Source: PROTOCOL.TXT of the Android Debug Bridge.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Protocol

from device_agents.errors import LinkLost, ProtocolError

VERSION_WITH_CHECKSUMS = 0x01000000
VERSION = 0x01000001  # the first without checksums over the data, which every Android since 9 speaks
MAX_DATA_BYTES = 1 << 20  # what Google's own client offers
_HEADER = struct.Struct("<4s5I")
_COMMANDS = frozenset({b"SYNC", b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE", b"STLS"})


class Link(Protocol):
    """Bytes to and from a device; `name` is for messages."""

    name: str
    packet_bytes: int  # data of a multiple of this must not be sent in one packet; 1 where there is no such rule

    def read(self, size: int, timeout_s: float | None) -> bytes:
        """Return exactly `size` bytes. Raises LinkLost, TransportTimeout; None waits until close."""

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises LinkLost."""

    def interrupt(self) -> None:
        """Wake whoever reads; from now on reads and writes fail. Called from another thread than theirs."""

    def close(self) -> None:
        """Give the link back, once nobody reads; harmless twice."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; what the arguments are depends on the command."""

    command: bytes
    arg0: int
    arg1: int
    data: bytes = b""


class PacketWire:
    """Packets over a link, with checksums until the device says that it does without."""

    def __init__(self, link: Link) -> None:
        self.name = link.name
        self.packet_bytes = link.packet_bytes
        self._link = link
        self._checksums = True
        self._sending = threading.Lock()
        self._is_broken = False

    def send(self, packet: Packet) -> None:
        """Send a packet whole; after an interrupt in the middle the wire is broken. Raises LinkLost."""
        magic = int.from_bytes(packet.command, "little") ^ 0xFFFFFFFF
        total = sum(packet.data) & 0xFFFFFFFF if self._checksums else 0
        header = _HEADER.pack(packet.command, packet.arg0, packet.arg1, len(packet.data), total, magic)
        with self._sending:
            if self._is_broken:
                raise LinkLost(f"{self.name}: the connection is broken")
            self._is_broken = True
            # Small packets go in one piece over TCP; USB wants header and data apart.
            if len(packet.data) <= 4096 and self.packet_bytes == 1:
                self._link.write(header + packet.data)
            else:
                self._link.write(header)
                if packet.data:
                    self._link.write(packet.data)
            self._is_broken = False

    def receive(self, timeout_s: float | None) -> Packet:
        """Read the next packet. Raises ProtocolError for what is none, LinkLost, TransportTimeout."""
        header = self._link.read(_HEADER.size, timeout_s)
        command, arg0, arg1, size, total, magic = _HEADER.unpack(header)
        if command not in _COMMANDS or magic != int.from_bytes(command, "little") ^ 0xFFFFFFFF:
            raise ProtocolError(f"{self.name} sent what is no packet of adb: {header[:8]!r}")
        if size > MAX_DATA_BYTES:
            raise ProtocolError(f"{self.name} sent a packet of {size} bytes, above {MAX_DATA_BYTES}")
        data = self._link.read(size, timeout_s) if size else b""
        # Some daemons of the newer version still send sums, others 0: only the older version's are binding.
        if self._checksums and size and total and total != sum(data) & 0xFFFFFFFF:
            raise ProtocolError(f"{self.name} sent {size} bytes whose checksum is wrong")
        return Packet(command, arg0, arg1, data)

    def use_version(self, version: int) -> None:
        """Take the version that the device said; from the second on there are no checksums."""
        self._checksums = version < VERSION

    def interrupt(self) -> None:
        """Wake whoever receives."""
        self._link.interrupt()

    def close(self) -> None:
        """Give the link back, once nobody receives."""
        self._link.close()
