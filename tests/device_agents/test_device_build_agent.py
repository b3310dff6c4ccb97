"""The native agent is compiled when it must be, for the right machine; what is missing is told with what to do."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import ai_edge_litert
import pytest
from requirements import require

from device_agents.build_agent import build_agent, build_program, find_compiler, is_for_android
from device_agents.errors import InvalidRequest, SetupFailed

pytestmark = pytest.mark.slow  # compilers, shells and real programs

_NATIVE = Path("device_agents/runner/native")
_ELF_MACHINES = {"armv7l": 40, "x86_64": 62, "aarch64": 183}
_GCC = {"armv7l": "arm-linux-gnueabihf-gcc", "x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
_HOST = platform.machine()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgekd" / "agents"


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the tests that need the whole agent, which takes seconds to compile."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def kept(shared_cache: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test use the shared cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))


MakeCompiler = Callable[..., Path]


@pytest.fixture
def make_compiler(tmp_path: Path) -> MakeCompiler:
    """Write a compiler that says a version, counts its runs, and compiles with the real one or does something else."""
    real = f'PATH={os.environ["PATH"]} exec gcc "$@"'

    def make(name: str = "gcc", version: str = "gcc 1.0", then: str = real) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "{version}"; exit; }}\necho run >>{path}.runs\n{then}\n'
        )
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let compilers be found nowhere but in the test's folder."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def _runs(compiler: Path) -> int:
    log = compiler.with_name(f"{compiler.name}.runs")
    return log.read_text().count("run") if log.exists() else 0


def _program(folder: Path) -> list[Path]:
    source = folder / "program.c"
    source.write_text("int main(void) { return 0; }\n")
    return [source]


def test_the_agent_for_this_machine_runs(kept: None) -> None:
    """It says how it is used."""
    done = subprocess.run([build_agent(_HOST)], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"edgekd_agent serve WORK" in done.stderr


@pytest.mark.parametrize("abi", _ELF_MACHINES)
def test_a_cross_compiler_builds_for_its_machine(abi: str, kept: None) -> None:
    """The program's header names the processor it was asked for."""
    require(abi == _HOST or shutil.which(_GCC[abi]), f"{_GCC[abi]} is not installed")
    content = build_agent(abi).read_bytes()
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == _ELF_MACHINES[abi]


