"""Makes a device able to measure: installs a runtime for its Python, or records the binaries of the other engines.

Packages go into WORK/site on the device, or WORK/site-onnxruntime, and nowhere else; nothing is installed into its
system, and no root is needed.
What a person gives for this device is recorded in devices.toml with its hash. It measures nothing.
Read next: `wheels.py` for where packages come from, `user_devices.py` for the file.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from device_agents import user_devices
from device_agents.checkup import lock_check
from device_agents.describe import Description, Target
from device_agents.device import Device
from device_agents.errors import DeviceBusy, DeviceError, InvalidRequest, SetupFailed, TransportError
from device_agents.facts import read
from device_agents.pythons import site_of
from device_agents.readiness import read_conditions
from device_agents.strict_json import clean_lines, clean_text
from device_agents.transport import Completed, Transport
from device_agents.user_devices import UserDevice
from device_agents.wheels import PACKAGE, WheelTarget, cache_folder, gather, sha256_of
from device_agents.work_folder import WorkFolder

Note = Callable[[str], None]
_TIMEOUT_S = 600.0  # unpacking 60 MB on an old card, and a first import that compiles every module
_UNPACKED = 4  # a wheel's content takes up to so many times its size, and lies there twice for a moment
_LIBRARY = "ai_edge_litert/libLiteRt.so"
_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64"}
# Runs with the device's Python, in WORK: every wheel is compared with its hash before anything of it is written.
_UNPACK = """
import hashlib, json, os, shutil, sys, zipfile
os.chdir(sys.argv[1])
new = sys.argv[3] + ".new"
shutil.rmtree(new, ignore_errors=True)
os.mkdir(new, 0o700)
for name, wanted in json.loads(sys.argv[2]).items():
    digest = hashlib.sha256()
    with open(os.path.join("wheels", name), "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != wanted:
        sys.exit(name + " arrived damaged")
    with zipfile.ZipFile(os.path.join("wheels", name)) as wheel:
        for member in wheel.namelist():
            parts = member.split("/")
            if parts[0].endswith(".data") and len(parts) > 2 and parts[1] in ("purelib", "platlib"):
                parts = parts[2:]
            if member.endswith("/") or not parts[0] or ".." in parts or parts[0].endswith(".data"):
                continue
            path = os.path.join(new, *parts)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with wheel.open(member) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
"""
_IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import importlib, importlib.metadata
importlib.import_module(sys.argv[2])
print(importlib.metadata.version(sys.argv[3]))
"""
# The old packages go only when the new ones are in place; a death in between leaves one or the other under `site`
# or none, never half of one.
_SWAP = (
    'cd "$1" && rm -rf "$2.old" && { [ ! -e "$2" ] || mv "$2" "$2.old"; } && mv "$2.new" "$2" && rm -rf "$2.old" wheels'
)
_DROP = 'cd "$1" && rm -rf wheels "$2.new"'


@dataclass(frozen=True, slots=True)
class Runtime:
    """What is installed for an engine: a package, the module by which it is tried, and its folder in WORK."""

    package: str
    module: str
    site: str
    on_host: str  # how a person installs it on this machine


LITERT = Runtime(PACKAGE, "ai_edge_litert.interpreter", site_of("python"), f"pip install {PACKAGE}")
ONNXRUNTIME = Runtime("onnxruntime", "onnxruntime", site_of("onnxruntime"), "pip install 'edgekd[onnx]'")


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """What a person gives for the setup; None is not given. `upgrade` takes the newest runtime there is."""

    benchmark_model: Path | None = None
    litert_library: Path | None = None
    wheels: Path | None = None
    upgrade: bool = False


def set_up(
    target: Target, description: Description, transport: Transport, request: SetupRequest, note: Note
) -> list[str]:
    """Do what the device's engine needs, and return what was done in one line each.

    Raises:
        SetupFailed: it cannot be done; the message says what is missing.
        DeviceBusy: somebody measures on the device now.

    """
    device, done = description.device, []
    given = {
        key: _checked_binary(path, device, key)
        for key, path in (("benchmark_model", request.benchmark_model), ("litert_library", request.litert_library))
        if path is not None
    }
    if device.engine in ("python", "onnxruntime") and not (given and description.python is None):
        done.append(_set_up_python(description, transport, request, note))
    elif device.engine == "native" and not (request.litert_library or device.litert_library):
        given["litert_library"] = _library_from_wheel(description, transport, request, note)
    elif device.engine == "benchmark_model" and not (given or device.benchmark_model):
        raise SetupFailed(
            f"{device.name}: the engine benchmark_model needs Google's program for {device.abi}; get it from the "
            "TensorFlow Lite performance tools page and give it with --benchmark-model PATH"
        )
    if given:
        done.append(_record(target, device, given))
    return done or [f"{device.engine}: nothing to do, its files are given already"]


def _set_up_python(description: Description, transport: Transport, request: SetupRequest, note: Note) -> str:
    device, python = description.device, description.python
    if python is None:
        raise SetupFailed(
            f"{device.name}: no Python 3.9 or later was found there; install python3, "
            "or give --litert-library PATH and measure with --device-engine native"
        )
    version = ".".join(map(str, python.version))
    if python.version < (3, 9):
        raise SetupFailed(f"{device.name}: {python.executable} is Python {version}; 3.9 or later is needed")
    if description.runtimes and not request.upgrade and request.wheels is None:
        found = ", ".join(f"{name} {number}" for name, number in description.runtimes.items())
        return f"{device.engine}: {python.executable} has {found} already; --upgrade installs the newest"
    runtime = ONNXRUNTIME if device.engine == "onnxruntime" else LITERT
    if device.address.kind == "local":
        raise SetupFailed(f"{device.name}: install the runtime here with: {runtime.on_host}")
    note(f"{device.name}: {python.executable}, Python {version}, {' '.join(python.libc)}, {device.abi}")
    target = WheelTarget.of(python, device.abi)
    wheels = gather(target, request.wheels, note, newest=request.upgrade, package=runtime.package)
    installed = install(device, transport, python.executable, wheels, note, runtime)
    return f"{device.engine}: {runtime.module.partition('.')[0]} {installed} in {device.work_dir}"


def install(
    device: Device, transport: Transport, python: str, wheels: Sequence[Path], note: Note, runtime: Runtime = LITERT
) -> str:
    """Unpack wheels into the runtime's folder in WORK, see that it can be imported, and return its version.

    What was there before stays in place until the new packages work. Raises SetupFailed, DeviceBusy.
    """
    lock = lock_check(device, transport)
    if not lock.ok:
        raise DeviceBusy(f"{device.name}: {lock.found}; {lock.advice}")
    WorkFolder(transport, device.work_dir).prepare()
    _see_space(device, transport, wheels)
    note(f"{device.name}: copying {len(wheels)} wheels, {sum(w.stat().st_size for w in wheels) >> 20} MiB")
    try:
        _run(device, transport, ["sh", "-c", 'mkdir -p -m 700 "$1"/wheels', "sh", device.work_dir], "make a folder")
        transport.push_all({f"{device.work_dir}/wheels/{wheel.name}": wheel for wheel in wheels})
        hashes = json.dumps({wheel.name: sha256_of(wheel) for wheel in wheels})
        note(f"{device.name}: unpacking and importing")
        _run(device, transport, [python, "-c", _UNPACK, device.work_dir, hashes, runtime.site], "unpack the wheels")
        tried = [f"{device.work_dir}/{runtime.site}.new", runtime.module, runtime.package]
        done = _run(device, transport, [python, "-c", _IMPORT, *tried], "import the runtime")
        _run(device, transport, ["sh", "-c", _SWAP, "sh", device.work_dir, runtime.site], "put the packages in place")
    except BaseException:  # an interrupt, too, leaves no hundreds of MB that nobody would look for
        with contextlib.suppress(DeviceError):  # the first error is the one to tell; the link may be lost
            transport.run(["sh", "-c", _DROP, "sh", device.work_dir, runtime.site], _TIMEOUT_S)
        raise
    return clean_text(done.stdout.decode("utf-8", "replace")).strip()[:40]


def _run(device: Device, transport: Transport, argv: Sequence[str], purpose: str) -> Completed:
    try:
        done = transport.run(argv, _TIMEOUT_S)
    except TransportError as error:
        raise SetupFailed(f"{device.name}: cannot {purpose}: {error}") from error
    if done.exit_code != 0:
        said = clean_lines(done.stderr.decode("utf-8", "replace"))
        raise SetupFailed(f"{device.name}: cannot {purpose}: {said[-1] if said else f'exit code {done.exit_code}'}")
    return done


def _see_space(device: Device, transport: Transport, wheels: Sequence[Path]) -> None:
    wanted = _UNPACKED * sum(wheel.stat().st_size for wheel in wheels)
    free = read_conditions(device, transport).disk_free_bytes
    if free is not None and free < wanted:
        raise SetupFailed(
            f"{device.name}: {free >> 20} MiB are free at {device.work_dir}, {wanted >> 20} MiB are needed; make space"
        )


# --- the other engines ------------------------------------------------------------------------------------------------


def _checked_binary(path: Path, device: Device, key: str) -> Path:
    """See that a file is an ELF file for the device's processor. Raises SetupFailed."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise InvalidRequest(f"{key} {path} cannot be read: {error.strerror}") from error
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise InvalidRequest(f"{key} {path} is no ELF file; give the one built for {device.abi}")
    machine = _ELF_MACHINES.get(int.from_bytes(head[18:20], "little"), "another processor")
    fits = {device.abi} | ({"armv7l"} if device.abi == "aarch64" and key == "benchmark_model" else set())
    if machine not in fits:
        raise InvalidRequest(f"{key} {path} is built for {machine}; {device.name} needs {device.abi}")
    return path.absolute()


def _library_from_wheel(description: Description, transport: Transport, request: SetupRequest, note: Note) -> Path:
    """Take libLiteRt.so out of the runtime's wheel for the device's processor."""
    device = description.device
    if device.system == "android":
        raise SetupFailed(
            f"{device.name}: the engine native needs libLiteRt.so of Google's LiteRT archive for Android; "
            "give it with --litert-library PATH"
        )
    target = WheelTarget((3, 11), _glibc_minor(description, transport), device.abi)  # it is the same for every Python
    for wheel in gather(target, request.wheels, note, newest=request.upgrade):
        with zipfile.ZipFile(wheel) as archive:
            # the package's own description lies beside it, as where it is installed: it tells the version
            wanted = [n for n in archive.namelist() if n == _LIBRARY or n.endswith(".dist-info/METADATA")]
            if _LIBRARY in wanted:
                folder = cache_folder() / "libraries" / sha256_of(wheel)[:16]
                archive.extractall(folder, wanted)
                return folder / _LIBRARY
    raise SetupFailed(f"no libLiteRt.so is in the wheels for {device.abi}; give one with --litert-library PATH")


def _glibc_minor(description: Description, transport: Transport) -> int:
    """Find N of the device's glibc 2.N, by its Python or by what commands there are."""
    said = " ".join(description.python.libc) if description.python else ""
    if not said.strip():
        commands = {"getconf": "getconf GNU_LIBC_VERSION", "ldd": "ldd --version"}
        reading = read(transport, commands, ())
        said = reading.first("getconf") or reading.first("ldd")
    match = re.search(r"glibc.* 2\.(\d{1,3})$", said.strip(), re.IGNORECASE)
    if match is None:
        name = description.device.name
        raise SetupFailed(f"{name}: its C library is not glibc, which libLiteRt.so needs; it says {said.strip()!r}")
    return int(match[1])


def _record(target: Target, device: Device, given: dict[str, Path]) -> str:
    """Write the files' paths and hashes into the device's table, which is made where there is none."""
    user = target.user or UserDevice(device.name, target.address)
    path = user.source if target.user else user_devices.file_to_write(user=True)
    paths = {key: str(file) for key, file in given.items()}
    hashes = {f"{key}_sha256": sha256_of(file) for key, file in given.items()}
    user_devices.add(path, replace(user, **paths, **hashes, source=path), replace_it=True)  # type: ignore[arg-type] # the keys are texts all
    return f"{', '.join(given)} recorded for {user.name} in {path}"
