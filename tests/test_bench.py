"""A device held for measuring: what is measured again, and which rows are flagged for what the device tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import measurement

from device_agents import readiness, server
from device_agents.device import Device
from device_agents.errors import InvalidRequest
from device_agents.inventory import find_device
from device_agents.local import LocalProcess, LocalTransport
from device_agents.protocol import alive_line
from edgekd import bench
from edgekd.bench import ROUNDS, Bench, DeviceChoice, Model
from edgekd.bench_group import BenchGroup
from edgekd.graph.micro import micro_model
from latency_tables.op_spec import OpSpec, TensorSpec
from latency_tables.schema import THROTTLED, Measurement


class ScriptedBench(Bench):
    """Gives the rows of a script, one of them a model a time, and remembers what was asked for."""

    def __init__(self, rows: dict[str, list[Measurement]]) -> None:
        self.rows = rows
        self.asked: list[list[str]] = []

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        """Give each model its next row."""
        listed = [model.name for model in models]
        self.asked.append(listed)
        for name in listed:
            yield self.rows[name].pop(0)


def throttled(name: str, ns: int) -> Measurement:
    """Make a row of a device that was held down."""
    return measurement(name, ns, flags=(THROTTLED,))


def test_what_was_throttled_is_measured_again_and_replaced() -> None:
    """Only that, until it was not; the samples of the bad attempt do not stay."""
    device = ScriptedBench({"hot": [throttled("hot", 900), measurement("hot", 500)], "cool": [measurement("cool")]})
    found = device.measure_settled([Model("hot", b""), Model("cool", b"")])
    assert device.asked == [["hot", "cool"], ["hot"]]
    assert found["hot"] == measurement("hot", 500, attempt=2)
    assert found["cool"] == measurement("cool")


def test_what_stays_throttled_is_given_with_its_flag() -> None:
    """After the last attempt there is nothing better."""
    device = ScriptedBench({"hot": [throttled("hot", 900) for _ in range(3)]})
    found = device.measure_settled([Model("hot", b"")], attempts=3)
    assert len(device.asked) == 3
    assert found["hot"].flags == (THROTTLED,)


@pytest.fixture
def away() -> Device:
    """A device that is not this machine, as far as its address goes."""
    host = find_device("host")
    return replace(host, address=replace(host.address, kind="ssh", host="away"))


def test_rows_of_a_block_are_flagged_for_what_happened_while_it_was_measured(
    away: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row after a pause makes it look; the rows that come with that one are of the same time."""
    calm = readiness.read_conditions(away, LocalTransport())
    events = {0.0: 0, 1.0: 2, 2.0: 2}  # by the second: how often the clock was throttled since boot
    now_s = [0.0]
    monkeypatch.setattr(bench.time, "monotonic", lambda: now_s[0])
    reading = lambda *_, **__: replace(calm, throttled_events=events[now_s[0]], pi_throttled=None)  # noqa: E731 - short
    monkeypatch.setattr(bench, "read_conditions", reading)
    monkeypatch.setattr(bench, "wait_until_cool", reading)
    notes: list[str] = []
    watch = bench._Watch(away, LocalTransport(), notes.append)
    flags = []
    for second in events:
        now_s[0] = second
        flags.append([watch.flags(), watch.flags()])
    assert flags == [[(), ()], [(THROTTLED,), (THROTTLED,)], [(), ()]]
    assert len(notes) == 1


def test_an_engine_that_does_not_exist_is_found_before_the_device() -> None:
    """A slip of the pen is a wrong request and lists the engines."""
    with pytest.raises(InvalidRequest, match="known engines: python, native, benchmark_model"):
        DeviceChoice("host", "pyhton").find()


class ListeningTransport(LocalTransport):
    """Keeps what is said to the processes that it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    def stream(self, argv: Sequence[str]) -> LocalProcess:
        process = super().stream(argv)
        say = process.write_line

        def listen(line: bytes, timeout_s: float) -> None:
            self.heard.append(line)
            say(line, timeout_s)

        process.write_line = listen  # type: ignore[method-assign] # it says what it did before
        return process


@pytest.mark.slow  # a real runner measures this machine
@pytest.mark.parametrize("group", [False, True], ids=["one device", "two devices"])
def test_a_device_hears_of_the_host_while_the_files_of_a_batch_are_made(
    group: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of networks take minutes to make, and a runner that hears nothing for one of them ends itself."""
    monkeypatch.setattr(server, "ALIVE_EVERY_S", 0.0)
    ways: list[ListeningTransport] = []
    monkeypatch.setattr(bench, "open_transport", lambda device: ways.append(ListeningTransport()) or ways[-1])
    devices = [
        replace(find_device("host"), work_dir=str(tmp_path / f"edgekd-work-{number}")) for number in range(1 + group)
    ]

    def made_slowly() -> Iterator[Model]:
        for number in range(3):
            before = [len(way.heard) for way in ways]
            op = OpSpec("add", (TensorSpec((1, 4, 4, 4 + number)),) * 2, "float32")
            yield Model(op.key, micro_model(op))
            assert all(alive_line() in way.heard[count:] for way, count in zip(ways, before, strict=True))

    with BenchGroup(devices, lambda text: None) as held:
        assert len(list(held.measure(made_slowly(), rounds=2))) == 3
