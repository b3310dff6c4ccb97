r"""A device's own file system: the folders around a Debian root, stand-in programs, and files as its kernel has them.

Everything here is a plain file that the host sees too, so that a test can read and change a running device's state.
Debian's /usr is mounted inside the device alone (`specs.py`). A file named *.tree describes many small files:

    PATH = TEXT         a file of one line, or of no line and C's strings where TEXT ends with \0
    PATH -> TARGET      a link

{0-3} in a path stands for each of these numbers in turn, and {} after it for the same number again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from virtual.keys import client_key, host_key, public_of
from virtual.kinds import PI_UID, SHELL_UID, Kind
from virtual.places import FILES, Places, VirtualDeviceError
from virtual.rootfs import PYTHON, Root
from virtual.specs import DEVICE_NODES

_RANGE = re.compile(r"\{(\d+)-(\d+)\}")
_LINE = re.compile(r"(?P<path>\S+) (?P<kind>=|->) ?(?P<text>.*)")
_MERGED = ("bin", "lib", "lib64", "sbin")  # links into /usr
_LOCAL = f"local/lib/{PYTHON}/dist-packages"  # mounted as /usr/local
_BOTH = ("dev/pts", "etc", "local/bin", "local/empty", _LOCAL, "proc", "sys", "usr", "virtual")
_ANDROID_FOLDERS = (*_BOTH, "data/local/tmp", "mnt", "native", "system/bin", "vendor")
_LINUX_FOLDERS = (*_BOTH, "etc/ssh", "root", "run/sshd", "tmp", "var/tmp")


def make_file_system(places: Places, kind: Kind, roots: dict[str, Root]) -> None:
    """Make a device's root folder anew."""
    folder = places.file_system(kind.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    if kind.arch == "host":
        (folder / "home").mkdir()  # all else is the host's
        (folder / "virtual").mkdir()
        return
    _make_folders(folder, _ANDROID_FOLDERS if kind.android else _LINUX_FOLDERS)
    _make_mount_points(folder)
    if kind.android:
        _make_android(folder, kind, roots[kind.arch])
    else:
        _make_linux(folder, kind, places, roots[kind.arch])


def _make_android(folder: Path, kind: Kind, root: Root) -> None:
    _link_merged(folder, root, {"bin": "system/bin"})
    users = {"root": 0, "shell": SHELL_UID}
    (folder / "etc" / "passwd").write_text(_passwd(users, "/", "/system/bin/sh"), encoding="ascii")
    (folder / "etc" / "group").write_text("".join(f"{name}:x:{uid}:\n" for name, uid in users.items()), "ascii")
    _add_commands(folder / "system" / "bin", root)
    _copy_programs(FILES / "android" / "bin", folder / "system" / "bin")
    if kind.python:
        (folder / "system" / "bin" / "python3").symlink_to("/usr/bin/python3")
    properties = (FILES / kind.files / "build.prop").read_text(encoding="utf-8")
    own_serial = f"\\g<0>{kind.number}"  # two phones of one model differ in that
    properties = re.sub(r"^ro\.serialno=.*$", own_serial, properties, flags=re.MULTILINE)
    (folder / "system" / "build.prop").write_text(properties, encoding="utf-8")
    for tree in ("android", kind.files):
        _grow_if_there(folder, FILES / tree / "files.tree")
    for path in (folder / "virtual").iterdir():
        path.chmod(0o666)  # the stand-ins run as the user `shell`, and some record what they were told
    _give_to(folder / "data" / "local" / "tmp", SHELL_UID, 0o771)


def _make_linux(folder: Path, kind: Kind, places: Places, root: Root) -> None:
    home = f"home/{kind.user}"
    _make_folders(folder, (f"{home}/.ssh",))
    _link_merged(folder, root, {})
    for name in ("tmp", "var/tmp"):
        (folder / name).chmod(0o1777)
    users = {"root": 0, kind.user: PI_UID, "sshd": 100, "nobody": 65534}
    (folder / "etc" / "passwd").write_text(_passwd(users, f"/{home}", "/bin/bash"), encoding="ascii")
    (folder / "etc" / "group").write_text("".join(f"{name}:x:{uid}:\n" for name, uid in users.items()), "ascii")
    shutil.copy(root.folder / "usr" / "lib" / "os-release", folder / "etc" / "os-release")
    _copy_programs(FILES / kind.files / "bin", folder / "local" / "bin")
    key = shutil.copy(host_key(places, kind), folder / "etc" / "ssh" / "host_key")
    Path(key).chmod(0o600)
    authorized = folder / home / ".ssh" / "authorized_keys"
    authorized.write_text(public_of(client_key(places)) + "\n", encoding="ascii")
    for path in (folder / home, authorized.parent, authorized):
        _give_to(path, PI_UID, 0o600 if path == authorized else 0o700)
    _grow_if_there(folder, FILES / kind.files / "files.tree")


def _make_folders(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)


def _make_mount_points(folder: Path) -> None:
    for name in DEVICE_NODES:
        (folder / "dev" / name).touch()
    (folder / "dev" / "ptmx").symlink_to("pts/ptmx")
    (folder / "local" / "empty" / "file").touch(mode=0o444)


def _link_merged(folder: Path, root: Root, instead: dict[str, str]) -> None:
    for name in _MERGED:
        if (root.folder / "usr" / name).is_dir():
            (folder / name).symlink_to(instead.get(name, f"usr/{name}"))


def _passwd(users: dict[str, int], home: str, shell: str) -> str:
    homes = {"root": "/root", "sshd": "/run/sshd", "nobody": "/"}
    lines = (f"{name}:x:{uid}:{uid}::{homes.get(name, home)}:{shell}\n" for name, uid in users.items())
    return "".join(lines)


def _add_commands(folder: Path, root: Root) -> None:
    """Link the commands that Android 13 has: toybox's, and Debian's where its toybox lacks one."""
    (folder / "sh").symlink_to("/usr/bin/mksh")
    (folder / "toybox").symlink_to("/usr/bin/toybox")
    for line in (FILES / "android" / "commands").read_text(encoding="utf-8").splitlines():
        provider, _, names = line.partition(": ")
        for name in names.split():
            program = "toybox" if provider == "toybox" else provider if provider != "debian" else name
            if not (root.folder / "usr" / "bin" / program).exists():
                raise VirtualDeviceError(f"{root.folder} has no /usr/bin/{program}, which Android's {name} needs")
            (folder / name).symlink_to(f"/usr/bin/{program}")


def _copy_programs(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, target / path.name)
        (target / path.name).chmod(0o755)


def _give_to(path: Path, uid: int, mode: int) -> None:
    path.chmod(mode)
    os.chown(path, uid, uid)


def _grow_if_there(folder: Path, tree: Path) -> None:
    if tree.exists():
        for line in tree.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                _grow(folder, line)


def _grow(folder: Path, line: str) -> None:
    for expanded in _expand(line):
        match = _LINE.fullmatch(expanded)
        if match is None:
            raise VirtualDeviceError(f"a line of a .tree file is neither PATH = TEXT nor PATH -> TARGET: {line!r}")
        path = folder / match["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if match["kind"] == "->":
            path.symlink_to(match["text"])
        else:
            text = match["text"].replace("\\0", "\0")
            path.write_text(text if text.endswith("\0") else text + "\n", encoding="utf-8")


def _expand(line: str) -> Iterator[str]:
    found = _RANGE.search(line)
    if found is None:
        yield line
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from _expand(line.replace(found[0], str(number), 1).replace("{}", str(number)))
