"""May this device be measured now? Its load, memory, disk, heat, clocks and throttling, and what to say about them.

It reads and warns; it refuses nothing, because a busy machine still gives usable rows on the thread's own clock.
Rows carry their own flags for what happens while measuring.
Read next: `facts.py` for how the files come over the wire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_agents.facts import Facts, cpu_list, integer_in, numbered, read_facts, value_of
from device_agents.inventory import Device
from device_agents.strict_json import clean_text
from device_agents.transport import Transport

_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/"
_PATTERNS = (
    "/proc/loadavg",
    "/proc/meminfo",
    "/sys/devices/system/cpu/online",
    "/sys/class/thermal/thermal_zone[0-9]*/type",
    "/sys/class/thermal/thermal_zone[0-9]*/temp",
    "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count",
    "/sys/devices/platform/soc/soc:firmware/get_throttled",
    _CPUFREQ + "scaling_governor",
    _CPUFREQ + "scaling_cur_freq",
    _CPUFREQ + "scaling_max_freq",
    _CPUFREQ + "cpuinfo_max_freq",
)
_DF_TIMEOUT_S = 20.0

BUSY_LOAD_PER_CPU = 0.5  # above it a second runnable thread often shares the core that measures
LOW_MEMORY_BYTES = 256 << 20  # a block of models and their packed weights
LOW_DISK_BYTES = 128 << 20  # the models of one batch
HOT_C = 75.0  # boards begin to throttle at 80 °C
SLOW_GOVERNORS = ("powersave", "conservative")
_PI_NOW = 0b1111  # get_throttled: bits 0–3 tell of now, 16–19 of since boot


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of a device at one moment; None and empty mean that the device does not say.

    load is the 1-minute average of runnable tasks. temperatures_c go by thermal zone ("0 x86_pkg_temp"), governors
    and frequencies (current, allowed top, hardware top; kHz) by CPU. throttled_events is how many throttling events
    the kernel has counted since boot. pi_throttled is a Raspberry Pi's own word of bits.
    """

    cpus: int
    load: float | None
    memory_available_bytes: int | None
    disk_free_bytes: int | None
    temperatures_c: tuple[tuple[str, float], ...]
    governors: tuple[tuple[int, str], ...]
    frequencies_khz: tuple[tuple[int, tuple[int, int, int]], ...]
    throttled_events: int | None
    pi_throttled: int | None


def read_conditions(device: Device, transport: Transport) -> Conditions:
    """Read a device's state in two commands. Raises TransportError."""
    facts = read_facts(transport, _PATTERNS)
    load = re.match(r"\d{1,6}\.\d{1,3}", facts.get("/proc/loadavg", ""))
    return Conditions(
        cpus=len(cpu_list(facts.get("/sys/devices/system/cpu/online", ""))) or device.cores,
        load=float(load.group()) if load else None,
        memory_available_bytes=_meminfo_bytes(facts, "MemAvailable"),
        disk_free_bytes=_disk_free_bytes(device, transport),
        temperatures_c=_temperatures_c(facts),
        governors=tuple(sorted(numbered(facts, _cpufreq_pattern("scaling_governor")).items())),
        frequencies_khz=_frequencies_khz(facts),
        throttled_events=_throttled_events(facts),
        pi_throttled=_hexadecimal(facts.get("/sys/devices/platform/soc/soc:firmware/get_throttled", "")),
    )


def warnings_of(conditions: Conditions) -> list[str]:
    """Say in one line each what speaks against measuring now; an empty list is a quiet, cool device."""
    return [*_load_warnings(conditions), *_heat_warnings(conditions), *_clock_warnings(conditions)]


