"""Folders that are built once, kept, and built anew when their recipe changes; and what all builders share.

A folder's name holds a hash of its recipe, and it gets that name when it is complete, so that an interrupted build is
never used. Read next: `rootfs.py` and `usb_image.py`, which build.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from virtual.places import REPOSITORY, VirtualDeviceError

# a builder and all that it started end with this program, however that ends, and its mounts are its own
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
SUITE = "trixie"  # the first Debian with adbd


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else builds in a folder, which sets of devices may share by a link, and keep others out."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def built(parent: Path, name: str, recipe: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Return the folder of a recipe, which `build` fills when it is not there."""
    stamp = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    folder = parent / f"{name}-{stamp}"
    if not folder.exists():
        making = folder.with_name(f".making-{name}")
        making.mkdir(parents=True)
        build(making)
        making.chmod(0o755)
        making.rename(folder)
    return folder


def remove_unfinished_in(parent: Path) -> None:
    """Remove what interrupted builds left, with others kept out."""
    for left in parent.glob(".making-*"):
        shutil.rmtree(left)


def pip() -> list[str | Path]:
    """Return the beginning of a command line of pip. Raises VirtualDeviceError when there is none."""
    for python in (Path(sys.executable), REPOSITORY / ".venv" / "bin" / "python"):
        argv: list[str | Path] = [python, "-m", "pip"]
        if python.exists() and subprocess.run([*argv, "--version"], capture_output=True, check=False).returncode == 0:
            return argv
    raise VirtualDeviceError(f"{sys.executable} has no pip to fetch the devices' wheels with; install python3-pip")
