"""The image of the virtual machine for USB: Debian's kernel, and what its first file system begins with.

That is Google's adbd and adb, Python with adb-shell and libusb, and the kernel's modules for a USB device controller
whose other end is the same machine's USB bus. Read next: `usb_vm.py`, which adds the product and runs it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from virtual.building import DIES_WITH_US, SUITE, built, pip, remove_unfinished_in
from virtual.cpio import Archive
from virtual.places import REPOSITORY, run, say

_PACKAGES = (
    *("adb", "adbd", "base-files", "busybox-static", "libstdc++6", "libusb-1.0-0", "linux-image-amd64", "python3"),
    "tiny-initramfs",  # the smallest of those that a kernel's package wants; it is never run
)
_MODULES = "/usr/lib/modules/*/kernel"
_OPTIONS = (
    *(f"path-exclude={path}/*" for path in ("/usr/share", "/var", "/usr/lib/systemd", "/usr/lib/python3.13/test")),
    *(f"path-exclude=/usr/lib/x86_64-linux-gnu/{path}/*" for path in ("gconv", "perl*")),
    *(f"path-exclude={_MODULES}/*", f"path-include={_MODULES}/drivers/usb/*", f"path-include={_MODULES}/fs/configfs/*"),
)
_WHEELS = ("adb_shell", "libusb1")
_USED = "collections ctypes encodings importlib json logging pathlib re"  # packages of Python's own
_FINISH = (  # what the packages' own scripts would do; under emulation Python would take long to compile at every start
    f'set -e; depmod "$(ls /usr/lib/modules)"; cd /usr/lib/python3.13; python3 -m compileall -q -l . {_USED}; '
    "python3 -m compileall -q /wheels"
)


@dataclass(frozen=True, slots=True)
class UsbImage:
    """A kernel, and the archive that is the beginning of its first file system."""

    kernel: Path
    archive: Path


def usb_image(folder: Path) -> UsbImage:
    """Build the image into a folder where nobody else builds, or take it from there. Raises VirtualDeviceError."""
    remove_unfinished_in(folder)
    options = [f"--dpkgopt={option}" for option in _OPTIONS]
    root = ["mmdebstrap", "--quiet", "--variant=extract", "--arch=amd64", f"--include={','.join(_PACKAGES)}", *options]
    constraints = REPOSITORY / "constraints.txt"
    recipe = [*root, SUITE, *_WHEELS, _FINISH, *_pins(constraints)]

    def build(making: Path) -> None:
        say(f"building a virtual machine of Debian {SUITE}")
        files = making / "root"
        run([*DIES_WITH_US, *root, SUITE, files], "building the virtual machine's files")
        quick = ["--disable-pip-version-check", "--quiet", "--no-deps", "--no-compile"]
        install = [*pip(), "install", *quick, "--constraint", constraints, "--target", files / "wheels", *_WHEELS]
        run([*DIES_WITH_US, *install], f"fetching {' and '.join(_WHEELS)}")
        run([*DIES_WITH_US, "chroot", files, "busybox", "sh", "-c", _FINISH], "finishing the virtual machine's files")
        _pack(files, _of(making))

    image = built(folder, "image", recipe, build)
    for other in set(folder.glob("image-*")) - {image}:
        shutil.rmtree(other)
    return _of(image)


def _pins(constraints: Path) -> list[str]:
    lines = constraints.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(_WHEELS)]


def _of(folder: Path) -> UsbImage:
    return UsbImage(folder / "kernel", folder / "archive.cpio")


def _pack(files: Path, image: UsbImage) -> None:
    (kernel,) = (files / "boot").glob("vmlinuz-*")
    kernel.rename(image.kernel)
    shutil.rmtree(files / "boot")
    with image.archive.open("wb") as sink:
        archive = Archive(sink)
        archive.add_tree(files, "")
        archive.close()
    shutil.rmtree(files)
