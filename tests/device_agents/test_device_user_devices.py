"""devices.toml: read strictly, edited without losing a line."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agents import user_devices
from device_agents.addresses import Address
from device_agents.errors import DeviceNotReady, InvalidRequest
from device_agents.user_devices import UserDevice, add, checked_files, load, load_all, remove

PI = '[my-pi]  # on the shelf\naddress = "ssh://pi@10.0.0.2"\ncpus = "2-3"\n'
FILE = f"""# devices of this project
{PI}
# the phone of the lab
[phone]
address = "adb://R58M12"
engine = "benchmark_model"
threads = 2

# the end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two devices and comments."""
    path = tmp_path / "devices.toml"
    path.write_text(FILE)
    return path


def phone(name: str, path: Path, **keys: str) -> UserDevice:
    """A device to add."""
    return user_devices.named(name, {"address": "adb://10.0.0.3:5555", **keys}, path)


def test_a_file_is_read(path: Path) -> None:
    """Addresses are parsed, CPU lists in both forms, and what is not given is empty."""
    devices = load(path)
    assert list(devices) == ["my-pi", "phone"]
    assert devices["my-pi"].address == Address("ssh", "pi", "10.0.0.2")
    assert devices["my-pi"].cpus == (2, 3)
    assert (devices["phone"].engine, devices["phone"].threads, devices["phone"].cpus) == ("benchmark_model", 2, ())


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """And a tilde is the home; paths on the device stay as they are."""
    path = tmp_path / "devices.toml"
    path.write_text('[a]\naddress = "ssh://a"\nkey = "keys/id"\nssh_config = "~/c"\npython = "bin/python3"\n')
    device = load(path)["a"]
    assert device.key == str(tmp_path / "keys/id")
    assert device.ssh_config == str(Path.home() / "c")
    assert device.python == "bin/python3"


