"""A device is set up: packages that work or none at all, binaries for its processor, and a record of what was given."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from boards import FakeBoard

from device_agents import setup, user_devices
from device_agents.addresses import Address
from device_agents.checkup import Check, check_device, require_ready
from device_agents.describe import Description, Target, examine
from device_agents.errors import (
    DeviceBusy,
    DeviceNotReady,
    DeviceOffline,
    HostKeyRefused,
    InvalidRequest,
    NotAuthorised,
    SetupFailed,
)
from device_agents.local import LocalTransport
from device_agents.pythons import PythonThere
from device_agents.setup import SetupRequest, set_up
from device_agents.user_devices import UserDevice
from device_agents.wheels import WheelTarget, gather, sha256_of

pytestmark = pytest.mark.slow  # compilers, shells and real programs

ADDRESS = Address("ssh", host="10.0.0.2")
BOARD = Target(ADDRESS, "board", UserDevice("board", ADDRESS, python=sys.executable))


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Homes and files of this test alone; the board is this machine with another home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "devices.toml").touch()
    monkeypatch.setenv("EDGEKD_DEVICES", str(tmp_path / "devices.toml"))


@pytest.fixture(scope="module")
def examined() -> Description:
    """What the board is, asked once: each interpreter takes its time to start."""
    return examine(BOARD, LocalTransport())


@pytest.fixture
def described(examined: Description, work: Path) -> Description:
    """What the board is, with a work folder of this test alone."""
    return replace(examined, device=replace(examined.device, work_dir=str(work)))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The board's work folder."""
    return tmp_path / "home" / ".cache" / "edgekd"


def make_wheel(folder: Path, version: str, interpreter: str = "class Interpreter: pass\n") -> Path:
    """Write a runtime's wheel that has nothing but the names that are looked for, one of them under .data."""
    folder.mkdir(exist_ok=True)
    path = folder / f"ai_edge_litert-{version}-py3-none-any.whl"
    info = f"ai_edge_litert-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("ai_edge_litert/__init__.py", "")
        wheel.writestr(f"ai_edge_litert-{version}.data/purelib/ai_edge_litert/interpreter.py", interpreter)
        wheel.writestr("ai_edge_litert/libLiteRt.so", elf(62))
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all wheels of the folder given, without asking pip which fit: it needs most of a second."""

    def take(target: WheelTarget, source: Path, note: object, *, newest: bool, package: str) -> tuple[Path, ...]:
        return tuple(source.glob("*.whl"))

    monkeypatch.setattr(setup, "gather", take)


def elf(machine: int) -> bytes:
    """Give the head of an ELF file for a processor."""
    return b"\x7fELF" + bytes(14) + struct.pack("<H", machine)


def installed(work: Path) -> str:
    """Say which version lies in the work folder."""
    (info,) = (work / "site").glob("*.dist-info")
    return info.name


# --- packages ---------------------------------------------------------------------------------------------------------


def test_wheels_of_a_folder_become_the_devices_packages(described: Description, work: Path, tmp_path: Path) -> None:
    """They are chosen by pip, are unpacked there, work, and nothing else is left."""
    make_wheel(tmp_path / "wheels", "9.9.9")
    notes: list[str] = []
    (done,) = set_up(BOARD, described, LocalTransport(), SetupRequest(wheels=tmp_path / "wheels"), notes.append)
    assert "ai_edge_litert 9.9.9" in done
    assert installed(work) == "ai_edge_litert-9.9.9.dist-info"
    assert sorted(path.name for path in work.iterdir()) == ["bin", "lock", "models", "site"]
    assert examine(BOARD, LocalTransport()).runtimes["ai_edge_litert"] == "9.9.9"
    assert len(notes) == 4


@pytest.mark.usefixtures("without_pip")
def test_packages_that_do_not_work_never_take_the_place_of_others(
    described: Description, work: Path, tmp_path: Path
) -> None:
    """An import that fails is told, and the packages of before go on working."""
    make_wheel(tmp_path / "one", "1.0.0")
    set_up(BOARD, described, LocalTransport(), SetupRequest(wheels=tmp_path / "one"), lambda text: None)
    make_wheel(tmp_path / "two", "2.0.0", "raise ImportError('libfoo is missing')\n")
    with pytest.raises(SetupFailed, match="board: cannot import the runtime: ImportError: libfoo is missing"):
        set_up(BOARD, described, LocalTransport(), SetupRequest(wheels=tmp_path / "two"), lambda text: None)
    assert installed(work) == "ai_edge_litert-1.0.0.dist-info"
    assert sorted(path.name for path in work.iterdir()) == ["bin", "lock", "models", "site"]


class LossyTransport(LocalTransport):
    """Damages every file that it copies."""

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy, and cut off the last byte."""
        for remote, local in files.items():
            Path(remote).write_bytes(local.read_bytes()[:-1])


