"""Stand-ins for devices: a board that is a table of files, and a phone that is this machine with Android's commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agents.local import LocalTransport
from device_agents.transport import Completed

PIXEL_PROPERTIES = {
    "ro.build.fingerprint": "google/flame/flame:13/TP1A.221005.002.B2/9382335:user/release-keys",
    "ro.build.version.release": "13",
    "ro.build.version.sdk": "33",
    "ro.product.model": "Pixel 4",
    "ro.product.device": "flame",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.board.platform": "msmnile",
    "ro.serialno": "99071FFAZ00001",
}
DUMPSYS_BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4188
  temperature: 273
  technology: Li-ion
"""
DUMPSYS_THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=24.1, mType=3, mName=fake-skin, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=31.5, mType=0, mName=cpu-0-0-usr, mStatus=0}
\tTemperature{mValue=0.0, mType=1, mName=gpuss-0-usr, mStatus=0}
\tTemperature{mValue=27.3, mType=2, mName=battery, mStatus=0}
\tTemperature{mValue=29.026999, mType=3, mName=fps-therm-adc, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-6}
"""
DUMPSYS_POWER = """POWER MANAGER (dumpsys power)

Power Manager State:
  mDirty=0x0
  mWakefulness=Asleep
  mIsPowered=true
  mPlugType=2
Display Power: state=OFF
"""


class FakeBoard(LocalTransport):
    """Answers a reading of files and commands from tables, and every other command with one text."""

    def __init__(
        self,
        files: Mapping[str, str],
        said: Mapping[str, str] | None = None,
        other: bytes = b"",
        exit_code: int = 0,
    ) -> None:
        super().__init__()
        self.files, self.said, self.other, self.exit_code = dict(files), dict(said or {}), other, exit_code
        self.commands: list[Sequence[str]] = []

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Print the tables as the script of facts.py would, whatever patterns are asked for."""
        self.commands.append(argv)
        if argv[0] != "sh" or "@edgekd" not in argv[2]:
            return Completed(self.exit_code, self.other, b"")
        said = "".join(f"@edgekd {name}\n{text}\n" for name, text in self.said.items())
        files = "".join(f"{path}:{line}\n" for path, text in self.files.items() for line in text.split("\n"))
        return Completed(self.exit_code, f"{said}@edgekd \n{files}".encode(), b"")


def properties_text(properties: Mapping[str, str]) -> str:
    """Print properties as getprop does."""
    return "".join(f"[{name}]: [{value}]\n" for name, value in properties.items())


def put_command(folder: Path, name: str, texts: Mapping[str, str]) -> None:
    """Write a command that prints the text of its arguments, and fails for others."""
    cases = []
    for number, (arguments, text) in enumerate(texts.items()):
        (folder / f"{name}.{number}").write_text(text)
        cases.append(f'"{arguments}") cat "{folder}/{name}.{number}" ;;')
    script = folder / name
    script.write_text('#!/bin/sh\ncase "$*" in\n' + "\n".join(cases) + "\n*) exit 1 ;;\nesac\n")
    script.chmod(0o755)


def make_phone(folder: Path, **changed: str) -> None:
    """Put Android's commands into a folder, which is to go first on the PATH; texts can be changed by keyword."""
    folder.mkdir(exist_ok=True)
    put_command(folder, "getprop", {"": changed.get("getprop", properties_text(PIXEL_PROPERTIES))})
    dumpsys = {
        "battery": changed.get("battery", DUMPSYS_BATTERY),
        "thermalservice": changed.get("thermal", DUMPSYS_THERMAL),
        "power": changed.get("power", DUMPSYS_POWER),
    }
    put_command(folder, "dumpsys", dumpsys)
    put_command(folder, "settings", {"get global low_power": changed.get("low_power", "0\n")})
    put_command(folder, "cmd", {"power help": "  set-fixed-performance-mode-enabled [true|false]\n"})
