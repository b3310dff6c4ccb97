"""`edgekd devices`: results on stdout, everything else on stderr, exit codes 0, 2 and 3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_agents.adb import pair as pairing
from device_agents.adb import server
from device_agents.adb.server import AdbEntry
from device_agents.errors import SetupFailed
from edgekd import cli, cli_devices

pytestmark = pytest.mark.whole  # whole commands

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A devices.toml of this test, and no adb server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("EDGEKD_DEVICES", raising=False)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    return tmp_path / "devices.toml"


def test_this_machine_is_listed(capsys: Capture) -> None:
    """With what it is and whether it is ready, in text and JSON alike."""
    assert cli.run(["devices"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("host  local:  ready\n")
    assert "ai_edge_litert" in text
    assert cli.run(["devices", "--format", "json"]) == 0
    (host,) = json.loads(capsys.readouterr().out)
    assert (host["name"], host["ready"], host["system"]) == ("host", True, "linux")
    assert host["cores"] == len(host["cpus"]) == sum(len(cluster["cpus"]) for cluster in host["clusters"])


def test_devices_that_cannot_be_used_are_lines(file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do, and no failure of the command; text of a device cannot draw on the terminal."""
    file.write_text('[shelf]\naddress = "ssh://127.0.0.1:1"\n')
    monkeypatch.setattr(server, "list_adb_devices", lambda: (AdbEntry("A1", "unauthorized"),))
    assert cli.run(["devices"]) == 0
    text = capsys.readouterr().out
    assert "shelf  ssh://127.0.0.1:1  not in reach\n" in text
    assert "A1  adb://A1  not in reach\n  A1 is unauthorized: unlock the phone" in text
    assert cli.run(["devices", "--format", "json"]) == 0
    _, shelf, phone = json.loads(capsys.readouterr().out)
    assert (shelf["ready"], phone["ready"]) == (False, False)
    assert "127.0.0.1" in shelf["problem"]


