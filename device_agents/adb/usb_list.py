"""Lists the phones on USB for when no adb server does. It opens each only to read its serial number.

Read next: `usb.py`, which talks to one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from device_agents.adb.usb import UsbBus, UsbPort
from device_agents.errors import DeviceNotReady


def list_usb() -> tuple[list[str], bool]:
    """Return the serial numbers of the phones on USB, and whether there are any that this user may not open.

    Without what USB needs there are none.
    """
    try:
        import usb1
    except ImportError:
        return [], False
    try:
        with contextlib.closing(UsbBus()) as bus:
            return _serials(bus.ports())
    except DeviceNotReady:
        return [], False
    except usb1.USBError:
        return [], True  # the bus itself is closed to us


def _serials(ports: Iterable[UsbPort]) -> tuple[list[str], bool]:
    import usb1

    found, denied = [], False
    for port in ports:
        try:
            found.append(port.serial_number)
        except usb1.USBError:
            denied = True
    return found, denied