@pytest.mark.usefixtures("without_pip")
def test_a_wheel_that_arrives_damaged_is_not_unpacked(described: Description, work: Path, tmp_path: Path) -> None:
    """Its hash is computed on the device."""
    make_wheel(tmp_path / "wheels", "9.9.9")
    with pytest.raises(SetupFailed, match="arrived damaged"):
        set_up(BOARD, described, LossyTransport(), SetupRequest(wheels=tmp_path / "wheels"), lambda text: None)
    assert not (work / "site").exists()


@pytest.mark.usefixtures("without_pip")
def test_a_device_that_is_measured_on_is_left_alone(described: Description, work: Path, tmp_path: Path) -> None:
    """The lock of a session holds off a setup."""
    make_wheel(tmp_path / "wheels", "9.9.9")
    work.mkdir(parents=True)
    lock = os.open(work / "lock", os.O_RDWR | os.O_CREAT)
    os.write(lock, b'{"pid": 77, "since": 1.5, "owner": "ann@desk"}')
    fcntl.flock(lock, fcntl.LOCK_EX)
    request = SetupRequest(wheels=tmp_path / "wheels")
    with pytest.raises(DeviceBusy, match=r"board: ann@desk measures on it \(process 77 there\); wait"):
        set_up(BOARD, described, LocalTransport(), request, lambda text: None)
    os.close(lock)
    assert set_up(BOARD, described, LocalTransport(), request, lambda text: None)


