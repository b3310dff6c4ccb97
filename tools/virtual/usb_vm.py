"""A virtual machine that checks ADB over real USB, with a phone's adbd and its host in one: `python -m virtual.usb_vm`.

Its kernel loops a USB device controller back to its own USB bus. It is emulated, so that it needs no rights of a
hypervisor, and takes half a minute. What it saw is printed as one line of JSON (files/usb_vm/usb_check.py says what);
nothing is judged here. The image is built once, into the state folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from virtual.building import DIES_WITH_US, alone
from virtual.cpio import Archive
from virtual.packages import ready_machine_host
from virtual.places import FILES, REPOSITORY, Places, VirtualDeviceError, say
from virtual.usb_image import UsbImage, usb_image

_FILES = FILES / "usb_vm"
_PRODUCT = "device_agents"
_LIMIT_S = 300.0  # many times what it takes
_TAIL_CHARACTERS = 3000
_MACHINE = ("-machine", "pc,accel=tcg", "-cpu", "max", "-m", "640", "-nodefaults", "-display", "none", "-no-reboot")
# a kernel that guards nothing against its own programs is faster under emulation
_KERNEL = "console=ttyS0 quiet panic=-1 mitigations=off rdinit=/check/init"


def check_usb(places: Places) -> dict[str, Any]:
    """Run the check in the machine and return what it saw. Raises VirtualDeviceError with the end of its console."""
    ready_machine_host()
    folder = places.state / "usb_vm"
    with alone(folder):  # the machine is slow enough without a second one
        image = usb_image(folder)
        running = folder / "running"
        shutil.rmtree(running, ignore_errors=True)
        running.mkdir()
        try:
            return _run(image, running)
        finally:
            shutil.rmtree(running)


def _run(image: UsbImage, folder: Path) -> dict[str, Any]:
    first_files, console, result = (folder / name for name in ("first_files", "console", "result"))
    shutil.copyfile(image.archive, first_files)
    with first_files.open("ab") as sink:
        _add_product(Archive(sink))
    argv: list[str | Path] = [
        *DIES_WITH_US,
        "qemu-system-x86_64",
        *_MACHINE,
        "-kernel",
        image.kernel,
        "-initrd",
        first_files,
    ]
    argv += ["-append", _KERNEL, "-serial", f"file:{console}", "-serial", f"file:{result}"]
    try:
        subprocess.run(argv, check=True, timeout=_LIMIT_S, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    except subprocess.SubprocessError as error:
        raise VirtualDeviceError(f"the virtual machine failed: {error}; its console: {_tail(console)}") from error
    try:
        seen: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VirtualDeviceError(f"the check in the virtual machine failed; its console: {_tail(console)}") from error
    say(_tail(console))
    return seen


def _add_product(archive: Archive) -> None:
    product = REPOSITORY / _PRODUCT
    for path in sorted(product.rglob("*.py")):
        archive.add_program(path, f"product/{_PRODUCT}/{path.relative_to(product)}")
    for path in sorted(_FILES.iterdir()):
        if path.is_file():
            archive.add_program(path, f"check/{path.name}")
    archive.close()


def _tail(console: Path) -> str:
    return console.read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARACTERS:] if console.exists() else ""


def main() -> int:
    """Print what was seen; give the exit code."""
    try:
        print(json.dumps(check_usb(Places.from_environment())))
    except (VirtualDeviceError, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
