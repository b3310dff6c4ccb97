"""What the host must have: programs from Debian's packages, and arm64 programs that run by themselves.

Where this process may, it installs what is missing; otherwise it says which packages to install.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from virtual.kinds import Kind
from virtual.places import VirtualDeviceError, run, say

_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
_ALWAYS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}
_ROOTS = {"mmdebstrap": "mmdebstrap", "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"}
_EMULATION = {"qemu-aarch64-static": "qemu-user-static", "update-binfmts": "binfmt-support"}
_SSH = {"sshd": "openssh-server", "ssh-keygen": "openssh-client", "ssh": "openssh-client"}
_ADB = {"adb": "adb"}
_MACHINE = {"qemu-system-x86_64": "qemu-system-x86", "setpriv": "util-linux", "unshare": "util-linux"}
_COMPILER = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "/usr/aarch64-linux-gnu/include/stdio.h": "libc6-dev-arm64-cross",
}

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ARM64 = _BINFMT / "qemu-aarch64"
# the first bytes of every aarch64 ELF program, and which bits of them count; F keeps the emulator open across chroots
_REGISTRATION = (
    rb":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:F"
)


def program(name: str) -> str | None:
    """Find a program, in the administrator's folders too."""
    return name if name.startswith("/") and Path(name).exists() else shutil.which(name, path=_PATH)


def ready_host(kinds: Iterable[Kind]) -> None:
    """Install and register what these devices need. Raises VirtualDeviceError naming what is missing."""
    if os.geteuid() != 0:
        raise VirtualDeviceError("network namespaces and mounts need root; run this as root, or with sudo")
    _ready_programs(_needed(list(kinds)))
    if any(kind.arch == "arm64" for kind in kinds) and platform.machine() != "aarch64":
        _register_emulator()


def ready_machine_host() -> None:
    """Install what a virtual machine needs and its image is built with. Raises VirtualDeviceError."""
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        raise VirtualDeviceError("the virtual machine's image is built by root on an x86-64 machine")
    _ready_programs(_ROOTS | _MACHINE)


def _ready_programs(needed: Mapping[str, str]) -> None:
    missing = sorted({package for name, package in needed.items() if program(name) is None})
    if missing:
        _install(missing)


def _needed(kinds: list[Kind]) -> dict[str, str]:
    needed = dict(_ALWAYS)
    if any(kind.arch != "host" for kind in kinds):
        needed |= _ROOTS
    if any(kind.arch == "arm64" for kind in kinds):
        needed |= _EMULATION | _COMPILER
    for kind in kinds:
        needed |= _ADB if kind.android else _SSH
    return needed


def _install(missing: list[str]) -> None:
    if shutil.which("apt-get") is None:
        raise VirtualDeviceError(f"install these packages and run this again: {' '.join(missing)}")
    say(f"installing the system packages {' '.join(missing)}")
    run(["apt-get", "update"], "reading Debian's package lists")
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"]
    run([*install, *missing], f"installing {' '.join(missing)}")


def _register_emulator() -> None:
    if not (_BINFMT / "register").exists():
        run(["mount", "-t", "binfmt_misc", "none", _BINFMT], "mounting binfmt_misc")
    if not _ARM64.exists():
        enable = [program("update-binfmts") or "update-binfmts", "--enable", "qemu-aarch64"]
        subprocess.run(enable, capture_output=True, check=False)  # what it could not do is done by hand
    if not _ARM64.exists():
        emulator = program("qemu-aarch64-static") or ""
        (_BINFMT / "register").write_bytes(_REGISTRATION % os.fsencode(emulator))
    flags = _ARM64.read_text(encoding="ascii").partition("flags:")[2].split("\n")[0]
    if "F" not in flags:
        raise VirtualDeviceError(
            f"{_ARM64} is registered without the flag F, so the emulator is not found inside a device; "
            f"unregister it (echo -1 > {_ARM64}) and run this again"
        )
