"""Wheels of a runtime for a device's Python, gathered on this machine: from pip's index or from a folder.

pip chooses them for the device's Python version, C library and processor; nothing of them is run or installed here.
Read next: `setup.py`, which takes them to the device.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

from device_agents.errors import SetupFailed
from device_agents.pythons import PythonThere
from device_agents.strict_json import clean_lines

PACKAGE = "ai-edge-litert"
_OLDEST_GLIBC_MINOR = 17  # manylinux2014; nothing older has wheels of the runtime
_PIP_TIMEOUT_S = 900.0  # some 60 MB over a slow line
_LIST = "complete.json"  # written last: a folder with it is whole


@dataclass(frozen=True, slots=True)
class WheelTarget:
    """What wheels must fit: a CPython version, glibc's minor version (2.N) and the machine as uname -m names it."""

    python: tuple[int, int]
    glibc_minor: int
    machine: str

    @staticmethod
    def of(python: PythonThere, abi: str) -> WheelTarget:
        """Return the target for a Python on a device. Raises SetupFailed when no wheels can fit it."""
        name, version = python.libc
        minor = re.fullmatch(r"2\.([0-9]{1,3})", version)
        if name != "glibc" or minor is None:
            raise SetupFailed(f"its C library is {name or 'unknown'} {version}; wheels of {PACKAGE} need glibc")
        machine = "armv7l" if python.bits == 32 and abi in ("aarch64", "armv7l") else abi
        return WheelTarget(python.version[:2], int(minor[1]), machine)

    @property
    def label(self) -> str:
        """Name the target in one word for a folder."""
        return f"cp{self.python[0]}{self.python[1]}-glibc2.{self.glibc_minor}-{self.machine}"

    def options(self) -> Iterator[str]:
        """Give pip's options for the target."""
        tag = f"{self.python[0]}{self.python[1]}"
        yield from ("--only-binary=:all:", "--implementation", "cp", "--python-version", tag)
        for abi in (f"cp{tag}", "abi3", "none"):
            yield from ("--abi", abi)
        for minor in range(self.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1):
            yield from ("--platform", f"manylinux_2_{minor}_{self.machine}")
        yield from ("--platform", f"manylinux2014_{self.machine}", "--platform", f"linux_{self.machine}")


def gather(
    target: WheelTarget,
    source: Path | None,
    note: Callable[[str], None],
    *,
    newest: bool = False,
    package: str = PACKAGE,
) -> tuple[Path, ...]:
    """Return the runtime's wheels and those it needs, from a folder of wheels or through pip; kept for the next time.

    The version is the folder's, else this machine's own, so that device and host compute alike, unless `newest` asks
    for the newest there is.
    Raises SetupFailed with what pip said when there are none for the target.
    """
    which = f"{'' if package == PACKAGE else f'-{package}'}{'-newest' if newest else ''}"
    folder = cache_folder() / "wheels" / f"{target.label}{which}"
    kept = _kept(folder, package)
    if kept and source is None and not newest:
        note(f"wheels for {target.label} are those downloaded before, in {folder}")
        return kept
    # who gives wheels has chosen their version
    requirements = [package] if newest or source else [_pinned(package), package]
    note(f"gathering {package} for {target.label} from {source or 'the package index'}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as part:
            _download(target, source, requirements, Path(part))
            return _keep(Path(part), folder)
    except OSError as error:
        raise SetupFailed(f"cannot keep wheels in {folder}: {error.strerror or error}") from error


def _download(target: WheelTarget, source: Path | None, requirements: Sequence[str], to: Path) -> None:
    """Let pip choose; the first requirement that it can meet counts."""
    where = ["--no-index", "--find-links", str(source.absolute())] if source else []
    said = ""
    for requirement in dict.fromkeys(requirements):
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        argv += [*where, *target.options(), "--dest", str(to), requirement]
        try:
            done = subprocess.run(
                argv, capture_output=True, timeout=_PIP_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise SetupFailed(
                f"pip did not end within {_PIP_TIMEOUT_S:g} s; give wheels with --wheels FOLDER"
            ) from error
        if done.returncode == 0:
            return
        lines = clean_lines(done.stderr.decode("utf-8", "replace"))
        said = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "no reason given")
    raise SetupFailed(
        f"no wheels of {requirements[-1]} for {target.label}: {said.removeprefix('ERROR:').strip()}; "
        "give them with --wheels FOLDER, or measure with the engine native: --device-engine native"
    )


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in lower-case hex."""
    with path.open("rb") as file:
        return file_digest(file, sha256).hexdigest()


def _pinned(package: str) -> str:
    try:
        return f"{package}=={importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def cache_folder() -> Path:
    """Return the folder of this machine for what can be had again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd"


def _kept(folder: Path, package: str) -> tuple[Path, ...]:
    """Return the wheels of an earlier time when all are there unchanged, of this machine's version, else nothing."""
    try:
        hashes = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        paths = tuple(folder / name for name in hashes if "/" not in name)
        whole = all(sha256_of(path) == hashes[path.name] for path in paths)
    except (OSError, ValueError, TypeError, AttributeError):
        return ()
    version = _pinned(package).partition("==")[2]
    same = any(path.name.startswith(f"{package.replace('-', '_')}-{version}") for path in paths)
    return paths if whole and same else ()


def _keep(part: Path, folder: Path) -> tuple[Path, ...]:
    names = sorted(path.name for path in part.glob("*.whl"))
    (part / _LIST).write_text(json.dumps({name: sha256_of(part / name) for name in names}), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(part, folder)  # not renamed: the temporary folder is removed by who made it
    return tuple(folder / name for name in names)
