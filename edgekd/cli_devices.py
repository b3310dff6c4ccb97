"""The commands `edgekd devices ...`: list, check, set up, name and pair devices.

What they do is in device_agents; this file reads options and words results. Like cli.py it imports inside its
functions, so that --help starts at once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.cli_measure import connection_of
from edgekd.cli_output import print_result
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from device_agents.describe import Target
    from device_agents.device import Device
    from device_agents.errors import DeviceError
    from device_agents.inventory import Sighting
    from device_agents.listing import Overview
    from device_agents.readiness import Check


def register(commands: Any) -> None:
    """Add `devices` and its actions to the parser's commands."""
    devices = commands.add_parser(
        "devices",
        help="list the devices in reach, check them and set them up",
        description="List the devices in reach: this machine, those of adb, and those of devices.toml.",
    )
    devices.add_argument("--format", choices=("text", "json"), default="text", help=_FORMAT_HELP)
    _add_key_option(devices)
    devices.set_defaults(command=list_attached, accept_new_host_key=False)
    actions = devices.add_subparsers(metavar="ACTION")
    _register_check_and_setup(actions)
    _register_naming(actions)
    build = _add(actions, "build-agent", build_agent, "build the native agent for a processor")
    build.add_argument("--abi", default="aarch64", help="processor as uname -m names it (default: aarch64)")
    build.add_argument("--ndk", type=Path, help="folder of the Android NDK, to build for phones")
    build.add_argument("--out", type=Path, metavar="FILE", help="where to put it (default: the cache)")
    pairing = _add(actions, "pair", pair, "pair with a phone over wireless debugging")
    pairing.add_argument("endpoint", metavar="HOST:PORT", help="as the phone shows it under `Pair device with code`")
    pairing.add_argument("--adb", default="", help="an adb of version 30 or later (default: $ADB, or the PATH's)")
    pairing.add_argument("--code", help="the six digits that the phone shows; asked for when not given")


def _register_check_and_setup(actions: Any) -> None:
    check = _add(actions, "check", check_one, "see whether a device is ready to be measured, and what to do if not")
    setup = _add(actions, "setup", set_up_one, "give a device what its engine needs")
    for action in (check, setup):
        action.add_argument("name", help="name of devices.toml or the catalogue, serial, or address")
        action.add_argument("--serial", help="which one, where several of that kind are attached")
        action.add_argument(
            "--device-engine", default="", metavar="ENGINE", help="for this one: python, native, onnxruntime, …"
        )
        _add_key_option(action)
    setup.add_argument("--benchmark-model", type=Path, metavar="PATH", help="Google's benchmark_model for the device")
    setup.add_argument("--litert-library", type=Path, metavar="PATH", help="libLiteRt.so for the device")
    setup.add_argument("--wheels", type=Path, metavar="FOLDER", help="take wheels from here, not from an index")
    setup.add_argument("--upgrade", action="store_true", help="install the newest runtime, also where there is one")


def _register_naming(actions: Any) -> None:
    adding = _add(actions, "add", add_one, "name a device in devices.toml")
    adding.add_argument("name")
    adding.add_argument("address", help="ssh://[user@]host[:port], adb://SERIAL or adb://host:port")
    adding.add_argument("--engine", help="python, native, benchmark_model or onnxruntime (default: the device's own)")
    adding.add_argument(
        "--python", help="interpreter there, such as '~/venv/bin/python' (default: the first with a runtime)"
    )
    adding.add_argument("--cpus", help="CPUs to measure on, such as 4-7 (default: the fastest cluster)")
    adding.add_argument("--key", type=Path, help="private key of ssh")
    adding.add_argument("--known-hosts", type=Path, metavar="FILE", help="where ssh host keys are kept")
    adding.add_argument("--force", action="store_true", help="replace a device of that name")
    removing = _add(actions, "remove", remove_one, "take a device out of devices.toml")
    removing.add_argument("name")
    for action in (adding, removing):
        action.add_argument("--user", action="store_true", help="in the user's file instead of ./devices.toml")


_FORMAT_HELP = "how the result is printed on stdout"


def _add(actions: Any, name: str, command: Any, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    # no default here: it would undo what stands before the action
    added.add_argument("--format", choices=("text", "json"), default=argparse.SUPPRESS, help=_FORMAT_HELP)
    added.set_defaults(command=command)
    return added


def _add_key_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept-new-host-key",
        action="store_true",
        default=argparse.SUPPRESS,
        help="trust and keep the ssh key of a host seen for the first time; a changed one is refused always",
    )


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


# --- listing ----------------------------------------------------------------------------------------------------------


def list_attached(options: argparse.Namespace) -> None:
    """Print every device in reach and what keeps those from measuring that cannot."""
    import dataclasses

    from device_agents.listing import list_devices

    asked = dataclasses.replace(connection_of(options), ask=None)  # many are asked at once, in threads
    states = [_state(sighting, answer) for sighting, answer in list_devices(asked)]
    print_result(states, [line for state in states for line in _state_lines(state)], options.format)


def _state(sighting: Sighting, answer: Overview | DeviceError) -> dict[str, Any]:
    """Say of one device what it is and what speaks against measuring on it, for JSON and text alike."""
    if isinstance(answer, Exception):
        where = {"address": str(sighting.target.address), "serial": sighting.serial}
        return {"name": sighting.name, **where, "ready": False, "problem": str(answer)}
    return {
        **device_fields(answer.description.device),
        "runtimes": answer.description.runtimes,
        "ready": answer.engine.ok,
        "problem": "" if answer.engine.ok else _with_advice(answer.engine),
        "warnings": list(answer.warnings),
    }


