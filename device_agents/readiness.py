"""May this device be measured now? What its state says of load, heat, clocks, battery and screen, and what to do.

It warns, and waits for a hot device; it refuses nothing else, because a busy machine still gives usable rows on the
thread's own clock. Rows carry their own flags for what happens while measuring.
Read next: `conditions.py` for how the state is read, `checkup.py` for what else must be in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from device_agents.android import THERMAL_STATUSES
from device_agents.catalogue import ThermalLimits, limits_of
from device_agents.conditions import Conditions as Conditions  # noqa: PLC0414 - offered here too: one import judges
from device_agents.conditions import read_conditions as read_conditions  # noqa: PLC0414 - as above
from device_agents.device import Device
from device_agents.errors import DeviceNotReady
from device_agents.transport import Transport

BUSY_LOAD_PER_CPU = 0.5  # above it a second runnable thread often shares the core that measures
LOW_MEMORY_BYTES = 256 << 20  # blocks of models are an eighth of what is free: below it each would hold few
LOW_DISK_BYTES = 128 << 20  # the models of one batch
LOW_BATTERY_PERCENT = 20  # from 15 to 20 % on, phones save power unasked
HOT_BATTERY_C = 42.0  # phones slow down to spare a battery above 43 to 45 °C
SLOW_GOVERNORS = ("powersave", "conservative")
# Source: Raspberry Pi documentation, vcgencmd get_throttled: bits 0-3 tell of now, 16-19 of since boot
_PI_NOW = 0b1111
_PI_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that should be so: whether it is, what was found, and what to do about it (empty when it is).

    One that is not `required` makes times noisier or longer and does not keep from measuring.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""
    required: bool = True

    @property
    def stops(self) -> bool:
        """Tell whether this keeps the device from being measured."""
        return self.required and not self.ok


def warnings_of(conditions: Conditions, limits: ThermalLimits | None = None) -> list[str]:
    """Say in one line each what speaks against measuring now; an empty list is a quiet, cool device."""
    failed = (check for check in checks_of(conditions, limits) if not check.ok)
    return [f"{check.found}; {check.advice}" for check in failed]


def throttled(conditions: Conditions) -> bool:
    """Tell whether the device says that it is held back now, by heat or by its power supply."""
    return bool((conditions.pi_throttled or 0) & _PI_NOW or (conditions.thermal_status or 0) > 0)


def is_hot(conditions: Conditions, limits: ThermalLimits) -> bool:
    """Tell whether a measurement should wait for the device to cool."""
    return (conditions.hottest_c or 0.0) > limits.hot_c or throttled(conditions)


def wait_until_cool(
    device: Device,
    transport: Transport,
    limits: ThermalLimits | None = None,
    note: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Conditions:
    """Wait while the device is hot or throttled, until it is below cool_c, and return its state then.

    A device that is neither does not wait at all. Raises DeviceNotReady when it has not cooled within wait_s.
    """
    limits = limits or limits_of(device.system, device.model)
    conditions = read_conditions(device, transport)
    if not is_hot(conditions, limits):
        return conditions
    waited_s = 0.0
    while throttled(conditions) or (conditions.hottest_c or 0.0) >= limits.cool_c:
        if waited_s >= limits.wait_s:
            raise DeviceNotReady(
                f"{device.name}: {_heat_text(conditions)} after {waited_s:g} s of waiting for {limits.cool_c:g} °C; "
                "cool it, take it out of its case, or check its power supply"
            )
        note(f"{device.name}: {_heat_text(conditions)}, waiting for {limits.cool_c:g} °C")
        sleep(limits.poll_s)  # a temperature that falls tells nobody
        waited_s += limits.poll_s
        conditions = read_conditions(device, transport)
    return conditions


def differences(before: Conditions, after: Conditions) -> list[str]:
    """Say in one line each what held the device back between two readings; empty when nothing is known to have."""
    found = []
    if before.throttled_events is not None and after.throttled_events is not None:
        events = after.throttled_events - before.throttled_events
        found += [f"throttled: {events} events more than before"] if events > 0 else []
    if after.pi_throttled is not None:
        news = after.pi_throttled & _PI_NOW | (after.pi_throttled & ~(before.pi_throttled or 0)) >> 16 & _PI_NOW
        if news:
            found.append(f"throttled: {_pi_text(news)} (get_throttled {after.pi_throttled:#x})")
    if (after.thermal_status or 0) > (before.thermal_status or 0):
        found.append(f"thermal status rose to {THERMAL_STATUSES[after.thermal_status or 0]}")
    tops = {cpu: top for cpu, (_, top, _) in before.frequencies_khz}
    lowered = [f"CPU {cpu}: {top} kHz" for cpu, (_, top, _) in after.frequencies_khz if top < tops.get(cpu, 0)]
    if lowered:
        found.append(f"clock capped meanwhile ({', '.join(lowered)})")
    if after.power_save and not before.power_save:
        found.append("the battery saver went on")
    return found


def checks_of(conditions: Conditions, limits: ThermalLimits | None = None) -> list[Check]:
    """Judge everything that the device says of its state; what it does not say is not judged."""
    limits = limits or limits_of("linux", "")
    return [
        *_resource_checks(conditions),
        *_heat_checks(conditions, limits),
        *_clock_checks(conditions),
        *_phone_checks(conditions),
    ]


_NOT_REQUIRED = ("load", "memory", "governor", "clock", "screen", "fixed performance")


def _check(name: str, found: str, advice: str = "", *, bad: bool = False) -> Check:
    """Make a check; advice belongs to a bad one only."""
    return Check(name, not bad, found, advice if bad else "", name not in _NOT_REQUIRED)


def _resource_checks(conditions: Conditions) -> Iterator[Check]:
    memory, disk = conditions.memory_available_bytes, conditions.disk_free_bytes
    if conditions.load is not None:
        busy = conditions.load > BUSY_LOAD_PER_CPU * conditions.cpus
        found = f"{'busy: ' if busy else ''}load {conditions.load:.2f} on {conditions.cpus} CPUs"
        yield _check("load", found, "end what else runs there: wall times will be long", bad=busy)
    if memory is not None:
        yield _enough("memory", memory, LOW_MEMORY_BYTES, "available", "end other programs there")
    if disk is not None:
        yield _enough("disk space", disk, LOW_DISK_BYTES, "free", "remove files there")


def _enough(name: str, found: int, wanted: int, verb: str, advice: str) -> Check:
    if found >= wanted:
        return _check(name, f"{found >> 20} MiB {verb}")
    return _check(name, f"low {name}: {found >> 20} MiB {verb}, {wanted >> 20} MiB wanted", advice, bad=True)


def _heat_checks(conditions: Conditions, limits: ThermalLimits) -> Iterator[Check]:
    hot = [
        f"{zone} at {temp:.0f} °C"
        for zone, temp in conditions.temperatures_c
        if temp > (HOT_BATTERY_C if zone.startswith("battery") else limits.hot_c)
    ]
    if hot:
        yield _check("temperature", f"hot: {', '.join(hot)}", f"let it cool below {limits.cool_c:g} °C", bad=True)
    elif conditions.hottest_c is not None:
        yield _check("temperature", f"{conditions.hottest_c:.0f} °C")
    if conditions.pi_throttled is not None:
        now = conditions.pi_throttled & _PI_NOW
        word = f"get_throttled says {conditions.pi_throttled:#x}"
        found = f"throttled now ({_pi_text(now)}): {word}" if now else word
        yield _check("throttling", found, "check power supply and cooling", bad=now != 0)
    if conditions.thermal_status is not None:
        found = f"thermal status {THERMAL_STATUSES[conditions.thermal_status]}"
        yield _check("throttling", found, "let the phone cool, out of its case", bad=conditions.thermal_status > 0)


def _clock_checks(conditions: Conditions) -> Iterator[Check]:
    slow = [f"CPU {cpu}: {governor}" for cpu, governor in conditions.governors if governor in SLOW_GOVERNORS]
    capped = [f"CPU {cpu}: {top} of {full} kHz" for cpu, (_, top, full) in conditions.frequencies_khz if top < full]
    if slow:
        yield _check("governor", f"slow governor ({', '.join(slow)})", "set performance or schedutil", bad=True)
    elif conditions.governors:
        yield _check("governor", ", ".join(sorted({governor for _, governor in conditions.governors})))
    if capped:
        found = f"clock capped below the hardware's top ({', '.join(capped)})"
        yield _check("clock", found, "raise scaling_max_freq, or let it cool where heat has lowered it", bad=True)
    elif conditions.frequencies_khz:
        yield _check("clock", f"up to {max(full for _, (_, _, full) in conditions.frequencies_khz) // 1000} MHz")


def _phone_checks(conditions: Conditions) -> Iterator[Check]:
    battery, save, screen = conditions.battery, conditions.power_save, conditions.screen_on
    if battery.level_percent is not None:
        low = battery.level_percent < LOW_BATTERY_PERCENT
        yield _check("battery", f"{'low ' if low else ''}battery: {battery.level_percent} %", "charge it", bad=low)
    if battery.temperature_c is not None:
        hot = battery.temperature_c > HOT_BATTERY_C
        found = f"{'hot ' if hot else ''}battery: {battery.temperature_c:.0f} °C"
        yield _check("battery temperature", found, "unplug it and let it cool", bad=hot)
    if save is not None:
        yield _check("battery saver", f"battery saver is {'on' if save else 'off'}", "turn it off", bad=save)
    if screen is not None:
        advice = "turn it off: what is drawn takes CPU and heats the phone"
        yield _check("screen", f"screen is {'on' if screen else 'off'}", advice, bad=screen)
    if conditions.fixed_performance is not None:
        can = "can be set" if conditions.fixed_performance else "is missing (Android 11 and later have it)"
        yield _check("fixed performance", f"fixed-performance mode {can}")


def _heat_text(conditions: Conditions) -> str:
    parts = [] if conditions.hottest_c is None else [f"{conditions.hottest_c:.0f} °C"]
    if (conditions.pi_throttled or 0) & _PI_NOW:
        parts.append(f"throttled ({_pi_text((conditions.pi_throttled or 0) & _PI_NOW)})")
    if conditions.thermal_status:
        parts.append(f"thermal status {THERMAL_STATUSES[conditions.thermal_status]}")
    return ", ".join(parts)


def _pi_text(bits: int) -> str:
    return ", ".join(text for bit, text in enumerate(_PI_BITS) if bits >> bit & 1)
