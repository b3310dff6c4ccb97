"""Which devices there are, and the one that a name means.

A name is that of a table in devices.toml, of the catalogue (then the attached device of that kind is meant), a serial,
or an address. What a device is made of is read by `describe.py`; whether it may be measured now, by `readiness.py`.
Read next: `describe.py`; `listing.py` for all devices at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches

from device_agents import catalogue, connect, user_devices
from device_agents.addresses import Address
from device_agents.connect import DEFAULT_OPTIONS, ConnectOptions
from device_agents.describe import Description, Target, describe, examine
from device_agents.device import Device
from device_agents.errors import (
    DeviceError,
    DeviceNotReady,
    DeviceOffline,
    InvalidRequest,
    NotAuthorised,
    UnknownDevice,
)
from device_agents.parallel import in_parallel
from device_agents.transport import Transport

SURVEY_LIMIT_S = 90.0  # for all devices together: two commands each, the slowest an emulated board


_ADB_ADVICE = {
    "unauthorized": "unlock the phone and accept the dialog `Allow USB debugging`",
    "authorizing": "unlock the phone and accept the dialog `Allow USB debugging`",
    "no permissions": "install udev rules for it (Debian: android-sdk-platform-tools-common), or join group plugdev",
    "offline": "unplug it and plug it in again, or `adb reconnect`",
    "connecting": "wait a moment and try again",
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A device that may be there. `problem` is why it cannot be asked, as the adb server says; empty where it can."""

    target: Target
    problem: DeviceError | None = None

    @property
    def serial(self) -> str:
        """Return what tells it from others before it has been asked: a serial, or host and port."""
        return str(self.target.address).partition("://")[2]

    @property
    def name(self) -> str:
        """Return the name to speak of it by before it has said what it is."""
        return self.target.name or self.serial


@dataclass(frozen=True, slots=True)
class Listed:
    """A sighting that has been asked: what it is, or why it did not say."""

    sighting: Sighting
    description: Description | None
    problem: DeviceError | None = None


def sightings(options: ConnectOptions = DEFAULT_OPTIONS) -> tuple[Sighting, ...]:
    """List, without connecting to any, the devices of devices.toml and those that adb knows of."""
    named = [Sighting(Target.of(user, options)) for user in user_devices.load_all().values()]
    taken = {sighting.target.address for sighting in named}
    return (*named, *(seen for seen in _attached(options) if seen.target.address not in taken))


def survey(seen: Sequence[Sighting], limit_s: float = SURVEY_LIMIT_S) -> list[Listed]:
    """Ask devices what they are, all at once; one that does not answer becomes a line that says so."""

    def ask(sighting: Sighting) -> Description:
        if sighting.problem:
            raise sighting.problem
        with closing(open_target(sighting.target)) as transport:
            return examine(sighting.target, transport)

    answers = in_parallel(seen, ask, limit_s)
    return [
        Listed(sighting, None, answer) if isinstance(answer, DeviceError) else Listed(sighting, answer)
        for sighting, answer in zip(seen, answers, strict=True)
    ]


def find_device(
    name: str, serial: str | None = None, options: ConnectOptions = DEFAULT_OPTIONS, engine: str = ""
) -> Device:
    """Find the one device that a name means and read what it is; `engine` is one to measure with instead of its own.

    Raises:
        UnknownDevice: nothing has that name; the nearest known name is offered.
        DeviceNotReady: nothing of that kind is attached, or several are and `serial` does not choose among them.
        DeviceError: it is there and does not answer, or does not let us in.

    """
    return _the_one(name, find_devices(name, serial, options, engine))


def find_devices(
    name: str, serial: str | None = None, options: ConnectOptions = DEFAULT_OPTIONS, engine: str = ""
) -> tuple[Device, ...]:
    """Find every device that a name means, at least one. Raises as find_device does."""
    target = _named(name, options)
    if target is None:
        return tuple(device for _, device in _in_reach(name, serial, options, engine))
    device = _described(replace(target, engine=engine))
    if serial is not None and not _has_serial(device, serial):
        raise DeviceNotReady(f"{name} is the device with serial {device.serial}, not {serial}; leave --serial out")
    return (device,)


