"""Each device's network namespace and its link to the host.

A daemon that binds every address is reached from the host alone, at an address of its own, and a link that is set
down is a cable pulled. A set's names all begin with its tag, so that `remove_all` finds them without any record.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from virtual.kinds import Kind
from virtual.places import Places, VirtualDeviceError, run

_RANGE = ipaddress.IPv4Network("10.213.0.0/16")
_NAMESPACES = Path("/run/netns")  # where `ip netns` keeps them


@dataclass(frozen=True, slots=True)
class Link:
    """One device's namespace, the host's end of its link (veth), and the two addresses."""

    namespace: str
    veth: str
    host_address: str
    address: str

    @property
    def namespace_path(self) -> Path:
        """The file that stands for the namespace."""
        return _NAMESPACES / self.namespace


def link_of(places: Places, kind: Kind, subnet: ipaddress.IPv4Network) -> Link:
    """Name a device's link: four addresses of the set's subnet belong to each device."""
    own = subnet[4 * kind.number]
    return Link(namespace_of(places, kind.name), veth_of(places, str(kind.number)), str(own + 1), str(own + 2))


def namespace_of(places: Places, name: str) -> str:
    """Name a device's namespace."""
    return f"edgekd-{places.tag}-{name}"


def veth_of(places: Places, number: str) -> str:
    """Name the host's end of a device's link; the kernel allows 15 characters."""
    return f"ek{places.tag}v{number}"


def free_subnet(places: Places) -> ipaddress.IPv4Network:
    """Choose a subnet that no route of the host touches, the same one for a set where it is free."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"], "reading the routes"))
    used = [net for route in routes if (net := _network(str(route.get("dst", "")))) is not None]
    subnets = list(_RANGE.subnets(new_prefix=24))
    first = int.from_bytes(hashlib.sha256(str(places.state).encode()).digest()[:2], "big") % len(subnets)
    for subnet in (*subnets[first:], *subnets[:first]):
        if not any(subnet.overlaps(net) for net in used):
            return subnet
    raise VirtualDeviceError(f"every subnet of {_RANGE} is in use on this machine; end other sets of virtual devices")


def current_subnet(places: Places) -> ipaddress.IPv4Network | None:
    """Return the subnet that this set's links are on, or None where it has none."""
    links = json.loads(run(["ip", "-json", "-4", "address", "show"], "reading the addresses"))
    for link in links:
        if str(link.get("ifname", "")).startswith(veth_of(places, "")):
            for address in link["addr_info"]:
                return ipaddress.IPv4Network(f"{address['local']}/24", strict=False)
    return None


def _network(destination: str) -> ipaddress.IPv4Network | None:
    try:
        network = ipaddress.IPv4Network(destination, strict=False)
    except ValueError:
        return None  # "default" and the like
    return network if network.prefixlen > _RANGE.prefixlen - 8 else None


def connect(link: Link) -> None:
    """Make a namespace and its link, and set both ends up."""
    what = f"making the network of {link.namespace}"
    run(["ip", "netns", "add", link.namespace], what)
    peer = ["peer", "name", "eth0", "netns", link.namespace]
    run(["ip", "link", "add", link.veth, "type", "veth", *peer], what)
    run(["ip", "address", "add", f"{link.host_address}/30", "dev", link.veth], what)
    run(["ip", "link", "set", link.veth, "up"], what)
    inside = ["ip", "-n", link.namespace]
    run([*inside, "address", "add", f"{link.address}/30", "dev", "eth0"], what)
    run([*inside, "link", "set", "eth0", "up"], what)
    run([*inside, "link", "set", "lo", "up"], what)


def cut(link: Link) -> None:
    """Pull the cable: nothing passes, and neither side is told.

    The device's end is set down, because without its own end the host would send through its other networks.
    """
    run(["ip", "-n", link.namespace, "link", "set", "eth0", "down"], f"cutting {link.veth}")


def mend(link: Link) -> None:
    """Put the cable back in."""
    run(["ip", "-n", link.namespace, "link", "set", "eth0", "up"], f"mending {link.veth}")


def remove(link: Link) -> None:
    """Remove what is there of a link and its namespace; its processes must have ended."""
    veth = Path("/sys/class/net") / link.veth
    # the kernel removes a link by itself soon after its namespace, so it may go between a look and the command
    if veth.exists():
        subprocess.run(["ip", "link", "delete", link.veth], capture_output=True, check=False)
    if veth.exists():
        raise VirtualDeviceError(f"{link.veth} cannot be removed; try: ip link delete {link.veth}")
    if link.namespace_path.exists():
        run(["ip", "netns", "delete", link.namespace], f"removing the namespace {link.namespace}")


def tidy() -> None:
    """Remove what `ip netns` mounts for its folder once no namespace is left in it."""
    if _NAMESPACES.is_mount() and not any(_NAMESPACES.iterdir()):
        run(["umount", _NAMESPACES], f"unmounting {_NAMESPACES}")


def processes(link: Link) -> list[int]:
    """List the host's process ids of everything in a namespace, init first."""
    try:
        wanted = link.namespace_path.stat()
    except FileNotFoundError:
        return []
    everything = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sorted(int(entry.name) for entry in everything if _same(entry / "ns" / "net", wanted))


def _same(path: Path, wanted: os.stat_result) -> bool:
    try:
        status = path.stat()
    except OSError:  # it has ended
        return False
    return (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
