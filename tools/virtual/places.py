"""Where everything of the virtual devices lies, and the errors and commands that all of them share."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
FILES = HERE / "files"
STATE_VARIABLE = "EDGEKD_VIRTUAL_DEVICES"
DEFAULT_STATE = Path("build") / "virtual_devices"
_TAIL_CHARACTERS = 600


class VirtualDeviceError(Exception):
    """Something that keeps the devices from working; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one set of devices; another state folder is another set, which may run beside it."""

    state: Path

    @staticmethod
    def from_environment() -> Places:
        """Take the folder that the environment names, else the repository's build folder."""
        named = os.environ.get(STATE_VARIABLE)
        return Places(Path(named).absolute() if named else REPOSITORY / DEFAULT_STATE)

    @property
    def tag(self) -> str:
        """Name this set in namespaces and links, so that it is found again without any file."""
        return hashlib.sha256(str(self.state).encode()).hexdigest()[:6]

    @property
    def keys(self) -> Path:
        """The folder of all private keys."""
        return self.state / "keys"

    @property
    def known_hosts(self) -> Path:
        """The SSH devices' keys, as an SSH client reads them."""
        return self.state / "known_hosts"

    @property
    def listing(self) -> Path:
        """What runs, for programs."""
        return self.state / "virtual_devices.json"

    @property
    def devices_toml(self) -> Path:
        """What runs, for the product's EDGEKD_DEVICES."""
        return self.state / "devices.toml"

    def device(self, name: str) -> Path:
        """Return the folder of one device."""
        return self.state / "devices" / name

    def file_system(self, name: str) -> Path:
        """Return the folder that is a device's root directory, apart from what is mounted inside it."""
        return self.device(name) / "root"

    def control(self, name: str) -> Path:
        """Return the folder of files that a test changes to change the device's state."""
        return self.file_system(name) / "virtual"


def say(text: str) -> None:
    """Tell the person at the terminal what goes on."""
    print(f"virtual_devices: {text}", file=sys.stderr, flush=True)


def run(argv: Sequence[str | Path], what: str) -> str:
    """Run a command of the host and return its output. Raises VirtualDeviceError with the end of what it wrote."""
    command = [str(part) for part in argv]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        tail = (done.stderr.strip() or done.stdout.strip())[-_TAIL_CHARACTERS:]
        raise VirtualDeviceError(f"{what} failed: {argv[0]} ended with {done.returncode}: {tail}")
    return done.stdout