@pytest.mark.usefixtures("without_pip")
def test_too_little_space_is_told_before_anything_is_copied(
    described: Description, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how much is needed."""
    make_wheel(tmp_path / "wheels", "9.9.9")
    full = replace(setup.read_conditions(described.device, LocalTransport()), disk_free_bytes=10)
    monkeypatch.setattr(setup, "read_conditions", lambda device, transport: full)
    with pytest.raises(SetupFailed, match="0 MiB are free"):
        set_up(BOARD, described, LocalTransport(), SetupRequest(wheels=tmp_path / "wheels"), lambda text: None)
    assert not (work / "wheels").exists()


def test_a_runtime_that_is_there_is_kept(described: Description, work: Path) -> None:
    """Unless another one is asked for."""
    (done,) = set_up(BOARD, described, LocalTransport(), SetupRequest(), lambda text: None)
    assert "has ai_edge_litert" in done
    assert "--upgrade" in done
    assert not work.exists()


def test_no_wheels_for_a_device_is_one_line(tmp_path: Path) -> None:
    """With what pip said and what else can be done."""
    (tmp_path / "none").mkdir()
    target = WheelTarget((3, 12), 36, "armv7l")
    with pytest.raises(SetupFailed, match=r"no wheels of ai-edge-litert for cp312-glibc2\.36-armv7l: .*--wheels"):
        gather(target, tmp_path / "none", lambda text: None)


def test_wheels_are_kept_for_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By version, and only as long as none of them has changed."""
    from device_agents import wheels

    monkeypatch.setattr(wheels, "_pinned", lambda package: f"{package}==9.9.9")
    target = WheelTarget((3, 11), 36, "aarch64")
    make_wheel(tmp_path / "wheels", "9.9.9")
    (first,) = gather(target, tmp_path / "wheels", lambda text: None)
    notes: list[str] = []
    assert gather(target, None, notes.append) == (first,)
    assert "downloaded before" in notes[0]
    first.write_bytes(b"damaged")
    monkeypatch.setattr(wheels.sys, "executable", "/bin/false")  # stands for a pip that finds nothing
    with pytest.raises(SetupFailed, match="no reason given"):
        gather(target, None, lambda text: None)


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2"), ("glibc", "3"), ("glibc", "2.x"), ("glibc", "2.9999")])
def test_a_c_library_without_wheels_is_named(libc: tuple[str, str]) -> None:
    """Alpine and the like have no wheels of the runtime."""
    with pytest.raises(SetupFailed, match="need glibc"):
        WheelTarget.of(PythonThere("/usr/bin/python3", (3, 11, 2), libc=libc), "aarch64")


def test_wheels_fit_python_and_not_the_kernel() -> None:
    """A 32-bit Python on a 64-bit kernel takes 32-bit wheels; no newer C library than the device's is asked for."""
    python = PythonThere("/usr/bin/python3", (3, 11, 2), 32, ("glibc", "2.36"))
    target = WheelTarget.of(python, "aarch64")
    assert target.machine == "armv7l"
    options = list(target.options())
    assert "manylinux_2_36_armv7l" in options
    assert "manylinux_2_37_armv7l" not in options


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"python": None}, "no Python 3.9"), ({"python": PythonThere("/usr/bin/python3", (3, 7, 3))}, "3.9 or later")],
)
def test_a_device_without_a_usable_python_says_so(
    changed: dict[str, PythonThere | None], message: str, described: Description
) -> None:
    """With the other engine as a way out."""
    with pytest.raises(SetupFailed, match=message):
        set_up(BOARD, replace(described, **changed), LocalTransport(), SetupRequest(), lambda text: None)  # type: ignore[arg-type]


def test_this_machine_is_set_up_with_pip(described: Description) -> None:
    """Nothing is installed behind the user's back here."""
    target = Target(Address("local"), "host")
    here = replace(described, device=replace(described.device, address=target.address), runtimes={})
    with pytest.raises(SetupFailed, match="pip install ai-edge-litert"):
        set_up(target, here, LocalTransport(), SetupRequest(), lambda text: None)


# --- binaries ---------------------------------------------------------------------------------------------------------


def with_engine(described: Description, engine: str, **changed: str) -> Description:
    """The board with another engine."""
    return replace(described, device=replace(described.device, engine=engine, **changed))  # type: ignore[arg-type]


def test_a_binary_is_recorded_with_its_hash(described: Description, tmp_path: Path) -> None:
    """In the device's table, which keeps what it had; other tables stay."""
    path = tmp_path / "devices.toml"
    path.write_text('# mine\n[other]\naddress = "ssh://b"\n\n[board]\naddress = "ssh://10.0.0.2"\nthreads = 2\n')
    target = Target(ADDRESS, "board", user_devices.load(path)["board"])
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(elf(183))
    phone = with_engine(described, "benchmark_model", abi="aarch64")
    request = SetupRequest(benchmark_model=binary)
    (done,) = set_up(target, phone, LocalTransport(), request, lambda text: None)
    device = user_devices.load(path)["board"]
    assert done == f"benchmark_model recorded for board in {path}"
    assert (device.benchmark_model, device.benchmark_model_sha256) == (str(binary), sha256_of(binary))
    assert device.threads == 2
    assert path.read_text().startswith("# mine\n[other]\n")


def test_an_attached_phone_gets_a_table(described: Description, tmp_path: Path) -> None:
    """Named by its kind, so that the name means this phone from now on."""
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(elf(183))
    phone = with_engine(described, "benchmark_model", abi="aarch64", name="pixel4")
    target = Target(Address("adb", serial="A1"))
    set_up(target, phone, LocalTransport(), SetupRequest(benchmark_model=binary), lambda text: None)
    assert user_devices.load_all()["pixel4"].address == target.address


