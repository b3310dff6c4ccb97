"""What a machine is: its model, system, CPUs and Python, read over its transport in two or three commands.

It judges nothing about the moment (that is `readiness.py`) and finds no device (that is `inventory.py`).
Read next: `facts.py` for how the files come over the wire.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from device_agents import android, catalogue
from device_agents.addresses import Address
from device_agents.connect import DEFAULT_OPTIONS, ConnectOptions
from device_agents.device import Cluster, Device, mask_of
from device_agents.errors import DeviceNotReady
from device_agents.facts import Facts, Reading, cpu_list, integer_in, read, value_of
from device_agents.pythons import CANDIDATES, PythonThere, find_python, runtimes_of, site_of
from device_agents.transport import Transport
from device_agents.user_devices import UserDevice, checked_files

ANDROID_WORK_DIR = "/data/local/tmp/edgekd"  # the one folder where an unrooted phone lets the shell run programs
_COMMANDS = {
    "getprop": "if command -v getprop >/dev/null; then getprop; fi",
    "home": "printf '%s\\n' \"$HOME\"",
    "machine": "uname -m",
    "bits": "getconf LONG_BIT",
}
_PATTERNS = (
    "/proc/cpuinfo",
    "/proc/self/status",
    "/proc/sys/kernel/ostype",
    "/proc/sys/kernel/osrelease",
    "/sys/firmware/devicetree/base/model",  # what /proc/device-tree links to, where there is one
    "/sys/firmware/devicetree/base/serial-number",
    "/sys/firmware/devicetree/base/compatible",
    "/etc/os-release",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/cpu[0-9]*/cpu_capacity",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    "/sys/class/dmi/id/product_name",
)
# Source: the makers' prefixes in the kernel's Documentation/devicetree/bindings/vendor-prefixes.yaml
_MACHINE = re.compile(r"[A-Za-z0-9_]{1,20}")  # as `uname -m` says it; it names folders here, too
_CHIP = re.compile(r"(?:allwinner|amlogic|brcm|fsl|mediatek|nvidia|qcom|rockchip|samsung|ti),([a-z0-9-]{2,40})\s*$")


@dataclass(frozen=True, slots=True)
class Target:
    """Which device to describe: the way to it, and what a person has said of it. An empty name is found out.

    engine is asked for this once, before what devices.toml says; empty leaves it to that, the catalogue and the system.
    """

    address: Address
    name: str = ""
    user: UserDevice | None = None
    connection: ConnectOptions = DEFAULT_OPTIONS
    engine: str = ""

    @staticmethod
    def of(user: UserDevice, options: ConnectOptions) -> Target:
        """Return the target of a table of devices.toml; its own key and files go before those of the options."""
        paths = {name: getattr(user, name) or getattr(options, name) for name in ("key", "known_hosts", "ssh_config")}
        return Target(user.address, user.name, user, replace(options, **paths))


@dataclass(frozen=True, slots=True)
class Description:
    """A device with what only some callers need: its catalogue entry and its Python with the runtimes found."""

    device: Device
    known: catalogue.KnownDevice | None = None
    python: PythonThere | None = None
    runtimes: dict[str, str] = field(default_factory=dict)


def describe(target: Target, transport: Transport) -> Device:
    """Read what a machine is. Raises TransportError, ProtocolError, DeviceNotReady.

    This machine's Python is the one that runs this, and is not asked what it has.
    """
    return examine(target, transport, ask_own_python=False).device


def examine(target: Target, transport: Transport, *, ask_own_python: bool = True) -> Description:
    """Read what a machine is and which runtimes its Python has. Raises as describe does."""
    reading = read(transport, _COMMANDS, _PATTERNS)
    props = android.properties(reading.said.get("getprop", ()))
    local = target.address.kind == "local"
    identity = _android(reading, props) if android.is_android(props) else _linux(reading, target.address)
    known = catalogue.HOST if local else catalogue.recognise(identity.system, identity.model, identity.codename)
    device = _device(identity, known, target, _allowed_cpus(reading.files), reading.files)
    asked = (target.user.python,) if target.user and target.user.python else (sys.executable,) if local else CANDIDATES
    if asked == (sys.executable,) and not ask_own_python:
        return Description(replace(device, python=sys.executable), known)
    # the work folder of this machine lies where others can make one of that name: nothing is imported from it
    site = "" if local else f"{device.work_dir}/{site_of(device.engine)}"
    python = find_python(transport, site, asked, runtimes_of(device.engine))
    if python is None:
        return Description(device, known)
    return Description(replace(device, python=python.executable), known, python, python.runtimes)


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a machine says that it is."""

    system: str
    serial: str
    model: str
    codename: str
    soc: str
    os: str
    abi: str
    build_fingerprint: str
    work_dir: str


def _linux(reading: Reading, address: Address) -> _Identity:
    facts = reading.files
    soc = _cpu_model(facts)
    release = value_of(facts.get("/etc/os-release", ""), "PRETTY_NAME") or "unknown"
    kernel = " ".join(facts.get(f"/proc/sys/kernel/{part}", "").strip() for part in ("ostype", "osrelease")).strip()
    machine = _machine(reading)
    return _Identity(
        system="linux",
        serial=facts.get("/sys/firmware/devicetree/base/serial-number", "").strip(),
        model=_board_model(facts) or soc,
        codename="",
        soc=soc,
        os=release,
        # a 32-bit system on a 64-bit kernel, as some Raspberry Pis have, runs 32-bit programs
        abi="armv7l" if (machine, reading.first("bits")) == ("aarch64", "32") else machine,
        build_fingerprint=_fingerprint(kernel, soc, release),
        work_dir=_local_work_dir() if address.kind == "local" else _home(reading, address) + "/.cache/edgekd",
    )