def find_target(name: str, serial: str | None = None, options: ConnectOptions = DEFAULT_OPTIONS) -> Target:
    """Find the way to the one device that a name means, which need not be ready. Raises as find_device does."""
    target = _named(name, options)
    if target is not None:
        return target
    found = _in_reach(name, serial, options)
    _the_one(name, [device for _, device in found])
    return found[0][0]


def open_transport(device: Device) -> Transport:
    """Open the way to a device that was found; close it when done. Raises as connect.open_transport does."""
    return connect.open_transport(device.address, device.connection)


def open_target(target: Target) -> Transport:
    """Open the way to a target; close it when done. Raises as connect.open_transport does."""
    return connect.open_transport(target.address, target.connection)


def host_target(options: ConnectOptions = DEFAULT_OPTIONS) -> Target:
    """Return the way to this machine."""
    return Target(Address("local"), catalogue.HOST.name, connection=options)


def _named(name: str, options: ConnectOptions) -> Target | None:
    """Return the one target that bears a name, or None where devices must be asked what they are."""
    if name == catalogue.HOST.name:
        return host_target(options)
    if "://" in name or name == "local:":
        return Target(Address.parse(name), connection=options)
    user = user_devices.load_all()
    if name in user:
        return Target.of(user[name], options)
    if catalogue.named(name) not in (None, catalogue.HOST):
        return None
    for sighting in sightings(options):
        if name == sighting.serial:
            if sighting.problem:
                raise sighting.problem
            return sighting.target
    return None


def _the_one(name: str, devices: Sequence[Device]) -> Device:
    if len(devices) > 1:
        serials = ", ".join(device.serial for device in devices)
        choice = "choose one with --serial; profile also takes --all"
        raise DeviceNotReady(f"{len(devices)} devices fit {name!r}: {serials}; {choice}")
    return devices[0]


def _attached(options: ConnectOptions) -> Iterator[Sighting]:
    """List what the adb server knows of, or without one the phones on USB. No server is started for it."""
    try:
        states = list(_adb_states())
    except DeviceError as error:  # another program at its port, say: it must not hide the devices of other ways
        yield Sighting(Target(Address("adb", serial="server"), "adb server", connection=options), error)
        return
    for serial, state in states:
        try:
            address = Address.parse(f"adb://{serial}")
        except InvalidRequest:
            continue  # a serial of odd characters could not be asked for by any name
        yield Sighting(Target(address, connection=options), _problem_of(serial, state))


def _adb_states() -> Iterator[tuple[str, str]]:
    from device_agents.adb import server, usb_list

    entries = server.list_adb_devices()
    yield from ((entry.serial, entry.state) for entry in entries)
    if entries or server.server_version(server.ServerAddress.of_environment()) is not None:
        return
    serials, denied = usb_list.list_usb()
    yield from ((serial, "device") for serial in serials)
    if denied:
        yield "usb", "no permissions"


def _problem_of(serial: str, state: str) -> DeviceError | None:
    """Say in one line what an adb state other than "device" wants of the user."""
    if state == "device":
        return None
    advice = _ADB_ADVICE.get(state, "boot it into Android and connect it again")
    if state == "offline" and ":" in serial:
        advice = f"see that it is on and in this network, or forget it with `adb disconnect {serial}`"
    error = NotAuthorised if state in ("unauthorized", "authorizing", "no permissions") else DeviceOffline
    verb = "has" if state == "no permissions" else "is"  # as adb words it
    return error(f"{serial} {verb} {state}: {advice}")


def _described(target: Target) -> Device:
    with closing(open_target(target)) as transport:
        return describe(target, transport)


