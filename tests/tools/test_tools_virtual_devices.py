"""tools/virtual_devices: real daemons that answer as phones and boards do, and that leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from virtual import STATE, TOOL, VirtualDevices

pytestmark = pytest.mark.devices

NAMES = ["virtual-sshd", "virtual-adbd", "virtual-pixel4", "virtual-pixel4-python", "virtual-rpi4"]
ANDROID = ["virtual-adbd", "virtual-pixel4", "virtual-pixel4-python"]
SECONDS = 120.0  # emulated commands on a busy machine
NO_ANSWER_SECONDS = 1.0  # a cut cable is told from a slow one by what follows when it is mended

Shell = Callable[[str, str], str]

# weights and inputs are the host's; the result is told with all its digits
INFER = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
(given,) = interpreter.get_input_details()
count = int(np.prod(given["shape"]))
interpreter.set_tensor(given["index"], np.linspace(-1, 1, count, dtype=np.float32).reshape(given["shape"]))
interpreter.invoke()
(out,) = interpreter.get_output_details()
print(" ".join(repr(float(x)) for x in interpreter.get_tensor(out["index"]).ravel()))
"""


@pytest.fixture(scope="module")
def adb(virtual_devices: VirtualDevices) -> Iterator[Shell]:
    """Google's client, with a server of its own, connected to all phones: (device, command) → output."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def call(*arguments: str) -> str:
        command = ["adb", "-P", port, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False).stdout

    serials = {name: virtual_devices.address(name).removeprefix("adb://") for name in ANDROID}
    for serial in serials.values():
        assert "connected to" in call("connect", serial)
    yield lambda name, line: call("-s", serials[name], "shell", line).strip()
    call("kill-server")


@pytest.fixture(scope="module")
def ssh(virtual_devices: VirtualDevices) -> Shell:
    """OpenSSH's client: (device, command) → output."""

    def call(name: str, line: str) -> str:
        command = ["ssh", "-F", str(virtual_devices.ssh_config), name, line]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout.strip()

    return call


def endpoint(devices: VirtualDevices, name: str) -> tuple[str, int]:
    entry = devices.entry(name)
    return entry["host"], entry["port"]


def test_all_devices_run_and_are_listed_for_the_product(virtual_devices: VirtualDevices) -> None:
    """The listing and devices.toml tell of the same devices and addresses, and each has a daemon."""
    entries = virtual_devices.listing["devices"]
    assert [entry["name"] for entry in entries] == NAMES
    assert all(entry["daemon_pids"] for entry in entries)
    tables = tomllib.loads(virtual_devices.devices_toml.read_text(encoding="utf-8"))
    assert {name: table["address"] for name, table in tables.items()} == {
        entry["name"]: entry["address"] for entry in entries
    }


def test_a_second_up_leaves_running_devices_alone(virtual_devices: VirtualDevices) -> None:
    """Daemons that answer are not started anew."""
    before = [entry["daemon_pids"][0] for entry in virtual_devices.listing["devices"]]
    virtual_devices.tool("up")
    assert [entry["daemon_pids"][0] for entry in virtual_devices.listing["devices"]] == before


@pytest.mark.parametrize("name", ["virtual-pixel4", "virtual-pixel4-python"])
def test_a_pixel_says_what_it_is(adb: Shell, name: str) -> None:
    """Google's own client finds a Pixel 4 with Android 13, as the unprivileged user of a phone's shell."""
    line = "getprop ro.product.model; getprop ro.build.version.sdk; getprop no.such.property none; uname -m; id -un"
    assert adb(name, line).splitlines() == ["Pixel 4", "33", "none", "aarch64", "shell"]
    capacities = adb(name, "cat /sys/devices/system/cpu/cpu*/cpu_capacity").split()
    assert capacities == ["261"] * 4 + ["871"] * 3 + ["1024"]


@pytest.mark.parametrize("name", ["virtual-pixel4", "virtual-pixel4-python"])
def test_an_emulated_phone_is_served_by_a_native_daemon(virtual_devices: VirtualDevices, name: str) -> None:
    """What the phone runs is emulated (`uname` above), and its adbd, which forks beside other threads, is not."""
    (daemon,) = virtual_devices.entry(name)["daemon_pids"]
    assert "qemu" not in Path(f"/proc/{daemon}/exe").readlink().name


def test_python_is_out_of_reach_of_a_plain_phone(adb: Shell) -> None:
    """No Python runs on virtual-pixel4, by name or by path; the other two phones have one."""
    line = "for p in python3 /usr/bin/python3 /usr/bin/python3.13; do $p -c 'print(42)'; done 2>/dev/null; true"
    assert adb("virtual-pixel4", line) == ""
    assert adb("virtual-pixel4-python", "python3 -c 'print(42)'") == "42"
    assert adb("virtual-adbd", "python3 -c 'print(42)'") == "42"


