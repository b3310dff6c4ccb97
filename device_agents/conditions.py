"""The state of a device at one moment: load, memory, disk, heat, clocks, battery, screen. Read in one command.

It judges nothing: that is `readiness.py`. Read next: `facts.py` for how the files come over the wire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from device_agents import android
from device_agents.android import Battery
from device_agents.device import Device
from device_agents.facts import Facts, Reading, cpu_list, integer_in, numbered, read, value_of
from device_agents.transport import Transport

_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/"
_PI_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_PATTERNS = (
    "/proc/loadavg",
    "/proc/meminfo",
    "/sys/devices/system/cpu/online",
    "/sys/class/thermal/thermal_zone[0-9]*/type",
    "/sys/class/thermal/thermal_zone[0-9]*/temp",
    "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count",
    _PI_THROTTLED,
    _CPUFREQ + "scaling_governor",
    _CPUFREQ + "scaling_cur_freq",
    _CPUFREQ + "scaling_max_freq",
    _CPUFREQ + "cpuinfo_max_freq",
)
# The work folder may not exist yet; the next folder above it that does is on the same disk.
_DISK = 'd=$argument; while [ ! -d "$d" ]; do d=${d%/*}; [ -n "$d" ] || d=/; done; df -Pk "$d"'
_LINUX_COMMANDS = {"disk": _DISK, "vcgencmd": f"[ -e {_PI_THROTTLED} ] || vcgencmd get_throttled"}
_ANDROID_COMMANDS = {
    "disk": _DISK,
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
    "power": "dumpsys power",
    "low_power": "settings get global low_power",
    "fixed": "cmd power help 2>&1 | grep set-fixed-performance-mode-enabled",
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of a device at one moment; None and empty mean that the device does not say.

    load is the 1-minute average of runnable tasks; Android counts others too, so that it is no measure of runnable
    ones there. temperatures_c go by thermal zone ("0 x86_pkg_temp") or Android's sensor ("skin VIRTUAL-SKIN"),
    governors and frequencies (current, allowed top, hardware top; kHz) by CPU. throttled_events is how many
    throttling events the kernel has counted since boot. pi_throttled is a Raspberry Pi's own word of bits,
    thermal_status Android's (0 none … 6 shutdown). fixed_performance tells whether Android can hold its clocks still.
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
    thermal_status: int | None = None
    battery: Battery = field(default_factory=Battery)
    power_save: bool | None = None
    screen_on: bool | None = None
    fixed_performance: bool | None = None

    @property
    def hottest_c(self) -> float | None:
        """Return the highest temperature of any zone but the battery's, which has a limit of its own."""
        return max((value for name, value in self.temperatures_c if not name.startswith("battery")), default=None)


def read_conditions(device: Device, transport: Transport) -> Conditions:
    """Read a device's state in one command. Raises TransportError."""
    commands = _ANDROID_COMMANDS if device.system == "android" else _LINUX_COMMANDS
    parent = device.work_dir.rpartition("/")[0] or "/"
    reading = read(transport, commands, _PATTERNS, parent)
    facts, thermal, power = reading.files, reading.said.get("thermal", ()), reading.said.get("power", ())
    load = re.match(r"\d{1,6}\.\d{1,3}", facts.get("/proc/loadavg", "")) if device.system == "linux" else None
    return Conditions(
        cpus=len(cpu_list(facts.get("/sys/devices/system/cpu/online", ""))) or device.cores,
        load=float(load.group()) if load else None,
        memory_available_bytes=_meminfo_bytes(facts, "MemAvailable"),
        disk_free_bytes=_disk_free_bytes(reading),
        temperatures_c=_temperatures_c(facts) or android.temperatures_of(thermal),
        governors=tuple(sorted(numbered(facts, _cpufreq_pattern("scaling_governor")).items())),
        frequencies_khz=_frequencies_khz(facts),
        throttled_events=_throttled_events(facts),
        pi_throttled=_hexadecimal(facts.get(_PI_THROTTLED, "") or reading.first("vcgencmd").rpartition("=")[2]),
        thermal_status=android.thermal_status_of(thermal),
        battery=android.battery_of(reading.said.get("battery", ())),
        power_save=android.power_save_of(reading.first("low_power"), power),
        screen_on=android.screen_on_of(power),
        fixed_performance="set-fixed-performance" in reading.first("fixed") if device.system == "android" else None,
    )


def _meminfo_bytes(facts: Facts, key: str) -> int | None:
    match = re.fullmatch(r"(\d{1,15}) kB", value_of(facts.get("/proc/meminfo", ""), key) or "")
    return int(match.group(1)) * 1024 if match else None


def _disk_free_bytes(reading: Reading) -> int | None:
    # only the last line is the folder's: it may have been broken in two by a long name
    last = next((line for line in reversed(reading.said.get("disk", ())) if line.strip()), "")
    match = re.search(r"\s(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s+\d+%", last)
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
