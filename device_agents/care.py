"""Holds a phone's clocks still while it is measured, and puts back what it changed.

Android 11 and later offer a fixed-performance mode. A small shell script on the phone switches it on and lives as long
as what serves there: it waits for the end of its input, which comes with the end of the session, of this process, or of
the link, and looks every few seconds whether that process still lives, because a link that was cut without a word never
ends here. Then it switches the mode off again. Where it could not, as on a phone that lost its power, the next session
finds a marker in the work folder and switches the mode off.
Nothing is changed on other devices: governors and the like need rights that a measurement should not ask for.
"""

from __future__ import annotations

from collections.abc import Callable

from device_agents.device import Device
from device_agents.errors import TransportError
from device_agents.transport import RemoteProcess, Transport

_SWITCH_S = 30.0
_END_S = 10.0
# Android's sh is mksh. Its read says the same of an end of input as of a time that is over: what tells them apart is
# how long it took. The hang-up of a closed link must not end the script before it has put the mode back.
_KEEP = """
trap '' HUP INT TERM
cd "$1" || exit 1
before=''
{ read -r before <fixed-performance; } 2>/dev/null
case $before in
    *[!0-9]* | '') ;;
    # one that a cut link has left; since a restart its number may be another process's
    *) grep -q fixed-performance "/proc/$before/cmdline" 2>/dev/null && kill -9 "$before" 2>/dev/null ;;
esac
echo $$ >fixed-performance || exit 1  # a later session leaves the mode to us while this process lives
if ! cmd power set-fixed-performance-mode-enabled true </dev/null >/dev/null 2>&1; then
    rm -f fixed-performance
    exit 1
fi
echo on
while kill -0 "$2" 2>/dev/null; do
    began=$SECONDS
    read -r -t 5 line && continue
    took=$((SECONDS - began))
    [ $took -ge 4 ] || [ $took -lt 0 ] || break
done
cmd power set-fixed-performance-mode-enabled false </dev/null >/dev/null 2>&1 && rm -f fixed-performance
"""


class Steadiness:
    """The fixed-performance mode of a phone; on other devices, and where it is not offered, nothing happens."""

    def __init__(self, device: Device, transport: Transport, note: Callable[[str], None]) -> None:
        self._device, self._transport, self._note = device, transport, note
        self._keeper: RemoteProcess | None = None
        self._offered = device.system == "android"

    def hold(self, pid: int) -> None:
        """Switch the mode on for as long as a process on the device lives, at most until `release`.

        The work folder must be there, and its lock be this session's. Raises TransportError.
        """
        if not self._offered:
            return
        keeper = self._transport.stream(["sh", "-c", _KEEP, "sh", self._device.work_dir, str(pid)])
        self._keeper = keeper
        if keeper.read_line(_SWITCH_S) != b"on":
            self._offered = False
            self._note(f"{self._device.name}: no fixed-performance mode; its clocks will move while it is measured")

    def release(self) -> None:
        """Switch the mode off, and wait until it is; on a link that is lost the phone does it by itself."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        try:
            keeper.close_stdin()
            keeper.wait(_END_S)
        except TransportError:
            keeper.kill()
