"""Pairing with a phone by Google's adb: found, old enough, and told the code where nobody else reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from device_agents.adb.pair import AdbProgram, connect, find_adb, pair
from device_agents.errors import InvalidRequest, NotAuthorised, SetupFailed

CODE = "482924"
MakeAdb = Callable[..., Path]
ADB = """#!/bin/sh
case $1 in
    version) printf '%s\\n' 'Android Debug Bridge version 1.0.41' 'Version {version}' 'Installed as /x/adb';;
    pair) echo "$*" >"$0.argv"; printf 'Enter pairing code: '; read -r code; echo "$code" >"$0.code"; echo "{answer}";;
    connect) echo "{answer}";;
esac
"""


@pytest.fixture
def make_adb(tmp_path: Path) -> MakeAdb:
    """Make a program that behaves as adb does at a terminal."""

    def make(version: str = "36.0.0-13206524", answer: str = "") -> Path:
        path = tmp_path / "adb"
        path.write_text(ADB.format(version=version, answer=answer))
        path.chmod(0o755)
        return path

    return make


def test_the_code_goes_through_standard_input(make_adb: MakeAdb) -> None:
    """It stands in no list of processes."""
    path = make_adb(answer="Successfully paired to 10.0.0.7:37123 [guid=adb-99071FFAZ-gVE]")
    pair(find_adb(str(path)), "10.0.0.7:37123", CODE)
    assert Path(f"{path}.argv").read_text() == "pair 10.0.0.7:37123\n"
    assert Path(f"{path}.code").read_text() == f"{CODE}\n"


def test_a_refused_code_is_not_shown(make_adb: MakeAdb) -> None:
    """Whatever adb says of it."""
    path = make_adb(answer=f"Failed: Wrong password or connection was dropped ({CODE}).")
    with pytest.raises(NotAuthorised, match="Wrong password") as caught:
        pair(find_adb(str(path)), "10.0.0.7:37123", CODE)
    assert CODE not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "code"), [("10.0.0.7", CODE), ("-x:1", CODE), ("a:70000", CODE), ("a:1", "4 8"), ("a:1", "")]
)
def test_what_no_phone_shows_is_refused(make_adb: MakeAdb, target: str, code: str) -> None:
    """Before adb is run, and without repeating the code."""
    with pytest.raises(InvalidRequest):
        pair(AdbProgram(make_adb(), 36), target, code)


def test_an_adb_that_cannot_pair_says_what_to_install(make_adb: MakeAdb) -> None:
    """Debian 12 has version 29."""
    with pytest.raises(SetupFailed, match=r"version 29.*platform-tools"):
        find_adb(str(make_adb("29.0.6-debian")))


def test_no_adb_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was looked for is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ADB", raising=False)
    with pytest.raises(SetupFailed, match=r"'adb'.*platform-tools"):
        find_adb()


def test_a_program_that_is_no_adb_is_refused(tmp_path: Path) -> None:
    """Its version is not guessed."""
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    with pytest.raises(SetupFailed, match="does not say its version"):
        find_adb(str(program))


def test_the_environment_names_an_adb(make_adb: MakeAdb, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is given comes first, then $ADB, then the PATH."""
    path = make_adb()
    monkeypatch.setenv("ADB", str(path))
    assert find_adb() == AdbProgram(path, 36)


@pytest.mark.parametrize("answer", ["connected to 10.0.0.7:40001", "already connected to 10.0.0.7:40001"])
def test_a_paired_phone_is_connected(make_adb: MakeAdb, answer: str) -> None:
    """Connected before is as good."""
    connect(AdbProgram(make_adb(answer=answer), 36), "10.0.0.7:40001")


def test_a_phone_that_cannot_be_connected_says_why(make_adb: MakeAdb) -> None:
    """The exit code of adb is 0 for some failures."""
    adb = AdbProgram(make_adb(answer="failed to connect to 10.0.0.7:40001"), 36)
    with pytest.raises(NotAuthorised, match="failed to connect"):
        connect(adb, "10.0.0.7:40001")
