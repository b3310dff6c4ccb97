"""The fixture `virtual_devices`: real daemons on virtual devices, started by tools/virtual_devices for a test session.

Tests that ask for it bear the marker `devices`. Devices that ran before are used and left running; others end with the
last test process that uses them.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from requirements import require

TOOL = Path(__file__).resolve().parents[1] / "tools" / "virtual_devices"
STATE = "EDGEKD_VIRTUAL_DEVICES"
TOOL_SECONDS = 600.0  # the first start builds root folders


@dataclass(frozen=True, slots=True)
class VirtualDevices:
    """The running devices of one state folder; every name is one of tools/virtual_devices list."""

    state: Path

    @property
    def devices_toml(self) -> Path:
        """The file for EDGEKD_DEVICES."""
        return self.state / "devices.toml"

    @property
    def ssh_config(self) -> Path:
        """The file for `ssh -F`, which knows the SSH devices by name."""
        return self.state / "ssh_config"

    @property
    def listing(self) -> dict[str, Any]:
        """What `list --format json` says now."""
        listing: dict[str, Any] = json.loads(self.tool("list", "--format", "json"))
        return listing

    def entry(self, name: str) -> dict[str, Any]:
        """What the listing says of one device."""
        found: dict[str, Any] = next(entry for entry in self.listing["devices"] if entry["name"] == name)
        return found

    def address(self, name: str) -> str:
        """A device's address, as edgekd takes it."""
        return str(self.entry(name)["address"])

    def root(self, name: str) -> Path:
        """The folder of the host that is a device's root directory, apart from Debian's /usr, /proc and /dev."""
        return Path(self.entry(name)["root"])

    def work(self, name: str) -> Path:
        """A device's work folder, as the host sees it."""
        entry = self.entry(name)
        return Path(entry["root"]) / str(entry["work"]).lstrip("/")

    def control(self, name: str, key: str, value: str) -> None:
        """Change a device's state: battery_temp, throttled, governor and the like; files are written in place."""
        path = Path(self.entry(name)["control"]) / key
        content = f"{value}\n".encode()
        with path.open("r+b", buffering=0) as file:  # a reader never sees it empty, as truncating first would show it
            file.write(content)
            file.truncate(len(content))

    def state_of(self, name: str, key: str) -> str:
        """Read a device's state, and what its stand-ins recorded."""
        return (Path(self.entry(name)["control"]) / key).read_text(encoding="utf-8").strip()

    def cut(self, name: str) -> None:
        """Pull a device's network cable."""
        self.tool("cut", name)

    def mend(self, name: str) -> None:
        """Put a device's network cable back."""
        self.tool("mend", name)

    def kill_daemon(self, name: str) -> None:
        """Kill a device's daemon and its sessions, as a crash does; `restart` brings it back."""
        self.tool("kill", name)

    def restart(self, name: str) -> None:
        """Start a device's daemon where it has ended, and wait until it answers."""
        self.tool("restart", name)

    def tool(self, *arguments: str) -> str:
        """Run tools/virtual_devices on this state folder and return what it printed."""
        command = [sys.executable, str(TOOL), *arguments]
        environment = {**os.environ, STATE: str(self.state)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
        assert done.returncode == 0, f"virtual_devices {' '.join(arguments)}: {done.stderr}"
        return done.stdout


def state_folder() -> Path:
    """The folder that tools/virtual_devices uses by itself."""
    named = os.environ.get(STATE)
    return Path(named).absolute() if named else TOOL.parent.parent / "build" / "virtual_devices"


@pytest.fixture(scope="session")
def virtual_devices() -> Iterator[VirtualDevices]:
    """Start the virtual devices, or use those that run; left out where this user may not make network namespaces."""
    require(sys.platform == "linux" and os.geteuid() == 0, "virtual devices need Linux and root")
    devices = VirtualDevices(state_folder())
    devices.state.mkdir(parents=True, exist_ok=True)
    ours = devices.state / "started-by-tests"  # there while the running devices are the tests' to end
    with (devices.state / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        if not devices.listing["devices"]:
            ours.touch()
        devices.tool("up")
        yield devices
        fcntl.flock(users, fcntl.LOCK_UN)
        if ours.exists() and _is_last(users.fileno()):
            devices.tool("down")
            ours.unlink()


def _is_last(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