def device_fields(device: Device) -> dict[str, Any]:
    """Give a device's fields as JSON can hold them, without how to connect."""
    import dataclasses

    named = {field.name: getattr(device, field.name) for field in dataclasses.fields(device)}
    del named["connection"]
    clusters = [dataclasses.asdict(cluster) for cluster in device.clusters]
    return {**named, "address": str(device.address), "clusters": clusters}


def _state_lines(state: dict[str, Any]) -> list[str]:
    where = state["address"] if state["serial"] in state["address"] else f"{state['address']} {state['serial']}"
    if "model" not in state:
        return [f"{state['name']}  {where}  not in reach", f"  {state['problem']}"]
    clusters = "+".join(str(len(cluster["cpus"])) for cluster in state["clusters"])
    cores = f"{state['cores']} cores" + (f" ({clusters})" if "+" in clusters else "")
    runtimes = ", ".join(f"{name} {version}" for name, version in state["runtimes"].items())
    chips = state["model"] if state["model"] == state["soc"] else f"{state['model']}, {state['soc']}"
    lines = [
        f"{state['name']}  {where}  {'ready' if state['ready'] else 'not ready'}",
        f"  {chips}, {cores}, {state['os']}, {state['abi']}",
        f"  engine {state['engine']}" + (f", {runtimes}" if runtimes else ", no Python runtime found"),
    ]
    lines += [f"  not ready: {state['problem']}"] if state["problem"] else []
    return lines + [f"  warning: {warning}" for warning in state["warnings"]]


# --- checking and setting up ------------------------------------------------------------------------------------------


def check_one(options: argparse.Namespace) -> None:
    """Print every precondition of measuring on one device; raises DeviceNotReady after that when one fails."""
    import dataclasses

    from device_agents.checkup import check_device, require_ready
    from edgekd.outputs_check import outputs_check

    target = dataclasses.replace(_target(options), engine=options.device_engine)
    checks = list(check_device(target, [outputs_check]))
    ready = not any(check.stops for check in checks)
    result = {"device": options.name, "ready": ready, "checks": [dataclasses.asdict(check) for check in checks]}
    text = [*map(_check_line, checks), f"{options.name} is {'ready' if ready else 'not ready'}"]
    print_result(result, text, options.format)
    require_ready(options.name, checks)


def _check_line(check: Check) -> str:
    mark = "✗" if check.stops else "✓" if check.ok else "!"
    return f"{mark} {check.name}: {_with_advice(check)}"


def _with_advice(check: Check) -> str:
    return f"{check.found}; {check.advice}" if check.advice else check.found


def set_up_one(options: argparse.Namespace) -> None:
    """Install or record what a device's engine needs."""
    import dataclasses
    from contextlib import closing

    from device_agents.describe import examine
    from device_agents.inventory import open_target
    from device_agents.setup import SetupRequest, set_up

    given = (options.benchmark_model, options.litert_library, options.wheels)
    paths = [None if path is None else path.expanduser() for path in given]
    for path in paths:
        if path is not None and not path.exists():
            raise UsageError(f"{path} does not exist; give the path of a file or folder on this machine")
    target = dataclasses.replace(_target(options), engine=options.device_engine)
    with closing(open_target(target)) as transport:
        description = examine(target, transport)
        request = SetupRequest(paths[0], paths[1], paths[2], options.upgrade)
        done = set_up(target, description, transport, request, _note)
    print_result({"device": description.device.name, "done": done}, done, options.format)


def _target(options: argparse.Namespace) -> Target:
    from device_agents.inventory import find_target

    return find_target(options.name, options.serial, connection_of(options))


# --- devices.toml -----------------------------------------------------------------------------------------------------


def add_one(options: argparse.Namespace) -> None:
    """Write a device into devices.toml."""
    from device_agents import user_devices

    path = user_devices.file_to_write(user=options.user)
    device = user_devices.named(
        options.name,
        {
            key: str(value.expanduser().absolute() if isinstance(value, Path) else value)
            for key in ("address", "engine", "python", "cpus", "key", "known_hosts")
            if (value := getattr(options, key)) is not None
        },
        path,
    )
    user_devices.add(path, device, replace_it=options.force)
    advice = f"see whether it is ready with: edgekd devices check {device.name}"
    print_result({"device": device.name, "file": str(path)}, [f"{device.name} is in {path}; {advice}"], options.format)


def remove_one(options: argparse.Namespace) -> None:
    """Take a device out of devices.toml."""
    from device_agents import user_devices

    path = user_devices.file_to_write(user=options.user)
    user_devices.remove(path, options.name)
    print_result(
        {"device": options.name, "file": str(path)}, [f"{options.name} is no longer in {path}"], options.format
    )


# --- building and pairing ---------------------------------------------------------------------------------------------


def build_agent(options: argparse.Namespace) -> None:
    """Build the native agent."""
    from device_agents.build_agent import build_agent

    built = build_agent(options.abi, android=options.ndk is not None, ndk=options.ndk, out=options.out)
    print_result({"file": str(built)}, [str(built)], options.format)


def pair(options: argparse.Namespace) -> None:
    """Pair with a phone that shows a code; on the same screen it shows where."""
    from device_agents.adb.pair import find_adb, pair

    adb = find_adb(options.adb)
    pair(adb, options.endpoint, options.code or _code())
    advice = "now name it with the port of the phone's first page: edgekd devices add NAME adb://HOST:PORT"
    print_result({"paired": options.endpoint}, [f"paired with {options.endpoint}; {advice}"], options.format)


def _code() -> str:
    """Ask for the pairing code. Raises UsageError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageError("the pairing code is missing; give it with --code")
    sys.stderr.write("pairing code on the phone's screen: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()
