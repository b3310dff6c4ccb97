"""Cables that are pulled while rows come and while files go, over real daemons."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from fault_commands import LIMIT_S
from fault_devices import QUICK, FaultyDevice, meanwhile, statuses
from model_shelf import ModelShelf

from device_agents.errors import DeviceOffline, LinkLost, TransportTimeout
from device_agents.session import SessionLimits

pytestmark = pytest.mark.devices
LARGE_BYTES = 96 << 20  # its copy takes some tenths of a second

# The runner, which ends itself after some seconds without a word from the host, not after a minute.
IMPATIENT_RUNNER = """
import sys
from pathlib import Path
sys.argv = sys.argv[2:]
text = Path(sys.argv[0]).read_text()
impatient = text.replace("HOST_SILENT_S = 60.0", "HOST_SILENT_S = 3.0")
assert impatient != text
exec(compile(impatient, sys.argv[0], "exec"), {"__name__": "__main__", "__doc__": ""})
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that tells nobody when it happens."""
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.002)  # the growing file of another machine tells nobody


def test_a_link_cut_in_mid_batch_costs_no_row(device: FaultyDevice, shelf: ModelShelf) -> None:
    """Nobody says that the cable was pulled; once it is back, the session goes on with the first missing row."""
    gate, notes = device.gate(), []
    models = {"a": "burn 10", "b": "burn 11", "gate": gate.model, "c": "burn 12"}
    jobs = [shelf.job(name, model) for name, model in models.items()]

    def pull() -> None:
        gate.meet()
        with device.cut():
            wait_until(lambda: len(notes) >= 2, "the session was to try again")

    with device.session(way=device.impatient_way(), notes=notes) as session, meanwhile(pull):
        rows = list(session.measure(jobs, shelf.models, QUICK))
    assert statuses(rows) == dict.fromkeys(models, "ok")
    assert "2 rows to go" in notes[0]


def test_a_link_cut_in_mid_push_costs_no_row(device: FaultyDevice, shelf: ModelShelf) -> None:
    """What was half copied is copied again, and no half of it stays."""
    notes: list[str] = []
    jobs = [shelf.job("a", "burn 10"), shelf.job("large", b"burn 11" + b" " * LARGE_BYTES)]

    def pull() -> None:
        wait_until(lambda: any(device.work.glob("models/.*.part")), "the copy was to begin")
        with device.cut():
            assert not (device.work / "models" / f"{jobs[1].model_sha256}.tflite").exists(), "the copy was too quick"
            wait_until(lambda: len(notes) >= 2, "the session was to try again")

    with device.session(way=device.impatient_way(), notes=notes) as session, meanwhile(pull):
        rows = list(session.measure(jobs, shelf.models, QUICK))
    assert statuses(rows) == {"a": "ok", "large": "ok"}
    assert "2 rows to go" in notes[0]
    assert not list(device.work.rglob(".*.part"))


def test_a_link_that_stays_cut_is_given_up_on_both_sides(device: FaultyDevice, shelf: ModelShelf) -> None:
    """The host says that the device is away; the runner hears nothing any more, ends itself and frees the device."""
    gate, rows = device.gate(), []
    jobs = [shelf.job("a", "burn 10"), shelf.job("gate", gate.model), shelf.job("b", "burn 11")]
    python = device.scripted(IMPATIENT_RUNNER)
    limits = SessionLimits(reconnect_s=2.0)

    def measure_and_cut() -> None:
        with contextlib.ExitStack() as cable, device.session(limits, python, device.impatient_way()) as session:
            for row in session.measure(jobs, shelf.models, QUICK):
                rows.append(row)
                gate.meet()
                cable.enter_context(device.cut())

    with pytest.raises((DeviceOffline, LinkLost, TransportTimeout)) as caught:
        measure_and_cut()
    assert [row.job_id for row in rows] == ["a"]
    assert device.entry["host"] in str(caught.value)
    assert "\n" not in str(caught.value)
    device.wait_until_idle()
    with device.session() as session:
        assert statuses(list(session.measure(jobs[1:], shelf.models, QUICK))) == {"gate": "ok", "b": "ok"}


@pytest.mark.parametrize("device", ["virtual-adbd"], ids=["adb"], indirect=True)
def test_a_phone_is_steadied_again_after_a_cut_and_never_for_longer(device: FaultyDevice, shelf: ModelShelf) -> None:
    """While rows come the fixed-performance mode is on, after a broken link too; a link cut for good ends it."""
    first, second, seen = device.gate("first"), device.gate("second"), []
    jobs = [shelf.job("first", first.model), shelf.job("second", second.model), shelf.job("c", "burn 10")]
    marker = device.work / "fixed-performance"

    def mode() -> str:
        return device.virtual.state_of(device.name, "fixed_performance")

    def breaks() -> None:
        for gate in (first, second):
            gate.meet()
            wait_until(lambda: mode() == "true", "the mode was to be on while a model runs")
            seen.append(marker.read_text())
            if gate is first:
                device.virtual.kill_daemon(device.name)
                device.virtual.restart(device.name)
            else:
                device.virtual.cut(device.name)

    python, limits = device.scripted(IMPATIENT_RUNNER), SessionLimits(reconnect_s=3.0)
    try:
        with pytest.raises((DeviceOffline, LinkLost, TransportTimeout)), meanwhile(breaks):  # noqa: SIM117 - in this order
            with device.session(limits, python, device.impatient_way()) as session:
                list(session.measure(jobs, shelf.models, QUICK))
        assert len(set(seen)) == 2, "another process was to hold the mode after the first break"
        wait_until(lambda: mode() == "false", "the phone was to put the mode back by itself, without a link")
    finally:
        device.virtual.mend(device.name)
    wait_until(lambda: not marker.exists(), "the marker was to go with the mode")
