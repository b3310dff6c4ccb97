"""The work folder's script keeps one folder in order in every shell, and touches nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from requirements import require
from shells import SHELLS, Shell, make_shell

import device_agents.runner

pytestmark = pytest.mark.slow  # real processes, one after the other

SCRIPT = Path(next(iter(device_agents.runner.__path__))) / "edgekd_folder.sh"
HOLDER = 'echo held; echo "{\\"pid\\": $$, \\"since\\": 1, \\"owner\\": \\"$1\\"}" >lock; read -r end'


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """Each shell that is installed here."""
    return make_shell(request.param, tmp_path / "commands")


@pytest.fixture
def work(tmp_path: Path, shell: Shell) -> Path:
    """A prepared work folder."""
    folder = tmp_path / "edgekd-work"
    assert shell.run(SCRIPT, "prepare", str(folder)).returncode == 0
    return folder


@pytest.fixture
def cmd_log(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for Android's `cmd`; returns the file in which it writes what it was asked."""
    folder, log = tmp_path / "android", tmp_path / "cmd.log"
    folder.mkdir()
    (folder / "cmd").write_text(f'#!/bin/sh\necho "$*" >>{log}\n')
    (folder / "cmd").chmod(0o755)
    shell.path = f"{folder}:{shell.path}"
    return log


@pytest.fixture
def holder(work: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start processes that hold the folder's lock for an owner, as a server does."""
    started: list[subprocess.Popen[str]] = []

    def hold(owner: str) -> subprocess.Popen[str]:
        argv = ["flock", "-n", "lock", "bash", "-c", f"exec 9<>lock; {HOLDER}", "bash", owner]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, cwd=work, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def model(work: Path, content: bytes, suffix: str = "tflite") -> Path:
    """Store a model under its hash."""
    path = work / "models" / f"{hashlib.sha256(content).hexdigest()}.{suffix}"
    path.write_bytes(content)
    return path


def program(work: Path, content: bytes, name: str = "runner.py") -> Path:
    """Store a program under the start of its hash."""
    path = work / "bin" / f"{hashlib.sha256(content).hexdigest()[:16]}-{name}"
    path.write_bytes(content)
    return path


def left(work: Path) -> set[str]:
    """Name what lies in the folder, by its path there."""
    return {str(path.relative_to(work)) for path in work.rglob("*")}


# --- prepare ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_made_private_with_its_parents(shell: Shell, tmp_path: Path) -> None:
    """Nobody else can read or write it, and preparing it again changes nothing."""
    folder = tmp_path / "cache of mine" / "edgekd"
    for _ in range(2):
        done = shell.run(SCRIPT, "prepare", str(folder))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for path in (folder.parent, folder, folder / "models", folder / "bin"):
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name", ["relative/edgekd", "/run/other", "/run/edgekd/", "/", "", "/run/edgekd/..", "/run\n/edgekd"]
)
def test_a_folder_that_cannot_be_ours_is_refused(shell: Shell, name: str) -> None:
    """A wrong path is one line and an exit code, and nothing is made."""
    done = shell.run(SCRIPT, "prepare", name)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(shell: Shell, tmp_path: Path, mode: int) -> None:
    """They could swap what we run."""
    folder = tmp_path / "edgekd"
    folder.mkdir()
    folder.chmod(mode)
    for action in (("prepare",), ("stored",), ("clean", "0")):
        done = shell.run(SCRIPT, action[0], str(folder), *action[1:])
        assert done.returncode == 1
        assert "only this user can write" in done.stderr
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_else_is_refused(shell: Shell, tmp_path: Path) -> None:
    """Even one that only its owner can write to."""
    require(os.geteuid() == 0, "only root can give a folder to somebody else")
    folder = tmp_path / "edgekd"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    assert shell.run(SCRIPT, "prepare", str(folder)).returncode == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "models", "bin", "lock"])
def test_a_link_is_refused(shell: Shell, tmp_path: Path, name: str) -> None:
    """Neither the folder nor what it holds may lead elsewhere."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "edgekd"
    elsewhere.mkdir(mode=0o700)
    if name:
        folder.mkdir(mode=0o700)
    (folder / name if name else folder).symlink_to(elsewhere)
    for action in (("prepare",), ("stored",), ("clean", "0")):
        assert shell.run(SCRIPT, action[0], str(folder), *action[1:]).returncode == 1
    assert list(elsewhere.iterdir()) == []


def test_half_files_of_a_death_are_removed_unless_a_session_lives(shell: Shell, work: Path) -> None:
    """What a broken push left goes with the next session, but not while another one pushes."""
    halves = [work / ".a.part", work / "models" / ".b.12.part", work / "bin" / ".c d.part"]
    for half in halves:
        half.touch()
    with (work / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert shell.run(SCRIPT, "prepare", str(work)).returncode == 0
        assert all(half.exists() for half in halves)
    assert shell.run(SCRIPT, "prepare", str(work)).returncode == 0
    assert not any(half.exists() for half in halves)


def test_a_mode_left_on_is_put_back_once(shell: Shell, work: Path, cmd_log: Path) -> None:
    """A marker tells that a session died while a phone's clocks were held still."""
    (work / "fixed-performance").touch()
    for _ in range(2):
        assert shell.run(SCRIPT, "prepare", str(work)).returncode == 0
    assert cmd_log.read_text().splitlines() == ["power set-fixed-performance-mode-enabled false"]
    assert not (work / "fixed-performance").exists()


