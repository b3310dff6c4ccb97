"""What runs, for people, for programs (virtual_devices.json) and for the product (devices.toml)."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

from virtual import network
from virtual.benchmark import benchmark_model, library_of
from virtual.daemons import is_daemon, spec_path
from virtual.keys import client_key, write_client_files
from virtual.kinds import ANDROID_WORK, KINDS, Kind
from virtual.network import Link, link_of, processes
from virtual.places import REPOSITORY, Places

Pair = tuple[Kind, Link]


def running(places: Places, subnet: ipaddress.IPv4Network) -> list[Pair]:
    """List the devices that have processes."""
    pairs = [(kind, link_of(places, kind, subnet)) for kind in KINDS]
    return [(kind, link) for kind, link in pairs if processes(link) and spec_path(places, kind).exists()]


def write(places: Places, pairs: list[Pair]) -> None:
    """Write all files that describe the running devices."""
    write_client_files(places, [(kind, link) for kind, link in pairs if kind.transport == "ssh"])
    _replace(places.devices_toml, "\n".join(_toml(places, kind, link) for kind, link in pairs))
    _replace(places.listing, json.dumps(entries(places, pairs), indent=2) + "\n")


def entries(places: Places, pairs: list[Pair]) -> dict[str, Any]:
    """Describe the running devices in JSON's terms; pids are the host's, of everything in the device's namespace.

    namespaces and links are patterns that all names of this set match, and no other set's.
    """
    return {
        "state": str(places.state),
        "namespaces": network.namespace_of(places, "*"),
        "links": network.veth_of(places, "*"),
        "devices_toml": str(places.devices_toml),
        "ssh_config": str(places.state / "ssh_config"),
        "devices": [_entry(places, kind, link) for kind, link in pairs],
    }


def text(pairs: list[Pair]) -> str:
    """Describe the running devices in a few columns."""
    return "".join(f"{kind.name:<24}{address_of(kind, link)}\n" for kind, link in pairs)


def address_of(kind: Kind, link: Link) -> str:
    """Write a device's address as the product reads it."""
    if kind.android:
        return f"adb://{link.address}:{kind.port}"
    port = "" if kind.port == 22 else f":{kind.port}"
    return f"ssh://{kind.user}@{link.address}{port}"


def _entry(places: Places, kind: Kind, link: Link) -> dict[str, Any]:
    pids = processes(link)
    home = str(places.file_system(kind.name) / "home") if kind.arch == "host" else f"/home/{kind.user}"
    return {
        "name": kind.name,
        "address": address_of(kind, link),
        "transport": kind.transport,
        "arch": kind.arch,
        "host": link.address,
        "port": kind.port,
        "namespace": link.namespace,
        "veth": link.veth,
        "pids": pids,
        "daemon_pids": [pid for pid in pids if is_daemon(pid)],
        "root": "/" if kind.arch == "host" else str(places.file_system(kind.name)),
        "work": ANDROID_WORK if kind.android else f"{home}/.cache/edgekd",
        "control": str(places.control(kind.name)),
        "log": str(places.device(kind.name) / "log"),
    }


def _toml(places: Places, kind: Kind, link: Link) -> str:
    values = {"address": address_of(kind, link)}
    if kind.python:
        values["python"] = _python(kind)
    if kind.transport == "ssh":
        values |= {"key": str(client_key(places)), "known_hosts": str(places.known_hosts)}
    if kind.arch != "host" and (library := library_of(places, kind.arch)):
        values["litert_library"] = str(library)
    if kind.android and benchmark_model(places, kind.arch).exists():
        values["benchmark_model"] = str(benchmark_model(places, kind.arch))
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]  # JSON's strings are TOML's too
    return f"[{kind.name}]\n{''.join(lines)}"


def _python(kind: Kind) -> str:
    """Name the interpreter that has a runtime; this machine's may be that of the repository's environment."""
    own = REPOSITORY / ".venv" / "bin" / "python"
    return str(own) if kind.arch == "host" and own.exists() else kind.python


def _replace(path: Path, content: str) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
