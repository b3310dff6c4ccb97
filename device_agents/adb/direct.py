"""A way straight to a device's own adbd, over TCP or USB, for when no adb server runs here.

It holds one connection and makes a new one when that broke. It starts no server.
Read next: `handshake.py`, `mux.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from device_agents.adb.auth import default_key, load_signer
from device_agents.adb.handshake import DEFAULT_PATIENCE, Patience, shake_hands
from device_agents.adb.mux import Mux, MuxStream
from device_agents.adb.packets import Link, PacketWire


class DirectConnector:
    """A way to one device; `connect` makes a link to it within a number of seconds."""

    def __init__(
        self,
        name: str,
        connect: Callable[[float], Link],
        key: Path | None = None,
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        self.name = name
        self._connect = connect
        self._key = key
        self._patience = patience
        self._lock = threading.Lock()
        self._mux: Mux | None = None
        self._features: frozenset[str] = frozenset()

    def open(self, service: str, timeout_s: float) -> MuxStream:
        """Open a service over the connection, which is made when there is none."""
        return self._connection(timeout_s).open(service, timeout_s)

    def features(self, timeout_s: float) -> frozenset[str]:
        """Return what the device said it can do."""
        self._connection(timeout_s)
        return self._features

    def close(self) -> None:
        """End the connection and all its streams."""
        mux, self._mux = self._mux, None
        if mux is not None:
            mux.close()

    def _connection(self, timeout_s: float) -> Mux:
        with self._lock:
            if self._mux is not None and self._mux.is_broken:
                self.close()
            if self._mux is None:
                self._mux = self._greet(PacketWire(self._connect(timeout_s)))
            return self._mux

    def _greet(self, wire: PacketWire) -> Mux:
        try:
            greeting = shake_hands(wire, lambda: load_signer(self._key or default_key()), self._patience)
        except BaseException:
            wire.close()
            raise
        self._features = greeting.features
        return Mux(wire, greeting.max_data)
