"""Cuts a stream of bytes from a device into lines, none longer than MAX_LINE_BYTES.

It holds at most one line and the chunk that was fed; who feeds it must stop while lines wait.
Read next: `transport.py`, whose processes speak in lines.
"""

from __future__ import annotations

from device_agents.errors import ProtocolError
from device_agents.transport import MAX_LINE_BYTES


class LineBuffer:
    """Bytes in, lines out, for the output of one process; `name` is for messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pending = bytearray()
        self._searched = 0  # no newline before this index: a long line is searched once, not once a chunk

    def __len__(self) -> int:
        """Count the bytes that wait."""
        return len(self._pending)

    def feed(self, chunk: bytes) -> None:
        """Take in what came."""
        self._pending += chunk

    def take(self) -> bytes | None:
        """Return the next line without its newline, or None when no whole line is there.

        Raises ProtocolError when the line that has begun is above MAX_LINE_BYTES.
        """
        end = self._pending.find(b"\n", self._searched, MAX_LINE_BYTES + 1)
        if end < 0:
            self._searched = len(self._pending)
            if len(self._pending) > MAX_LINE_BYTES:
                raise ProtocolError(f"{self._name} sent a line above {MAX_LINE_BYTES} bytes")
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._searched = 0
        return line
