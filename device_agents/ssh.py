"""The transport to a board over SSH: commands, processes that speak in lines, files.

One connection lives in a thread of its own; each call waits for it as for a function. A call on a broken link raises
LinkLost, and the next one connects anew. It needs the package asyncssh, which `connect.py` tells those who lack it.
It does not find devices. Read next: `ssh_link.py` for the way there, `ssh_channel.py`, `ssh_files.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agents import ssh_channel, ssh_files
from device_agents.addresses import Address
from device_agents.errors import HostKeyRefused, TransportError
from device_agents.ssh_link import SshLink, SshOptions, open_link
from device_agents.ssh_loop import LoopThread
from device_agents.ssh_trust import KnownKey, UnknownHostKey
from device_agents.transport import Completed


class SshTransport:
    """Run commands on, and copy files to and from, the host that `address` names; connected by the first call."""

    def __init__(self, address: Address, options: SshOptions | None = None) -> None:
        self._address = address
        self._options = options or SshOptions()
        self._accepted: list[KnownKey] = []
        self._loop = LoopThread(str(address))
        self._link: SshLink | None = None
        self._processes: list[ssh_channel.SshProcess] = []

    def connect(self) -> None:
        """Make the connection, if there is none.

        Raises:
            DeviceOffline, NotAuthorised, HostKeyRefused: as `errors.py` says.

        """
        self._connected()

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end; past `timeout_s` its whole group is ended and TransportTimeout raised."""
        return self._loop.call(ssh_channel.run_command(self._connected().connection, argv, timeout_s))

    def stream(self, argv: Sequence[str]) -> ssh_channel.SshProcess:
        """Start a process to speak with in lines."""
        process = self._loop.call(ssh_channel.start_process(self._connected().connection, argv, self._loop))
        self._processes = [*(one for one in self._processes if not one.is_over), process]
        return process

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device; `remote` is whole or absent at any moment."""
        self.push_all({remote: local})

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy many files at once."""
        self._loop.call(ssh_files.push_files(self._connected(), files))

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device; `local` is whole or absent at any moment."""
        self._loop.call(ssh_files.pull_file(self._connected(), remote, local))

    def close(self) -> None:
        """End every process that was started here, then the connection and its thread."""
        try:
            while self._processes:
                with contextlib.suppress(TransportError):  # one that cannot be ended must not keep the others alive
                    self._processes.pop().kill()
        finally:
            try:
                self._disconnect()
            finally:
                self._loop.close()

    def _disconnect(self) -> None:
        """End the connection, if there is one; one that was lost still holds those it went through."""
        if self._link is not None:
            link, self._link = self._link, None
            self._loop.call(link.close())

    def _connected(self) -> SshLink:
        """Return the connection, made anew if it was lost; every host on the way may have a key to ask about."""
        while self._link is None or self._link.is_lost():
            self._disconnect()
            try:
                self._link = self._loop.call(open_link(self._address, self._options, tuple(self._accepted)))
            except UnknownHostKey as unknown:
                self._accept(unknown)
        return self._link

    def _accept(self, unknown: UnknownHostKey) -> None:
        """Ask in the caller's thread, without a connection that waits; the next try verifies the accepted key."""
        ask = self._options.ask
        if not self._options.accept_new_host_key:
            if ask is None:
                raise unknown
            if not ask(unknown.question):
                raise HostKeyRefused(f"{unknown}; it was not accepted") from unknown
        self._accepted.append(unknown.remember())