def test_a_phones_services_tell_what_a_test_sets(virtual_devices: VirtualDevices, adb: Shell) -> None:
    """Heat, throttling and a dark screen are injected while the phone runs."""
    name, before = "virtual-pixel4", {}
    for key, value in {"battery_temp": "431", "thermal_status": "3", "screen": "Asleep"}.items():
        before[key] = virtual_devices.state_of(name, key)
        virtual_devices.control(name, key, value)
    try:
        battery = adb(name, "dumpsys battery").splitlines()
        thermal = adb(name, "dumpsys thermalservice").splitlines()
        assert "  temperature: 431" in battery
        assert "Thermal Status: 3" in thermal
        assert "\tTemperature{mValue=43.1, mType=2, mName=battery, mStatus=0}" in thermal
        assert "Display Power: state=OFF" in adb(name, "dumpsys power").splitlines()
    finally:
        for key, value in before.items():
            virtual_devices.control(name, key, value)


def test_fixed_performance_is_recorded_where_a_test_can_read_it(virtual_devices: VirtualDevices, adb: Shell) -> None:
    """What `cmd power` is told is seen on the host, and a phone without the mode says so and keeps its state."""
    name = "virtual-pixel4"
    for wanted in ("true", "false"):
        assert adb(name, f"cmd power set-fixed-performance-mode-enabled {wanted}") == ""
        assert virtual_devices.state_of(name, "fixed_performance") == wanted
    virtual_devices.control(name, "fixed_performance_supported", "false")
    try:
        assert "Failed" in adb(name, "cmd power set-fixed-performance-mode-enabled true 2>&1; true")
        assert virtual_devices.state_of(name, "fixed_performance") == "false"
    finally:
        virtual_devices.control(name, "fixed_performance_supported", "true")


def test_settings_keep_what_is_put(adb: Shell) -> None:
    """A setting that was put is got, one that was deleted is null, and its neighbour stays."""
    line = "settings put global a 1; settings put global b 2; settings delete global a; settings get global a"
    assert adb("virtual-adbd", f"{line}; settings get global b").splitlines() == ["null", "2"]


def test_a_board_says_what_it_is(virtual_devices: VirtualDevices, ssh: Shell) -> None:
    """An unprivileged login finds a Raspberry Pi 4, and vcgencmd and /sys tell of a throttling that a test sets."""
    name = "virtual-rpi4"
    virtual_devices.control(name, "throttled", "50005")
    virtual_devices.control(name, "soc_temp", "81300")
    try:
        line = (
            "id -un; uname -m; tr -d '\\0' </sys/firmware/devicetree/base/model; echo; vcgencmd get_throttled; "
            "vcgencmd measure_temp; cat /sys/devices/system/cpu/cpu3/cpufreq/scaling_governor; "
            "cat /sys/devices/platform/soc/soc:firmware/get_throttled"
        )
        assert ssh(name, line).splitlines() == [
            *("pi", "aarch64", "Raspberry Pi 4 Model B Rev 1.4"),
            *("throttled=0x50005", "temp=81.3'C", "ondemand", "50005"),
        ]
    finally:
        virtual_devices.control(name, "throttled", "0")
        virtual_devices.control(name, "soc_temp", "47225")


def test_litert_computes_on_the_board_what_it_computes_here(
    virtual_devices: VirtualDevices, ssh: Shell, tmp_path: Path
) -> None:
    """An inference by the board's Python and LiteRT gives the host's numbers."""
    from edgekd.graph.micro import micro_model
    from edgekd.profile import all_ops
    from edgekd.spaces.mnasnet import space_named

    operator = next(op for op in all_ops(space_named("mnasnet-28-narrow")) if op.dtype == "float32")
    model, script = tmp_path / "model.tflite", tmp_path / "infer.py"
    model.write_bytes(micro_model(operator))
    script.write_text(INFER, encoding="utf-8")
    here = subprocess.run([sys.executable, script, model], capture_output=True, text=True, check=True).stdout
    folder = virtual_devices.root("virtual-rpi4") / "tmp"
    for path in (model, script):
        (folder / path.name).write_bytes(path.read_bytes())
    there = ssh("virtual-rpi4", "python3 /tmp/infer.py /tmp/model.tflite")
    numbers = [np.array(text.split(), dtype=np.float64) for text in (there, here)]
    assert numbers[0].size > 0
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-4, atol=1e-5)


