"""Hosts that die, are interrupted, or come second, by the product's own command line over real daemons."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
from fault_devices import QUICK, FaultyDevice, meanwhile, statuses
from model_shelf import ModelShelf

pytestmark = pytest.mark.devices
SPACE = ("--space", "tiny-28", "--quick")


def subjects(table: Path) -> list[str]:
    """List what a table has measured, one entry a measurement; a line that is not whole yet does not count."""
    if not table.exists():
        return []
    text = table.read_bytes()
    lines = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return [str(line.get("subject") or line.get("name")) for line in lines if line.get("type") in ("row", "network")]


def fixed_performance(device: FaultyDevice) -> str | None:
    """What the phone's stand-in recorded of the mode; None where there is none."""
    return device.virtual.state_of(device.name, "fixed_performance") if device.name == "virtual-adbd" else None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_host_that_ends_in_mid_batch_loses_no_row(device: FaultyDevice, number: signal.Signals) -> None:
    """Its rows are in the table and the device is idle; the same command then measures only what is missing."""
    table = device.toml.parent / "table.jsonl"
    first = device.command("profile", *SPACE, "--table", str(table))
    first.wait_for(lambda: len(subjects(table)) >= 8)
    assert fixed_performance(device) in (None, "true")
    first.signal(number)
    code = first.ends()
    kept = subjects(table)
    device.wait_until_idle(20)
    assert fixed_performance(device) in (None, "false")
    second = device.command("profile", *SPACE, "--table", str(table))
    assert second.ends() == 0, second.stderr
    measured = subjects(table)
    assert code == (130 if number == signal.SIGINT else -number)
    assert measured[: len(kept)] == kept
    assert len(kept) < len(measured)
    assert set(Counter(measured).values()) == {1}
    assert f"/{len(measured) - len(kept)}" in second.stderr, "the second run was to measure the rest"
    assert not list(device.work.rglob("*.part"))
    assert fixed_performance(device) in (None, "false")


def test_a_daemon_that_stays_dead_is_given_up(device: FaultyDevice) -> None:
    """The host says so in one line and keeps its rows; what ran there ends by itself, and the rest comes later."""
    table = device.toml.parent / "table.jsonl"
    first = device.command("profile", *SPACE, "--table", str(table), limits=(0.0, 1.0))
    first.wait_for(lambda: len(subjects(table)) >= 8)
    device.virtual.kill_daemon(device.name)
    try:
        assert first.ends() == 3, first.stderr
        kept = subjects(table)
        device.wait_until_idle()
        assert fixed_performance(device) in (None, "false")
    finally:
        device.virtual.restart(device.name)
    assert device.entry["host"] in first.last_line
    second = device.command("profile", *SPACE, "--table", str(table))
    assert second.ends() == 0, second.stderr
    assert subjects(table)[: len(kept)] == kept
    assert set(Counter(subjects(table)).values()) == {1}


def test_who_comes_second_is_told_who_measures(device: FaultyDevice, shelf: ModelShelf) -> None:
    """It learns who holds the device and since when, and disturbs nothing."""
    gate = device.gate()
    jobs = [shelf.job("gate", gate.model), shelf.job("b", "burn 10")]
    model = device.toml.parent / "any.tflite"
    model.write_bytes(b"\0\0\0\0TFL3")
    with device.session() as session:

        def come_second() -> None:
            runner = gate.meet()
            second = device.command("bench", str(model))
            code, held = second.ends(), device.process(runner)
            os.kill(held, signal.SIGKILL)
            assert code == 3, second.stderr
            assert re.search(r"\w+@\S+ \w+ has been measuring for \d+ s", second.last_line), second.stderr

        with meanwhile(come_second):
            rows = list(session.measure(jobs, shelf.models, QUICK))
    assert statuses(rows) == {"gate": "ok", "b": "ok"}


def is_waiting_for_a_lock(device: FaultyDevice) -> bool:
    """Look in the kernel's table of locks, which marks who waits with an arrow."""
    ours = {str(pid) for pid in device.processes()}
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(line[1] == "->" and line[2] == "FLOCK" and line[5] in ours for line in lines)


def test_who_comes_second_can_wait(device: FaultyDevice) -> None:
    """With a wait it begins when the first ends, and measures all."""
    table = device.toml.parent / "table.jsonl"
    with device.session():
        second = device.command("profile", *SPACE, "--table", str(table), limits=(600.0, 60.0))
        second.wait_for(lambda: is_waiting_for_a_lock(device))
        assert not subjects(table)
    assert second.ends() == 0, second.stderr
    assert set(Counter(subjects(table)).values()) == {1}