def _load_warnings(conditions: Conditions) -> list[str]:
    warnings = []
    if conditions.load is not None and conditions.load > BUSY_LOAD_PER_CPU * conditions.cpus:
        warnings.append(f"busy: load {conditions.load:.2f} on {conditions.cpus} CPUs; wall times will be long")
    memory, disk = conditions.memory_available_bytes, conditions.disk_free_bytes
    if memory is not None and memory < LOW_MEMORY_BYTES:
        warnings.append(f"low memory: {memory >> 20} MiB available, {LOW_MEMORY_BYTES >> 20} MiB wanted")
    if disk is not None and disk < LOW_DISK_BYTES:
        warnings.append(f"low disk space: {disk >> 20} MiB free, {LOW_DISK_BYTES >> 20} MiB wanted")
    return warnings


def _heat_warnings(conditions: Conditions) -> list[str]:
    warnings = [
        f"hot: {zone} at {temp:.0f} °C; let it cool" for zone, temp in conditions.temperatures_c if temp > HOT_C
    ]
    if conditions.pi_throttled is not None and conditions.pi_throttled & _PI_NOW:
        warnings.append(
            f"throttled now: get_throttled says {conditions.pi_throttled:#x}; check power supply and cooling"
        )
    return warnings


def _clock_warnings(conditions: Conditions) -> list[str]:
    slow = [f"CPU {cpu}: {governor}" for cpu, governor in conditions.governors if governor in SLOW_GOVERNORS]
    capped = [f"CPU {cpu}: {top} of {full} kHz" for cpu, (_, top, full) in conditions.frequencies_khz if top < full]
    warnings = []
    if slow:
        warnings.append(f"slow governor ({', '.join(slow)}); set performance or schedutil")
    if capped:
        warnings.append(f"clock capped below the hardware's top ({', '.join(capped)})")
    return warnings


def _meminfo_bytes(facts: Facts, key: str) -> int | None:
    match = re.fullmatch(r"(\d{1,15}) kB", value_of(facts.get("/proc/meminfo", ""), key) or "")
    return int(match.group(1)) * 1024 if match else None


def _disk_free_bytes(device: Device, transport: Transport) -> int | None:
    # The work folder may not exist yet; the folder it lies in is on the same disk.
    parent = device.work_dir.rpartition("/")[0] or "/"
    lines = transport.run(["df", "-Pk", parent], _DF_TIMEOUT_S).stdout.decode("utf-8", "replace").splitlines()
    match = re.search(r"\s(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s+\d+%", clean_text(lines[-1])) if lines else None
    return int(match.group(3)) * 1024 if match else None


def _temperatures_c(facts: Facts) -> tuple[tuple[str, float], ...]:
    kinds = numbered(facts, r"/sys/class/thermal/thermal_zone(\d{1,4})/type")
    found = []
    for zone in sorted(numbered(facts, r"/sys/class/thermal/thermal_zone(\d{1,4})/temp")):
        value = integer_in(facts, f"/sys/class/thermal/thermal_zone{zone}/temp")
        if value is not None and -100_000 < value < 200_000:  # sleeping sensors answer with absurd numbers
            found.append((f"{zone} {kinds.get(zone, 'unknown')}", value / 1000))
    return tuple(found)


def _frequencies_khz(facts: Facts) -> tuple[tuple[int, tuple[int, int, int]], ...]:
    found = []
    for cpu in sorted(numbered(facts, _cpufreq_pattern("cpuinfo_max_freq"))):
        base = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/"
        names = ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
        now, top, full = (integer_in(facts, base + name) for name in names)
        if now is not None and top is not None and full is not None:
            found.append((cpu, (now, top, full)))
    return tuple(found)


def _throttled_events(facts: Facts) -> int | None:
    pattern = r"/sys/devices/system/cpu/cpu(\d{1,4})/thermal_throttle/core_throttle_count"
    counts = [int(text) for text in numbered(facts, pattern).values() if re.fullmatch(r"\d{1,15}", text)]
    return sum(counts) if counts else None


def _hexadecimal(text: str) -> int | None:
    match = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,8})", text.strip())
    return int(match.group(1), 16) if match else None


def _cpufreq_pattern(name: str) -> str:
    return rf"/sys/devices/system/cpu/cpu(\d{{1,4}})/cpufreq/{name}"
