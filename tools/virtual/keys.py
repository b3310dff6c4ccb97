"""The keys of the SSH devices: each device's own, and one client key that both let in."""

from __future__ import annotations

from pathlib import Path

from virtual.kinds import Kind
from virtual.network import Link
from virtual.places import Places, run


def client_key(places: Places) -> Path:
    """Return the private key that logs in everywhere, made when it is not there."""
    return _key(places.keys / "id_ed25519", "edgekd-virtual-devices")


def host_key(places: Places, kind: Kind) -> Path:
    """Return a device's private key, made when it is not there."""
    return _key(places.keys / f"{kind.name}_host_ed25519", kind.name)


def public_of(key: Path) -> str:
    """Return the public line of a private key."""
    return key.with_name(key.name + ".pub").read_text(encoding="ascii").strip()


def write_client_files(places: Places, devices: list[tuple[Kind, Link]]) -> None:
    """Write known_hosts, and an ssh_config with which `ssh -F ssh_config NAME` works."""
    hosts, config = [], []
    for kind, link in devices:
        named = link.address if kind.port == 22 else f"[{link.address}]:{kind.port}"
        hosts.append(f"{named} {' '.join(public_of(host_key(places, kind)).split()[:2])}\n")
        config.append(_config_block(places, kind, link))
    places.known_hosts.write_text("".join(hosts), encoding="ascii")
    (places.state / "ssh_config").write_text("\n".join(config), encoding="utf-8")


def _config_block(places: Places, kind: Kind, link: Link) -> str:
    lines = (
        f"Host {kind.name} {link.address}",
        f"    HostName {link.address}",
        f"    Port {kind.port}",
        f"    User {kind.user}",
        f'    IdentityFile "{client_key(places)}"',
        "    IdentitiesOnly yes",
        f'    UserKnownHostsFile "{places.known_hosts}"',
        "    StrictHostKeyChecking yes",
        "    BatchMode yes",
    )
    return "\n".join(lines) + "\n"


def _key(path: Path, comment: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.with_name(path.name + ".pub").exists():
        path.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path], f"making the key {path.name}")
    return path
