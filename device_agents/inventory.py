"""Which devices there are, what each of them is, and the way to it.

A device is found by name; what it is made of is read from the device itself. It measures nothing and judges nothing
about the moment: that is `readiness.py`.
Read next: `session.py`, which measures on a Device over its Transport.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from device_agents.errors import DeviceNotReady, ProtocolError, UnknownDevice
from device_agents.facts import Facts, cpu_list, integer_in, read_facts, value_of
from device_agents.local import LocalTransport
from device_agents.transport import Transport

_PROBE_TIMEOUT_S = 30.0

_PATTERNS = (
    "/proc/cpuinfo",
    "/proc/self/status",
    "/proc/sys/kernel/ostype",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/arch",
    "/proc/device-tree/model",
    "/etc/os-release",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/cpu[0-9]*/cpu_capacity",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    "/sys/class/dmi/id/product_name",
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """CPUs of one kind. `speed` orders clusters: the kernel's capacity, or the top frequency in kHz, or 0: unknown."""

    cpus: tuple[int, ...]
    speed: int


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that can be measured.

    build_fingerprint is equal for equal kernel, CPU model and system release, and holds neither host names nor paths.
    cpus are those a process may run on; clusters group them, slowest first. python and work_dir are paths there.
    """

    name: str
    transport: str
    model: str
    soc: str
    os: str
    abi: str
    cores: int
    cpus: tuple[int, ...]
    clusters: tuple[Cluster, ...]
    build_fingerprint: str
    python: str
    work_dir: str


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """An entry of the catalogue: a name, how it is reached, and a line for a person."""

    name: str
    transport: str
    description: str


CATALOGUE = (KnownDevice("host", "local", "this machine"),)


def list_devices() -> tuple[KnownDevice, ...]:
    """List the known devices without touching any of them."""
    return CATALOGUE


def find_device(name: str) -> Device:
    """Find a device by name and read what it is. Raises UnknownDevice with the nearest known name."""
    known = {entry.name: entry for entry in CATALOGUE}
    if name not in known:
        raise UnknownDevice(name, list(known))
    with closing(_transport_of(known[name].transport)) as transport:
        return describe(known[name], transport)


def open_transport(device: Device) -> Transport:
    """Open the way to a device; close it when done."""
    return _transport_of(device.transport)


def _transport_of(kind: str) -> Transport:
    if kind != "local":
        raise DeviceNotReady(f"no transport of kind {kind!r} in this version; known: local")
    return LocalTransport()


def describe(entry: KnownDevice, transport: Transport) -> Device:
    """Read over its transport what a Linux machine is."""
    facts = read_facts(transport, _PATTERNS)
    soc = _cpu_model(facts)
    release = value_of(facts.get("/etc/os-release", ""), "PRETTY_NAME") or "unknown"
    kernel = " ".join(facts.get(f"/proc/sys/kernel/{part}", "").strip() for part in ("ostype", "osrelease")).strip()
    cpus = _allowed_cpus(facts)
    return Device(
        name=entry.name,
        transport=entry.transport,
        model=_board_model(facts) or soc,
        soc=soc,
        os=release,
        abi=_abi(facts, transport),
        cores=len(cpus),
        cpus=cpus,
        clusters=_clusters(facts, cpus),
        build_fingerprint=_fingerprint(kernel, soc, release),
        python=sys.executable,
        work_dir=_local_work_dir(),
    )


def find_runtimes(device: Device, transport: Transport) -> dict[str, str]:
    """Ask the device's Python which runtimes it has: module name → version. Raises DeviceNotReady, ProtocolError."""
    script = (files("device_agents.runner") / "edgekd_runner.py").read_text(encoding="utf-8")
    done = transport.run([device.python, "-c", script, "probe"], _PROBE_TIMEOUT_S)
    if done.exit_code != 0:
        raise DeviceNotReady(f"{device.name}: its Python {device.python} ended with code {done.exit_code}")
    try:
        runtimes = json.loads(done.stdout)["runtimes"]
        return {str(name): str(version) for name, version in runtimes.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"{device.name}: its Python did not answer the probe with one JSON line") from error


def _cpu_model(facts: Facts) -> str:
    cpuinfo = facts.get("/proc/cpuinfo", "")
    named = value_of(cpuinfo, "model name") or value_of(cpuinfo, "Hardware")
    if named:
        return named
    # Arm's /proc/cpuinfo has numbers for a name; they still tell one core from another.
    parts = {value_of(block, "CPU part") for block in cpuinfo.split("\n\n")}
    return "Arm part " + "+".join(sorted(part for part in parts if part)) if any(parts) else "unknown"


def _board_model(facts: Facts) -> str | None:
    return facts.get("/proc/device-tree/model") or facts.get("/sys/class/dmi/id/product_name") or None


def _allowed_cpus(facts: Facts) -> tuple[int, ...]:
    allowed = cpu_list(value_of(facts.get("/proc/self/status", ""), "Cpus_allowed_list") or "")
    online = cpu_list(facts.get("/sys/devices/system/cpu/online", ""))
    return tuple(cpu for cpu in allowed if not online or cpu in online) or online or (0,)


def _clusters(facts: Facts, cpus: tuple[int, ...]) -> tuple[Cluster, ...]:
    root = "/sys/devices/system/cpu/cpu"
    speeds = {
        cpu: integer_in(facts, f"{root}{cpu}/cpu_capacity")
        or integer_in(facts, f"{root}{cpu}/cpufreq/cpuinfo_max_freq")
        or 0
        for cpu in cpus
    }
    return tuple(
        Cluster(tuple(cpu for cpu in cpus if speeds[cpu] == speed), speed) for speed in sorted(set(speeds.values()))
    )


def _abi(facts: Facts, transport: Transport) -> str:
    arch = facts.get("/proc/sys/kernel/arch", "").strip()  # Linux 6.1 and later
    return arch or transport.run(["uname", "-m"], _PROBE_TIMEOUT_S).stdout.decode("ascii", "replace").strip()


def _fingerprint(kernel: str, soc: str, release: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", f"{kernel} {release}").strip("-")
    digest = hashlib.sha256(f"{kernel}\n{soc}\n{release}".encode()).hexdigest()
    return f"{readable[:80]}-{digest[:12]}"


def _local_work_dir() -> str:
    return str(Path(tempfile.gettempdir()) / f"edgekd-{os.getuid()}")
