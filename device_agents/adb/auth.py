"""The key that a phone knows this computer by: the same as Google's adb uses, made when there is none.

The private key lies in ~/.android/adbkey, readable by its user alone, the public one beside it in Android's own form.
It talks to no device. Read next: `handshake.py`, which signs with it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Protocol, cast

from device_agents.errors import DeviceNotReady


class Signer(Protocol):
    """A private key and its public half."""

    def Sign(self, data: bytes) -> bytes:  # noqa: N802 - adb-shell's name
        """Return the signature of a token."""

    def GetPublicKey(self) -> bytes:  # noqa: N802 - adb-shell's name
        """Return the public key as text in Android's form."""


def default_key() -> Path:
    """Return where Google's adb keeps the user's key."""
    return Path.home() / ".android" / "adbkey"


def load_signer(key: Path) -> Signer:
    """Load a key, making it first when there is none.

    Raises DeviceNotReady when adb-shell is not installed, or the key can be neither read nor made.
    """
    try:
        from adb_shell.auth.sign_cryptography import CryptographySigner
    except ImportError as error:
        raise missing_extra("a phone that asks for a key") from error
    try:
        if not key.exists():
            _make(key)
        elif not _public(key).exists():
            _write_public(key)
        return cast("Signer", CryptographySigner(str(key)))
    except (OSError, ValueError, TypeError) as error:
        raise DeviceNotReady(f"the adb key {key} cannot be used: {error}; mend or remove it") from error


def missing_extra(purpose: str) -> DeviceNotReady:
    """Return the error for an optional package that is not installed."""
    return DeviceNotReady(f"{purpose} needs adb-shell; install it with: pip install 'edgekd[devices]'")


def _public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def _make(key: Path) -> None:
    """Make a key beside its place and link it there, so that nobody reads half of one or loses another's."""
    from adb_shell.auth.keygen import keygen

    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = key.with_name(f".{key.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        keygen(str(beside))
        with contextlib.suppress(FileExistsError):  # somebody else made one meanwhile: that one holds
            key.hardlink_to(beside)
            _public(beside).replace(_public(key))
    finally:
        beside.unlink(missing_ok=True)
        _public(beside).unlink(missing_ok=True)


def _write_public(key: Path) -> None:
    from adb_shell.auth.keygen import write_public_keyfile

    write_public_keyfile(str(key), str(_public(key)))
