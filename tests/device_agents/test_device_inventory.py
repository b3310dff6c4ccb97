"""Which device a name means, and what it is: read over its transport, the same whoever looks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import usb1
from adb_shell.transport.usb_transport import UsbTransport
from boards import PIXEL_PROPERTIES, FakeBoard, properties_text
from hypothesis import given
from hypothesis import strategies as st

from device_agents import connect
from device_agents.adb import server, usb_list
from device_agents.adb.server import AdbEntry
from device_agents.addresses import Address
from device_agents.connect import ConnectOptions
from device_agents.describe import Target, describe, examine
from device_agents.device import Cluster, mask_of
from device_agents.errors import (
    DeviceError,
    DeviceNotReady,
    DeviceOffline,
    NotAuthorised,
    ProtocolError,
    TransportError,
    TransportTimeout,
    UnknownDevice,
)
from device_agents.facts import cpu_list, read_facts, value_of
from device_agents.inventory import find_device, find_devices, find_target, open_transport, sightings
from device_agents.listing import list_devices
from device_agents.local import LocalTransport
from device_agents.parallel import in_parallel
from device_agents.pythons import find_python
from device_agents.transport import Transport

pytestmark = pytest.mark.slow  # real processes, one after the other

SSH = Target(Address("ssh", "pi", "10.0.0.2"))
CPU = "/sys/devices/system/cpu/"
BOARD = {
    "/proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd05\n\nprocessor\t: 1\nCPU part\t: 0xd0b\n",
    "/proc/self/status": "Name:\tgrep\nCpus_allowed_list:\t0-3\n",
    "/proc/sys/kernel/ostype": "Linux",
    "/proc/sys/kernel/osrelease": "6.6.31",
    "/sys/firmware/devicetree/base/model": "Some Board 5 Rev 1.0\0",
    "/etc/os-release": 'ID=some\nPRETTY_NAME="Some OS 12"',
    CPU + "online": "0-2",
    CPU + "cpu0/cpu_capacity": "400",
    CPU + "cpu1/cpu_capacity": "1024",
    CPU + "cpu2/cpu_capacity": "400",
}
SAID = {"home": "/root", "machine": "aarch64", "bits": "64"}
PYTHON = (
    b'{"executable": "/usr/bin/python3", "version": [3, 11, 2], "bits": 64, "libc": ["glibc", "2.36"], '
    b'"runtimes": {"tensorflow": "2.17", "ai_edge_litert": "2.3.0"}}\n'
)


def board(**changed: str) -> FakeBoard:
    """A Linux board without Python."""
    return FakeBoard(BOARD, {**SAID, **changed})


# --- what a device is -------------------------------------------------------------------------------------------------


def test_the_host_is_described() -> None:
    """Its facts are those of this process, and nothing is asked of other Pythons."""
    host = find_device("host")
    assert host.cpus == tuple(sorted(os.sched_getaffinity(0)))
    assert host.cores == len(host.cpus)
    assert host.python == sys.executable
    assert host.abi == os.uname().machine
    assert (host.name, host.engine, host.cpu_mask, host.address.kind) == ("host", "python", None, "local")
    assert sorted(cpu for cluster in host.clusters for cpu in cluster.cpus) == list(host.cpus)


def test_the_fingerprint_tells_builds_apart_and_holds_no_names() -> None:
    """It is stable, it changes with the kernel, and neither host name nor path is in it."""
    first = find_device("host").build_fingerprint
    assert first == find_device("host").build_fingerprint
    assert os.uname().nodename not in first
    assert "/" not in first
    newer = {**BOARD, "/proc/sys/kernel/osrelease": "6.6.32"}
    prints = {describe(SSH, FakeBoard(files, SAID)).build_fingerprint for files in (BOARD, BOARD, newer)}
    assert len(prints) == 2


def test_a_board_is_described_from_its_files() -> None:
    """Model, system, allowed and online CPUs, clusters by capacity, slowest first, and its folder under its home."""
    found = describe(SSH, board())
    assert (found.name, found.model, found.os, found.abi) == (
        "some-board-5-rev-1-0",
        "Some Board 5 Rev 1.0",
        "Some OS 12",
        "aarch64",
    )
    assert found.soc == "Arm part 0xd05+0xd0b"
    assert found.cpus == (0, 1, 2)
    assert found.clusters == (Cluster((0, 2), 400), Cluster((1,), 1024))
    assert (found.cpu_mask, found.engine, found.threads) == (0b10, "python", 1)
    assert (found.work_dir, found.serial) == ("/root/.cache/edgekd", "pi@10.0.0.2")


def test_clusters_of_equal_capacity_go_by_frequency() -> None:
    """As the prime core of some phones."""
    speeds = {CPU + f"cpu{cpu}/cpufreq/cpuinfo_max_freq": top for cpu, top in ((0, "1000"), (1, "3000"), (2, "2000"))}
    capacities = {CPU + f"cpu{cpu}/cpu_capacity": "1024" for cpu in range(3)}
    found = describe(SSH, FakeBoard({**BOARD, **capacities, **speeds}, SAID))
    assert [cluster.cpus for cluster in found.clusters] == [(0,), (2,), (1,)]
    assert found.cpu_mask == 0b10


def test_a_boards_chip_is_named_by_its_device_tree() -> None:
    """Arm's /proc/cpuinfo names none."""
    compatible = {"/sys/firmware/devicetree/base/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0"}
    assert describe(SSH, FakeBoard({**BOARD, **compatible}, SAID)).soc == "bcm2711"