def test_a_missing_file_has_no_devices(tmp_path: Path) -> None:
    """As long as nobody has named one."""
    assert load(tmp_path / "none.toml") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "is no TOML"),
        ('[a]\naddress = "ssh://a"\n[a]\n', "is no TOML"),
        ("x = " + "[" * 100_000, "is no TOML"),
        ("a = 1", "stands outside of any table"),
        ("[a]\n", "address is missing"),
        ('[a]\nadress = "ssh://a"', "unknown key 'adress'; did you mean 'address'"),
        ('[a]\naddress = "ftp://a"', "ftp://a.*known form"),
        ("[a]\naddress = 3", "address must be a text"),
        ('[a]\naddress = ""', "address must be a text"),
        ('[a]\naddress = "ssh://a"\nengine = "pyton"', "did you mean 'python'"),
        ('[a]\naddress = "ssh://a"\nthreads = 0', "threads is 0, must be an integer from 1"),
        ('[a]\naddress = "ssh://a"\nthreads = true', "threads is True"),
        ('[a]\naddress = "ssh://a"\ncpus = [-1]', r"cpus is \[-1\]"),
        ('[a]\naddress = "ssh://a"\ncpus = "4-"', "cpus is '4-'"),
        ('[a]\naddress = "ssh://a"\ncpus = "0-2000"', "cpus is"),
        ('[a]\naddress = "ssh://a"\npython = "a\\u001b[31m"', "python must be a text of 1 to 4096 printable"),
        ('[a]\naddress = "ssh://a"\nlitert_library_sha256 = "ab"', "must be a SHA-256"),
        ('[a]\naddress = "ssh://a"\nkey = "~nobody-at-all/id"', "key is '~nobody-at-all/id', and there is no home"),
        ('["-a"]\naddress = "ssh://a"', "'-a' cannot name a device"),
        ('[host]\naddress = "ssh://a"', "'host' cannot name a device"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    """The line names the file, the device and the value."""
    path = tmp_path / "devices.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as raised:
        load(path)
    assert re.search(message, str(raised.value))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    """Neither is taken for an empty one."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"[a]\xff")
    for path in (binary, tmp_path):
        with pytest.raises(InvalidRequest, match=str(path)):
            load(path)


def test_the_project_goes_before_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in ./devices.toml hides that of the user's file; $EDGEKD_DEVICES hides both."""
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "config" / "edgekd" / "devices.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[a]\naddress = "ssh://user"\n[b]\naddress = "ssh://b"\n')
    Path("devices.toml").write_text('[a]\naddress = "ssh://project"\n')
    alone = tmp_path / "alone.toml"
    alone.write_text('[c]\naddress = "ssh://c"\n')
    found = load_all({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert {name: device.address.host for name, device in found.items()} == {"a": "project", "b": "b"}
    assert list(load_all({"EDGEKD_DEVICES": str(alone)})) == ["c"]
    assert user_devices.user_file({"HOME": "/root"}) == Path("/root/.config/edgekd/devices.toml")


def test_a_file_that_was_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A typo in $EDGEKD_DEVICES must not look like a device that nobody knows."""
    with pytest.raises(InvalidRequest, match=r"missing\.toml, which does not exist"):
        load_all({"EDGEKD_DEVICES": str(tmp_path / "missing.toml")})


@pytest.mark.parametrize("table", ['address = "local:"\n', 'address = "ssh://pi"\nssh_config = "own"\n'])
def test_a_projects_file_runs_no_programs(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing devices in a folder that somebody else has made is harmless; the user's own file may say anything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").touch()
    Path("devices.toml").write_text(f"[a]\n{table}")
    with pytest.raises(InvalidRequest, match="which can run programs here"):
        load_all({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    own = tmp_path / "config" / "edgekd" / "devices.toml"
    own.parent.mkdir(parents=True)
    Path("devices.toml").rename(own)
    assert list(load_all({"XDG_CONFIG_HOME": str(tmp_path / "config")})) == ["a"]


def test_a_device_is_appended_and_nothing_else_changes(path: Path) -> None:
    """Comments, order and blank lines stay as they are."""
    device = phone("new.one", path, cpus="4-7", engine="native")
    add(path, device)
    assert path.read_text().startswith(FILE)
    assert load(path)["new.one"] == device


def test_a_device_is_removed_with_its_lines_alone(path: Path) -> None:
    """What stands above the next table belongs to that one."""
    remove(path, "my-pi")
    assert path.read_text() == FILE.replace(PI, "")
    assert list(load(path)) == ["phone"]


def test_a_taken_name_is_replaced_only_when_asked(path: Path) -> None:
    """And then all other lines stay."""
    device = phone("my-pi", path)
    with pytest.raises(InvalidRequest, match="use --force"):
        add(path, device)
    assert path.read_text() == FILE
    add(path, device, replace_it=True)
    assert load(path) == {"phone": load(path)["phone"], "my-pi": device}
    assert "# the phone of the lab" in path.read_text()
    assert "# the end" in path.read_text()


def test_a_device_that_is_not_there_cannot_be_removed(path: Path) -> None:
    """The line says which there are."""
    with pytest.raises(InvalidRequest, match="no device 'pi'; it has: my-pi, phone"):
        remove(path, "pi")


def test_a_first_device_makes_file_and_folder(tmp_path: Path) -> None:
    """The user's folder need not exist."""
    path = tmp_path / "a" / "b" / "devices.toml"
    add(path, phone("one", path))
    assert list(load(path)) == ["one"]
    remove(path, "one")
    assert path.read_text() == ""


@pytest.mark.parametrize(
    "text",
    ['a.address = "ssh://a"\n', 'a = { address = "ssh://a" }\n', '[b]\naddress = "ssh://b"\nkey = """\n[a]\n"""\n'],
)
def test_a_file_written_in_another_way_is_never_spoiled(text: str, tmp_path: Path) -> None:
    """What cannot be edited line by line is left as it was, with one line that says so."""
    path = tmp_path / "devices.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest):
        remove(path, "a")
    assert path.read_text() == text


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk; nothing is left beside it."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidRequest, match="No space left on device"):
        add(path, phone("new", path))
    assert path.read_text() == FILE
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    """Many keep their configuration elsewhere and link to it."""
    link = tmp_path / "linked" / "devices.toml"
    link.parent.mkdir()
    link.symlink_to(path)
    add(link, phone("new", link))
    assert link.is_symlink()
    assert "new" in load(path)


def test_a_binary_that_changed_since_setup_is_refused(tmp_path: Path) -> None:
    """Another build of the same program measures other times."""
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(b"one")
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    device = UserDevice("a", Address("ssh", host="a"), benchmark_model=str(binary), benchmark_model_sha256=digest)
    assert checked_files(device) == device
    assert checked_files(replace(device, benchmark_model_sha256="")).benchmark_model == str(binary)
    binary.write_bytes(b"two")
    with pytest.raises(DeviceNotReady, match="edgekd devices setup a"):
        checked_files(device)
    binary.unlink()
    with pytest.raises(DeviceNotReady, match="cannot be read"):
        checked_files(device)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda n: n not in ("host", "local"))
texts = st.text(st.characters(min_codepoint=32, exclude_categories=("C", "Z")), min_size=1, max_size=20)


@pytest.mark.whole  # tries many
@settings(max_examples=25)  # each writes and syncs a file several times
@given(st.dictionaries(names, st.tuples(texts, st.sets(st.integers(0, 1023), max_size=4)), max_size=3))
def test_what_is_written_is_what_is_read(devices: dict[str, tuple[str, set[int]]]) -> None:
    """Whatever the names and texts; and taking all out again leaves an empty file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "devices.toml"
        for name, (python, cpus) in devices.items():
            device = UserDevice(name, Address("ssh", host="h"), python=python, cpus=tuple(sorted(cpus)), source=path)
            add(path, device)
            assert load(path)[name] == device
        assert list(load(path)) == list(devices)
        for name in devices:
            remove(path, name)
        assert not devices or path.read_text().strip() == ""
