"""An SSH connection to a device: configuration read, hosts on the way passed, host keys judged, errors mapped.

It follows the user's ssh configuration (HostName, User, Port, IdentityFile, ProxyJump, UserKnownHostsFile, ...) and
agent. It runs in the loop of `ssh_loop.py` and never asks a person: an unknown key is an error that `ssh.py` handles.
Read next: `ssh_channel.py` and `ssh_files.py`, which use the connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh

from device_agents.addresses import Address
from device_agents.errors import DeviceError, DeviceNotReady, DeviceOffline, NotAuthorised
from device_agents.ssh_trust import HostName, KnownKey, Trust
from device_agents.strict_json import clean_text

_MAX_DEPTH = 8  # a jump host behind a jump host and so on; more are a circle
_CLOSE_S = 2.0  # a dead peer answers no goodbye


@dataclass(frozen=True, slots=True)
class SshOptions:
    """What may be said about the way to a host; None leaves it to the user's ssh configuration.

    `ask` gets a question of one line with the host and its key's fingerprint; True means: trust it.
    A link that is silent for keepalive_s × keepalive_count is lost.
    """

    key: Path | None = None
    known_hosts: Path | None = None
    config: Path | None = None
    accept_new_host_key: bool = False
    ask: Callable[[str], bool] | None = None
    timeout_s: float = 15.0
    keepalive_s: float = 5.0
    keepalive_count: int = 3


@dataclass(slots=True)
class SshLink:
    """A connection and those it goes through."""

    connection: asyncssh.SSHClientConnection
    hops: list[asyncssh.SSHClientConnection] = field(default_factory=list)
    sftp: asyncssh.SFTPClient | None = None  # opened by the first transfer and kept

    def is_lost(self) -> bool:
        """Tell whether nothing can be sent any more."""
        return self.connection.is_closed()

    async def close(self) -> None:
        """End the connection, then those it went through."""
        for connection in [self.connection, *reversed(self.hops)]:
            connection.close()
            try:
                await asyncio.wait_for(connection.wait_closed(), _CLOSE_S)
            except TimeoutError:
                connection.abort()


async def open_link(address: Address, options: SshOptions, accepted: Sequence[KnownKey]) -> SshLink:
    """Connect to a host and log in; `accepted` are host keys trusted beside those of known_hosts.

    Raises:
        DeviceOffline, NotAuthorised, HostKeyRefused: as `errors.py` says.
        DeviceNotReady: the ssh configuration cannot be used, or no cipher is common to both sides.

    """
    hops: list[asyncssh.SSHClientConnection] = []
    target = _Target(address.host, address.port, address.user)
    try:
        connection = await _connect(target, _Way(options, accepted, hops))
    except BaseException:
        for hop in hops:
            hop.abort()
        raise
    return SshLink(connection, hops)


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int = 0
    user: str = ""

    @staticmethod
    def parse(text: str) -> _Target:
        """Read one element of ProxyJump, [user@]host[:port]."""
        address = Address.parse(f"ssh://{text.removeprefix('ssh://')}")
        return _Target(address.host, address.port, address.user)

    def settings(self) -> dict[str, Any]:
        """Return asyncssh's arguments; an empty tuple is its word for "not given"."""
        return {"host": self.host, "port": self.port or (), "username": self.user or ()}


@dataclass(frozen=True, slots=True)
class _Way:
    options: SshOptions
    accepted: Sequence[KnownKey]
    hops: list[asyncssh.SSHClientConnection]
    depth: int = 0


