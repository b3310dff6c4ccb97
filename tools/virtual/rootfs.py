"""Debian root folders and Python wheels for the devices: built once, kept, and built anew when their recipe changes.

A folder's name holds a hash of its recipe, and it gets that name when it is complete, so that an interrupted build is
never used. Read next: `trees.py`, which puts a device's own files around a root.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from virtual.building import DIES_WITH_US, SUITE, alone, built, pip, remove_unfinished_in
from virtual.kinds import Kind
from virtual.places import REPOSITORY, Places, run, say

PYTHON = "python3.13"  # trixie's
_PACKAGES = (
    *("adbd", "base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils"),
    *("grep", "gzip", "hostname", "libstdc++6", "mawk", "mksh", "original-awk", "procps", "python3", "sed", "tar"),
    *("toybox", "util-linux"),
)
_SSH_PACKAGES = ("openssh-server", "openssh-sftp-server")
# pages and translations that no device reads
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/i18n/*", "/usr/share/info/*")

_WHEELS = ("ai-edge-litert", "numpy")
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
_COMPILE = (
    "import compileall, py_compile, re; compileall.compile_dir('/mnt', quiet=2, rx=re.compile('/tests/'), "
    "invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
)
_PLATFORMS = ("manylinux2014", "manylinux_2_27", "manylinux_2_28")


@dataclass(frozen=True, slots=True)
class Root:
    """A Debian root folder, the folder of wheels for its Python, and the root of this machine's own architecture."""

    folder: Path
    wheels: Path
    native: Path


def ready_roots(places: Places, kinds: Iterable[Kind]) -> dict[str, Root]:
    """Build what these devices stand on, as far as it is not there. Raises VirtualDeviceError."""
    archs = {kind.arch for kind in kinds} - {"host"}
    if not archs:
        return {}
    with alone(_roots(places)):
        remove_unfinished_in(_roots(places))
        native = _root_folder(places, "amd64", None)
        with ThreadPoolExecutor(2) as pool:  # one waits for the network much of the time
            wheels = {arch: pool.submit(_wheel_folder, places, arch, native) for arch in sorted(archs)}
            folders = {arch: pool.submit(_root_folder, places, arch, native) for arch in sorted(archs)}
            return {arch: Root(folders[arch].result(), wheels[arch].result(), native) for arch in sorted(archs)}


def remove_unfinished(places: Places) -> None:
    """Remove what an interrupted build left."""
    if _roots(places).exists():
        with alone(_roots(places)):
            remove_unfinished_in(_roots(places))


def remove_others(places: Places, keep: Iterable[Root]) -> None:
    """Remove what an older recipe built, unless a running device of any set stands on it."""
    kept = {path for root in keep for path in (root.folder, root.wheels)}
    with alone(_roots(places)):
        for path in set(_roots(places).glob("*-*")) - kept:
            if not _is_mounted(path.resolve()):
                shutil.rmtree(path)


def _roots(places: Places) -> Path:
    return places.state / "roots"


def _is_mounted(folder: Path) -> bool:
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            if str(folder) in table.read_text(encoding="utf-8"):
                return True
        except OSError:  # that process has ended
            continue
    return False


def _root_folder(places: Places, arch: str, native: Path | None) -> Path:
    left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    packages = [*_PACKAGES, *(_SSH_PACKAGES if arch == "arm64" else ())]
    include = [f"--include={','.join(packages)}", *left_out, SUITE]
    recipe = ["mmdebstrap", "--quiet", "--variant=extract", f"--arch={arch}", *include]

    def build(folder: Path) -> None:
        say(f"building a Debian {SUITE} root for {arch}")
        run([*DIES_WITH_US, *recipe, folder], f"building the {arch} root")
        (folder / "usr" / "local").mkdir(exist_ok=True)  # Debian's own is made by a script that did not run
        (folder / "usr" / "bin" / "awk").symlink_to("mawk")
        _compile(folder / "usr" / "lib" / PYTHON, native or folder)

    return built(_roots(places), arch, [*recipe, _COMPILE], build)


def _wheel_folder(places: Places, arch: str, native: Path) -> Path:
    platforms = [f"--platform={platform}_{_MACHINES[arch]}" for platform in _PLATFORMS]
    constraints = REPOSITORY / "constraints.txt"
    options = ["--python-version=313", "--implementation=cp", "--only-binary=:all:", "--no-compile", "--quiet"]
    recipe = [*options, *platforms, *_WHEELS]

    def build(folder: Path) -> None:
        say(f"fetching {' and '.join(_WHEELS)} for Python 3.13 on {arch}")
        install = [*pip(), "install", "--disable-pip-version-check", "--constraint", constraints, "--target", folder]
        run([*DIES_WITH_US, *install, *recipe], f"fetching the {arch} wheels")
        _compile(folder, native)

    return built(_roots(places), f"wheels_{arch}", [*recipe, _COMPILE, constraints.read_text(encoding="utf-8")], build)


def _compile(folder: Path, native: Path) -> None:
    """Compile Python files with a native Python of the devices' version: under emulation that costs half a minute.

    The compiled files are taken without a look at the source's time, which a copy of the folder would change.
    """
    inside = 'mount --bind "$1" "$2/mnt" && exec chroot "$2" /usr/bin/python3 -c "$3"'
    (native / "mnt").mkdir(exist_ok=True)
    run([*DIES_WITH_US, "sh", "-c", inside, "sh", folder, native, _COMPILE], "compiling Python files")