@pytest.mark.parametrize("abi", _ELF_MACHINES)
def test_the_sources_compile_without_a_warning(abi: str, tmp_path: Path) -> None:
    """On 32 and 64 bits, as portable C11."""
    gcc = shutil.which(_GCC[abi])
    require(gcc, f"{_GCC[abi]} is not installed")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
    done = subprocess.run([gcc, *flags, *_NATIVE.glob("*.c")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_second_time_nothing_is_compiled(make_compiler: MakeCompiler, only: None, tmp_path: Path) -> None:
    """The cache has it, also for another process."""
    compiler, sources = make_compiler(), _program(tmp_path)
    first = build_program(sources, find_compiler(_HOST), "program")
    assert build_program(sources, find_compiler(_HOST), "program") == first
    assert _runs(compiler) == 1


@pytest.mark.parametrize("change", ["source", "version", "flags"])
def test_what_changes_the_program_compiles_it_again(
    change: str, make_compiler: MakeCompiler, only: None, tmp_path: Path
) -> None:
    """A stale agent would measure what nobody asked for."""
    compiler, sources, flags = make_compiler(), _program(tmp_path), ()
    first = build_program(sources, find_compiler(_HOST), "program", flags=flags)
    if change == "source":
        sources[0].write_text("int main(void) { return 1; }\n")
    elif change == "version":
        make_compiler(version="gcc 2.0")
    second = build_program(sources, find_compiler(_HOST), "program", flags=("-O1",) if change == "flags" else flags)
    assert second != first
    assert _runs(compiler) == 2


def test_two_at_once_both_get_a_whole_program(make_compiler: MakeCompiler, only: None, tmp_path: Path) -> None:
    """Each compiles beside the place and moves it there."""
    make_compiler()
    sources, compiler = _program(tmp_path), find_compiler(_HOST)
    codes: list[int] = []

    def build_and_run() -> None:
        codes.append(subprocess.run([build_program(sources, compiler, "program")], check=False).returncode)

    threads = [threading.Thread(target=build_and_run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0, 0]


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
    make_compiler: MakeCompiler, only: None, tmp_path: Path, cache: Path
) -> None:
    """The message has its first complaint, and the cache no half program."""
    make_compiler(then='echo "note: x" >&2; echo "main.c:1: error: no such thing" >&2; exit 1')
    with pytest.raises(SetupFailed, match=r"failed with code 1: main.c:1: error: no such thing"):
        build_program(_program(tmp_path), find_compiler(_HOST), "program")
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("abi", "package"), [("armv7l", "gcc-arm-linux-gnueabihf"), ("aarch64", "gcc-aarch64-linux-gnu")]
)
def test_a_missing_compiler_is_told_with_the_package_to_install(abi: str, package: str, only: None) -> None:
    """The message can be pasted into a terminal."""
    if abi == _HOST:
        package = "gcc libc6-dev"
    with pytest.raises(SetupFailed, match=rf"no C compiler for {abi}: .*apt install {package}"):
        build_agent(abi)


def test_an_unknown_processor_is_refused_with_the_known_ones() -> None:
    """No compiler is looked for."""
    with pytest.raises(InvalidRequest, match=r"'mips'.* aarch64, armv7l, x86_64"):
        build_agent("mips")


def test_a_phone_without_the_ndk_is_told_where_to_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library of phones is another one than any Linux compiler's."""
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    monkeypatch.delenv("ANDROID_NDK_ROOT", raising=False)
    with pytest.raises(SetupFailed, match="ANDROID_NDK_HOME"):
        build_agent("aarch64", android=True)


def test_a_folder_that_is_no_ndk_is_named(tmp_path: Path) -> None:
    """With the compiler that was looked for."""
    with pytest.raises(InvalidRequest, match=rf"{tmp_path} is no Android NDK .*aarch64-linux-android24-clang"):
        build_agent("aarch64", ndk=tmp_path)


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_the_ndk_compiles_for_phones(
    given: str, make_compiler: MakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clang for the phone's processor is called, wherever the folder was given."""
    ndk = tmp_path / "ndk"
    clang = ndk / "toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android24-clang"
    clang.parent.mkdir(parents=True)
    clang.symlink_to(make_compiler("clang", then='while [ "$1" != -o ]; do shift; done; echo built >"$2"'))
    monkeypatch.setenv("ANDROID_NDK_HOME", str(ndk) if given == "environment" else "")
    built = build_agent("aarch64", android=True, ndk=ndk if given == "argument" else None)
    assert built.read_text() == "built\n"


def test_a_copy_is_put_where_it_is_wanted(tmp_path: Path, kept: None) -> None:
    """It can be run, and the cache keeps its own."""
    out = tmp_path / "some" / "where" / "agent"
    assert build_agent(_HOST, out=out) == out
    assert out.stat().st_mode & stat.S_IXUSR
    assert out.read_bytes() == build_agent(_HOST).read_bytes()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file lies where the folder should be."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(SetupFailed, match="cannot write the program"):
        build_agent(_HOST)


@pytest.mark.parametrize(("needed", "android"), [("libc.so", True), ("libc.so.6", False)])
def test_a_library_tells_which_c_library_it_wants(needed: str, android: bool, tmp_path: Path) -> None:
    """Android's is libc.so, without a number."""
    base = ["gcc", "-shared", "-nostdlib", "-x", "c"]
    subprocess.run([*base, f"-Wl,-soname,{needed}", "-o", tmp_path / needed, os.devnull], check=True)
    library = tmp_path / "libLiteRt.so"
    linked = ["-x", "none", "-Wl,--no-as-needed", tmp_path / needed]
    subprocess.run([*base, "-o", library, os.devnull, *linked], check=True)
    assert is_for_android(library) is android


def test_the_library_of_this_machine_is_not_for_phones() -> None:
    """Nor does a missing one pass."""
    assert not is_for_android(Path(ai_edge_litert.__file__).with_name("libLiteRt.so"))
    with pytest.raises(InvalidRequest, match="cannot read the library"):
        is_for_android(Path("/no/such/library.so"))