@pytest.mark.parametrize(
    ("content", "message"),
    [(elf(62), "is built for x86_64; board needs aarch64"), (b"#!/bin/sh\n" * 9, "is no ELF file"), (b"", "no ELF")],
)
def test_a_binary_for_another_processor_is_refused(
    content: bytes, message: str, described: Description, tmp_path: Path
) -> None:
    """Before it is recorded."""
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(content)
    phone = with_engine(described, "benchmark_model", abi="aarch64")
    with pytest.raises(InvalidRequest, match=message):
        set_up(BOARD, phone, LocalTransport(), SetupRequest(benchmark_model=binary), lambda text: None)
    assert user_devices.load_all() == {}


def test_a_phone_without_its_binary_is_told_which(described: Description) -> None:
    """It is in no package registry, so that only the user can give it."""
    with pytest.raises(SetupFailed, match="--benchmark-model PATH"):
        set_up(BOARD, with_engine(described, "benchmark_model"), LocalTransport(), SetupRequest(), lambda text: None)
    phone = with_engine(described, "native", system="android")
    with pytest.raises(SetupFailed, match="--litert-library PATH"):
        set_up(BOARD, phone, LocalTransport(), SetupRequest(), lambda text: None)


def test_a_phone_can_be_given_the_other_engines_file_alone(described: Description, tmp_path: Path) -> None:
    """Its default wants another file; with a library alone it measures with that."""
    library = tmp_path / "libLiteRt.so"
    library.write_bytes(elf(183))
    target = Target(Address("adb", serial="A1"))
    phone = with_engine(described, "benchmark_model", abi="aarch64", name="pixel4", system="android")
    set_up(target, phone, LocalTransport(), SetupRequest(litert_library=library), lambda text: None)
    assert user_devices.load_all()["pixel4"].litert_library == str(library)


def test_a_board_without_python_takes_a_library(described: Description, tmp_path: Path) -> None:
    """For the engine that needs no Python."""
    library = tmp_path / "libLiteRt.so"
    library.write_bytes(elf(183))
    bare = replace(described, python=None, device=replace(described.device, abi="aarch64"))
    request = SetupRequest(litert_library=library)
    (done,) = set_up(Target(ADDRESS, "board"), bare, LocalTransport(), request, lambda text: None)
    assert "litert_library recorded for board" in done


def test_a_board_gets_the_library_out_of_the_wheel(described: Description, tmp_path: Path) -> None:
    """The native engine needs nothing else from the user."""
    make_wheel(tmp_path / "wheels", "9.9.9")
    request = SetupRequest(wheels=tmp_path / "wheels")
    target = Target(ADDRESS, "board")
    (done,) = set_up(target, with_engine(described, "native"), LocalTransport(), request, lambda text: None)
    assert "litert_library recorded for board" in done
    library = Path(user_devices.load_all()["board"].litert_library)
    assert library.read_bytes() == elf(62)
    assert [path.name for path in library.parent.parent.glob("*.dist-info")] == ["ai_edge_litert-9.9.9.dist-info"]


