"""Holds a phone's clocks still while it is measured, and puts back what it changed.

Android 11 and later offer a fixed-performance mode. A small shell script on the phone switches it on and waits for the
end of its input, which comes with the end of the session, of this process, or of the link; then it switches the mode
off again. Where it could not, as on a phone that lost its power, the next session finds a marker in the work folder and
switches the mode off.
Nothing is changed on other devices: governors and the like need rights that a measurement should not ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from device_agents.device import Device
from device_agents.errors import TransportError
from device_agents.transport import Transport
from device_agents.work_folder import WorkFolder

_SWITCH_S = 30.0
# The hang-up of a closed link must not end the script before it has put the mode back.
_KEEP = """
trap '' HUP INT TERM
cd "$1" || exit 1
echo $$ >fixed-performance || exit 1  # a later session leaves the mode to us while this process lives
if ! cmd power set-fixed-performance-mode-enabled true </dev/null >/dev/null 2>&1; then
    rm -f fixed-performance
    exit 1
fi
echo on
cat >/dev/null
cmd power set-fixed-performance-mode-enabled false </dev/null >/dev/null 2>&1 && rm -f fixed-performance
"""


@contextmanager
def steadied(device: Device, transport: Transport, note: Callable[[str], None]) -> Iterator[None]:
    """Keep a phone in its fixed-performance mode; do nothing on other devices and where it is not offered."""
    if device.system != "android":
        yield
        return
    WorkFolder(transport, device.work_dir).prepare()
    process = transport.stream(["sh", "-c", _KEEP, "sh", device.work_dir])
    try:
        if process.read_line(_SWITCH_S) != b"on":
            note(f"{device.name}: no fixed-performance mode; its clocks will move while it is measured")
        yield
    finally:
        try:
            process.close_stdin()
            process.wait(_SWITCH_S)
        except TransportError:
            process.kill()  # the link is gone, and with it the script's input
