"""May a device be measured now? What it says of itself, what is warned of, and the wait for a hot one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from boards import FakeBoard

from device_agents.android import Battery
from device_agents.catalogue import ThermalLimits
from device_agents.device import Device
from device_agents.errors import DeviceNotReady
from device_agents.readiness import (
    Conditions,
    checks_of,
    differences,
    read_conditions,
    throttled,
    wait_until_cool,
    warnings_of,
)
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


PI_WORD = "/sys/devices/platform/soc/soc:firmware/get_throttled"
LIMITS = ThermalLimits(hot_c=70, cool_c=50, wait_s=20, poll_s=5)
COLD = Conditions(4, 0.1, 1 << 30, 1 << 30, (("0 cpu", 40.0),), (), (), None, None)


def board(df: str = DF, **changed: str) -> FakeBoard:
    """A board that is its files and its disk."""
    return FakeBoard({**QUIET, **changed}, {"disk": df})


def test_conditions_carry_what_the_device_says(host: Device) -> None:
    """Each file becomes a number with its unit."""
    conditions = read_conditions(host, board())
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
    assert warnings_of(read_conditions(host, board())) == []


@pytest.mark.parametrize(
    ("path", "text", "warning"),
    [
        ("/proc/loadavg", "2.50 1.00 1.00 3/90 1", "busy: load 2.50 on 4 CPUs"),
        ("/proc/meminfo", "MemAvailable: 1024 kB", "low memory: 1 MiB"),
        (ZONE + "0/temp", "84000", "hot: 0 cpu-thermal at 84"),
        (CPU + "cpu0/cpufreq/scaling_governor", "powersave", r"slow governor \(CPU 0: powersave\)"),
        (CPU + "cpu0/cpufreq/scaling_max_freq", "600000", "CPU 0: 600000 of 1500000 kHz"),
        (PI_WORD, "50005", r"throttled now \(under-voltage, throttled\).*0x50005; check power supply"),
    ],
)
def test_each_trouble_is_one_warning(path: str, text: str, warning: str, host: Device) -> None:
    """One thing wrong is one line that names it with its value."""
    (found,) = warnings_of(read_conditions(host, board(**{path: text})))
    assert re.search(warning, found)


def test_a_full_disk_is_warned_of(host: Device) -> None:
    """The models of a batch need space."""
    (found,) = warnings_of(read_conditions(host, board(DF.replace("20000000", "2048"))))
    assert "low disk space: 2 MiB" in found


@pytest.mark.parametrize("text", ["", "nonsense", "-", "9" * 100, "\x1b[31m"])
def test_a_device_that_talks_nonsense_says_nothing(text: str, host: Device) -> None:
    """Unreadable values are unknown, and unknown is no warning."""
    conditions = read_conditions(host, board(text, **dict.fromkeys(QUIET, text)))
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


def test_the_disk_is_that_of_the_work_folder_to_be(host: Device, transport: Transport, tmp_path: object) -> None:
    """A folder that is not there yet lies on the disk of the next one above it."""
    here = read_conditions(replace(host, work_dir=f"{tmp_path}/edgekd"), transport)
    missing = read_conditions(replace(host, work_dir=f"{tmp_path}/not/yet/there/edgekd"), transport)
    assert missing.disk_free_bytes
    assert here.disk_free_bytes
    assert abs(missing.disk_free_bytes - here.disk_free_bytes) < 1 << 30


def test_vcgencmd_answers_where_the_kernel_has_no_file(host: Device) -> None:
    """Older systems of a Raspberry Pi have the command alone."""
    files = {path: text for path, text in QUIET.items() if path != PI_WORD}
    conditions = read_conditions(host, FakeBoard(files, {"vcgencmd": "throttled=0x50005"}))
    assert conditions.pi_throttled == 0x50005


def test_the_temperature_is_judged_by_the_limits_of_the_device(host: Device) -> None:
    """A phone is hot before a board is; a battery has a limit of its own."""
    warm = replace(COLD, temperatures_c=(("0 cpu", 72.0),))
    assert warnings_of(warm) == []
    (found,) = warnings_of(warm, LIMITS)
    assert found == "hot: 0 cpu at 72 °C; let it cool below 50 °C"
    (found,) = warnings_of(replace(COLD, temperatures_c=(("battery battery", 44.0),)), LIMITS)
    assert "battery battery at 44" in found


def test_every_check_has_a_finding_and_a_failed_one_an_advice() -> None:
    """Passed checks advise nothing."""
    bad = Conditions(
        4,
        9.0,
        1,
        1,
        (("0 cpu", 99.0),),
        ((0, "powersave"),),
        ((0, (1, 1, 2)),),
        3,
        0xF,
        3,
        Battery(3, 50.0),
        *[True] * 3,
    )
    failed = checks_of(bad)
    assert sum(not check.ok for check in failed) == len(failed) - 1  # that a mode can be set is no trouble
    assert all(check.found and bool(check.advice) != check.ok for check in failed)
    assert all(check.ok and check.found and not check.advice for check in checks_of(COLD))


@pytest.mark.parametrize(
    ("changed", "is_throttled"),
    [
        ({}, False),
        ({"pi_throttled": 0x50000}, False),
        ({"pi_throttled": 0x4}, True),
        ({"thermal_status": 0}, False),
        ({"thermal_status": 1}, True),
    ],
)
def test_throttled_is_what_the_device_says_of_now(changed: dict[str, int], is_throttled: bool) -> None:
    """What has been since boot is over."""
    assert throttled(replace(COLD, **changed)) is is_throttled  # type: ignore[arg-type]


class CoolingBoard(FakeBoard):
    """A board that cools by 10 °C with each reading."""

    def __init__(self, start_c: int) -> None:
        super().__init__({**QUIET, ZONE + "0/temp": str(1000 * (start_c + 10))}, {"disk": DF})

    def run(self, argv: object, timeout_s: float) -> Completed:
        """Print the files, cooler than before."""
        self.files[ZONE + "0/temp"] = str(int(self.files[ZONE + "0/temp"]) - 10_000)
        return super().run(argv, timeout_s)  # type: ignore[arg-type]


def test_a_cool_device_is_not_waited_for(host: Device) -> None:
    """Between the two limits nothing needs to cool."""
    slept: list[float] = []
    wait_until_cool(host, CoolingBoard(69), LIMITS, sleep=slept.append)
    assert slept == []


def test_a_hot_device_is_waited_for_until_it_is_cool(host: Device) -> None:
    """Not only until it is no longer hot; each wait says how hot it is and what is waited for."""
    notes: list[str] = []
    slept: list[float] = []
    conditions = wait_until_cool(host, CoolingBoard(75), LIMITS, notes.append, slept.append)
    assert conditions.hottest_c == 45
    assert slept == [5, 5, 5]
    assert notes[0] == "host: 75 °C, waiting for 50 °C"


def test_a_device_that_stays_hot_is_given_up(host: Device) -> None:
    """After the limit, with what to do."""
    with pytest.raises(DeviceNotReady, match=r"99 °C.* after 20 s .*cool it"):
        wait_until_cool(host, board(**{ZONE + "0/temp": "99000"}), LIMITS, sleep=lambda seconds: None)


def test_a_throttled_device_is_waited_for_however_cool_it_is(host: Device) -> None:
    """A weak power supply throttles too."""
    with pytest.raises(DeviceNotReady, match=r"throttled \(under-voltage\).*power supply"):
        wait_until_cool(host, board(**{PI_WORD: "0x1"}), LIMITS, sleep=lambda seconds: None)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"throttled_events": 3}, {"throttled_events": 5}, "2 events more"),
        ({"pi_throttled": 0}, {"pi_throttled": 0x40000}, r"throttled \(get_throttled 0x40000\)"),
        ({"thermal_status": 0}, {"thermal_status": 2}, "rose to moderate"),
        ({"frequencies_khz": ((0, (9, 9, 9)),)}, {"frequencies_khz": ((0, (5, 5, 9)),)}, "CPU 0: 5 kHz"),
        ({"power_save": False}, {"power_save": True}, "battery saver"),
    ],
)
def test_throttling_between_two_readings_is_found(
    before: dict[str, object], after: dict[str, object], found: str
) -> None:
    """By each sign that a device gives, and by none when nothing changed."""
    first, second = replace(COLD, **before), replace(COLD, **after)  # type: ignore[arg-type]
    (line,) = differences(first, second)
    assert re.search(found, line)
    assert differences(first, first) == []


def test_what_was_throttled_before_is_not_found_again() -> None:
    """Bits of since boot stay set for ever, and a cap that was there stays a cap."""
    old = replace(COLD, pi_throttled=0x50000, throttled_events=7, frequencies_khz=((0, (5, 5, 9)),))
    assert differences(old, old) == []
    assert differences(old, replace(old, throttled_events=None)) == []
