"""Which virtual devices there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from virtual.places import VirtualDeviceError

Arch = Literal["arm64", "amd64", "host"]
ANDROID_WORK = "/data/local/tmp/edgekd"
SHELL_UID = 2000  # Android's user `shell`, whom `adb shell` runs as
PI_UID = 1000


@dataclass(frozen=True, slots=True)
class Kind:
    """One device: number is its place in the address range, files the folder of its stand-ins, user who logs in."""

    name: str
    number: int
    transport: Literal["adb", "ssh"]
    arch: Arch
    files: str
    port: int
    user: str
    python: str  # as the device's shell finds it; "" is out of reach
    cpu: str = ""  # for the emulator, whose own choice computes int8 convolutions wrongly; "" is not emulated

    @property
    def android(self) -> bool:
        """Tell whether the device has Android's folders and programs."""
        return self.transport == "adb"


KINDS = (
    Kind("virtual-sshd", 0, "ssh", "host", "", 2222, "root", "python3"),
    Kind("virtual-adbd", 1, "adb", "amd64", "emulator", 5555, "shell", "python3"),
    Kind("virtual-pixel4", 2, "adb", "arm64", "pixel4", 5555, "shell", "", "cortex-a76"),
    Kind("virtual-pixel4-python", 3, "adb", "arm64", "pixel4", 5555, "shell", "python3", "cortex-a76"),
    Kind("virtual-rpi4", 4, "ssh", "arm64", "rpi4", 22, "pi", "python3", "cortex-a72"),
)


def kinds_named(names: list[str]) -> tuple[Kind, ...]:
    """Return the kinds of these names, or all for none. Raises VirtualDeviceError for an unknown name."""
    known = {kind.name: kind for kind in KINDS}
    for name in names:
        if name not in known:
            raise VirtualDeviceError(f"there is no virtual device {name!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) if names else KINDS
