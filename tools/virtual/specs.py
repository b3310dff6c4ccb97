"""What a device's init is told: which mounts, which daemon, as whom."""

from __future__ import annotations

import hashlib
from pathlib import Path

from virtual.daemons import pid_path
from virtual.keys import client_key, host_key
from virtual.kinds import SHELL_UID, Kind
from virtual.network import Link
from virtual.packages import program
from virtual.places import FILES, HERE, Places
from virtual.rootfs import PYTHON, Root

Spec = dict[str, object]
_ANDROID_PATH = "/product/bin:/apex/com.android.runtime/bin:/system/bin:/system/xbin:/odm/bin:/vendor/bin:/vendor/xbin"
_ADBD = "/usr/lib/android-sdk/platform-tools/adbd"
# The emulator can lock up a program of several threads that forks, as adbd does for every command, and then no test
# of its device passes. So a phone's adbd is this machine's, with its libraries in a folder of its own, and what it
# starts is emulated.
_NATIVE = "/native"
_NATIVE_LIBRARIES = f"{_NATIVE}/x86_64-linux-gnu"
_SSHD = "/usr/sbin/sshd"  # by its whole path, which it starts itself by again
DEVICE_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_ALL_MODES = ("UsePAM no", "UseDNS no", "StrictModes no", "PidFile none", "PasswordAuthentication no")


def spec_of(places: Places, kind: Kind, link: Link, root: Root | None) -> Spec:
    """Describe a device's init, and everything it depends on, so that a change is seen."""
    if root is None:
        spec = _host_sshd(places, kind, link)
    else:
        spec = _adbd(kind) if kind.android else _sshd(kind)
        spec |= {"root": str(places.file_system(kind.name)), "mounts": _mounts(places, kind, root)}
    return {
        "name": kind.name,
        "address": link.address,
        "pid_file": str(pid_path(places, kind)),
        "stamp": _stamp(),
        "directory": "/",
        **spec,
    }


def _adbd(kind: Kind) -> Spec:
    libraries = f"{_NATIVE_LIBRARIES}:{_NATIVE_LIBRARIES}/android"
    by_loader = ["--library-path", libraries, _NATIVE + _ADBD.removeprefix("/usr/lib")]
    return {
        "program": f"{_NATIVE_LIBRARIES}/ld-linux-x86-64.so.2" if kind.cpu else _ADBD,
        "argv": ["adbd", *(by_loader if kind.cpu else ())],
        "environment": {
            "PATH": _ANDROID_PATH,
            "ADBD_PORT": str(kind.port),
            "ANDROID_DATA": "/data",
            "ANDROID_ROOT": "/system",
            "HOME": "/",
            "TMPDIR": "/data/local/tmp",
            **_emulated(kind),
        },
        "uid": SHELL_UID,
        "gid": SHELL_UID,
        "groups": [1004, 1007, 1011, 1015, 1028, 3001, 3002, 3003, 3006],  # as Android gives to `shell`
    }


def _emulated(kind: Kind) -> dict[str, str]:
    return {"QEMU_CPU": kind.cpu} if kind.cpu else {}


def _sshd(kind: Kind) -> Spec:
    sessions = [f"SetEnv {name}={value}" for name, value in _emulated(kind).items()]  # which begin without our own
    options = (
        *_ALL_MODES,
        "HostKey /etc/ssh/host_key",
        "Subsystem sftp internal-sftp",
        "PermitRootLogin no",
        *sessions,
    )
    argv = [_SSHD, "-D", "-e", "-f", "/dev/null", *(part for option in options for part in ("-o", option))]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **_emulated(kind)}
    return {"program": _SSHD, "argv": argv, "environment": environment, "uid": 0, "gid": 0, "groups": []}


def _host_sshd(places: Places, kind: Kind, link: Link) -> Spec:
    folder = places.device(kind.name)
    home = places.file_system(kind.name) / "home"
    authorized = folder / "authorized_keys"
    client = client_key(places)
    authorized.write_bytes(client.with_name(client.name + ".pub").read_bytes())
    options = (
        *_ALL_MODES,
        f"Port {kind.port}",
        f"ListenAddress {link.address}",
        f'HostKey "{host_key(places, kind)}"',
        f'AuthorizedKeysFile "{authorized}"',
        "PermitRootLogin prohibit-password",
        f"Subsystem sftp internal-sftp -d {home}",
        f'SetEnv HOME="{home}"',  # what is left behind there goes with the device
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, which Debian makes at boot
    config = folder / "sshd_config"
    config.write_text("\n".join(options) + "\n", encoding="utf-8")
    return {
        "root": "/",
        "mounts": [["-t", "proc", "proc", "/proc"]],
        "program": program("sshd"),
        "argv": [program("sshd"), "-D", "-e", "-f", str(config)],
        "environment": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        "uid": 0,
        "gid": 0,
        "groups": [0],
    }


def _mounts(places: Places, kind: Kind, root: Root) -> list[list[str]]:
    folder = places.file_system(kind.name)
    mounts = [_bind(root.folder / "usr", folder / "usr", "ro"), ["-t", "proc", "proc", str(folder / "proc")]]
    mounts += [_bind(Path("/dev") / name, folder / "dev" / name) for name in DEVICE_NODES]
    mounts.append(["-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", str(folder / "dev" / "pts")])
    if kind.arch == "amd64":
        mounts.append(_bind(Path("/sys"), folder / "sys", "ro"))
    else:
        if kind.android:
            mounts.append(_bind(root.native / "usr" / "lib", folder / _NATIVE.lstrip("/"), "ro"))
        # LiteRT crashes where an emulated program is told of the host's processor
        mounts += [_bind(path, folder / "proc" / path.relative_to(proc)) for proc, path in _proc_files(kind)]
    return mounts + _python_mounts(kind, folder, root)


def _proc_files(kind: Kind) -> list[tuple[Path, Path]]:
    proc = FILES / kind.files / "proc"
    inside = [path for path in sorted(proc.rglob("*")) if path.is_file()]
    return [(proc, path) for path in inside if (Path("/proc") / path.relative_to(proc)).exists()]


def _python_mounts(kind: Kind, folder: Path, root: Root) -> list[list[str]]:
    mounts = [_bind(folder / "local", folder / "usr" / "local")]
    if kind.python:
        return [*mounts, _bind(root.wheels, folder / "usr" / "local" / "lib" / PYTHON / "dist-packages", "ro")]
    empty = folder / "local" / "empty"
    return [
        *mounts,
        _bind(empty, folder / "usr" / "lib" / PYTHON),
        *(_bind(empty / "file", folder / "usr" / "bin" / name) for name in (PYTHON, "python3")),
    ]


def _bind(source: Path, target: Path, mode: str = "rw") -> list[str]:
    return ["-o", f"bind,{mode}", str(source), str(target)]


def _stamp() -> str:
    """Hash all that this program consists of, stand-ins included."""
    digest = hashlib.sha256()
    for path in sorted(path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
