"""Devices known by name: how each is recognised, which of its CPUs to measure on, when it is hot, its engine.

An unknown device works as well, with the defaults of its system. It reads nothing from a device.
Sources: Android's ro.product.device code names are those of Google's factory images; Samsung's ro.product.model begins
with the numbers of its product pages, before a letter for the region. Board models are the `model` properties of the
kernel's device trees (Raspberry Pi, Rockchip, Amlogic) and of NVIDIA's Jetson Linux. Raspberry Pis throttle at 80 °C
(documentation of config.txt: temp_limit 85, soft limit 60 on a 3B+), Jetsons at about 97 °C (Jetson developer guides);
phones tell of throttling themselves (dumpsys thermalservice), and their CPU zones reach 75 °C before they do.
Read next: `inventory.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from device_agents.device import Cluster, mask_of


@dataclass(frozen=True, slots=True)
class ThermalLimits:
    """Above hot_c a measurement waits until the device is below cool_c, at most wait_s; it looks every poll_s."""

    hot_c: float
    cool_c: float
    wait_s: float = 300.0
    poll_s: float = 5.0


_PHONE = ThermalLimits(70.0, 50.0)
_PI = ThermalLimits(75.0, 60.0)
_JETSON = ThermalLimits(85.0, 65.0)
_OTHER = ThermalLimits(75.0, 60.0)  # most boards begin to throttle at 80 °C

ENGINE_OF_SYSTEM = {"android": "benchmark_model", "linux": "python"}


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """One kind of device.

    models are patterns (`*` for any end) of ro.product.model or of the device tree's model; codenames are exact
    ro.product.device values. pin is "fastest" (the CPUs of the fastest cluster, by the kernel's capacity and then by
    top frequency), "any" (no pinning) or CPU numbers.
    """

    name: str
    title: str
    system: str
    models: tuple[str, ...]
    codenames: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    pin: str | tuple[int, ...] = "fastest"
    threads: int = 1
    limits: ThermalLimits = _OTHER
    engine: str = ""

    @property
    def default_engine(self) -> str:
        """Name the engine to measure with unless a person asks for another."""
        return self.engine or ENGINE_OF_SYSTEM[self.system]


def _pixel(name: str, title: str, codename: str) -> KnownDevice:
    aliases = (name.replace("pixel", "pixel-"), codename)
    return KnownDevice(name, f"Google {title}", "android", (title,), (codename,), aliases, limits=_PHONE)


def _galaxy(name: str, title: str, *numbers: str) -> KnownDevice:
    # The same code name serves several models of one year, so that only the model's number is looked at.
    models = tuple(f"{number}*" for number in numbers)
    aliases = (f"samsung-{name.removeprefix('galaxy-')}", name.removeprefix("galaxy-"))
    return KnownDevice(name, f"Samsung {title}", "android", models, (), aliases, limits=_PHONE)


def _pi(name: str, title: str, *models: str, aliases: tuple[str, ...] = ()) -> KnownDevice:
    return KnownDevice(name, title, "linux", models, (), aliases, limits=_PI)


def _jetson(name: str, title: str, *models: str) -> KnownDevice:
    return KnownDevice(name, title, "linux", models, (), (name.removeprefix("jetson-"),), limits=_JETSON)


HOST = KnownDevice("host", "this machine", "linux", (), aliases=("local", "localhost"), pin="any", limits=_OTHER)

CATALOGUE: tuple[KnownDevice, ...] = (
    HOST,
    _pixel("pixel3", "Pixel 3", "blueline"),
    _pixel("pixel3xl", "Pixel 3 XL", "crosshatch"),
    _pixel("pixel3a", "Pixel 3a", "sargo"),
    _pixel("pixel3axl", "Pixel 3a XL", "bonito"),
    _pixel("pixel4", "Pixel 4", "flame"),
    _pixel("pixel4xl", "Pixel 4 XL", "coral"),
    _pixel("pixel4a", "Pixel 4a", "sunfish"),
    _pixel("pixel4a5g", "Pixel 4a (5G)", "bramble"),
    _pixel("pixel5", "Pixel 5", "redfin"),
    _pixel("pixel5a", "Pixel 5a", "barbet"),
    _pixel("pixel6", "Pixel 6", "oriole"),
    _pixel("pixel6pro", "Pixel 6 Pro", "raven"),
    _pixel("pixel6a", "Pixel 6a", "bluejay"),
    _pixel("pixel7", "Pixel 7", "panther"),
    _pixel("pixel7pro", "Pixel 7 Pro", "cheetah"),
    _pixel("pixel7a", "Pixel 7a", "lynx"),
    _pixel("pixel8", "Pixel 8", "shiba"),
    _pixel("pixel8pro", "Pixel 8 Pro", "husky"),
    _pixel("pixel8a", "Pixel 8a", "akita"),
    _pixel("pixel9", "Pixel 9", "tokay"),
    _pixel("pixel9pro", "Pixel 9 Pro", "caiman"),
    _pixel("pixel9proxl", "Pixel 9 Pro XL", "komodo"),
    _pixel("pixel9a", "Pixel 9a", "tegu"),
    _galaxy("galaxy-s20", "Galaxy S20", "SM-G980", "SM-G981"),
    _galaxy("galaxy-s20plus", "Galaxy S20+", "SM-G985", "SM-G986"),
    _galaxy("galaxy-s20ultra", "Galaxy S20 Ultra", "SM-G988"),
    _galaxy("galaxy-s21", "Galaxy S21", "SM-G991"),
    _galaxy("galaxy-s21plus", "Galaxy S21+", "SM-G996"),
    _galaxy("galaxy-s21ultra", "Galaxy S21 Ultra", "SM-G998"),
    _galaxy("galaxy-s22", "Galaxy S22", "SM-S901"),
    _galaxy("galaxy-s22plus", "Galaxy S22+", "SM-S906"),
    _galaxy("galaxy-s22ultra", "Galaxy S22 Ultra", "SM-S908"),
    _galaxy("galaxy-s23", "Galaxy S23", "SM-S911"),
    _galaxy("galaxy-s23plus", "Galaxy S23+", "SM-S916"),
    _galaxy("galaxy-s23ultra", "Galaxy S23 Ultra", "SM-S918"),
    _galaxy("galaxy-s24", "Galaxy S24", "SM-S921"),
    _galaxy("galaxy-s24plus", "Galaxy S24+", "SM-S926"),
    _galaxy("galaxy-s24ultra", "Galaxy S24 Ultra", "SM-S928"),
    _galaxy("galaxy-a13", "Galaxy A13", "SM-A135", "SM-A137"),
    _galaxy("galaxy-a14", "Galaxy A14", "SM-A145", "SM-A146"),
    _galaxy("galaxy-a34", "Galaxy A34", "SM-A346"),
    _galaxy("galaxy-a52", "Galaxy A52", "SM-A525", "SM-A526"),
    _galaxy("galaxy-a53", "Galaxy A53", "SM-A536"),
    _galaxy("galaxy-a54", "Galaxy A54", "SM-A546"),
    _galaxy("galaxy-a55", "Galaxy A55", "SM-A556"),
    _pi("rpi-zero2", "Raspberry Pi Zero 2 W", "Raspberry Pi Zero 2*", aliases=("rpizero2", "pizero2")),
    _pi("rpi3", "Raspberry Pi 3", "Raspberry Pi 3 Model *", aliases=("raspberry-pi-3", "pi3")),
    _pi("rpi4", "Raspberry Pi 4", "Raspberry Pi 4 Model *", aliases=("raspberry-pi-4", "pi4")),
    _pi("rpi400", "Raspberry Pi 400", "Raspberry Pi 400*"),
    _pi("rpi-cm4", "Raspberry Pi Compute Module 4", "Raspberry Pi Compute Module 4*", aliases=("cm4",)),
    _pi("rpi5", "Raspberry Pi 5", "Raspberry Pi 5 Model *", aliases=("raspberry-pi-5", "pi5")),
    _pi("rpi500", "Raspberry Pi 500", "Raspberry Pi 500*"),
    _pi("rpi-cm5", "Raspberry Pi Compute Module 5", "Raspberry Pi Compute Module 5*", aliases=("cm5",)),
    _jetson("jetson-nano", "NVIDIA Jetson Nano", "NVIDIA Jetson Nano*", "jetson-nano*"),
    _jetson("jetson-tx2", "NVIDIA Jetson TX2", "NVIDIA Jetson TX2*", "quill"),
    _jetson("jetson-xavier-nx", "NVIDIA Jetson Xavier NX", "NVIDIA Jetson Xavier NX*"),
    _jetson("jetson-agx-xavier", "NVIDIA Jetson AGX Xavier", "NVIDIA Jetson AGX Xavier*", "Jetson-AGX"),
    _jetson("jetson-orin-nano", "NVIDIA Jetson Orin Nano", "NVIDIA Jetson Orin Nano*"),
    _jetson("jetson-orin-nx", "NVIDIA Jetson Orin NX", "NVIDIA Jetson Orin NX*"),
    _jetson("jetson-agx-orin", "NVIDIA Jetson AGX Orin", "NVIDIA Jetson AGX Orin*"),
    KnownDevice("rock5b", "Radxa ROCK 5B", "linux", ("Radxa ROCK 5B*",)),
    KnownDevice("odroid-n2", "Hardkernel ODROID-N2", "linux", ("Hardkernel ODROID-N2*",)),
)


def named(name: str) -> KnownDevice | None:
    """Return the entry of a name or alias, whatever its case, or None."""
    asked = name.casefold()
    return next((entry for entry in CATALOGUE if asked == entry.name or asked in entry.aliases), None)


def recognise(system: str, model: str, codename: str = "") -> KnownDevice | None:
    """Return the entry that a device's own words fit, or None for an unknown device.

    model is ro.product.model or the device tree's model, codename ro.product.device. What a device calls itself to
    people goes first: a rebuilt system may keep another's code name.
    """
    entries = [entry for entry in CATALOGUE if entry.system == system]
    by_model = (entry for entry in entries if any(fnmatchcase(model, pattern) for pattern in entry.models))
    by_codename = (entry for entry in entries if codename and codename in entry.codenames)
    return next(by_model, None) or next(by_codename, None)


def limits_of(system: str, model: str) -> ThermalLimits:
    """Return the thermal limits of a device, or those of its system for an unknown one."""
    known = recognise(system, model)
    return known.limits if known else _PHONE if system == "android" else _OTHER


def cpu_mask_of(known: KnownDevice | None, cpus: Iterable[int], clusters: Sequence[Cluster]) -> int | None:
    """Choose the CPUs to measure on; None where pinning would choose nothing, because all CPUs are alike."""
    pin = known.pin if known else "fastest"
    allowed = set(cpus)
    if isinstance(pin, tuple):
        return mask_of(allowed & set(pin))
    if pin == "any" or len(clusters) < 2:
        return None
    return mask_of(clusters[-1].cpus)
