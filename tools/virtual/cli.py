"""The commands of tools/virtual_devices.

    up [--only NAME,...]            build what is missing, start what does not run, wait until all of it answers
    down                            end everything and leave nothing behind but the built roots
    list [--format json]            what runs, and how to reach it
    cut NAME, mend NAME             pull a device's network cable, and put it back
    kill NAME                       kill a device's daemon and its sessions, as a crash does
    restart NAME                    start the daemon where it has ended, and wait until it answers

The state folder is build/virtual_devices, or what EDGEKD_VIRTUAL_DEVICES names; each folder is a set of its own. Only
one of these commands works on a set at a time.
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from virtual import daemons, listing, network
from virtual.benchmark import build_benchmark_model
from virtual.keys import client_key, host_key
from virtual.kinds import KINDS, Kind, kinds_named
from virtual.network import Link, link_of
from virtual.packages import ready_host
from virtual.places import Places, VirtualDeviceError, say
from virtual.rootfs import Root, ready_roots, remove_others, remove_unfinished
from virtual.specs import spec_of
from virtual.trees import make_file_system

_Pair = tuple[Kind, Link]


def main(arguments: Sequence[str]) -> int:
    """Run one command; give the exit code."""
    options = _parser().parse_args(arguments)
    places = Places.from_environment()
    try:
        places.state.mkdir(parents=True, exist_ok=True)
        with _only_one(places):
            action: Callable[[Places, argparse.Namespace], None] = options.action
            action(places, options)
    except (VirtualDeviceError, OSError) as error:
        say(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="virtual_devices", description="Test devices from Debian's packages.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="build and start the devices")
    up.add_argument("--only", default="", metavar="NAME,...", help="start these alone")
    up.set_defaults(action=_up)
    commands.add_parser("down", help="end all of them and leave nothing").set_defaults(action=_down)
    shown = commands.add_parser("list", help="show what runs")
    shown.add_argument("--format", choices=("text", "json"), default="text")
    shown.set_defaults(action=_list)
    for name, action, text in (
        ("cut", _cut, "pull a device's network cable"),
        ("mend", _mend, "put it back"),
        ("kill", _kill, "kill a device's daemon and sessions"),
        ("restart", _restart, "start a device's daemon again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("name", metavar="NAME")
        command.set_defaults(action=action)
    return parser


@contextmanager
def _only_one(places: Places) -> Iterator[None]:
    with (places.state / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- up and down ------------------------------------------------------------------------------------------------------


def _up(places: Places, options: argparse.Namespace) -> None:
    kinds = kinds_named([name for name in options.only.split(",") if name])
    ready_host(kinds)
    roots = ready_roots(places, kinds)
    for arch in sorted({kind.arch for kind in kinds if kind.android}):
        build_benchmark_model(places, arch)
    client_key(places)
    subnet = _subnet(places)
    pairs = [(kind, link_of(places, kind, subnet)) for kind in kinds]
    started: dict[str, daemons.Started] = {}
    try:
        for kind, link in pairs:
            if not _runs_as_described(places, kind, link, roots):
                started[kind.name] = _begin(places, kind, link, roots)
        for kind, link in pairs:
            daemons.wait_ready(places, kind, link, started.get(kind.name))
    except VirtualDeviceError:
        for _, link in (pair for pair in pairs if pair[0].name in started):
            _remove(link)
        raise
    if len(kinds) == len(KINDS):  # otherwise the roots of other architectures would be taken for old ones
        remove_others(places, roots.values())
    listing.write(places, listing.running(places, subnet))
    print(listing.text(pairs), end="")


def _runs_as_described(places: Places, kind: Kind, link: Link, roots: dict[str, Root]) -> bool:
    if not daemons.answers(kind, link):
        return False
    path = daemons.spec_path(places, kind)
    return path.exists() and json.loads(path.read_text(encoding="utf-8")) == spec_of(
        places, kind, link, roots.get(kind.arch)
    )


def _begin(places: Places, kind: Kind, link: Link, roots: dict[str, Root]) -> daemons.Started:
    _remove(link)
    folder = places.device(kind.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if kind.transport == "ssh":
        host_key(places, kind)
    make_file_system(places, kind, roots)
    (folder / "control").symlink_to(places.control(kind.name))
    daemons.write_spec(daemons.spec_path(places, kind), spec_of(places, kind, link, roots.get(kind.arch)))
    network.connect(link)
    return daemons.start(places, kind, link)


def _down(places: Places, options: argparse.Namespace) -> None:
    del options
    subnet = ipaddress.IPv4Network("10.213.0.0/24")  # names alone matter here, and those come from the state folder
    for kind in KINDS:
        _remove(link_of(places, kind, subnet))
    network.tidy()
    remove_unfinished(places)
    for path in (places.state / "devices", places.keys):
        shutil.rmtree(path, ignore_errors=True)
    for path in (places.listing, places.devices_toml, places.known_hosts, places.state / "ssh_config"):
        path.unlink(missing_ok=True)
    say("all down")


def _remove(link: Link) -> None:
    daemons.end(link)
    network.remove(link)


def _subnet(places: Places) -> ipaddress.IPv4Network:
    return network.current_subnet(places) or network.free_subnet(places)


# --- one device -------------------------------------------------------------------------------------------------------


def _list(places: Places, options: argparse.Namespace) -> None:
    pairs = listing.running(places, _subnet(places))
    if options.format == "json":
        print(json.dumps(listing.entries(places, pairs), indent=2))
    else:
        print(listing.text(pairs), end="")


def _cut(places: Places, options: argparse.Namespace) -> None:
    network.cut(_running(places, options.name)[1])


def _mend(places: Places, options: argparse.Namespace) -> None:
    network.mend(_running(places, options.name)[1])


def _kill(places: Places, options: argparse.Namespace) -> None:
    daemons.kill_daemon(_running(places, options.name)[1])


def _restart(places: Places, options: argparse.Namespace) -> None:
    kind, link = _running(places, options.name)
    daemons.start_daemon(places, kind, link)
    daemons.wait_ready(places, kind, link)


def _running(places: Places, name: str) -> _Pair:
    (kind,) = kinds_named([name])
    for found, link in listing.running(places, _subnet(places)):
        if found == kind:
            return kind, link
    raise VirtualDeviceError(f"{name} does not run; start it with: tools/virtual_devices up --only {name}")
