"""Several devices that share a batch: every model once, an end for all when one fails, and a word on unequal ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import ClassVar, Self

import pytest
from synthetic import KEY, measurement

from device_agents.device import Device
from device_agents.inventory import find_device
from edgekd import bench_group
from edgekd.bench import ROUNDS, MeasuringFailed, Model
from edgekd.bench_group import BenchGroup
from latency_tables.schema import Measurement

MODELS = [Model(f"model {number}", b"") for number in range(5)]


class FakeBench:
    """A device whose sentinel takes what its serial says, in ns, and which cannot run what is called "bad"."""

    closed: ClassVar[list[str]] = []

    def __init__(self, device: Device, on_warning: object) -> None:
        self.device = device
        self.key = replace(KEY, runtime_version=device.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed.append(self.device.serial)

    def still_here(self) -> None:
        """Say nothing: nobody waits."""

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        """Give a row a model."""
        for model in models:
            if model.name == "bad":
                raise MeasuringFailed("cannot run it")
            row = measurement(model.name, sentinel_ns=int(self.device.serial))
            yield replace(row, beside=model.beside, beside_ns=(1000,)) if model.beside else row


@pytest.fixture(autouse=True)
def fake_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let groups hold fake devices."""
    monkeypatch.setattr(FakeBench, "closed", [])
    monkeypatch.setattr(bench_group, "Bench", FakeBench)


def devices(*serials: str) -> list[Device]:
    """Make devices that are equal but for their serials."""
    return [replace(find_device("host"), model="one", serial=serial) for serial in serials]


def test_every_model_is_measured_once() -> None:
    """Whatever device did it; afterwards all are left."""
    with BenchGroup(devices("1000", "1010"), pytest.fail) as group:
        assert sorted(row.subject for row in group.measure(MODELS)) == [model.name for model in MODELS]
        assert {row.sentinel_ns for row in group.measure(MODELS)} == {1000, 1010}
    assert sorted(FakeBench.closed) == ["1000", "1010"]


def test_devices_of_two_speeds_are_told_of() -> None:
    """One table cannot speak of both; the slower one is named."""
    notes: list[str] = []
    with BenchGroup(devices("1000", "1200"), notes.append) as group:
        assert len(list(group.measure(MODELS))) == len(MODELS)
    assert len(notes) == 1
    assert "device 1200 is 20 % slower than 1000" in notes[0]


def test_networks_of_two_kinds_are_not_compared() -> None:
    """What one takes on one device and another on the other tells of no speed."""
    models = [Model("light", b"", beside="int8"), Model("heavy", b"", beside="float32")]
    with BenchGroup(devices("1000", "1200"), pytest.fail) as group:
        assert len(list(group.measure(models))) == 2


def test_a_failure_of_one_is_the_end_of_all() -> None:
    """Its error is raised once the others have stopped, and the rows before that have been given."""
    rows: list[Measurement] = []
    with BenchGroup(devices("1000", "1000"), lambda text: None) as group, pytest.raises(MeasuringFailed):
        rows.extend(group.measure([MODELS[0], Model("bad", b"")]))
    assert [row.subject for row in rows] == ["model 0"]
    assert FakeBench.closed == ["1000", "1000"]


def test_devices_that_no_table_can_join_are_refused() -> None:
    """What a table is keyed by must be equal; the message names the first difference and both devices."""
    first, second = devices("1000", "1200")
    unlike = [first, replace(second, model="two")]
    with pytest.raises(MeasuringFailed, match="1000 and 1200 cannot share one table: runtime_version: 'one' / 'two'"):
        BenchGroup(unlike, lambda text: None).__enter__()
    assert sorted(FakeBench.closed) == ["1000", "1200"]
