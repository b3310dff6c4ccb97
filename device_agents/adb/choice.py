"""Which way to an Android device is taken: an adb server that answers, else TCP straight to it, else USB.

It starts no server, and with `direct` it does not ask one. Read next: `server.py`, `direct.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_agents.adb.direct import DirectConnector
from device_agents.adb.handshake import DEFAULT_PATIENCE, Patience
from device_agents.adb.links import TcpLink
from device_agents.adb.server import ServerAddress, ServerConnector, server_version
from device_agents.adb.sockets import DEAD_AFTER_S
from device_agents.adb.stream import Connector
from device_agents.adb.usb import open_usb
from device_agents.addresses import Address
from device_agents.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class AdbOptions:
    """What a person may say about the way: past any adb server, with another key (a path), how long to wait."""

    direct: bool = False
    key: Path | None = None
    patience: Patience = DEFAULT_PATIENCE
    dead_after_s: float = DEAD_AFTER_S


DEFAULT_OPTIONS = AdbOptions()


def connector_for(address: Address, options: AdbOptions = DEFAULT_OPTIONS) -> Connector:
    """Choose the way to a device; it connects with the first call. Raises InvalidRequest, ProtocolError."""
    if address.kind != "adb":
        raise InvalidRequest(f"{address} is no address of an adb device")
    name = str(address)
    serial = name.removeprefix("adb://")
    if not options.direct:
        server = ServerAddress.of_environment()
        if server_version(server) is not None:
            return ServerConnector(serial, server, network=not address.serial)
    if address.serial:
        return DirectConnector(name, lambda _: open_usb(serial), options.key, options.patience)
    return DirectConnector(
        name,
        lambda timeout_s: TcpLink(address.host, address.port, timeout_s, options.dead_after_s),
        options.key,
        options.patience,
    )