@pytest.mark.parametrize(
    "said", [{"getconf": "glibc 2.36"}, {"getconf": "", "ldd": "ldd (Debian GLIBC 2.36-9+deb12u9) 2.36"}]
)
def test_the_c_library_is_found_without_python(
    said: dict[str, str], described: Description, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever command is there; what is no glibc is refused."""
    asked: list[WheelTarget] = []

    def gather(target: WheelTarget, *arguments: object, newest: bool) -> tuple[Path, ...]:
        asked.append(target)
        return ()

    monkeypatch.setattr(setup, "gather", gather)
    bare = replace(with_engine(described, "native"), python=None)
    with pytest.raises(SetupFailed, match=r"no libLiteRt\.so is in the wheels"):
        set_up(BOARD, bare, FakeBoard({}, said), SetupRequest(), lambda text: None)
    assert asked[0].glibc_minor == 36
    with pytest.raises(SetupFailed, match=r"is not glibc.*'musl libc'"):
        set_up(BOARD, bare, FakeBoard({}, {"ldd": "musl libc"}), SetupRequest(), lambda text: None)


# --- checking ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the board be reached, as this machine."""
    monkeypatch.setattr("device_agents.connect.open_transport", lambda address, options: LocalTransport())


def by_name(checks: list[Check]) -> dict[str, Check]:
    """Sort checks by name."""
    return {check.name: check for check in checks}


@pytest.mark.usefixtures("reached")
def test_a_device_in_order_passes_every_required_check() -> None:
    """One after the other, each with what was found."""
    checks = list(check_device(BOARD))
    assert [check.name for check in checks][:4] == ["reachable", "work folder", "engine", "lock"]
    assert {"load", "memory", "disk space"} <= by_name(checks).keys()
    assert not any(check.stops for check in checks[:4])
    assert all(check.found for check in checks)


@pytest.mark.usefixtures("reached")
def test_extra_checks_come_last_and_only_where_a_session_could_be() -> None:
    """They measure, which a locked device cannot."""
    asked = []

    def extra(device: object, transport: object) -> Check:
        asked.append(device)
        return Check("outputs", ok=False, found="differ by 0.1", advice="report it")

    def broken(device: object, transport: object) -> Check:
        raise DeviceNotReady("no runtime")

    checks = list(check_device(BOARD, [extra, broken]))
    assert [check.found for check in checks[-2:]] == ["differ by 0.1", "no runtime"]
    assert len(asked) == 1


@pytest.mark.usefixtures("reached")
def test_a_held_lock_says_by_whom(work: Path) -> None:
    """And that alone is a busy device, not one that is not ready."""
    work.mkdir(parents=True, mode=0o700)
    lock = os.open(work / "lock", os.O_RDWR | os.O_CREAT)
    os.write(lock, b'{"pid": 77, "since": 1.5, "owner": "ann@desk"}')
    fcntl.flock(lock, fcntl.LOCK_EX)
    called: list[object] = []

    def extra(device: object, transport: object) -> Check:
        called.append(device)
        return Check("outputs", ok=True, found="")

    checks = list(check_device(BOARD, [extra]))
    os.close(lock)
    assert by_name(checks)["lock"].found == "ann@desk measures on it (process 77 there)"
    assert called == []
    with pytest.raises(DeviceBusy, match="lock"):
        require_ready("board", [check for check in checks if check.ok or check.name == "lock"])


@pytest.mark.usefixtures("reached")
def test_a_folder_that_others_can_write_to_is_found(work: Path) -> None:
    """With what to do."""
    work.mkdir(parents=True)
    work.chmod(0o777)
    check = by_name(list(check_device(BOARD)))["work folder"]
    assert check.stops
    assert "0700" in check.advice


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (DeviceOffline("no answer"), "reachable"),
        (NotAuthorised("unauthorized"), "authorised"),
        (HostKeyRefused("key changed"), "host key"),
    ],
)
def test_a_device_that_cannot_be_reached_has_one_check(
    error: DeviceNotReady, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after it cannot be looked at."""

    def refuse(address: object, options: object) -> None:
        raise error

    monkeypatch.setattr("device_agents.connect.open_transport", refuse)
    (check,) = check_device(BOARD)
    assert (check.name, check.ok, check.found) == (name, False, str(error))
    with pytest.raises(DeviceNotReady, match=f"board is not ready: 1 of 1 checks failed: {name}"):
        require_ready("board", [check])


def test_a_device_without_a_runtime_is_sent_to_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    """The python engine's files alone do not measure."""
    facts = b'"version": [3, 11, 2], "bits": 64, "libc": ["glibc", "2.36"], "runtimes": {}'
    bare = b'{"executable": "/usr/bin/python3", ' + facts + b"}"
    board = FakeBoard({}, {"home": "/root"}, bare)
    monkeypatch.setattr("device_agents.connect.open_transport", lambda address, options: board)
    check = by_name(list(check_device(BOARD)))["engine"]
    assert check.stops
    assert (check.found, check.advice) == (
        "/usr/bin/python3 (Python 3.11.2) has no runtime",
        "edgekd devices setup board",
    )