@pytest.mark.slow  # a real runner measures this machine
def test_a_device_that_is_ready_passes_with_exit_code_0(capsys: Capture) -> None:
    """Every check is a line of the result."""
    assert cli.run(["devices", "check", "host"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "host is ready"
    assert all(line[:2] in ("✓ ", "! ") for line in lines[:-1])
    assert cli.run(["devices", "check", "host", "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ready"]
    assert [check["name"] for check in result["checks"]][:4] == ["reachable", "work folder", "engine", "lock"]


def test_a_device_that_is_not_ready_ends_with_3(file: Path, capsys: Capture) -> None:
    """The result says what failed and what to do, and one line on stderr the sum."""
    file.write_text('[shelf]\naddress = "ssh://127.0.0.1:1"\n')
    assert cli.run(["devices", "check", "shelf"]) == 3
    captured = capsys.readouterr()
    assert captured.out.startswith("✗ reachable: ")
    assert captured.out.endswith("shelf is not ready\n")
    assert captured.err == "edgekd: shelf is not ready: 1 of 1 checks failed: reachable\n"
    assert cli.run(["devices", "--format", "json", "check", "shelf"]) == 3
    assert json.loads(capsys.readouterr().out)["ready"] is False


def test_an_unknown_device_is_one_line(capsys: Capture) -> None:
    """With the nearest name."""
    assert cli.run(["devices", "check", "pixle4"]) == 3
    assert capsys.readouterr().err == "edgekd: unknown device 'pixle4'; did you mean 'pixel4'?\n"


def test_a_device_is_named_and_forgotten(file: Path, capsys: Capture) -> None:
    """In the project's file, or the user's; the other lines stay."""
    file.write_text("# mine\n")
    arguments = ["add", "shelf", "ssh://pi@10.0.0.2", "--engine", "native", "--cpus", "2-3", "--key", "id"]
    assert cli.run(["devices", *arguments]) == 0
    assert "edgekd devices check shelf" in capsys.readouterr().out
    assert file.read_text() == (
        '# mine\n\n[shelf]\naddress = "ssh://pi@10.0.0.2"\nengine = "native"\ncpus = [2, 3]\n'
        f'key = "{file.parent / "id"}"\n'
    )
    assert cli.run(["devices", "remove", "shelf"]) == 0
    assert file.read_text().strip() == "# mine"
    assert cli.run(["devices", "add", "--user", "shelf", "adb://A1"]) == 0
    assert (file.parent / "home" / ".config" / "edgekd" / "devices.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "shelf", "10.0.0.2"], "address '10.0.0.2' is not of a known form; give local:, ssh://"),
        (["add", "host", "ssh://10.0.0.2"], "'host' cannot name a device"),
        (["add", "a", "ssh://b", "--engine", "pyton"], "unknown engine 'pyton'; did you mean 'python'"),
        (["add", "a", "ssh://b", "--cpus", "x"], "cpus is 'x'"),
        (["remove", "shelf"], "devices.toml has no device 'shelf'; it has: none"),
        (["setup", "host", "--wheels", "nowhere"], "nowhere does not exist"),
        (["pair", "10.0.0.2:37000"], "the pairing code is missing; give it with --code"),
    ],
)
def test_a_wrong_request_is_one_line_and_2(
    arguments: list[str], message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And changes nothing."""
    monkeypatch.setattr(pairing, "find_adb", lambda given: None)
    assert cli.run(["devices", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("edgekd: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("devices.toml").exists()


def test_a_damaged_file_is_named_by_every_command(file: Path, capsys: Capture) -> None:
    """With exit code 2, as other input files."""
    file.write_text("[a]\nadress = 1\n")
    for arguments in (["devices"], ["devices", "check", "a"], ["devices", "remove", "a"]):
        assert cli.run(arguments) == 2
        assert "unknown key 'adress'; did you mean 'address'" in capsys.readouterr().err


def test_setup_says_what_it_did(capsys: Capture) -> None:
    """Or that nothing was to be done."""
    assert cli.run(["devices", "setup", "host"]) == 0
    assert "has ai_edge_litert" in capsys.readouterr().out


def test_setup_records_a_binary(file: Path, capsys: Capture) -> None:
    """An absolute path, so that it is found from everywhere."""
    (file.parent / "model").write_bytes(Path(sys.executable).resolve().read_bytes()[:100])
    assert cli.run(["devices", "add", "--user", "mine", "local:", "--engine", "benchmark_model"]) == 0
    assert cli.run(["devices", "setup", "mine", "--benchmark-model", "model"]) == 0
    text = (file.parent / "home" / ".config" / "edgekd" / "devices.toml").read_text()
    assert f'benchmark_model = "{file.parent / "model"}"' in text
    assert "benchmark_model_sha256" in text


def test_the_agent_is_built(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Options go to the builder as they are; what it cannot do is one line and 3."""

    def build(abi: str, *, android: bool, ndk: Path | None, out: Path | None) -> Path:
        if abi != "aarch64":
            raise SetupFailed(f"no compiler for {abi}")
        assert (android, ndk) == (True, Path("ndk"))
        return out or Path("cache/agent")

    monkeypatch.setattr("device_agents.build_agent.build_agent", build)
    assert cli.run(["devices", "build-agent", "--ndk", "ndk", "--out", "agent"]) == 0
    assert capsys.readouterr().out == "agent\n"
    assert cli.run(["devices", "build-agent", "--abi", "riscv64"]) == 3
    assert capsys.readouterr().err == "edgekd: no compiler for riscv64\n"


def test_a_phone_is_paired_with_its_code(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The code is not printed."""
    paired: list[tuple[object, str, str]] = []
    monkeypatch.setattr(pairing, "find_adb", lambda given: given)
    monkeypatch.setattr(pairing, "pair", lambda *arguments: paired.append(arguments))
    assert cli.run(["devices", "pair", "10.0.0.2:37000", "--code", "123456", "--adb", "/opt/adb"]) == 0
    assert paired == [("/opt/adb", "10.0.0.2:37000", "123456")]
    assert "123456" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["devices", "--help"], ["devices", "setup", "--help"]])
def test_help_starts_at_once(arguments: list[str]) -> None:
    """It loads neither the devices' code nor what their wires need."""
    command = [sys.executable, "-X", "importtime", "-m", "edgekd", *arguments]
    root = str(Path(cli_devices.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not {name.partition(".")[0] for name in loaded} & {"torch", "numpy", "asyncssh", "adb_shell", "usb1"}
    assert not any(name.startswith("device_agents.") for name in loaded)
    assert "usage: edgekd devices" in done.stdout
