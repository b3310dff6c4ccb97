"""Models, runners and clocks that misbehave on a real device: crashes, hangs, garbage, lies, jumps."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from fault_devices import QUICK, FaultyDevice, statuses
from model_shelf import ModelShelf

from device_agents.errors import DeviceBusy, ProtocolError
from device_agents.session import SessionLimits

pytestmark = pytest.mark.devices


def crashing(model: bytes) -> bytes:
    """Make a SPLIT without its options of a model of one operator, which ends LiteRT with a signal."""
    broken = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    broken.operatorCodes[0].builtinCode = schema.BuiltinOperator.SPLIT
    operator = broken.subgraphs[0].operators[0]
    operator.builtinOptionsType, operator.builtinOptions = 0, None
    builder = flatbuffers.Builder(1024)
    builder.Finish(broken.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_model_that_crashes_the_real_runtime_fails_alone(
    device: FaultyDevice, shelf: ModelShelf, add_model: Callable[[int], bytes]
) -> None:
    """Its row names the signal, garbage says that it is none, and the others are measured."""
    jobs = [shelf.job(f"add {count}", add_model(count)) for count in (8, 16)]
    jobs[1:1] = [shelf.job("crash", crashing(add_model(8))), shelf.job("garbage", b"\x1c\0\0\0TFL3" + os.urandom(2000))]
    with device.session(python=device.python) as session:
        rows = {row.job_id: row for row in session.measure(jobs, shelf.models, QUICK)}
    assert {name: row.ok for name, row in rows.items()} == {
        "add 8": True,
        "crash": False,
        "garbage": False,
        "add 16": True,
    }
    assert "SIGSEGV" in rows["crash"].error
    assert rows["garbage"].error


def test_models_that_hang_or_are_none_fail_alone(device: FaultyDevice, shelf: ModelShelf) -> None:
    """The device ends what takes too long; one that ignores even that is ended from here."""
    models = {"a": "burn 10", "hang": "hang 1", "b": "burn 11", "deaf": "deaf 1", "none": "nonsense", "c": "burn 12"}
    jobs = [shelf.job(name, model) for name, model in models.items()]
    with device.session(SessionLimits(grace_s=1.0)) as session:
        rows = {row.job_id: row for row in session.measure(jobs, shelf.models, replace(QUICK, time_limit_s=1.0))}
    assert statuses(list(rows.values())) == {
        "a": "ok",
        "hang": "failed",
        "b": "ok",
        "deaf": "failed",
        "none": "failed",
        "c": "ok",
    }
    assert "time limit" in rows["hang"].error
    assert "no answer within" in rows["deaf"].error
    assert "not a model" in rows["none"].error


# Plays along until the plan is complete, then sends what stands in place of %s and waits for the end of its input.
_LIAR = """
import json, os, sys
print(json.dumps({"type": "hello", "protocol": 3, "engine": "python", "runtime": "r", "version": "1",
    "clock": "wall", "cpus": [0], "pid": os.getpid()}), flush=True)
ROW = {"type": "row", "job": "a", "samples_ns": [1] * 4, "wall_samples_ns": [1] * 4, "clock": "wall", "loops": 1,
    "warmup_ns": 1, "warmup_runs": 1, "init_ns": 1, "peak_rss_bytes": 1, "started_at": "2026-01-31T12:00:00.000Z",
    "temperatures_c": [], "sentinel_ns": 1, "flags": []}
def row(**other): return json.dumps({**ROW, **other})
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "plan":
        for _ in range(request["jobs"]):
            next(sys.stdin)
        print(%s, flush=True)
"""
LIES = {
    "a line without end": "'x' * 3_000_000",
    "a traceback": "'Traceback (most recent call last):'",
    "wrong types": "row(loops='many')",
    "a path for a job": "row(job='../../etc/passwd')",
    "not a number": "row(samples_ns=[float('nan')] * 4)",
    "negative times": "row(samples_ns=[-1] * 4)",
    "too many samples": "row(samples_ns=[1] * 5)",
    "a field too many": "row(surprise=1)",
    "a row never asked for": "row(job='stranger')",
    "a row twice": "row() + chr(10) + row()",
    "an early end": "json.dumps({'type': 'end'})",
}


OVER_ADB = ("a line without end", "a row twice")  # what becomes of a line is the same over every way


@pytest.mark.parametrize(
    ("device", "lie"),
    [
        *(pytest.param("virtual-sshd", lie, id=f"ssh-{name}") for name, lie in LIES.items()),
        *(pytest.param("virtual-adbd", LIES[name], id=f"adb-{name}") for name in OVER_ADB),
    ],
    indirect=["device"],
)
def test_a_runner_that_lies_is_ended(lie: str, device: FaultyDevice, shelf: ModelShelf) -> None:
    """What it says is a protocol error, rows before that count, nothing else comes of it, and it is gone."""
    jobs = [shelf.job("a", "burn 10"), shelf.job("b", "burn 11")]
    rows = []
    with device.session(python=device.scripted(_LIAR % lie)) as session:
        with pytest.raises(ProtocolError) as caught:
            rows.extend(session.measure(jobs, shelf.models, QUICK))
        device.wait_until_idle()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [row.job_id for row in rows] in ([], ["a"])


# Runs the runner with a wall clock that the content of a file moves.
_FAKED = "LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={file} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1"


@pytest.mark.parametrize("device", ["virtual-sshd"], ids=["ssh"], indirect=True)
def test_a_clock_that_jumps_changes_no_row(device: FaultyDevice, shelf: ModelShelf) -> None:
    """A step of a day in mid-batch is in no sample, and the age of the lock stays a word for a person."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert libraries, "this test needs libfaketime; install the package faketime"
    offset = device.scratch / "offset"
    offset.write_text("+0\n")
    python = Path(device.here(device.scripted()))
    faked = _FAKED.format(library=libraries[0], file=offset)
    python.write_text(python.read_text().replace("PYTHONPATH=", f"{faked} PYTHONPATH="))
    jobs = [shelf.job(str(number), f"burn {300_000 + number}") for number in range(12)]
    with device.session(python=str(python)) as session:
        results = session.measure(jobs, shelf.models, QUICK)
        rows = [next(results)]
        offset.write_text("-1d\n")
        rows += results
        for step, words in (("-1d", "since a time that the device's clock has not reached"), ("+1d", r"for 8\d{4} s")):
            offset.write_text(f"{step}\n")
            with pytest.raises(DeviceBusy, match=words), device.session(python=str(python)):
                pass
    started = [datetime.fromisoformat(row.started_at) for row in rows]
    assert statuses(rows) == {str(number): "ok" for number in range(12)}
    assert started[0] - started[-1] > timedelta(hours=23), "the clock was to jump while jobs were measured"
    assert all(0 < sample < 60e9 for row in rows for sample in (*row.samples_ns, *row.wall_samples_ns))