def _android(reading: Reading, props: dict[str, str]) -> _Identity:
    soc = android.soc_of(props)
    release = f"Android {props.get('ro.build.version.release', '')} (API {props['ro.build.version.sdk']})"
    return _Identity(
        system="android",
        serial=props.get("ro.serialno", "").strip(),
        model=props.get("ro.product.model", "") or "unknown",
        codename=props.get("ro.product.device", ""),
        soc=soc,
        os=release,
        abi=android.abi_of(props, _machine(reading)),
        build_fingerprint=_fingerprint(props.get("ro.build.fingerprint", ""), soc, release),
        work_dir=ANDROID_WORK_DIR,
    )


def _device(
    identity: _Identity, known: catalogue.KnownDevice | None, target: Target, cpus: tuple[int, ...], facts: Facts
) -> Device:
    """Join what was read with what is chosen: by the person first, then by the catalogue, then by the system."""
    user = checked_files(target.user) if target.user else UserDevice("", target.address)
    name = target.name or (known.name if known else _slug(identity.model))
    missing = sorted(set(user.cpus) - set(cpus))
    if missing:
        raise DeviceNotReady(f"{name}: CPUs {missing} of devices.toml cannot be used; the device allows {list(cpus)}")
    clusters = _clusters(facts, cpus)
    return Device(
        name=name,
        address=target.address,
        serial=_usual_serial(target.address, identity) or identity.serial or str(target.address).partition("://")[2],
        system=identity.system,
        model=identity.model,
        soc=identity.soc,
        os=identity.os,
        abi=identity.abi,
        cores=len(cpus),
        cpus=cpus,
        clusters=clusters,
        build_fingerprint=identity.build_fingerprint,
        python="",
        work_dir=identity.work_dir,
        engine=target.engine or user.engine or _engine_of(identity, known, user),
        cpu_mask=mask_of(user.cpus) or catalogue.cpu_mask_of(known, cpus, clusters),
        threads=user.threads or (known.threads if known else 1),
        benchmark_model=user.benchmark_model,
        litert_library=user.litert_library,
        connection=target.connection,
    )


def _usual_serial(address: Address, identity: _Identity) -> str:
    """Return what adb calls the device, unless that is its name for one more way to it, by wireless debugging."""
    is_wireless = address.serial.endswith("._adb-tls-connect._tcp") and identity.serial
    return "" if is_wireless else address.serial


def _engine_of(identity: _Identity, known: catalogue.KnownDevice | None, user: UserDevice) -> str:
    if identity.system == "android" and user.litert_library and not user.benchmark_model:
        return "native"  # the only engine that a person has given the files of
    return known.default_engine if known else catalogue.ENGINE_OF_SYSTEM[identity.system]


def _slug(model: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40] or "unknown"


def _machine(reading: Reading) -> str:
    machine = reading.first("machine")
    return machine if _MACHINE.fullmatch(machine) else "unknown"


def _home(reading: Reading, address: Address) -> str:
    home = reading.first("home").rstrip("/")
    if not re.fullmatch(r"(/[\w.@+ -]{1,100}){1,16}", home):
        raise DeviceNotReady(f"{address}: its HOME is {home!r}; give that user a home folder to work in")
    return home


def _cpu_model(facts: Facts) -> str:
    cpuinfo = facts.get("/proc/cpuinfo", "")
    named = value_of(cpuinfo, "model name") or value_of(cpuinfo, "Hardware")
    if named:
        return named
    # the last word of "maker,board\0maker,chip\0", which comes without its NULs
    if chip := _CHIP.search(facts.get("/sys/firmware/devicetree/base/compatible", "")):
        return chip[1]
    # Arm's /proc/cpuinfo has numbers for a name; they still tell one core from another.
    parts = {value_of(block, "CPU part") for block in cpuinfo.split("\n\n")}
    return "Arm part " + "+".join(sorted(part for part in parts if part)) if any(parts) else "unknown"


def _board_model(facts: Facts) -> str | None:
    return facts.get("/sys/firmware/devicetree/base/model") or facts.get("/sys/class/dmi/id/product_name") or None


def _allowed_cpus(facts: Facts) -> tuple[int, ...]:
    allowed = cpu_list(value_of(facts.get("/proc/self/status", ""), "Cpus_allowed_list") or "")
    online = cpu_list(facts.get("/sys/devices/system/cpu/online", ""))
    return tuple(cpu for cpu in allowed if not online or cpu in online) or online or (0,)


def _clusters(facts: Facts, cpus: tuple[int, ...]) -> tuple[Cluster, ...]:
    """Group CPUs by the kernel's capacity and then by top frequency: a phone's prime core may differ in that alone."""
    root = "/sys/devices/system/cpu/cpu"
    speeds = {
        cpu: (
            integer_in(facts, f"{root}{cpu}/cpu_capacity") or 0,
            integer_in(facts, f"{root}{cpu}/cpufreq/cpuinfo_max_freq") or 0,
        )
        for cpu in cpus
    }
    return tuple(
        Cluster(tuple(cpu for cpu in cpus if speeds[cpu] == speed), speed[0] or speed[1])
        for speed in sorted(set(speeds.values()))
    )


def _fingerprint(kernel: str, soc: str, release: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", f"{kernel} {release}").strip("-")
    digest = hashlib.sha256(f"{kernel}\n{soc}\n{release}".encode()).hexdigest()
    return f"{readable[:80]}-{digest[:12]}"


def _local_work_dir() -> str:
    return str(Path(tempfile.gettempdir()) / f"edgekd-{os.getuid()}")
