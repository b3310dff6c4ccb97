"""The USB link to a phone's adbd, by adb-shell and libusb, for when no adb server holds the phone.

It knows no packets beyond that header and data are separate transfers. Read next: `packets.py`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Protocol

from device_agents.adb.auth import missing_extra
from device_agents.errors import DeviceNotReady, DeviceOffline, LinkLost, NotAuthorised, TransportTimeout

_POLL_S = 0.5  # how soon a reader notices that the link is being given back
_WRITE_S = 20.0
_WRITE_BYTES = 1 << 14  # one transfer; more in one can exceed what a kernel gives libusb at once
_QUIET_S = 0.1  # after which a phone has no more lying ready
_DRAIN_S = 2.0
_DRAIN_BYTES = 1 << 14  # a multiple of every USB packet size, so that no transfer is longer than asked for


class UsbPort(Protocol):
    """What is used of adb-shell's UsbTransport."""

    @property
    def serial_number(self) -> str:
        """Return the phone's serial number."""

    def connect(self, transport_timeout_s: float | None = None) -> None:
        """Open the phone and claim its interface."""

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None = None) -> bytes:
        """Read one transfer."""

    def bulk_write(self, data: bytes, transport_timeout_s: float | None = None) -> int:
        """Write one transfer and return how much of it went."""

    def close(self) -> None:
        """Give the phone back."""


class UsbLink:
    """A claimed phone; no packet's data may fill its last USB packet, for which devices would wait on."""

    packet_bytes = 64  # divides the packet sizes of all USB speeds

    def __init__(self, port: UsbPort, name: str, bus: UsbBus | None = None) -> None:
        """Take a claimed port, and the bus that it was found on, which is closed with it."""
        self.name = name
        self._port = port
        self._bus = bus
        self._released = threading.Event()

    def read(self, size: int, timeout_s: float | None) -> bytes:
        """Return exactly `size` bytes."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        data = bytearray()
        while len(data) < size:
            if self._released.is_set():
                raise LinkLost(f"{self.name}: the connection was closed")
            data += self._read_some(size - len(data))
            if len(data) < size and deadline is not None and time.monotonic() > deadline:
                raise TransportTimeout(f"{self.name} did not answer in time")
        return bytes(data)

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        from adb_shell.exceptions import UsbWriteFailedError

        start = 0
        while start < len(data):
            try:
                start += self._port.bulk_write(data[start : start + _WRITE_BYTES], _WRITE_S)
            except UsbWriteFailedError as error:
                raise LinkLost(f"{self.name}: the USB connection broke: {_reason(error)}") from error

    def drain(self) -> None:
        """Take what lies ready in the phone: for streams that are closed, or a host before us that ended.

        Half a packet of that could not be told from the answer to our greeting, and a phone that is greeted while it
        has something to send breaks the connection off.
        """
        from adb_shell.exceptions import UsbReadFailedError

        deadline = time.monotonic() + _DRAIN_S
        with contextlib.suppress(UsbReadFailedError):  # it is quiet; or gone, which the next call tells
            while time.monotonic() < deadline:
                self._port.bulk_read(_DRAIN_BYTES, _QUIET_S)

    def interrupt(self) -> None:
        """Let a reader end at its next look."""
        self._released.set()

    def close(self) -> None:
        """Give the phone back."""
        self.interrupt()
        try:
            self.drain()
        finally:
            self._port.close()
            if self._bus is not None:
                self._bus.close()

    def _read_some(self, size: int) -> bytes:
        """Read one transfer; nothing when none came in a while."""
        import usb1
        from adb_shell.exceptions import UsbReadFailedError

        try:
            return self._port.bulk_read(size, _POLL_S)
        except UsbReadFailedError as error:
            if isinstance(error.usb_error, usb1.USBErrorTimeout):
                return bytes(
                    getattr(error.usb_error, "received", b"")
                )  # the beginning of a transfer may have come in time
            raise LinkLost(f"{self.name}: the USB connection broke: {_reason(error)}") from error


class UsbBus:
    """The phones on USB as they are now.

    The list of a libusb context follows what is attached later only where a udev daemon runs, and in a container none
    does; so each search has a context of its own.
    """

    def __init__(self) -> None:
        """Look at the bus. Raises DeviceNotReady where what USB needs is not installed, usb1.USBError."""
        try:
            import usb1
            from adb_shell.transport.usb_transport import UsbTransport
        except ImportError as error:
            raise missing_extra("a phone over USB") from error
        except OSError as error:  # it opens libusb as it is imported
            raise DeviceNotReady(
                "a phone over USB needs libusb-1.0; install it, on Debian: apt install libusb-1.0-0"
            ) from error

        self._context = usb1.USBContext()
        self._context.open()
        self._finder = type("_Finder", (UsbTransport,), {"USB1_CTX": self._context})

    def ports(self) -> list[UsbPort]:
        """Return all phones. Raises usb1.USBError."""
        return list(self._finder.find_all_adb_devices())  # type: ignore[attr-defined] # of UsbTransport, which has no types

    def close(self) -> None:
        """Close it, and whatever of it is open."""
        self._context.close()


def open_usb(serial: str) -> UsbLink:
    """Claim the phone with a serial number.

    Raises DeviceOffline when it is not attached, NotAuthorised when this user may not open it, DeviceNotReady when an
    adb server holds it or what USB needs is not installed.
    """
    try:
        import usb1
    except ImportError as error:
        raise missing_extra(f"the phone {serial} over USB") from error
    name = f"adb://{serial}"
    try:
        return _claim(serial, name)
    except usb1.USBErrorAccess as error:
        raise NotAuthorised(f"{name}: this user may not open the USB device; add a udev rule for it") from error
    except usb1.USBErrorBusy as error:
        raise DeviceNotReady(
            f"{name}: an adb server holds the device, or another program; give that server's port in "
            "$ANDROID_ADB_SERVER_PORT, or end what holds it"
        ) from error
    except usb1.USBError as error:
        raise DeviceOffline(f"{name}: USB failed: {error}; reconnect its cable") from error


def _claim(serial: str, name: str) -> UsbLink:
    with contextlib.ExitStack() as undo:
        bus = UsbBus()
        undo.callback(bus.close)
        port = _find(bus.ports(), serial)
        undo.callback(port.close)
        port.connect()
        link = UsbLink(port, name, bus)
        link.drain()
        undo.pop_all()
        return link


def _find(ports: list[UsbPort], serial: str) -> UsbPort:
    """Find a phone by its serial number; one that cannot be asked for it is an error only when no other fits."""
    import usb1

    seen: list[str] = []
    denied: usb1.USBError | None = None
    for port in ports:
        try:
            seen.append(port.serial_number)
        except usb1.USBError as error:
            denied = error
            continue
        if seen[-1] == serial:
            return port
    if denied is not None:
        raise denied
    attached = ", ".join(seen) or "none"
    raise DeviceOffline(f"adb://{serial} is not attached, and no adb server runs; phones on USB: {attached}")


def _reason(error: Exception) -> str:
    return str(error.args[-1] if error.args else error)