class _Judge(asyncssh.SSHClient):
    """Trusts no key that is not known, and remembers which one was offered."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        del host, addr, port
        self.offered = key
        return False


async def _connect(
    target: _Target, way: _Way, tunnel: asyncssh.SSHClientConnection | None = None
) -> asyncssh.SSHClientConnection:
    resolved = await _resolve(target, way.options)
    if tunnel is None:
        tunnel = await _jump(target, resolved, way)
    name = HostName(resolved.host, resolved.port, resolved.host_key_alias or "")
    trust = Trust(name, _known_hosts_files(resolved, way.options), way.accepted)
    judge = _Judge()
    settings = target.settings() | _settings(resolved, way.options)
    if not resolved.config.get("HostKeyAlgorithms"):
        settings["server_host_key_algs"] = trust.algorithms()
    try:
        return await asyncssh.connect(
            tunnel=tunnel, known_hosts=trust.known_hosts(), client_factory=lambda: judge, **settings
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise trust.refusal(judge.offered, error.reason) from error
    except (asyncssh.Error, OSError, ValueError) as error:
        raise _refusal(error, f"{resolved.username}@{name}", way.options) from error


async def _jump(
    target: _Target, resolved: asyncssh.SSHClientConnectionOptions, way: _Way
) -> asyncssh.SSHClientConnection | None:
    """Connect to the hosts of ProxyJump, one through the other, and return the last of them."""
    tunnel = None
    for text in resolved.tunnel.split(",") if isinstance(resolved.tunnel, str) else ():
        jump = _Target.parse(text.strip())
        if jump.host == target.host:
            continue  # a ProxyJump for all hosts is not meant for the jump host itself
        if way.depth >= _MAX_DEPTH:
            raise DeviceNotReady(f"ProxyJump of {target.host} leads in a circle; mend your ssh configuration")
        tunnel = await _connect(jump, replace(way, depth=way.depth + 1), tunnel)
        way.hops.append(tunnel)
    return tunnel


async def _resolve(target: _Target, options: SshOptions) -> asyncssh.SSHClientConnectionOptions:
    """Read the ssh configuration as it is for a host, without its keys: those are read where they are used."""
    settings = target.settings() | _config(options)
    try:
        return await asyncio.to_thread(asyncssh.SSHClientConnectionOptions, client_keys=None, **settings)
    except (OSError, ValueError) as error:
        raise DeviceNotReady(f"cannot use the ssh configuration for {target.host}: {_reason(error)}") from error


def _settings(resolved: asyncssh.SSHClientConnectionOptions, options: SshOptions) -> dict[str, Any]:
    settings = _config(options) | {
        "connect_timeout": options.timeout_s,
        "keepalive_interval": options.keepalive_s,
        "keepalive_count_max": options.keepalive_count,
    }
    if options.key is not None:  # no other key is offered: a server gives up after a few
        return settings | {"client_keys": [_readable_key(options.key)], "agent_path": "", "ignore_encrypted": False}
    identities = _paths(resolved, "IdentityFile", [])
    present = [str(path) for path in identities if path.is_file()]  # as ssh, which takes no offence at missing ones
    return settings | {"client_keys": present or (), "ignore_encrypted": True}


def _config(options: SshOptions) -> dict[str, Any]:
    return {"config": [str(options.config)] if options.config is not None else ()}


def _readable_key(path: Path) -> str:
    try:
        asyncssh.read_private_key(path.expanduser())
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        advice = "one with a passphrase belongs into ssh-agent, and is then found without being named"
        raise NotAuthorised(f"cannot use the SSH key {path}: {error}; {advice}") from error
    except OSError as error:
        raise NotAuthorised(f"cannot read the SSH key {path}: {error.strerror}") from error
    return str(path.expanduser())


def _known_hosts_files(resolved: asyncssh.SSHClientConnectionOptions, options: SshOptions) -> list[Path]:
    """Return the files that hold host keys, first the one to add to; none where the configuration wants none."""
    if options.known_hosts is not None:
        return [options.known_hosts.expanduser()]
    files = _paths(resolved, "UserKnownHostsFile", ["~/.ssh/known_hosts"])
    return [path for path in files if path != Path(os.devnull)]


def _paths(resolved: asyncssh.SSHClientConnectionOptions, option: str, default: list[str]) -> list[Path]:
    names = resolved.config.get(option, default)
    return [Path(name).expanduser() for name in names] if isinstance(names, list) else []


def _refusal(error: Exception, who: str, options: SshOptions) -> DeviceError:
    """Map what asyncssh raises while it connects; `who` is user@host."""
    if isinstance(error, TimeoutError):
        return DeviceOffline(
            f"{who} did not answer within {options.timeout_s:g} s; is the device on and in this network?"
        )
    if isinstance(error, asyncssh.PermissionDenied) or "authentication failures" in str(error):
        return NotAuthorised(
            f"{who} refuses to let us in; add your public key there (ssh-copy-id) or name the right key"
        )
    if isinstance(error, (OSError, asyncssh.ConnectionLost, asyncssh.ChannelOpenError)):
        return DeviceOffline(f"{who} cannot be reached: {_reason(error)}")
    return DeviceNotReady(f"{who} cannot be connected to: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, asyncssh.Error):
        return clean_text(" ".join(str(error.reason).split()))  # the other side's own words
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)  # asyncio's own text tells the address only
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())
