"""What an Android device says through getprop and dumpsys, read into numbers.

Every reader takes lines that were said and gives None for what is not there: vendors change these texts freely.
It runs nothing itself. Read next: `describe.py` and `readiness.py`, which ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PROPERTY = re.compile(r"\[([\w.-]{1,128})\]: \[(.*)\]\s*")
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?\d{1,4}(?:\.\d{1,9})?), mType=(-?\d{1,2}), mName=([^,}]{1,40}),")
_KINDS = {0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 4: "usb", 5: "power amplifier", 9: "npu"}
_PLUGS = ("AC", "USB", "Wireless", "Dock")
# Source: android.os.PowerManager, THERMAL_STATUS_*
THERMAL_STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_ABIS = {"arm64-v8a": "aarch64", "armeabi-v7a": "armv7l", "armeabi": "armv7l", "x86_64": "x86_64", "x86": "i686"}


@dataclass(frozen=True, slots=True)
class Battery:
    """What `dumpsys battery` tells; None is not told. level_percent is 0 to 100."""

    level_percent: int | None = None
    temperature_c: float | None = None
    charging: bool | None = None


def properties(lines: Sequence[str]) -> dict[str, str]:
    """Read the output of getprop, one `[name]: [value]` a line."""
    found = (_PROPERTY.fullmatch(line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def is_android(props: Mapping[str, str]) -> bool:
    """Tell Android from a Linux that happens to have a getprop."""
    return bool(props.get("ro.build.version.sdk"))


def abi_of(props: Mapping[str, str], machine: str) -> str:
    """Name the ABI that programs run in, as uname -m names machines."""
    return _ABIS.get(props.get("ro.product.cpu.abi", ""), machine)


def soc_of(props: Mapping[str, str]) -> str:
    """Name the system on a chip; Android 12 and later say its model, older ones the board's platform."""
    for key in ("ro.soc.model", "ro.board.platform", "ro.hardware"):
        if value := props.get(key, ""):
            maker = props.get("ro.soc.manufacturer", "") if key == "ro.soc.model" else ""
            return f"{maker} {value}".strip()
    return "unknown"


def battery_of(lines: Sequence[str]) -> Battery:
    """Read `dumpsys battery`; its temperature is in 0.1 °C. A phone on any plug charges or is kept full."""
    values = _values(lines)
    level, scale = _integer(values.get("level")), _integer(values.get("scale")) or 100
    tenths = _integer(values.get("temperature"))
    plugs = [values[f"{plug} powered"] == "true" for plug in _PLUGS if f"{plug} powered" in values]
    return Battery(
        None if level is None or not 0 <= level <= scale else round(100 * level / scale),
        None if tenths is None or not -500 < tenths < 1500 else tenths / 10,
        any(plugs) if plugs else None,
    )


def power_save_of(low_power: str, power: Sequence[str]) -> bool | None:
    """Tell from `settings get global low_power`, else from `dumpsys power`, whether the battery saver is on."""
    if low_power in ("0", "1"):
        return low_power == "1"
    for line in power:
        if match := re.search(r"\bm(?:LowPowerModeEnabled|SettingBatterySaverEnabled)=(true|false)\b", line):
            return match[1] == "true"
    return None


def screen_on_of(power: Sequence[str]) -> bool | None:
    """Tell from `dumpsys power` whether the screen is on: by the display's state, else by the wakefulness."""
    for pattern, on in ((r"Display Power: state=(\w+)", "ON"), (r"\bmWakefulness=(\w+)", "Awake")):
        for line in power:
            if match := re.search(pattern, line):
                return match[1] == on
    return None


def thermal_status_of(lines: Sequence[str]) -> int | None:
    """Read the status of `dumpsys thermalservice`: 0 is none, 1 light … 6 shutdown."""
    for line in lines:
        if match := re.search(r"Thermal Status: (\d)\b", line):
            return min(int(match[1]), len(THERMAL_STATUSES) - 1)
    return None


def temperatures_of(lines: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Read the temperatures of `dumpsys thermalservice`, those of the hardware where given, else the cached ones.

    Names are the kind and the sensor's name, such as "skin VIRTUAL-SKIN".
    """
    start = next((n for n, line in enumerate(lines) if "Current temperatures from HAL" in line), 0)
    return _temperatures(lines[start:]) or _temperatures(lines)


def _temperatures(lines: Sequence[str]) -> tuple[tuple[str, float], ...]:
    found: dict[str, float] = {}
    for line in lines:
        for value, kind, name in _TEMPERATURE.findall(line):
            if -100 < float(value) < 200 and float(value) != 0:  # a sensor that sleeps says 0 or an absurd number
                found[f"{_KINDS.get(int(kind), 'other')} {name.strip()}"] = float(value)
    return tuple(sorted(found.items()))[:64]


def _values(lines: Sequence[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,9}", text) else None
