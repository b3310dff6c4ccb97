"""Which SSH host keys are trusted: known_hosts read, judged and added to.

In known_hosts a host's name has its port in it unless that is 22: `[host]:2222`. As with OpenSSH, the keys of a host's
port 22 are trusted on its other ports too, but are not the keys that those ports should have.
A changed key is always refused. Whether an unknown one is accepted is decided in `ssh.py`, where a person can be asked.
It opens no connection: `ssh_link.py` does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from device_agents.errors import HostKeyRefused

_GLOBAL_FILE = Path("/etc/ssh/ssh_known_hosts")
_DEFAULT_PORT = 22


@dataclass(frozen=True, slots=True)
class HostName:
    """A host as known_hosts knows it; `alias` is its HostKeyAlias or empty."""

    host: str
    port: int
    alias: str = ""

    @property
    def plain(self) -> str:
        """The name without a port; OpenSSH writes names in small letters."""
        return (self.alias or self.host).lower()

    def __str__(self) -> str:
        return self.plain if self.alias or self.port == _DEFAULT_PORT else f"[{self.plain}]:{self.port}"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that a host is known by, and where that is written: "FILE line 3"."""

    host: str
    key: asyncssh.SSHKey
    where: str


class UnknownHostKey(HostKeyRefused):
    """A host key that nobody has accepted yet; `file` is the one that would remember it, if any."""

    def __init__(self, name: HostName, key: asyncssh.SSHKey, file: Path | None) -> None:
        self._name, self._key, self._file = name, key, file
        super().__init__(
            f"the SSH host key of {name} is unknown ({_fingerprint(key)}); compare it with the device's and accept it, "
            f"or connect once with ssh to have it in {file or 'known_hosts'}"
        )

    @property
    def question(self) -> str:
        """One line for a person to answer with yes or no."""
        kept = f" and keep it in {self._file}" if self._file else ""
        return f"The SSH host key of {self._name} is unknown: {_fingerprint(self._key)}. Trust it{kept}?"

    def remember(self) -> KnownKey:
        """Append the key to its file, and return it for those who keep it in memory. Raises HostKeyRefused."""
        if self._file is not None:
            try:
                _append(self._file, f"{self._name} {_openssh(self._key)}\n")
            except OSError as error:
                raise HostKeyRefused(f"cannot keep a host key in {self._file}: {error.strerror}") from error
        return KnownKey(str(self._name), self._key, "accepted earlier in this run")


class Trust:
    """What is known of one host before it is connected to."""

    def __init__(self, name: HostName, files: Sequence[Path], accepted: Sequence[KnownKey]) -> None:
        self._name = name
        self._file = next(iter(files), None)
        self._keys = [known for known in accepted if known.host == str(name)]
        self._authorities: list[asyncssh.SSHKey] = []
        self._revoked: list[asyncssh.SSHKey] = []
        plain_keys: list[asyncssh.SSHKey] = []
        for where, line in _lines([*files, _GLOBAL_FILE]):
            keys, authorities, revoked = line.match(str(name), "", None)[:3]
            self._keys += [KnownKey(str(name), key, where) for key in keys]
            plain = line.match(name.plain, "", None)[:3]
            plain_keys += plain[0]
            self._authorities += [*authorities, *plain[1]]
            self._revoked += [*revoked, *plain[2]]
        self._trusted = [known.key for known in self._keys] or plain_keys

    def known_hosts(self) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
        """Return trusted keys, trusted authorities and revoked keys, as asyncssh takes them."""
        return self._trusted, self._authorities, self._revoked

    def algorithms(self) -> list[str]:
        """Return the kinds of host keys to ask for, known ones first; others too, so that a change is seen as one."""
        certificates = get_default_certificate_algs() if self._authorities else []
        known = [name for key in self._trusted for name in key.sig_algorithms]
        every = [*certificates, *known, *get_default_public_key_algs()]
        return [name.decode("ascii") for name in dict.fromkeys(every)]

    def refusal(self, offered: asyncssh.SSHKey | None, reason: str) -> HostKeyRefused:
        """Return why a host was refused: its key is unknown, changed, or as `reason` says when there is none."""
        if offered is None or offered in self._revoked:
            return HostKeyRefused(f"the SSH host key of {self._name} is refused: {reason}")
        if not self._keys:
            return UnknownHostKey(self._name, offered, self._file)
        same_kind = [known for known in self._keys if known.key.get_algorithm() == offered.get_algorithm()]
        expected = (same_kind or self._keys)[0]
        return HostKeyRefused(
            f"the SSH host key of {self._name} has changed: it is {_fingerprint(offered)}, not the "
            f"{_fingerprint(expected.key)} of {expected.where}; only if the device was set up anew, "
            f"remove that line (ssh-keygen -R '{self._name}')"
        )


def _lines(files: Sequence[Path]) -> Iterator[tuple[str, asyncssh.SSHKnownHosts]]:
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostKeyRefused(f"cannot read the known host keys in {file}: {error.strerror}") from error
        for number, line in enumerate(text.splitlines(), 1):
            with contextlib.suppress(ValueError):  # OpenSSH too leaves out lines that it cannot read
                yield f"{file} line {number}", asyncssh.import_known_hosts(line)


def _append(file: Path, line: str) -> None:
    """Write with one call, so that two writers never mix their lines."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with open(handle, "r+b", buffering=0) as stream:
        size = os.fstat(handle).st_size
        begun = size > 0 and stream.seekable() and os.pread(handle, 1, size - 1) != b"\n"
        stream.write(f"{chr(10) if begun else ''}{line}".encode())


def _openssh(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key("openssh").decode("ascii").split()[:2])


def _fingerprint(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"
