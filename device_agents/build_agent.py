"""Compiles the native engine's program for a device, once for each compiler and version of its sources.

    build_agent("aarch64")                    for Linux boards, with the system's cross compiler
    build_agent("aarch64", android=True)      for phones, with the NDK of $ANDROID_NDK_HOME
    is_for_android(library)                   which of the two a given libLiteRt.so wants

It neither fetches compilers nor pushes anything: `engines/native.py` names the file, a session pushes it.
The sources are in `runner/native`; read `main.c` there next.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from device_agents.errors import InvalidRequest, SetupFailed
from device_agents.whole_file import whole_file

_SOURCES = Path(__file__).with_name("runner") / "native"
_NAME = "edgekd_agent"
# -pthread and -ldl are no-ops where the C library has taken both in, and needed where it has not.
_FLAGS = ("-std=c11", "-O2", "-fPIE", "-pie", "-fstack-protector-strong", "-Wall", "-Wextra", "-pthread")
_LIBRARIES = ("-ldl", "-lm")
_ANDROID_API = 24  # Android 7: below it, LiteRT has no library either
_TIMEOUT_S = 300.0
_NDK_VARIABLES = ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")


@dataclass(frozen=True, slots=True)
class _Abi:
    """How compilers name a processor: the GNU prefix, which is also part of Debian's package name, and the NDK's."""

    gnu: str
    android: str


_ABIS = {
    "aarch64": _Abi("aarch64-linux-gnu", "aarch64-linux-android"),
    "armv7l": _Abi("arm-linux-gnueabihf", "armv7a-linux-androideabi"),
    "x86_64": _Abi("x86_64-linux-gnu", "x86_64-linux-android"),
}


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler with what it says of its version."""

    path: str
    version: str

    @classmethod
    def at(cls, path: str) -> Compiler:
        """Ask a compiler for its version. Raises SetupFailed when it cannot be run."""
        return cls(path, _run([path, "--version"]))


def build_agent(
    abi: str,
    *,
    android: bool = False,
    ndk: Path | None = None,
    compiler: Compiler | None = None,
    out: Path | None = None,
) -> Path:
    """Return the native agent for a processor, compiled when the cache has none of these sources and this compiler.

    Args:
        abi: processor as `uname -m` names it: aarch64, armv7l or x86_64.
        android: whether the program is to load a library that was built for Android.
        ndk: the Android NDK's folder; None takes it from $ANDROID_NDK_HOME or $ANDROID_NDK_ROOT.
        compiler: takes the place of the one that would be looked for.
        out: where to put a copy of the program; None leaves it in the cache, whose path is returned.

    Raises:
        SetupFailed: there is no compiler (the message says what to install), or it failed.

    """
    return build_program(_sources(), compiler or find_compiler(abi, android=android, ndk=ndk), _NAME, out=out)


def build_program(
    sources: list[Path], compiler: Compiler, name: str, *, flags: tuple[str, ...] = (), out: Path | None = None
) -> Path:
    """Compile C sources (headers may be among them) into one program, cached. Raises SetupFailed."""
    built = _cache() / _key(sources, compiler, flags) / name
    try:
        if not built.is_file():
            built.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(built, durable=True) as program:
                _compile(sources, compiler, flags, program)
        return built if out is None else _copied(built, out)
    except OSError as error:
        raise SetupFailed(f"cannot write the program {name}: {error.filename}: {error.strerror or error}") from error


def find_compiler(abi: str, *, android: bool = False, ndk: Path | None = None) -> Compiler:
    """Find the compiler for a processor. Raises SetupFailed with what to install."""
    if abi not in _ABIS:
        raise InvalidRequest(f"the native agent cannot be built for {abi!r}; it can be for: {', '.join(_ABIS)}")
    return _ndk_compiler(_ABIS[abi], ndk) if android or ndk else _system_compiler(abi)


def is_for_android(library: Path) -> bool:
    """Tell whether a shared library was linked with Android's C library, by the names it needs. Raises SetupFailed."""
    try:
        content = library.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read the library {library}: {error.strerror or error}") from error
    # glibc and musl number their C libraries: libc.so.6, libc.musl-aarch64.so.1
    return b"\0libc.so\0" in content and b"\0libc.so.6\0" not in content


def _system_compiler(abi: str) -> Compiler:
    names = [f"{_ABIS[abi].gnu}-gcc"]
    if platform.machine() == abi:
        names = ["gcc", "cc", "clang", *names]
    for name in names:
        if found := shutil.which(name):
            return Compiler.at(found)
    package = "gcc libc6-dev" if platform.machine() == abi else f"gcc-{_ABIS[abi].gnu.replace('_', '-')}"
    raise SetupFailed(f"no C compiler for {abi}: install one (on Debian and Ubuntu: apt install {package})")


def _ndk_compiler(abi: _Abi, ndk: Path | None) -> Compiler:
    named = next((os.environ[name] for name in _NDK_VARIABLES if os.environ.get(name)), None)
    folder = ndk or (Path(named) if named else None)
    if folder is None:
        raise SetupFailed(
            "phones need a program built with the Android NDK: install it (Android Studio's SDK manager has it) "
            "and give its folder with --ndk or in ANDROID_NDK_HOME"
        )
    name = f"{abi.android}{_ANDROID_API}-clang"
    found = sorted(folder.glob(f"toolchains/llvm/prebuilt/*/bin/{name}"))
    if not found:
        raise InvalidRequest(f"{folder} is no Android NDK with a compiler for {abi.android}: it has no {name}")
    return Compiler.at(str(found[0]))


def _sources() -> list[Path]:
    sources = sorted([*_SOURCES.glob("*.c"), *_SOURCES.glob("*.h")])
    if not sources:
        raise SetupFailed(f"the native agent's sources are missing in {_SOURCES}: install edgekd again")
    return sources


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgekd" / "agents"


def _key(sources: list[Path], compiler: Compiler, flags: tuple[str, ...]) -> str:
    """Hash all that decides what the program will be; the path tells compilers of one version apart."""
    parts = [compiler.path, compiler.version, *_FLAGS, *flags, *_LIBRARIES]
    for source in sources:
        parts += [source.name, source.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compile(sources: list[Path], compiler: Compiler, flags: tuple[str, ...], program: Path) -> None:
    units = [str(source) for source in sources if source.suffix == ".c"]
    _run([compiler.path, *_FLAGS, *flags, "-o", str(program), *units, *_LIBRARIES])


def _copied(built: Path, out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out, durable=False) as copy:
        shutil.copy2(built, copy)
    return out


def _run(argv: list[str]) -> str:
    """Run a compiler and return what it printed. Raises SetupFailed with its first complaint."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, check=False, env=_english())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(f"the compiler {argv[0]} could not be run: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").splitlines() or ["it said nothing"]
        complaint = next((line for line in lines if "error" in line), lines[0])
        raise SetupFailed(f"the compiler {argv[0]} failed with code {done.returncode}: {complaint}")
    return done.stdout.decode(errors="replace")


def _english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
