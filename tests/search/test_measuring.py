"""Architectures measured during a search: each once, under the table's conditions, and where the device is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import pytest
from ray_clusters import cluster_of
from synthetic import KEY, measurement, random_archs, tiny_space

from device_agents.errors import DeviceOffline, InvalidRequest
from edgekd.bench import Bench, DeviceChoice, Model
from edgekd.errors import DataError
from edgekd.search import measuring
from edgekd.search.measuring import MeasureOrder, Measurer, measure_here
from edgekd.search.workers import WorkerSettings
from edgekd.search.workers.errors import Refused
from edgekd.spaces.arch import Arch
from latency_tables.schema import THROTTLED, Measurement, TableKey
from latency_tables.speed import AS_MEASURED, Speed

SPACE = tiny_space()
ARCHS = list(dict.fromkeys(random_archs(SPACE, 9, 5)))[:3]
ORDER = MeasureOrder(DeviceChoice("host"), SPACE, "int8", KEY, Speed(5000))


@dataclass
class FakeDevice:
    """A bench whose networks take as many µs as their files have bytes; it remembers what it was asked for."""

    key: TableKey = KEY
    flags: tuple[str, ...] = ()
    asked: list[tuple[list[str], int]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.asked.append(([], 0))

    def measure_settled(self, models: Sequence[Model], sentinel_ns: int = 0) -> dict[str, Measurement]:
        self.asked.append(([model.name for model in models], sentinel_ns))
        return {m.name: measurement(m.name, 1000 * len(m.content), flags=self.flags) for m in reversed(models)}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """Put a fake in the place of the bench."""
    fake = FakeDevice()
    monkeypatch.setattr(measuring, "Bench", lambda found, on_warning: fake)
    monkeypatch.setattr(DeviceChoice, "find", lambda choice: choice.name)
    return fake


def sizes_ms(archs: Sequence[Arch]) -> list[float]:
    """Give what the fake device takes, in ms."""
    return [len(measuring._model(ORDER, arch).content) / 1000 for arch in archs]


def test_latencies_come_in_the_order_of_the_architectures(device: FakeDevice) -> None:
    """In ms, at the speed at which the table was measured."""
    with Measurer(ORDER, WorkerSettings()) as measurer:
        assert measurer.measure(ARCHS) == pytest.approx(sizes_ms(ARCHS))
    assert device.asked[0] == ([f"network:int8:{arch.arch_id}" for arch in ARCHS], 5000)


def test_each_architecture_is_measured_once(device: FakeDevice) -> None:
    """Whatever is asked again, also within one call, is answered from what is known; nothing new holds no device."""
    with Measurer(ORDER, WorkerSettings()) as measurer:
        measurer.measure([ARCHS[0], ARCHS[0]])
        assert measurer.measure(ARCHS[:2]) == pytest.approx(sizes_ms(ARCHS[:2]))
        measurer.measure(ARCHS[:2])
    assert [len(names) for names, _ in device.asked if names] == [1, 1]
    assert len(device.asked) == 4


def test_the_device_is_held_only_while_it_measures(device: FakeDevice) -> None:
    """Others may use it while candidates are trained."""
    with Measurer(ORDER, WorkerSettings()) as measurer:
        measurer.measure(ARCHS[:1])
        assert device.asked[-1] == ([], 0)  # it was given back


def test_other_dtypes_are_other_networks(device: FakeDevice) -> None:
    """What ships is what is measured."""
    with Measurer(replace(ORDER, dtype="float32"), WorkerSettings()) as floats:
        assert floats.measure(ARCHS[:1]) != pytest.approx(sizes_ms(ARCHS[:1]))


def test_what_is_measured_is_told_as_the_table_is(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the network of its kind that the table knows, and by how many times that one's time it takes."""
    asked: list[str] = []

    def measure_settled(models: Sequence[Model], sentinel_ns: int) -> dict[str, Measurement]:
        assert sentinel_ns == 7
        asked.extend(model.beside for model in models)
        return {m.name: measurement(m.name, 3000, beside=m.beside, beside_ns=(1500,)) for m in models}

    monkeypatch.setattr(device, "measure_settled", measure_settled)
    order = replace(ORDER, speed=Speed(7, {"mnasnet-96 int8": 2_000_000}))
    (found,) = measure_here(order, ARCHS[:1], print)
    assert asked == ["mnasnet-96 int8"]
    assert found.ms == pytest.approx(4.0)


def test_what_disturbed_a_measurement_is_kept(device: FakeDevice) -> None:
    """With the machine that it was made on."""
    device.flags = (THROTTLED,)
    with Measurer(ORDER, WorkerSettings()) as measurer:
        measurer.measure(ARCHS[:1])
        assert measurer.known[ARCHS[0]].flags == (THROTTLED,)
        assert measurer.known[ARCHS[0]].host
        assert measurer.known[ARCHS[0]].node == ""


def test_a_device_in_another_state_than_the_tables_is_refused(device: FakeDevice) -> None:
    """Measured and predicted latencies would not compare."""
    device.key = replace(KEY, threads=2)
    with Measurer(ORDER, WorkerSettings()) as measurer, pytest.raises(DataError, match=r"threads.*profile again"):
        measurer.measure(ARCHS)
    assert not measurer.known


@pytest.mark.parametrize(
    ("error", "code"), [(DeviceOffline("gone"), 3), (InvalidRequest("wrong"), 2), (DataError("other key"), 2)]
)
def test_errors_of_a_node_keep_their_exit_codes(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    """They travel as text."""

    def failing(*given: object) -> list[Any]:
        raise error

    monkeypatch.setattr(measuring, "measure_here", failing)
    monkeypatch.setattr(measuring, "_node_id", lambda: "node")
    found, notes = measuring._in_task(ORDER, ARCHS)
    assert isinstance(found, measuring.Refusal)
    assert (found.text, found.exit_code, notes) == (str(error), code, [])


@pytest.mark.slow
def test_measurements_go_to_the_node_that_has_the_device() -> None:
    """Two Ray nodes on this machine, one of them with `device:host`: its real bench measures, for all who ask."""
    import ray

    with Bench(DeviceChoice("host").find(), print) as bench:
        order = replace(ORDER, key=bench.key, speed=AS_MEASURED)
    with cluster_of(1) as cluster:
        node = cluster.add_node(num_cpus=1, resources={"device:host": 1})
        warnings: list[str] = []
        with Measurer(order, WorkerSettings(ray_address=cluster.address), warnings.append) as measurer:
            measured = measurer.measure(ARCHS[:2])
            assert {found.node for found in measurer.known.values()} == {node.node_id}
            assert node.node_id != cluster.head_node.node_id
            other = Measurer(replace(order, key=replace(bench.key, threads=7)), WorkerSettings(ray_address="auto"))
            with other, pytest.raises(Refused, match="another key"):
                other.measure(ARCHS[:1])
        assert all(0 < ms < 100 for ms in measured)
        assert not ray.is_initialized()


@pytest.mark.slow
def test_without_such_a_node_this_machine_measures_and_says_so(device: FakeDevice) -> None:
    """A cluster that trains need not have the device."""
    warnings: list[str] = []
    say: Callable[[str], None] = warnings.append
    with cluster_of(1) as cluster, Measurer(ORDER, WorkerSettings(ray_address=cluster.address), say) as measurer:
        assert measurer.measure(ARCHS) == pytest.approx(sizes_ms(ARCHS))
    assert "offers device:host: architectures are measured from this machine" in warnings[0]
