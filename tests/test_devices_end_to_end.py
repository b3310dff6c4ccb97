"""The commands on phones and boards: real adbd and sshd on emulated arm64 devices, every engine, no Python on a phone.

Emulated times mean nothing; flow, outputs and what a table says of itself do.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from virtual import VirtualDevices

from edgekd.graph.micro import random_model
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named

pytestmark = [pytest.mark.devices, pytest.mark.slow]

Run = Callable[..., subprocess.CompletedProcess[str]]
PHONE, PHONE_WITH_PYTHON, PI = "virtual-pixel4", "virtual-pixel4-python", "virtual-rpi4"
WAYS = [  # device, engine asked for, what the table says: engine, runtime, clock
    (PHONE, "", ("benchmark_model", "benchmark_model", "wall")),
    (PHONE, "native", ("native", "litert_c", "thread_cpu")),
    (PHONE_WITH_PYTHON, "python", ("python", "ai_edge_litert", "thread_cpu")),
    (PI, "", ("python", "ai_edge_litert", "thread_cpu")),
    (PI, "native", ("native", "litert_c", "thread_cpu")),
]
every_way = pytest.mark.parametrize(
    ("name", "engine", "said"), WAYS, ids=[f"{name}-{engine or 'default'}" for name, engine, _ in WAYS]
)


@pytest.fixture
def run(virtual_devices: VirtualDevices, tmp_path: Path, adb_port: int) -> Run:
    """Run the command line in a folder of its own, with the virtual devices alone in devices.toml."""

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "EDGEKD_DEVICES": str(virtual_devices.devices_toml),
            "ANDROID_ADB_SERVER_PORT": str(adb_port),
        }
        command = [sys.executable, "-m", "edgekd", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture(scope="module")
def adb_port() -> int:
    """A port of this machine at which nobody listens: adb's server, where a test starts one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def adb(adb_port: int) -> Iterator[Callable[..., str]]:
    """The genuine adb client with a server of its own, which ends with the test."""

    def call(*arguments: str) -> str:
        command = ["adb", "-P", str(adb_port), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    call("start-server")
    yield call
    call("kill-server")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network in a file."""
    space = space_named("tiny-28")
    path = tmp_path / "small.tflite"
    path.write_bytes(random_model(graph_of(space, space.reference())))
    return path


def test_the_list_says_what_each_device_is(run: Run) -> None:
    """Model, system, processor and engine of each, and whether it is ready."""
    listed = {entry["name"]: entry for entry in json.loads(run("devices", "--format", "json").stdout)}
    assert {"host", PHONE, PHONE_WITH_PYTHON, PI} <= set(listed)
    phone, board = listed[PHONE], listed[PI]
    assert (phone["model"], phone["os"], phone["abi"]) == ("Pixel 4", "Android 13 (API 33)", "aarch64")
    assert phone["engine"] == "benchmark_model"
    assert board["model"].startswith("Raspberry Pi 4")
    assert (board["abi"], board["engine"]) == ("aarch64", "python")
    assert all(listed[name]["ready"] for name in (PHONE, PHONE_WITH_PYTHON, PI))


def test_no_python_is_in_reach_of_the_phone(adb: Callable[..., str], virtual_devices: VirtualDevices) -> None:
    """What is measured there is measured as on a phone out of its box."""
    serial = virtual_devices.address(PHONE).removeprefix("adb://")
    adb("connect", serial)
    said = adb(
        "-s", serial, "shell", "python3 -V; python3.13 -V; ls /usr/lib/python3.13; getprop ro.product.model; true"
    )
    assert "Python 3" not in said
    assert "Pixel 4" in said


@every_way
def test_a_device_is_ready_and_computes_what_this_machine_does(
    name: str, engine: str, said: tuple[str, str, str], run: Run
) -> None:
    """Every precondition holds, and a small network's outputs are equal to the host's interpreter to 1e-4."""
    done = run("devices", "check", name, "--device-engine", engine, "--format", "json")
    result = json.loads(done.stdout)
    assert result["ready"]
    outputs = next(check for check in result["checks"] if check["name"] == "outputs")
    assert outputs["ok"], outputs


@every_way
def test_a_device_is_profiled(name: str, engine: str, said: tuple[str, str, str], run: Run, tmp_path: Path) -> None:
    """A calibrated table comes of it, keyed by device, runtime version, engine and clock, and is not measured twice."""
    command = ("profile", "--device", name, "--device-engine", engine, "--space", "tiny-28", "--dtype", "int8")
    result = json.loads(run(*command, "--quick", "--format", "json").stdout)
    table = tmp_path / result["table"]
    header = json.loads(table.read_text(encoding="utf-8").partition("\n")[0])
    key = header["key"]
    assert (key["engine"], key["runtime"], key["clock"]) == said
    assert key["device"] == name
    assert key["runtime_version"] not in ("", "unknown")
    assert result["rows"] > 20
    assert set(result["heldout_mean_error"]) == {"int8"}
    before = table.read_bytes()
    run(*command, "--quick")
    assert table.read_bytes() == before


@pytest.mark.parametrize(("name", "engine"), [*(way[:2] for way in WAYS), ("virtual-sshd", "python")])
def test_a_file_is_predicted(name: str, engine: str, run: Run, model: Path, tmp_path: Path) -> None:
    """Operators that a table lacks are named with the command that measures them; after that the file is predicted,
    and the device itself confirms the table.
    """
    where = ("--device", name, "--device-engine", engine, "--table", tmp_path / "models.jsonl")
    run("profile", *where, "--model", model, "--quick")
    result = json.loads(run("predict", model, *where, "--verify", "--format", "json").stdout)
    (found,) = result["models"].values()
    assert 0 < found["low_ms"] < found["total_ms"] < found["high_ms"]
    assert {part["how"] for part in found["parts"]} == {"table"}
    refused = run("predict", model, "--device", "host", *where[2:], code=2)
    assert f"device: '{name}' / 'host'" in refused.stderr


@every_way
def test_a_file_is_measured(name: str, engine: str, said: tuple[str, str, str], run: Run, model: Path) -> None:
    """`bench` gives times of any .tflite file, each with its raw samples."""
    done = run("bench", model, "--device", name, "--device-engine", engine, "--format", "json")
    (times,) = json.loads(done.stdout).values()
    assert 0 < times["quiet_ms"] <= times["median_ms"]
    assert len(times["samples_ns"]) > 1


def nodes_of(run: Run, model: Path, name: str, engine: str) -> list[dict[str, Any]]:
    """Measure the nodes of a file on a device."""
    done = run("bench", model, "--nodes", "--device", name, "--device-engine", engine, "--format", "json")
    (nodes,) = json.loads(done.stdout).values()
    return list(nodes)


@pytest.mark.parametrize("engine", ["python", "native"])
def test_the_nodes_of_a_network_are_told(engine: str, run: Run, model: Path) -> None:
    """The engines that can say how long each node takes inside the network do, on a board as well."""
    nodes = nodes_of(run, model, PI, engine)
    assert len(nodes) >= len(graph_of(space_named("tiny-28"), space_named("tiny-28").reference()).ops) - 1
    assert sum(node["mean_ns"] for node in nodes) > 0


def test_a_running_adb_server_is_used(
    adb: Callable[..., str], run: Run, virtual_devices: VirtualDevices, model: Path
) -> None:
    """The genuine server lists the phone, the phone is measured through it, and the server still runs afterwards."""
    serial = virtual_devices.address(PHONE).removeprefix("adb://")
    assert "connected to" in adb("connect", serial)
    assert f"{serial}\tdevice" in adb("devices")
    run("bench", model, "--device", PHONE, "--device-engine", "native")
    refused = run("bench", model, "--device", f"adb://{serial}", code=3)
    assert "--benchmark-model" in refused.stderr  # of a bare address nobody has said where the engine's files are
    assert f"{serial}\tdevice" in adb("devices")


def test_two_phones_of_one_model_ask_for_a_serial_or_share_the_work(run: Run, virtual_devices: VirtualDevices) -> None:
    """The model's name means both: one is chosen by its serial, or both measure a part of one table."""
    refused = run("profile", "--device", "pixel4", "--space", "tiny-28", code=3)
    assert "--serial" in refused.stderr
    assert "--all" in refused.stderr
    locks = [virtual_devices.work(name) / "lock" for name in (PHONE, PHONE_WITH_PYTHON)]
    before = [lock.stat().st_mtime_ns if lock.exists() else 0 for lock in locks]
    options = ("--device-engine", "native", "--space", "tiny-28", "--dtype", "int8", "--quick", "--format", "json")
    result = json.loads(run("profile", "--device", "pixel4", "--all", *options).stdout)
    assert result["rows"] > 20
    assert all(lock.stat().st_mtime_ns > held for lock, held in zip(locks, before, strict=True))
