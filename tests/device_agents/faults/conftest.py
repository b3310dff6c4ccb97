"""The devices that the tests of faults break, each left clean by every test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_peers import RealServer, adb_server  # noqa: F401 - the last one is a fixture
from fault_devices import TARGET_NAME, FaultyDevice, entry_of
from virtual import VirtualDevices

SSH, ADB, ADB_SERVER = "virtual-sshd", "virtual-adbd", "virtual-adbd by adb server"


@pytest.fixture(params=[SSH, ADB], ids=["ssh", "adb"])
def device(
    request: pytest.FixtureRequest, virtual_devices: VirtualDevices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyDevice]:
    """A device over one way, idle before and after, with no file of ours outside its work folder."""
    name = str(request.param).split(" ", maxsplit=1)[0]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(_server_port(request)))
    monkeypatch.setenv("EDGEKD_DEVICES", str(tmp_path / "devices.toml"))
    device = FaultyDevice(
        virtual_devices,
        name,
        sys.executable if name == SSH else "python3",
        tmp_path / "device"
        if name == SSH
        else Path(entry_of(virtual_devices, name)["root"]) / "data/local/tmp" / tmp_path.name,
        tmp_path / "devices.toml",
    )
    device.scratch.mkdir()
    device.scratch.chmod(0o755)  # the device's user is another
    _name(device)
    before = device.files()
    try:
        yield device
        device.wait_until_idle()
        assert device.files() == before
    finally:
        for pid in device.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(device.scratch)
        shutil.rmtree(device.work, ignore_errors=True)


def _server_port(request: pytest.FixtureRequest) -> int:
    if request.param == ADB_SERVER:
        server: RealServer = request.getfixturevalue("adb_server")
        return server.address.port
    taken = socket.socket()  # bound, so that nobody else takes the port, and deaf: who connects is refused
    taken.bind(("127.0.0.1", 0))
    request.addfinalizer(taken.close)
    return int(taken.getsockname()[1])


def _name(device: FaultyDevice) -> None:
    lines = [f"[{TARGET_NAME}]", f'address = "{device.entry["address"]}"', f'python = "{device.python}"']
    if device.entry["transport"] == "ssh":
        state = device.virtual.state
        lines += [f'key = "{state}/keys/id_ed25519"', f'known_hosts = "{state}/known_hosts"']
    device.toml.write_text("\n".join([*lines, 'engine = "python"', ""]), encoding="utf-8")