def test_a_32_bit_system_on_a_64_bit_kernel_runs_32_bit_programs() -> None:
    """As Raspberry Pi OS did for years."""
    assert describe(SSH, board(bits="32")).abi == "armv7l"


def test_a_machine_with_an_odd_name_names_no_folder() -> None:
    """Wheels are kept under what `uname -m` says: a device chooses no path of ours."""
    assert describe(SSH, board(machine="x/../../../home")).abi == "unknown"


def test_an_empty_value_is_not_taken_from_the_next_line() -> None:
    """Lines are what they are."""
    assert value_of("NAME=\nVERSION=3\n", "NAME") == ""


def test_a_board_that_says_nothing_is_still_a_device() -> None:
    """Denied files leave gaps, never an error."""
    found = describe(SSH, FakeBoard({}, {"home": "/root"}))
    assert (found.soc, found.os, found.cpus, found.abi) == ("unknown", "unknown", (0,), "unknown")


@pytest.mark.parametrize("home", ["", "relative", "/a/../$(reboot)", "/a\x1b[31m;b"])
def test_a_home_that_cannot_be_worked_in_is_refused(home: str) -> None:
    """No path is made of what is no plain folder."""
    with pytest.raises(DeviceNotReady, match="HOME"):
        describe(SSH, board(home=home))


def test_a_known_board_is_recognised() -> None:
    """It gets the catalogue's name, and a name of devices.toml goes before that."""
    files = {**BOARD, "/sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\0"}
    assert describe(SSH, FakeBoard(files, SAID)).name == "rpi4"
    assert describe(replace(SSH, name="shelf"), FakeBoard(files, SAID)).name == "shelf"


def test_a_reading_that_fails_is_a_transport_error() -> None:
    """A device without a shell is not taken for one without facts."""
    with pytest.raises(TransportError, match="127"):
        read_facts(FakeBoard(BOARD, exit_code=127), ["/proc/cpuinfo"])


def test_describing_takes_two_commands() -> None:
    """One for all facts, one for Python: each is a round trip."""
    asked = board()
    describe(SSH, asked)
    assert len(asked.commands) == 2


