"""Daemons, runners and models that die in the middle of a batch, over real daemons."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from fault_devices import QUICK, FaultyDevice, meanwhile, statuses
from model_shelf import ModelShelf

from device_agents.protocol import Job

pytestmark = pytest.mark.devices
WAYS = pytest.mark.parametrize(
    "device",
    ["virtual-sshd", "virtual-adbd", "virtual-adbd by adb server"],
    ids=["ssh", "adb", "adb-server"],
    indirect=True,
)


def batch(shelf: ModelShelf, fault: str) -> list[Job]:
    """Two jobs, the one with the fault, and two more."""
    models = {"a": "burn 10", "b": "burn 11", "fault": fault, "c": "burn 12", "d": "burn 13"}
    return [shelf.job(name, model) for name, model in models.items()]


@WAYS
def test_a_daemon_that_dies_and_comes_back_costs_no_row(device: FaultyDevice, shelf: ModelShelf) -> None:
    """The session notes it, waits for the daemon, ends its own old runner and goes on with the first missing row."""
    gate, notes = device.gate(), []

    def crash() -> None:
        gate.meet()
        device.virtual.kill_daemon(device.name)
        device.virtual.restart(device.name)

    with device.session(notes=notes) as session, meanwhile(crash):
        rows = list(session.measure(batch(shelf, gate.model), shelf.models, QUICK))
    assert statuses(rows) == dict.fromkeys(["a", "b", "fault", "c", "d"], "ok")
    assert "3 rows to go" in notes[0]


@pytest.mark.parametrize("device", ["virtual-sshd"], indirect=True)
def test_an_ssh_session_that_dies_costs_no_row(device: FaultyDevice, shelf: ModelShelf) -> None:
    """Only the process of the server that serves this connection dies; a new connection is made at once."""
    gate, notes = device.gate(), []

    def crash() -> None:
        gate.meet()
        device.end_sessions()

    with device.session(notes=notes) as session, meanwhile(crash):
        rows = list(session.measure(batch(shelf, gate.model), shelf.models, QUICK))
    assert statuses(rows) == dict.fromkeys(["a", "b", "fault", "c", "d"], "ok")
    assert "3 rows to go" in notes[0]


@WAYS
def test_a_runner_that_is_killed_costs_no_row(device: FaultyDevice, shelf: ModelShelf) -> None:
    """As the kernel does where memory ends: the job that ran is tried once more, in a new runner."""
    gate = device.gate()

    def crash() -> None:
        os.kill(device.process(gate.meet()), signal.SIGKILL)

    with device.session() as session, meanwhile(crash):
        rows = list(session.measure(batch(shelf, gate.model), shelf.models, QUICK))
    assert set(statuses(rows).values()) == {"ok"}
    assert len(rows) == 5


def test_a_native_agent_that_is_killed_costs_no_row(
    device: FaultyDevice, shelf: ModelShelf, add_model: Callable[[int], bytes]
) -> None:
    """The same holds without Python on the device."""
    jobs = [shelf.job(str(count), add_model(count)) for count in range(8, 28)]
    slow = replace(QUICK, min_sample_us=5000, rounds=4)  # the job that runs and those to come take a while
    with device.native_session() as session:
        before, results = session.hello.pid, session.measure(jobs, shelf.models, slow)
        rows = [next(results)]
        os.kill(device.process(before), signal.SIGKILL)
        rows += results
        assert session.hello.pid != before
    assert statuses(rows) == {job.job_id: "ok" for job in jobs}