def test_a_cut_link_is_silent_and_a_mended_one_goes_on(virtual_devices: VirtualDevices) -> None:
    """Nothing answers while the cable is out, and a new connection works once it is back."""
    name = "virtual-sshd"
    where = endpoint(virtual_devices, name)
    virtual_devices.cut(name)
    try:
        with pytest.raises(OSError, match=r"timed out|No route"):
            socket.create_connection(where, NO_ANSWER_SECONDS)
    finally:
        virtual_devices.mend(name)
    with socket.create_connection(where, SECONDS) as connection:
        assert connection.recv(8) == b"SSH-2.0-"


@pytest.mark.parametrize("name", ["virtual-sshd", "virtual-adbd"])
def test_a_killed_daemon_refuses_until_it_is_restarted(virtual_devices: VirtualDevices, name: str) -> None:
    """After a kill the port is closed, as after a crash; restart gives the same address a new daemon."""
    where = endpoint(virtual_devices, name)
    before = virtual_devices.entry(name)["daemon_pids"]
    virtual_devices.kill_daemon(name)
    try:
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)  # its init knows, and will start another
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where, SECONDS)
    finally:
        virtual_devices.restart(name)
    assert endpoint(virtual_devices, name) == where
    assert not set(before) & set(virtual_devices.entry(name)["daemon_pids"])
    socket.create_connection(where, SECONDS).close()


@pytest.fixture
def own_set(virtual_devices: VirtualDevices, tmp_path: Path) -> Iterator[VirtualDevices]:
    """A second set of devices beside the session's, on the same built roots."""
    (tmp_path / "roots").symlink_to(virtual_devices.state / "roots")
    devices = VirtualDevices(tmp_path)
    yield devices
    devices.tool("down")


def test_down_leaves_nothing(own_set: VirtualDevices, virtual_devices: VirtualDevices) -> None:
    """Namespaces, links, processes, mounts and files of a set all end with it, and another set's stay."""
    others = firsts_of(virtual_devices)
    own_set.tool("up", "--only", "virtual-sshd,virtual-adbd")
    pids = [pid for entry in own_set.listing["devices"] for pid in entry["pids"]]
    assert len(remains_of(own_set)) >= len(pids) + 4
    own_set.tool("down")
    assert remains_of(own_set) == []
    assert not any(is_alive(pid) for pid in pids)
    assert sorted(path.name for path in own_set.state.iterdir()) == ["lock", "roots"]
    assert firsts_of(virtual_devices) == others


def test_down_cleans_up_after_an_up_that_was_killed(own_set: VirtualDevices) -> None:
    """A SIGKILL in the midst of `up` leaves half a set, which `down` finds and ends."""
    command = [sys.executable, str(TOOL), "up", "--only", "virtual-sshd,virtual-adbd"]
    patterns = own_set.listing
    up = subprocess.Popen(command, env={**os.environ, STATE: str(own_set.state)}, stdout=subprocess.DEVNULL)
    until = time.monotonic() + SECONDS
    while not namespaces(patterns["namespaces"]) and time.monotonic() < until:
        assert up.poll() is None
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert remains_of(own_set)
    own_set.tool("down")
    assert remains_of(own_set) == []


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    """A misspelt name ends with 1 and a line that names the devices there are."""
    command = [sys.executable, str(TOOL), "up", "--only", "virtual-pixel"]
    environment = {**os.environ, STATE: str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'virtual-pixel'" in done.stderr
    assert "virtual-pixel4" in done.stderr


def firsts_of(devices: VirtualDevices) -> list[tuple[str, int]]:
    """Give each running device's oldest process, which changes when it is started anew."""
    return [(entry["name"], entry["pids"][0]) for entry in devices.listing["devices"]]


def remains_of(devices: VirtualDevices) -> list[str]:
    """Name all that the kernel still has of a set."""
    patterns = devices.listing
    links = [path.name for path in Path("/sys/class/net").iterdir() if fnmatch(path.name, patterns["links"])]
    found = [f"namespace {name}" for name in namespaces(patterns["namespaces"])]
    found += [f"link {name}" for name in links]
    found += [
        f"process {path.name}" for path in Path("/proc").iterdir() if path.name.isdigit() and mounts(path, devices)
    ]
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process still does something; one that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def namespaces(pattern: str) -> list[str]:
    folder = Path("/run/netns")
    return [path.name for path in folder.iterdir() if fnmatch(path.name, pattern)] if folder.exists() else []


def mounts(process: Path, devices: VirtualDevices) -> bool:
    """Tell whether a process sees a mount of a set, or was started for it."""
    try:
        seen = (process / "mountinfo").read_text(encoding="utf-8") + (process / "cmdline").read_text(encoding="utf-8")
    except OSError:  # it has ended
        return False
    return f"{devices.state}/devices/" in seen