def test_facts_are_read_from_real_files(transport: Transport, tmp_path: Path) -> None:
    """Patterns expand, several lines stay together, colons stay in the text, missing files are left out."""
    (tmp_path / "a1").write_text("one: 1\ntwo\t: 2\n")
    (tmp_path / "a2").write_bytes(b"zero\0ended\x1b")
    facts = read_facts(transport, [f"{tmp_path}/a?", f"{tmp_path}/missing"])
    assert facts == {f"{tmp_path}/a1": "one: 1\ntwo : 2", f"{tmp_path}/a2": "zeroended"}


@given(st.sets(st.integers(0, 1023), min_size=1))
def test_a_cpu_list_is_read_as_it_is_written(cpus: set[int]) -> None:
    """Single CPUs and ranges are inverse to what the kernel prints."""
    text, ordered = [], sorted(cpus)
    while ordered:
        run = 1
        while run < len(ordered) and ordered[run] == ordered[0] + run:
            run += 1
        text.append(f"{ordered[0]}-{ordered[run - 1]}" if run > 1 else str(ordered[0]))
        ordered = ordered[run:]
    assert cpu_list(",".join(text) + "\n") == tuple(sorted(cpus))


@pytest.mark.parametrize("text", ["", "a", "0-", "0,,1", "-1", "0-99999"])
def test_a_broken_cpu_list_is_empty(text: str) -> None:
    """Nothing is guessed from a text that is no list."""
    assert cpu_list(text) == ()


def test_a_mask_has_a_bit_for_each_cpu() -> None:
    """No CPU is no mask."""
    assert mask_of([7, 4, 4]) == 0b10010000
    assert mask_of([]) is None


# --- its Python -------------------------------------------------------------------------------------------------------


def test_this_machines_runtimes_are_found(transport: Transport) -> None:
    """The interpreter is asked, and answers with versions."""
    found = examine(Target(Address("local")), transport)
    assert found.runtimes["ai_edge_litert"][0].isdigit()
    assert found.python is not None
    assert found.python.version == sys.version_info[:3]


def test_a_boards_python_is_found_with_its_runtimes() -> None:
    """The runtime that measures is named first."""
    found = examine(SSH, FakeBoard(BOARD, SAID, PYTHON))
    assert found.device.python == "/usr/bin/python3"
    assert list(found.runtimes.items()) == [("ai_edge_litert", "2.3.0"), ("tensorflow", "2.17")]


def test_a_python_with_a_runtime_goes_before_a_newer_one_without() -> None:
    """The search goes on until a runtime is found."""
    bare = PYTHON.replace(b"/python3", b"/python3.13").replace(b'"tensorflow": "2.17", "ai_edge_litert": "2.3.0"', b"")
    assert examine(SSH, FakeBoard(BOARD, SAID, b"noise\n" + bare + PYTHON)).device.python == "/usr/bin/python3"
    assert examine(SSH, FakeBoard(BOARD, SAID, bare)).device.python == "/usr/bin/python3.13"


def test_installed_packages_of_ours_are_found(tmp_path: Path, transport: Transport) -> None:
    """A runtime in WORK/site counts as one of the system does; the search is done by a real shell and Python."""
    package = tmp_path / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").write_text("")
    found = find_python(transport, str(tmp_path), ("no-such-python", sys.executable))
    assert found is not None
    assert found.runtimes["tflite_runtime"] == "unknown"
    assert find_python(transport, str(tmp_path), ("no-such-python",)) is None