def _in_reach(name: str, serial: str | None, options: ConnectOptions, engine: str = "") -> list[tuple[Target, Device]]:
    """Ask everything in reach what it is, and keep the devices of a kind, or those that call themselves so."""
    known = catalogue.named(name)
    quiet = replace(options, ask=None)  # nobody wants to be asked about the keys of hosts that were not named
    seen = [s for s in sightings(quiet) if s.target.address.kind != "local"]
    if known is None or known is catalogue.HOST:
        _refuse_slip(name, seen)
        known = None
    elif known.system == "android":
        seen = [s for s in seen if s.target.address.kind == "adb"]
    listed = survey([replace(s, target=replace(s.target, engine=engine)) for s in seen])
    fitting = [
        _as_asked_for(item.sighting.target, item.description.device, known, options)
        for item in listed
        if item.description and _fits(item.description, name, known)
    ]
    chosen = [found for found in _distinct(fitting) if serial is None or _has_serial(found[1], serial)]
    if not chosen and known is None:
        raise UnknownDevice(name, _names(seen))
    if not chosen and known is not None:
        raise _none_found(known, serial, [device for _, device in fitting], listed)
    return chosen


def _fits(description: Description, name: str, known: catalogue.KnownDevice | None) -> bool:
    """Tell whether a device is of a kind, or without one, whether it is listed under that name or serial."""
    device = description.device
    return description.known == known if known else name in (device.name, device.serial)


def _names(seen: Sequence[Sighting]) -> list[str]:
    return [catalogue.HOST.name, *(sighting.name for sighting in seen)]


def _refuse_slip(name: str, seen: Sequence[Sighting]) -> None:
    """Raise UnknownDevice for a name that nearly is a known one, or that no device would call itself."""
    every = list(dict.fromkeys([*_names(seen), *(entry.name for entry in catalogue.CATALOGUE)]))
    if get_close_matches(name, every, n=1, cutoff=0.5):
        raise UnknownDevice(name, every)
    if not any(char.isdigit() or char == "-" for char in name):  # serials and models have one or the other
        raise UnknownDevice(name, _names(seen))  # all names of the catalogue would drown the few that are in reach


def _as_asked_for(
    target: Target, device: Device, known: catalogue.KnownDevice | None, options: ConnectOptions
) -> tuple[Target, Device]:
    """Let tables bear the name that was asked for, whatever devices.toml says, and a person be asked from now on."""
    name = known.name if known else device.name
    connection = replace(device.connection, ask=options.ask)
    return replace(target, name=name, connection=connection), replace(device, name=name, connection=connection)


def _distinct(found: Sequence[tuple[Target, Device]]) -> list[tuple[Target, Device]]:
    """Keep the first of those with equal serials: a phone may be in reach over USB and the network at once."""
    by_serial: dict[str, tuple[Target, Device]] = {}
    for target, device in found:
        by_serial.setdefault(device.serial, (target, device))
    return list(by_serial.values())


def _has_serial(device: Device, serial: str) -> bool:
    address = str(device.address)
    return serial in (device.serial, address, address.partition("://")[2])


def _none_found(
    known: catalogue.KnownDevice, serial: str | None, kind: Sequence[Device], listed: Sequence[Listed]
) -> DeviceError:
    if kind:
        serials = ", ".join(device.serial for device in kind)
        return DeviceNotReady(f"no {known.name} with serial {serial} is in reach; found: {serials}")
    files = " and ".join(str(path) for path in user_devices.files_read())
    silent = "; ".join(f"{item.sighting.name}: {item.problem}" for item in listed if item.problem)
    how = (
        "connect it over USB with USB debugging on, or name it: edgekd devices add NAME adb://HOST:5555"
        if known.system == "android"
        else f"name it: edgekd devices add {known.name} ssh://USER@HOST"
    )
    found = f"no {known.name} ({known.title}) among {len(listed)} devices of adb and {files}"
    return DeviceOffline(f"{found}{f'; not usable: {silent}' if silent else ''}; {how}")
