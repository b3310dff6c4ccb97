"""May a device be measured now? What it says of itself, and what is warned of."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from device_agents.inventory import Device
from device_agents.local import LocalTransport
from device_agents.readiness import Conditions, read_conditions, warnings_of
from device_agents.transport import Completed, Transport

CPU = "/sys/devices/system/cpu/"
ZONE = "/sys/class/thermal/thermal_zone"
QUIET = {
    "/proc/loadavg": "0.10 0.20 0.30 1/90 1234",
    "/proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB",
    CPU + "online": "0-3",
    ZONE + "0/type": "cpu-thermal",
    ZONE + "0/temp": "45678",
    CPU + "cpu0/cpufreq/scaling_governor": "performance",
    CPU + "cpu0/cpufreq/scaling_cur_freq": "1500000",
    CPU + "cpu0/cpufreq/scaling_max_freq": "1500000",
    CPU + "cpu0/cpufreq/cpuinfo_max_freq": "1500000",
    CPU + "cpu0/thermal_throttle/core_throttle_count": "3",
    CPU + "cpu1/thermal_throttle/core_throttle_count": "4",
    "/sys/devices/platform/soc/soc:firmware/get_throttled": "0x50000",
}
DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/root 30000000 9000000 20000000 31% /\n"


class FakeBoard(LocalTransport):
    """A board that is its files and its disk."""

    def __init__(self, df: str = DF, **changed: str) -> None:
        super().__init__()
        self.files = {**QUIET, **changed}
        self.df = df

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Print the files as grep would, or the disk."""
        lines = [f"{path}:{line}\n" for path, text in self.files.items() for line in text.split("\n")]
        return Completed(0, (self.df if argv[0] == "df" else "".join(lines)).encode(), b"")


def test_conditions_carry_what_the_device_says(host: Device) -> None:
    """Each file becomes a number with its unit."""
    conditions = read_conditions(host, FakeBoard())
    assert conditions == Conditions(
        cpus=4,
        load=0.1,
        memory_available_bytes=3_000_000 * 1024,
        disk_free_bytes=20_000_000 * 1024,
        temperatures_c=(("0 cpu-thermal", 45.678),),
        governors=((0, "performance"),),
        frequencies_khz=((0, (1_500_000, 1_500_000, 1_500_000)),),
        throttled_events=7,
        pi_throttled=0x50000,
    )


def test_a_quiet_cool_device_has_no_warnings(host: Device) -> None:
    """Throttling since boot, but not now, is no reason to wait."""
    assert warnings_of(read_conditions(host, FakeBoard())) == []


@pytest.mark.parametrize(
    ("path", "text", "warning"),
    [
        ("/proc/loadavg", "2.50 1.00 1.00 3/90 1", "busy: load 2.50 on 4 CPUs"),
        ("/proc/meminfo", "MemAvailable: 1024 kB", "low memory: 1 MiB"),
        (ZONE + "0/temp", "84000", "hot: 0 cpu-thermal at 84"),
        (CPU + "cpu0/cpufreq/scaling_governor", "powersave", r"slow governor \(CPU 0: powersave\)"),
        (CPU + "cpu0/cpufreq/scaling_max_freq", "600000", "CPU 0: 600000 of 1500000 kHz"),
        ("/sys/devices/platform/soc/soc:firmware/get_throttled", "50005", "throttled now.*0x50005"),
    ],
)
def test_each_trouble_is_one_warning(path: str, text: str, warning: str, host: Device) -> None:
    """One thing wrong is one line that names it with its value."""
    (found,) = warnings_of(read_conditions(host, FakeBoard(**{path: text})))
    assert re.search(warning, found)


def test_a_full_disk_is_warned_of(host: Device) -> None:
    """The models of a batch need space."""
    (found,) = warnings_of(read_conditions(host, FakeBoard(df=DF.replace("20000000", "2048"))))
    assert "low disk space: 2 MiB" in found


@pytest.mark.parametrize("text", ["", "nonsense", "-", "9" * 100, "\x1b[31m"])
def test_a_device_that_talks_nonsense_says_nothing(text: str, host: Device) -> None:
    """Unreadable values are unknown, and unknown is no warning."""
    board = FakeBoard(df=text, **dict.fromkeys(QUIET, text))
    conditions = read_conditions(host, board)
    assert conditions.load is None
    assert conditions.memory_available_bytes is None
    assert conditions.disk_free_bytes is None
    assert conditions.temperatures_c == ()
    assert conditions.frequencies_khz == ()
    assert conditions.cpus == host.cores


def test_this_machine_can_be_read(host: Device, transport: Transport) -> None:
    """The real files of a Linux machine give at least load, memory and disk."""
    conditions = read_conditions(host, transport)
    assert conditions.load is not None
    assert conditions.load >= 0
    assert conditions.memory_available_bytes
    assert conditions.disk_free_bytes