def test_a_checkout_in_the_home_is_no_runtime(
    tmp_path: Path, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands begin in the home, where Python would find a folder of that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tflite_runtime" / "tools").mkdir(parents=True)
    (tmp_path / "json.py").write_text("raise RuntimeError")
    found = find_python(transport, "", (sys.executable,))
    assert found is not None
    assert "tflite_runtime" not in found.runtimes


def test_a_python_is_named_from_the_devices_home(
    tmp_path: Path, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`~/venv/bin/python`, as a Pi's users have it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "python").symlink_to(sys.executable)
    found = find_python(transport, "", ("~/python",))
    assert found is not None
    assert found.executable == str(tmp_path / "python")


@pytest.mark.parametrize(
    "change",
    [
        (b"}}", b"}"),
        (b'"version": [3, 11, 2]', b'"version": "new"'),
        (b'"version": [3, 11, 2]', b'"version": [Infinity, 11, 2]'),
        (b'"version": [3, 11, 2]', b'"version": [3, -11, 2]'),
        (b"/usr/bin/python3", b"python3"),
        (b"/usr/bin/python3", b"/usr/\\u001b[31m"),
        (b"tensorflow", b"torch"),
        (b'["glibc", "2.36"]', b"[]"),
    ],
)
def test_a_wrong_answer_is_a_protocol_error(change: tuple[bytes, bytes]) -> None:
    """What is no answer of the probe is refused."""
    with pytest.raises(ProtocolError):
        examine(SSH, FakeBoard(BOARD, SAID, PYTHON.replace(*change)))


# --- which device a name means ----------------------------------------------------------------------------------------


@dataclass
class World:
    """Devices in reach: boards by address, what adb lists, and a devices.toml."""

    boards: dict[str, FakeBoard | DeviceError]
    adb: list[AdbEntry]
    file: Path
    asked: list[str]

    def phone(self, serial: str, state: str = "device", **properties: str) -> None:
        """Attach a Pixel 4."""
        said = properties_text({**PIXEL_PROPERTIES, "ro.serialno": serial, **properties})
        self.boards[f"adb://{serial}"] = FakeBoard({}, {"getprop": said})
        self.adb.append(AdbEntry(serial, state))

    def open(self, address: Address, options: ConnectOptions = connect.DEFAULT_OPTIONS) -> Transport:
        """Open the way to a board, or to this machine."""
        self.asked.append(str(address))
        found = LocalTransport() if address.kind == "local" else self.boards[str(address)]
        if isinstance(found, DeviceError):
            raise found
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Nothing in reach but this machine."""
    made = World({}, [], tmp_path / "devices.toml", [])
    made.file.touch()
    monkeypatch.setenv("EDGEKD_DEVICES", str(made.file))
    monkeypatch.setattr(connect, "open_transport", made.open)
    monkeypatch.setattr(server, "list_adb_devices", lambda: tuple(made.adb))
    monkeypatch.setattr(server, "server_version", lambda address: None)
    monkeypatch.setattr(usb_list, "list_usb", lambda: ([], False))
    return made


PI = {**BOARD, "/sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\0"}


@pytest.mark.parametrize(
    ("name", "nearest"), [("hots", "host"), ("Host", "host"), ("pixle4", "pixel4"), ("shlf", "shelf"), ("zzzz", None)]
)
def test_an_unknown_name_gets_the_nearest_known_one(name: str, nearest: str | None, world: World) -> None:
    """A slip of the keyboard is answered with what was probably meant; no device is connected to."""
    world.file.write_text('[shelf]\naddress = "ssh://10.0.0.2"\n')
    with pytest.raises(UnknownDevice, match=nearest or "known devices: host, shelf") as raised:
        find_device(name)
    assert raised.value.nearest == nearest
    assert world.asked == []


def test_a_kind_of_device_is_found_among_those_attached(world: World) -> None:
    """`pixel4` is the phone on USB that calls itself a Pixel 4."""
    world.phone("A1")
    world.phone("B2", **{"ro.product.model": "Pixel 7", "ro.product.device": "panther"})
    device = find_device("pixel4")
    assert (device.name, device.serial, str(device.address)) == ("pixel4", "A1", "adb://A1")


def test_a_kind_of_board_is_found_among_the_named(world: World) -> None:
    """Under the name that was asked for, because tables bear it; what was said of it in the file counts."""
    world.file.write_text('[shelf]\naddress = "ssh://10.0.0.2"\nthreads = 2\ncpus = [1]\n')
    world.boards["ssh://10.0.0.2"] = FakeBoard(PI, SAID)
    device = find_device("rpi4")
    assert (device.name, device.threads, device.cpu_mask) == ("rpi4", 2, 0b10)
    target = find_target("rpi4")
    assert target.user is not None
    assert target.user.name == "shelf"


def test_a_name_of_the_file_goes_before_the_catalogue(world: World) -> None:
    """Nothing else is looked at then."""
    world.file.write_text('[pixel4]\naddress = "adb://10.0.0.3:5555"\n')
    world.phone("A1")
    world.boards["adb://10.0.0.3:5555"] = world.boards["adb://A1"]
    assert str(find_device("pixel4").address) == "adb://10.0.0.3:5555"
    assert world.asked == ["adb://10.0.0.3:5555"]


def test_two_of_a_kind_are_told_apart_by_serial(world: World) -> None:
    """Without one, the line lists them; all of them can be had."""
    world.phone("A1")
    world.phone("B2")
    with pytest.raises(
        DeviceNotReady, match="2 devices fit 'pixel4': A1, B2; choose one with --serial; profile also takes --all"
    ):
        find_device("pixel4")
    with pytest.raises(DeviceNotReady, match="A1, B2"):
        find_target("pixel4")
    assert find_device("pixel4", "B2").serial == "B2"
    assert [device.serial for device in find_devices("pixel4")] == ["A1", "B2"]
    with pytest.raises(DeviceNotReady, match="no pixel4 with serial C3 is in reach; found: A1, B2"):
        find_device("pixel4", "C3")


def test_one_phone_on_two_ways_is_one_phone(world: World) -> None:
    """On USB and on the network at once, it has one serial."""
    world.phone("A1")
    world.adb.append(AdbEntry("10.0.0.3:5555", "device"))
    world.boards["adb://10.0.0.3:5555"] = world.boards["adb://A1"]
    assert [str(device.address) for device in find_devices("pixel4")] == ["adb://A1"]


def test_a_phone_on_usb_that_also_offers_wireless_debugging_is_one_phone(world: World) -> None:
    """The adb server connects to it by itself and lists it under a name of its own."""
    world.phone("A1")
    wireless = "adb-A1-Xy12Zw._adb-tls-connect._tcp"
    world.adb.append(AdbEntry(wireless, "device"))
    world.boards[f"adb://{wireless}"] = world.boards["adb://A1"]
    assert [str(device.address) for device in find_devices("pixel4")] == ["adb://A1"]
    assert str(find_device(wireless).address) == f"adb://{wireless}"


def test_a_serial_or_an_address_is_a_name(world: World) -> None:
    """The device is called by its kind then."""
    world.phone("A1")
    world.boards["ssh://pi@10.0.0.2"] = FakeBoard(PI, SAID)
    assert find_device("A1").name == "pixel4"
    assert find_device("adb://A1").name == "pixel4"
    assert find_device("ssh://pi@10.0.0.2").name == "rpi4"
    assert find_device("local:").cpus == find_device("host").cpus
    with pytest.raises(DeviceNotReady, match="leave --serial out"):
        find_device("A1", "B2")


def test_a_device_is_found_by_what_it_is_listed_as(world: World) -> None:
    """Its own serial where it is reached over the network, or its model where it is of no known kind."""
    world.file.write_text('[mine]\naddress = "adb://10.0.0.3:5555"\n')
    said = properties_text({**PIXEL_PROPERTIES, "ro.serialno": "R58M1"})
    world.boards["adb://10.0.0.3:5555"] = FakeBoard({}, {"getprop": said})
    world.phone("A1", **{"ro.product.model": "Some Phone", "ro.product.device": "some"})
    assert find_device("R58M1").name == "mine"
    assert find_device("some-phone").serial == "A1"
    assert find_target("some-phone").address == Address("adb", serial="A1")
    with pytest.raises(UnknownDevice, match="known devices: host, mine, A1"):
        find_device("R0-0R")


@pytest.mark.parametrize(
    ("name", "advice"),
    [("pixel4", "connect it over USB"), ("rpi4", "edgekd devices add rpi4 ssh://USER@HOST")],
)
def test_none_of_a_kind_says_what_was_looked_for_and_what_to_do(name: str, advice: str, world: World) -> None:
    """With the file that was read, and the devices that did not answer."""
    world.file.write_text('[shelf]\naddress = "ssh://10.0.0.2"\n')
    world.boards["ssh://10.0.0.2"] = DeviceOffline("10.0.0.2 does not answer")
    world.phone("C3", "unauthorized")
    with pytest.raises(DeviceOffline, match=advice) as raised:
        find_device(name)
    assert str(world.file) in str(raised.value)
    assert "C3 is unauthorized: unlock the phone" in str(raised.value)
    assert ("10.0.0.2 does not answer" in str(raised.value)) is (name == "rpi4")


def test_nobody_is_asked_about_hosts_that_were_not_named(world: World) -> None:
    """A search passes over hosts with unknown keys; the device found asks again later."""

    def ask(question: str) -> bool:
        raise AssertionError(question)

    world.file.write_text('[shelf]\naddress = "ssh://10.0.0.2"\nkey = "id"\n')
    world.boards["ssh://10.0.0.2"] = FakeBoard(PI, SAID)
    device = find_device("rpi4", options=ConnectOptions(ask=ask, accept_new_host_key=True))
    assert device.connection.ask is ask
    assert device.connection.accept_new_host_key
    assert device.connection.key == str(world.file.parent / "id")


def test_cpus_that_are_not_there_are_refused(world: World) -> None:
    """Rather than measured on others."""
    world.file.write_text('[shelf]\naddress = "ssh://10.0.0.2"\ncpus = "1-4"\n')
    world.boards["ssh://10.0.0.2"] = FakeBoard(PI, SAID)
    with pytest.raises(DeviceNotReady, match=r"CPUs \[3, 4\].* allows \[0, 1, 2\]"):
        find_device("shelf")


@pytest.mark.parametrize(
    ("state", "error", "advice"),
    [
        ("unauthorized", NotAuthorised, "Allow USB debugging"),
        ("no permissions", NotAuthorised, "udev"),
        ("offline", DeviceOffline, "unplug"),
        ("recovery", DeviceOffline, "boot it into Android"),
    ],
)
def test_a_phone_that_cannot_be_used_says_why(state: str, error: type[DeviceError], advice: str, world: World) -> None:
    """By its serial, and without a connection to it."""
    world.phone("A1", state)
    with pytest.raises(error, match=advice):
        find_device("pixel4" if error is None else "A1")
    assert world.asked == []


def test_a_device_of_the_file_is_listed_once(world: World) -> None:
    """Also when adb knows of it; an odd serial of adb is passed over."""
    world.file.write_text('[mine]\naddress = "adb://A1"\n')
    world.phone("A1")
    world.adb.append(AdbEntry("a b;c", "device"))
    assert [(seen.target.name, seen.serial) for seen in sightings()] == [("mine", "A1")]


def test_an_adb_server_that_talks_nonsense_hides_no_other_device(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a line of the list that says so."""

    def nonsense() -> tuple[AdbEntry, ...]:
        raise ProtocolError("it speaks of teapots")

    monkeypatch.setattr(server, "list_adb_devices", nonsense)
    (seen,) = sightings()
    assert seen.target.name == "adb server"
    assert "teapots" in str(seen.problem)


def test_without_an_adb_server_usb_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, every phone is the server's, and USB would only disturb it."""
    monkeypatch.setattr(usb_list, "list_usb", lambda: (["A1"], True))
    assert [(seen.serial, str(seen.problem)[:23]) for seen in sightings()] == [
        ("A1", "None"),
        ("usb", "usb has no permissions:"),
    ]
    monkeypatch.setattr(server, "server_version", lambda address: 41)
    assert sightings() == ()


def test_all_devices_are_listed_and_a_dead_one_is_a_line(world: World) -> None:
    """The own machine first; who does not answer has an error in place of what it is."""
    world.file.write_text('[dead]\naddress = "ssh://10.0.0.9"\n')
    world.boards["ssh://10.0.0.9"] = DeviceOffline("10.0.0.9 does not answer")
    world.phone("A1")
    (host, here), (dead, error), (_, phone) = list_devices()
    assert not isinstance(here, DeviceError)
    assert (host.name, here.engine.ok, dead.name) == ("host", True, "dead")
    assert isinstance(error, DeviceOffline)
    assert not isinstance(phone, DeviceError)
    assert phone.description.device.name == "pixel4"
    assert "benchmark_model" in phone.engine.found  # nobody has given one
    assert not phone.engine.ok


def test_a_hanging_device_does_not_hold_the_others_up() -> None:
    """Nor the program: its thread is left to itself, and the device counts as not answering."""
    never = threading.Event()

    def ask(number: int) -> int:
        if number == 1:
            never.wait()
        return 10 * number

    first, hung, last = in_parallel([0, 1, 2], ask, limit_s=0.5)
    assert (first, last) == (0, 20)
    assert isinstance(hung, TransportTimeout)
    never.set()


def test_a_defect_in_a_thread_is_no_dead_device() -> None:
    """It is raised where the answers are waited for."""
    with pytest.raises(ZeroDivisionError):
        in_parallel([1, 0], lambda number: 1 // number, limit_s=10)


def test_the_way_to_a_found_device_can_be_opened(world: World) -> None:
    """With what was said about the connection."""
    world.phone("A1")
    assert open_transport(find_device("A1")) is world.boards["adb://A1"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Transport]:
    """Open an address without connecting: transports connect when they are first used."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    return lambda text: connect.open_transport(Address.parse(text), ConnectOptions(key="~/id"))


@pytest.mark.parametrize(
    ("text", "name"),
    [("local:", "LocalTransport"), ("ssh://pi@10.0.0.2:2222", "SshTransport"), ("adb://A1", "AdbTransport")],
)
def test_each_kind_of_address_has_its_transport(text: str, name: str, opened: Callable[[str], Transport]) -> None:
    """Nothing is connected to before the first call."""
    transport = opened(text)
    assert type(transport).__name__ == name
    transport.close()


def test_a_missing_package_is_named_with_how_to_get_it(
    opened: Callable[[str], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSH is an extra that not everybody installs."""
    missing: Mapping[str, None] = {name: None for name in sys.modules if name.startswith("device_agents.ssh")}
    for name in missing:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(DeviceNotReady, match=r"asyncssh.*pip install 'edgekd\[devices\]'"):
        opened("ssh://10.0.0.2")


class UsbPhone:
    """A phone on USB that says its serial number, or that may not be asked for it."""

    def __init__(self, serial: str) -> None:
        self._serial = serial

    @property
    def serial_number(self) -> str:
        """Return the serial number."""
        if not self._serial:
            raise usb1.USBErrorAccess
        return self._serial


def test_phones_on_usb_are_listed_by_their_serials(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may not be opened is told of; without the packages for USB there is none."""
    phones = [UsbPhone("A1"), UsbPhone(""), UsbPhone("B2")]
    monkeypatch.setattr(UsbTransport, "find_all_adb_devices", lambda: iter(phones))
    assert usb_list.list_usb() == (["A1", "B2"], True)
    monkeypatch.setitem(sys.modules, "usb1", None)
    assert usb_list.list_usb() == ([], False)
