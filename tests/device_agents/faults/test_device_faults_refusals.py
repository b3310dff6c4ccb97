"""Devices that cannot be measured any more: a full disk, another host key, a phone that does not let us in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_fakes import Fake, Line, Script, fake  # noqa: F401 - `fake` is a fixture
from fault_commands import Command, command_line
from fault_devices import QUICK, FaultyDevice, meanwhile
from model_shelf import ModelShelf
from transports import write_key

from device_agents.errors import HostKeyRefused

pytestmark = pytest.mark.devices
SMALL_BYTES, LARGE_BYTES = 1 << 19, 1 << 21


@contextlib.contextmanager
def small_disk(device: FaultyDevice) -> Iterator[None]:
    """Let the parent of the work folder be a disk of SMALL_BYTES, empty at first."""
    parent = device.work.parent
    parent.mkdir(parents=True, exist_ok=True)
    owner = parent.stat()
    options = f"size={SMALL_BYTES},mode=0771,uid={owner.st_uid},gid={owner.st_gid}"
    device.inside("mount", "-t", "tmpfs", "-o", options, "edgekd-test", str(parent))
    try:
        yield
    finally:
        device.inside("umount", str(parent))


def test_a_full_disk_is_said_and_left_as_it_was(device: FaultyDevice) -> None:
    """Where a model has no room the message says so in one line, and no half of it stays."""
    model = device.toml.parent / "large.tflite"
    model.write_bytes(b"\0\0\0\0TFL3" + os.urandom(LARGE_BYTES))
    with small_disk(device):
        command = device.command("bench", str(model))
        assert command.ends() == 3, command.stderr
        left = device.inside("find", str(device.work), "-type", "f").splitlines()
    assert "space" in command.last_line.lower(), command.stderr
    assert len(command.stderr.splitlines()) < 5, command.stderr
    assert not [path for path in left if ".part" in path or hashlib.sha256(model.read_bytes()).hexdigest() in path]


@contextlib.contextmanager
def another_host_key(device: FaultyDevice, folder: Path) -> Iterator[None]:
    """Start the SSH server anew with another key, for the block."""
    key = device.virtual.state / "keys" / f"{device.name}_host_ed25519"
    kept = folder / "kept"
    device.virtual.kill_daemon(device.name)
    shutil.copy(key, kept)
    try:
        write_key(folder / "other")
        key.write_bytes((folder / "other").read_bytes())
        device.virtual.restart(device.name)
        yield
    finally:
        device.virtual.kill_daemon(device.name)
        key.write_bytes(kept.read_bytes())
        device.virtual.restart(device.name)


@pytest.mark.parametrize("device", ["virtual-sshd"], ids=["ssh"], indirect=True)
def test_a_host_key_that_changes_is_refused(device: FaultyDevice, shelf: ModelShelf, tmp_path: Path) -> None:
    """In mid-batch as at the start: whoever answers there now is not spoken to."""
    gate, rows = device.gate(), []
    jobs = [shelf.job("a", "burn 10"), shelf.job("gate", gate.model), shelf.job("b", "burn 11")]
    with contextlib.ExitStack() as stack:

        def change() -> None:
            gate.meet()
            stack.enter_context(another_host_key(device, tmp_path))

        with pytest.raises(HostKeyRefused, match="changed"), meanwhile(change):  # noqa: SIM117 - in this order
            with device.session() as session:
                rows.extend(session.measure(jobs, shelf.models, QUICK))
        command = device.command("bench", str(_any_model(tmp_path)))
        assert command.ends() == 3, command.stderr
    assert "changed" in command.last_line
    device.wait_until_idle()


# --- phones that do not let us in -------------------------------------------------------------------------------------


def adb_server(state: str, refusal: str) -> Script:
    """Play an adb server that knows one device in some state and refuses to reach it."""

    def play(line: Line) -> None:
        request = line.request()
        if request == "host:version":
            line.okay("0029")
        elif request.startswith("host:devices"):
            line.okay(f"0123456789ABCDEF       {state} usb:1-1 product:flame transport_id:1\n")
        else:
            line.fail(refusal)

    return play


@pytest.mark.parametrize(
    ("state", "refusal", "advice"),
    [
        ("unauthorized", "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "accept"),
        ("offline", "device offline", "unplug|reconnect|again"),
    ],
)
@pytest.mark.parametrize("name", ["0123456789ABCDEF", "adb://0123456789ABCDEF", "pixel4"])
def test_a_phone_that_does_not_let_us_in_says_what_to_do(
    state: str,
    refusal: str,
    advice: str,
    name: str,
    fake: Callable[[Script], Fake],  # noqa: F811 - a fixture's name
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By serial, address or kind: one line with the state and the way out of it."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(fake(adb_server(state, refusal)).port))
    (tmp_path / "devices.toml").touch()  # no device has a name
    monkeypatch.setenv("EDGEKD_DEVICES", str(tmp_path / "devices.toml"))
    command = Command(command_line("bench", str(_any_model(tmp_path)), "--device", name), tmp_path)
    assert command.ends() == 3, command.stderr
    assert len(command.stderr.splitlines()) == 1
    assert re.search(advice, command.last_line), command.last_line


def _any_model(folder: Path) -> Path:
    path = folder / "any.tflite"
    path.write_bytes(b"\0\0\0\0TFL3")
    return path
