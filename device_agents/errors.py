"""What can go wrong with a device, as one tree of exceptions.

    DeviceError
    ├── UnknownDevice      no device of that name
    ├── DeviceNotReady     the device cannot measure as it is (no runtime, no space, folder of another user)
    │   ├── DeviceOffline      nothing answers at its address, or it is known and switched off
    │   ├── NotAuthorised      it answers and does not let us in
    │   └── HostKeyRefused     its SSH host key is unknown or has changed
    ├── DeviceBusy         another session is measuring on it
    ├── InvalidRequest     what we were asked to measure makes no sense
    ├── SetupFailed        a runner or a runtime could not be built or installed
    ├── TransportError     a command, push or pull failed
    │   ├── TransportTimeout
    │   └── LinkLost           the connection broke; the next call makes a new one
    ├── ProtocolError      the device answered something that is not the protocol
    └── RunnerFailed       the runner could not be started, or died too often

It maps nothing itself: errors of the operating system are mapped where they arise, in `local.py` and its siblings.
Read next: `transport.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class DeviceError(Exception):
    """Anything that keeps a device from answering; its message is one line for a person."""


class UnknownDevice(DeviceError):
    """No known device has that name; `nearest` is the known name closest to it, or None."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        matches = get_close_matches(name, known, n=1, cutoff=0.5)
        self.name = name
        self.nearest: str | None = matches[0] if matches else None
        hint = f"did you mean {self.nearest!r}?" if self.nearest else f"known devices: {', '.join(known)}"
        super().__init__(f"unknown device {name!r}; {hint}")


class DeviceNotReady(DeviceError):
    """The device is reachable but cannot measure as it is."""


class DeviceOffline(DeviceNotReady):
    """Nothing answers at the device's address."""


class NotAuthorised(DeviceNotReady):
    """The device answers and does not let us in."""


class HostKeyRefused(DeviceNotReady):
    """The device's SSH host key is unknown or not the one it had."""


class DeviceBusy(DeviceError):
    """Another session holds the device's lock."""


class InvalidRequest(DeviceError):
    """A job, a model or a setting that the caller gave is out of range."""


class TransportError(DeviceError):
    """A command, a push or a pull could not be done."""


class TransportTimeout(TransportError):
    """A command or a line did not come within its time."""


class LinkLost(TransportError):
    """The connection to the device broke; what was running on it may have gone on for a moment."""


class SetupFailed(DeviceError):
    """A runner or a runtime could not be built for the device or installed on it."""


class ProtocolError(DeviceError):
    """The device sent a line that is not the protocol; nothing of that line is used."""


class RunnerFailed(DeviceError):
    """The runner could not be started, or died more often than a session allows."""
