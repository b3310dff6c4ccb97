"""The one place that turns an address into a transport.

It imports a transport's module only when an address needs it, so that measuring this machine costs no SSH or ADB code.
It says nothing about what lies behind the transport. Read next: `inventory.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_agents.addresses import Address
from device_agents.errors import DeviceNotReady
from device_agents.transport import Transport


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What a person may say about the way to a device; empty texts leave it to the usual places of ssh and adb.

    key, known_hosts and ssh_config are paths. An unknown SSH host key is refused unless accept_new_host_key is set or
    `ask`, given a question of one line, answers True; a changed one is refused always.
    """

    key: str = ""
    known_hosts: str = ""
    ssh_config: str = ""
    accept_new_host_key: bool = False
    ask: Callable[[str], bool] | None = None
    timeout_s: float = 15.0


DEFAULT_OPTIONS = ConnectOptions()


def open_transport(address: Address, options: ConnectOptions = DEFAULT_OPTIONS) -> Transport:
    """Open the way to a device; close it when done.

    Raises:
        DeviceOffline: nothing answers there.
        NotAuthorised, HostKeyRefused: it answers, and one side does not trust the other.
        DeviceNotReady: the optional package that the way needs is not installed.

    """
    if address.kind == "ssh":
        return _ssh(address, options)
    if address.kind == "adb":
        return _adb(address)
    from device_agents.local import LocalTransport

    return LocalTransport()


def _ssh(address: Address, options: ConnectOptions) -> Transport:
    try:
        from device_agents.ssh import SshTransport
        from device_agents.ssh_link import SshOptions
    except ModuleNotFoundError as error:
        raise _missing(address, error) from error

    key, known_hosts, config = (_path(text) for text in (options.key, options.known_hosts, options.ssh_config))
    return SshTransport(
        address,
        SshOptions(key, known_hosts, config, options.accept_new_host_key, options.ask, options.timeout_s),
    )


def _adb(address: Address) -> Transport:
    try:
        from device_agents.adb.choice import connector_for
        from device_agents.adb.transport import AdbTransport
    except ModuleNotFoundError as error:
        raise _missing(address, error) from error

    return AdbTransport(connector_for(address))


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _missing(address: Address, error: ModuleNotFoundError) -> DeviceNotReady:
    """Say which optional package a way needs; what is missing of our own is a defect."""
    if error.name is None or error.name.partition(".")[0] == "device_agents":
        raise error
    return DeviceNotReady(f"{address} needs the package {error.name}; install it with: pip install 'edgekd[devices]'")