def test_a_mode_is_left_on_while_somebody_needs_it(shell: Shell, work: Path, cmd_log: Path) -> None:
    """A live session, or the living process that the marker names, still wants it."""
    with subprocess.Popen([shell.program, "-c", "read -r end", "fixed-performance"], stdin=subprocess.PIPE) as keeper:
        (work / "fixed-performance").write_text(f"{keeper.pid}\n")
        assert shell.run(SCRIPT, "prepare", str(work)).returncode == 0
    (work / "fixed-performance").write_text("")
    with (work / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert shell.run(SCRIPT, "prepare", str(work)).returncode == 0
    assert (work / "fixed-performance").exists()
    assert not cmd_log.exists()


def test_a_number_that_is_another_process_by_now_keeps_no_mode_on(shell: Shell, work: Path, cmd_log: Path) -> None:
    """After a restart the marker may name whoever got that number."""
    (work / "fixed-performance").write_text(f"{os.getpid()}\n")
    assert shell.run(SCRIPT, "prepare", str(work)).returncode == 0
    assert cmd_log.read_text().splitlines() == ["power set-fixed-performance-mode-enabled false"]
    assert not (work / "fixed-performance").exists()


def test_a_mode_that_cannot_be_put_back_keeps_its_marker(shell: Shell, work: Path, cmd_log: Path) -> None:
    """Even a cleaning of everything leaves it for the next session."""
    (cmd_log.parent / "android" / "cmd").write_text("#!/bin/sh\nexit 1\n")
    (work / "fixed-performance").touch()
    assert shell.run(SCRIPT, "prepare", str(work)).returncode == 0
    assert shell.run(SCRIPT, "clean", str(work), "0").returncode == 0
    assert left(work) == {"fixed-performance"}


# --- stored -----------------------------------------------------------------------------------------------------------


def test_stored_files_are_told_with_their_hash_and_size(shell: Shell, work: Path) -> None:
    """By the content that lies there now."""
    paths = [model(work, b"one"), model(work, b"inputs", "bin"), program(work, b"run"), model(work, b"")]
    done = shell.run(SCRIPT, "stored", str(work))
    expected = {
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} {path.relative_to(work)}"
        for path in paths
    }
    assert set(done.stdout.splitlines()) == expected
    assert done.returncode == 0


def test_what_is_not_its_name_is_removed(shell: Shell, work: Path, tmp_path: Path) -> None:
    """Changed content of the right size, odd names, links and folders are nothing to measure with."""
    outside = tmp_path / "outside"
    outside.write_text("keep")
    good, changed, swapped = model(work, b"good"), model(work, b"old!"), program(work, b"tool")
    changed.write_bytes(b"new!")
    swapped.write_bytes(b"evil")
    digest = "a" * 64
    for name in ("x.tflite", "a b\nc.tflite", "-rf", "$(touch pwned).tflite", "'.bin", f"{digest}.txt", digest):
        (work / "models" / name).touch()
    (work / "models" / f"{digest}.tflite").symlink_to(outside)
    (work / "bin" / f"{'b' * 16}-link").symlink_to(outside)
    (work / "bin" / f"{'b' * 16}-a;b").touch()
    (work / "models" / "folder").mkdir()
    (work / "models" / "folder" / "file").touch()
    done = shell.run(SCRIPT, "stored", str(work))
    assert done.stdout.split() == [good.stem, "4", f"models/{good.name}"]
    assert left(work) == {"lock", "models", "bin", f"models/{good.name}"}
    assert outside.read_text() == "keep"


def test_many_files_are_hashed_by_few_processes(shell: Shell, work: Path, tmp_path: Path) -> None:
    """A space has 1,500 operators, and a phone takes 10 ms to start a process."""
    counter = tmp_path / "count"
    (counter / "bin").mkdir(parents=True)
    wrapper = f'#!/bin/sh\necho x >>{counter}/calls\nPATH={shell.path} exec sha256sum "$@"\n'
    (counter / "bin" / "sha256sum").write_text(wrapper)
    (counter / "bin" / "sha256sum").chmod(0o755)
    shell.path = f"{counter / 'bin'}:{shell.path}"
    for number in range(300):
        model(work, str(number).encode())
    done = shell.run(SCRIPT, "stored", str(work))
    assert len(done.stdout.splitlines()) == 300
    assert len((counter / "calls").read_text().split()) <= 3


