"""What Android says through getprop and dumpsys becomes numbers, and what it does not say becomes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from boards import DUMPSYS_POWER, DUMPSYS_THERMAL, PIXEL_PROPERTIES, make_phone, properties_text
from hypothesis import given
from hypothesis import strategies as st

from device_agents import android
from device_agents import describe as device_description
from device_agents.addresses import Address
from device_agents.android import Battery
from device_agents.describe import ANDROID_WORK_DIR, Target, describe
from device_agents.device import Device
from device_agents.local import LocalTransport
from device_agents.readiness import read_conditions, throttled, warnings_of

pytestmark = pytest.mark.whole  # asks a whole phone

USB = Target(Address("adb", serial="99071FFAZ00001"))
NETWORK = Target(Address("adb", host="10.0.0.3", port=5555))


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Android's commands first on the PATH of this machine."""
    folder = tmp_path / "bin"
    make_phone(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(device_description, "CANDIDATES", ("no-python-on-phones",))
    return folder


def pixel() -> Device:
    """Describe the phone."""
    return describe(USB, LocalTransport())


def test_a_phone_is_described_from_its_properties(phone: Path) -> None:
    """Model, SoC, system, ABI and serial are the phone's; the engine and the folder are those of phones."""
    device = pixel()
    assert (device.name, device.system, device.model) == ("pixel4", "android", "Pixel 4")
    assert (device.soc, device.os, device.abi) == ("msmnile", "Android 13 (API 33)", "aarch64")
    assert (device.engine, device.work_dir) == ("benchmark_model", ANDROID_WORK_DIR)
    assert device.serial == "99071FFAZ00001"


def test_a_phone_on_the_network_has_the_same_serial(phone: Path) -> None:
    """The phone's own, so that it is one phone whichever way it is reached."""
    assert describe(NETWORK, LocalTransport()).serial == pixel().serial


def test_a_phone_without_a_serial_goes_by_its_address(phone: Path) -> None:
    """Some vendors hide it."""
    make_phone(phone, getprop=properties_text({**PIXEL_PROPERTIES, "ro.serialno": ""}))
    assert describe(NETWORK, LocalTransport()).serial == "10.0.0.3:5555"


def test_the_fingerprint_changes_with_the_build(phone: Path) -> None:
    """An update of the system makes another device for tables; no path or slash is in it."""
    before = pixel().build_fingerprint
    assert before == pixel().build_fingerprint
    assert before.startswith("google-flame-flame-13-TP1A.221005.002.B2-9382335")
    assert "/" not in before
    newer = {**PIXEL_PROPERTIES, "ro.build.fingerprint": "google/flame/flame:13/TQ3A.230805.001/1:user/release-keys"}
    make_phone(phone, getprop=properties_text(newer))
    assert pixel().build_fingerprint != before


@pytest.mark.parametrize(
    ("properties", "soc"),
    [
        ({"ro.soc.model": "SM8450", "ro.soc.manufacturer": "QTI", "ro.board.platform": "taro"}, "QTI SM8450"),
        ({"ro.board.platform": "msmnile", "ro.hardware": "flame"}, "msmnile"),
        ({"ro.hardware": "ranchu"}, "ranchu"),
        ({}, "unknown"),
    ],
)
def test_the_soc_is_named_as_well_as_the_phone_can(properties: dict[str, str], soc: str) -> None:
    """Android 12 names the chip; before, the board's platform comes close."""
    assert android.soc_of(properties) == soc


def test_a_linux_with_a_getprop_is_no_android(phone: Path) -> None:
    """The SDK's number makes an Android."""
    make_phone(phone, getprop=properties_text({"ro.product.model": "Pixel 4"}))
    assert describe(Target(Address("local")), LocalTransport()).system == "linux"


def test_a_phone_tells_its_conditions(phone: Path) -> None:
    """Battery, temperatures of the hardware and not the cached ones, screen and saver; its load is no load."""
    conditions = read_conditions(pixel(), LocalTransport())
    assert conditions.battery == Battery(84, 27.3, charging=True)
    assert (conditions.thermal_status, conditions.power_save, conditions.screen_on) == (0, False, False)
    assert conditions.fixed_performance
    assert conditions.load is None


def test_a_phone_in_order_has_no_warnings(phone: Path) -> None:
    """Whatever this machine's own files say of its clocks is left aside."""
    conditions = read_conditions(pixel(), LocalTransport())
    assert [line for line in warnings_of(conditions) if not line.startswith(("clock", "slow governor", "low"))] == []
    assert not throttled(conditions)


@pytest.mark.parametrize(
    ("name", "text", "warning"),
    [
        ("battery", "  level: 9\n  scale: 100\n", "low battery: 9 %; charge it"),
        ("battery", "  level: 90\n  temperature: 451\n", "hot battery: 45 °C"),
        ("thermal", DUMPSYS_THERMAL.replace("Status: 0", "Status: 3"), "thermal status severe"),
        ("power", DUMPSYS_POWER.replace("state=OFF", "state=ON"), "screen is on; turn it off"),
        ("low_power", "1\n", "battery saver is on; turn it off"),
    ],
)
def test_each_trouble_of_a_phone_is_one_warning(name: str, text: str, warning: str, phone: Path) -> None:
    """One line with the value and what to do."""
    quiet = set(warnings_of(read_conditions(pixel(), LocalTransport())))
    make_phone(phone, **{name: text})
    (found,) = set(warnings_of(read_conditions(pixel(), LocalTransport()))) - quiet
    assert warning in found


def test_the_temperatures_are_those_of_the_hardware() -> None:
    """A sensor that sleeps says 0; without the hardware's, the cached ones are better than none."""
    lines = DUMPSYS_THERMAL.splitlines()
    assert android.temperatures_of(lines) == (
        ("battery battery", 27.3),
        ("cpu cpu-0-0-usr", 31.5),
        ("skin fps-therm-adc", 29.026999),
    )
    assert android.temperatures_of(lines[:6]) == (("skin fake-skin", 24.1),)


@pytest.mark.parametrize(
    ("low_power", "power", "save"),
    [("1", "", True), ("0", "", False), ("null", "  mLowPowerModeEnabled=true", True), ("null", "", None)],
)
def test_the_battery_saver_is_found_either_way(low_power: str, power: str, save: bool | None) -> None:
    """Some vendors leave the setting out."""
    assert android.power_save_of(low_power, [power]) is save


@pytest.mark.parametrize(
    ("power", "on"),
    [
        ("Display Power: state=ON", True),
        ("Display Power: state=DOZE", False),
        ("  mWakefulness=Awake", True),
        ("  mWakefulness=Dozing", False),
        ("", None),
    ],
)
def test_the_screen_is_on_or_off(power: str, on: bool | None) -> None:
    """An always-on display is off: nothing is drawn by apps."""
    assert android.screen_on_of([power]) is on


@pytest.mark.parametrize(
    "text", ["level: -4", "level: x", "level: 200", "level: 9999999999999999", "temperature: 99999", "level 4"]
)
def test_a_senseless_battery_says_nothing(text: str) -> None:
    """A board without one answers all kinds of things."""
    assert android.battery_of([text]) == Battery()


@given(st.lists(st.text(max_size=60), max_size=20))
def test_no_text_breaks_a_reader(lines: list[str]) -> None:
    """Vendors change these texts; a reader finds something or nothing."""
    android.battery_of(lines)
    android.temperatures_of(lines)
    android.screen_on_of(lines)
    assert android.thermal_status_of(lines) in {None, *range(7)}
    assert not android.is_android(android.properties(lines)) or any("ro.build.version.sdk" in line for line in lines)


@given(st.dictionaries(st.from_regex(r"ro\.[a-z.]{1,20}", fullmatch=True), st.text("abc/:[] ", max_size=20)))
def test_properties_are_read_as_getprop_prints_them(properties: dict[str, str]) -> None:
    """Brackets in a value are the value's."""
    assert android.properties(properties_text(properties).splitlines()) == properties