# --- free -------------------------------------------------------------------------------------------------------------


def test_ones_own_server_is_ended_and_only_that(
    shell: Shell, work: Path, holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    """A server whose link broke is ended for the owner that it serves, and for nobody else."""
    process = holder("me@host 12ab")
    for other in ("me@host", "me@host 12ac", "me@host 12a*", "*", ""):
        shell.run(SCRIPT, "free", str(work), other)
    assert process.poll() is None
    assert shell.run(SCRIPT, "free", str(work), "me@host 12ab").returncode == 0
    with (work / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_process_that_only_has_the_number_is_left_alone(shell: Shell, work: Path) -> None:
    """Numbers are given again: who has not the lock open did not write it."""
    process = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    (work / "lock").write_text(json.dumps({"pid": process.pid, "since": 1, "owner": "me"}))
    assert shell.run(SCRIPT, "free", str(work), "me").returncode == 0
    assert process.poll() is None
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "text", ["", "nonsense", '{"owner":"me"}', '{"pid":"x","owner":"me"}', '{"owner":"me","pid":-1}']
)
def test_a_lock_that_says_nothing_frees_nothing(shell: Shell, work: Path, text: str) -> None:
    """Whatever lies in the lock file, at worst nothing happens."""
    (work / "lock").write_text(text)
    assert shell.run(SCRIPT, "free", str(work), "me").returncode == 0


# --- clean ------------------------------------------------------------------------------------------------------------


def test_the_oldest_files_go_until_the_rest_fits(shell: Shell, work: Path) -> None:
    """Sizes are counted to the byte, models and programs together."""
    paths = [
        model(work, b"a" * 1007),
        program(work, b"b" * 993),
        model(work, b"c" * 1000),
        model(work, b"d" * 100, "bin"),
    ]
    for path, age in zip(paths, (40, 30, 20, 10), strict=True):
        os.utime(path, (1_700_000_000 - age,) * 2)
    assert shell.run(SCRIPT, "clean", str(work), "2093").returncode == 0
    assert [path.exists() for path in paths] == [False, True, True, True]
    assert shell.run(SCRIPT, "clean", str(work), "2092").returncode == 0
    assert [path.exists() for path in paths] == [False, False, True, True]


def test_sizes_beyond_32_bits_are_counted(shell: Shell, work: Path) -> None:
    """Three files of 1.5 GB, sparse here, do not fit into 4 GB; mksh counts in 32 bits."""
    digests = ["1" * 64, "2" * 64, "3" * 64]
    for age, digest in enumerate(digests):
        path = work / "models" / f"{digest}.tflite"
        with path.open("wb") as file:
            file.truncate(1_500_000_000)
        os.utime(path, (1_700_000_000 - age,) * 2)
    assert shell.run(SCRIPT, "clean", str(work), "4499999999").returncode == 0
    assert {path.stem for path in (work / "models").iterdir()} == set(digests[:2])
    assert shell.run(SCRIPT, "clean", str(work), "3000000000").returncode == 0
    assert len(list((work / "models").iterdir())) == 2


def test_nothing_is_kept_but_installed_packages(shell: Shell, work: Path, tmp_path: Path) -> None:
    """0 removes everything else, without following a link out of the folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    model(work, b"one")
    (work / "site" / "numpy").mkdir(parents=True)
    (work / ".hidden").touch()
    (work / "odd\nname").touch()
    (work / "link").symlink_to(outside)
    assert shell.run(SCRIPT, "clean", str(work), "0").returncode == 0
    assert left(work) == {"site", "site/numpy"}
    assert (outside / "file").exists()
    (work / "site" / "numpy").rmdir()
    (work / "site").rmdir()
    assert shell.run(SCRIPT, "clean", str(work), "0").returncode == 0
    assert not work.exists()
    assert shell.run(SCRIPT, "clean", str(work), "0").returncode == 0


def test_nothing_is_cleaned_under_a_living_session(shell: Shell, work: Path) -> None:
    """Whoever holds the lock needs what lies there."""
    path = model(work, b"one")
    with (work / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for keep in ("0", "1"):
            assert shell.run(SCRIPT, "clean", str(work), keep).returncode == 0
    assert path.exists()


@pytest.mark.parametrize("keep", ["", "-1", "1e9", "0x10", "007", "9" * 13, "$(id)"])
def test_a_size_that_is_none_cleans_nothing(shell: Shell, work: Path, keep: str) -> None:
    """A wrong number is refused and not taken for 0."""
    path = model(work, b"one")
    assert shell.run(SCRIPT, "clean", str(work), keep).returncode == 1
    assert path.exists()


def test_an_unknown_action_is_refused(shell: Shell, work: Path) -> None:
    """A script of another version says so."""
    done = shell.run(SCRIPT, "explode", str(work))
    assert done.returncode == 1
    assert "action" in done.stderr
