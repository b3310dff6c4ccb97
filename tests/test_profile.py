"""Profiling: what is measured, what is kept, and how a device is held while it measures."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from ai_edge_litert.interpreter import Interpreter
from fake_device import HeldDevice
from small_run import own_device
from synthetic import KEY, NARROW, every_arch, measurement, random_archs, synthetic_ns, tiny_space

from device_agents.errors import UnknownDevice
from edgekd import profile as profile_module
from edgekd.bench import ROUNDS, Bench, DeviceChoice, MeasuringFailed, Model
from edgekd.errors import DataError
from edgekd.graph.ir import graph_in, int8_graph
from edgekd.graph.micro import micro_model, random_model
from edgekd.graph.model_file import ModelFile, read_model
from edgekd.profile import CALIBRATION_NETWORKS, Order, ProfileRequest, all_ops, calibration_archs, profile
from edgekd.search.latency import LatencyModel
from edgekd.sentinels import network_content, network_name
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import SPACES
from latency_tables.builder import FIXED_COST_OPS
from latency_tables.calibrate import MIN_NETWORKS
from latency_tables.errors import OtherSettings
from latency_tables.features import sizes_of
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.schema import Measurement
from latency_tables.store import load_table

pytestmark = pytest.mark.whole  # whole tables


class FakeBench(HeldDevice):
    """Stands for a device: times by formula, stops when `patience` models were measured, and remembers all."""

    patience: ClassVar[float] = math.inf
    measured: ClassVar[list[Model]] = []

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        for model in models:
            if len(self.measured) >= self.patience:
                raise MeasuringFailed("the device was unplugged")
            self.measured.append(model)
            ns = synthetic_ns(OpSpec.parse(model.name)) if model.kind == "operator" else 10 * len(model.content)
            yield measurement(model.name, ns)


@pytest.fixture
def fake_bench(monkeypatch: pytest.MonkeyPatch) -> type[FakeBench]:
    """Let profile() find the fake device."""
    monkeypatch.setattr(FakeBench, "measured", [])
    monkeypatch.setattr(FakeBench, "patience", math.inf)
    monkeypatch.setattr(profile_module, "BenchGroup", FakeBench)
    return FakeBench


@pytest.fixture
def request_(tmp_path: Path) -> ProfileRequest:
    """Ask for a table in a folder of its own."""
    return ProfileRequest(DeviceChoice(), tmp_path / "table.jsonl")


SPACE = tiny_space(blocks=1)
ORDER = Order.for_space(SPACE)


def quietly(request: ProfileRequest, order: Order = ORDER) -> None:
    """Profile without an audience."""
    profile(request, order, lambda done, total: None, lambda warning: None)


def test_everything_a_search_may_ask_is_listed_once() -> None:
    """Every operator of any architecture, in both dtypes and with the int8 files' ends, is in the plan."""
    keys = [op.key for op in all_ops(NARROW)]
    assert len(set(keys)) == len(keys)
    for arch in random_archs(NARROW, 20, seed=1):
        graph = graph_of(NARROW, arch)
        assert {op.key for one in (graph, int8_graph(graph)) for op in one.ops} <= set(keys)


def test_the_calibration_networks_are_always_the_same() -> None:
    """Distinct, with the reference among them, and as many as a fit with held-out errors needs."""
    archs = calibration_archs(NARROW)
    assert archs == calibration_archs(NARROW)
    assert len(set(archs)) == CALIBRATION_NETWORKS
    assert NARROW.reference() in archs


def weights_and_macs(arch: Arch) -> tuple[int, int]:
    """Give how heavy and how long an architecture's network is."""
    ops = graph_of(NARROW, arch).ops
    return sum(op.weight_bytes for op in ops), sum(sizes_of(op).macs for op in ops)


def test_the_calibration_networks_reach_from_small_to_large_and_on_to_the_lightest() -> None:
    """The first half spans what uniform draws have, by weights times multiplications, so that the last has many of
    both; in the second the light options become ever more.
    """
    archs = calibration_archs(NARROW)
    half = CALIBRATION_NETWORKS // 2
    sizes = [math.prod(weights_and_macs(arch)) for arch in archs]
    weights, macs = map(sorted, zip(*map(weights_and_macs, random_archs(NARROW, 100, seed=3)), strict=True))
    assert sizes[1:half] == sorted(sizes[1:half])
    lightest, shortest = weights_and_macs(archs[1])
    assert lightest < weights[20]
    assert shortest < macs[20]
    heaviest, longest = weights_and_macs(archs[half - 1])
    assert heaviest > weights[80]
    assert longest > macs[80]
    light = [sum(map(operator.eq, NARROW.choices(arch), NARROW.lightest)) for arch in archs[half:]]
    assert statistics.mean(light[:3]) + 10 < statistics.mean(light[-3:])
    assert max(weights_and_macs(arch)[0] for arch in archs[-3:]) < weights[10]


def test_a_profile_covers_the_space(fake_bench: type[FakeBench], request_: ProfileRequest) -> None:
    """Every operator and network is measured once, from a file that loads; then every architecture is predicted."""
    steps: list[tuple[int, int]] = []
    table = profile(request_, ORDER, lambda done, total: steps.append((done, total)), lambda warning: None)
    space, fixed = SPACE, [op.key for op in FIXED_COST_OPS.values()]
    wanted = len(all_ops(space)) + len(fixed) + len(DTYPES) * len(calibration_archs(space))
    assert len({model.name for model in fake_bench.measured}) == len(fake_bench.measured) == wanted
    assert set(table.rows) == {*fixed, *(op.key for op in all_ops(space))}
    assert steps[-1] == (wanted, wanted)
    assert set(table.calibrations) == set(DTYPES)
    for arch in random_archs(space, 5, seed=2):
        assert all(ms > 0 for ms in LatencyModel.of(space, table).predicted_ms(arch).values())


def test_every_measured_file_runs(fake_bench: type[FakeBench], request_: ProfileRequest) -> None:
    """A spread of the models that were handed to the device load and run in the real runtime."""
    quietly(request_)
    for model in fake_bench.measured[:: len(fake_bench.measured) // 40]:
        interpreter = Interpreter(model_content=model.content, num_threads=1)
        interpreter.allocate_tensors()
        interpreter.invoke()


def test_a_stopped_profile_goes_on_where_it_was(fake_bench: type[FakeBench], request_: ProfileRequest) -> None:
    """What was measured stays, byte for byte, and is not measured again; the end is as if undisturbed."""
    fake_bench.patience = 40
    with pytest.raises(MeasuringFailed):
        quietly(request_)
    kept = request_.table_path.read_bytes()
    first = [model.name for model in fake_bench.measured]
    assert kept.count(b"\n") == 1 + len(first) == 41
    fake_bench.measured.clear()
    fake_bench.patience = math.inf
    quietly(request_)
    assert request_.table_path.read_bytes().startswith(kept)
    assert not {model.name for model in fake_bench.measured} & set(first)
    undisturbed = dataclasses.replace(request_, table_path=request_.table_path.with_name("undisturbed.jsonl"))
    quietly(undisturbed)
    assert load_table(request_.table_path) == load_table(undisturbed.table_path)


def test_a_complete_table_is_not_measured_again(fake_bench: type[FakeBench], request_: ProfileRequest) -> None:
    """Profiling twice changes nothing."""
    quietly(request_)
    before = request_.table_path.read_bytes()
    fake_bench.measured.clear()
    quietly(request_)
    assert not fake_bench.measured
    assert request_.table_path.read_bytes() == before


def test_a_table_of_another_device_is_not_mixed(
    fake_bench: type[FakeBench], request_: ProfileRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows under another runtime version would not be comparable; the file is left as it is."""
    quietly(request_)
    before = request_.table_path.read_bytes()
    monkeypatch.setattr(fake_bench, "key", dataclasses.replace(KEY, runtime_version="2.4.0"))
    with pytest.raises(OtherSettings, match=r"2\.3\.0.*2\.4\.0"):
        quietly(request_)
    assert request_.table_path.read_bytes() == before


@pytest.fixture
def models(tmp_path: Path) -> list[ModelFile]:
    """Write two architectures of the space as files, which share operators."""
    files = []
    for number, arch in enumerate(random_archs(SPACE, 2, seed=3)):
        path = tmp_path / f"model{number}.tflite"
        path.write_bytes(random_model(graph_in(graph_of(SPACE, arch), "int8")))
        files.append(read_model(path))
    return files


def test_a_model_costs_its_missing_operators_and_nothing_more(
    fake_bench: type[FakeBench], request_: ProfileRequest, models: list[ModelFile]
) -> None:
    """The first model's operators are measured once each with the cost of a call; the second's only where new."""
    first, second = models
    quietly(request_, Order.for_models([first]))
    wanted = {op.key for op in first.ops} | {FIXED_COST_OPS["int8"].key}
    assert sorted(model.name for model in fake_bench.measured) == sorted(wanted)
    fake_bench.measured.clear()
    quietly(request_, Order.for_models([second]))
    assert sorted(model.name for model in fake_bench.measured) == sorted({op.key for op in second.ops} - wanted)
    assert load_table(request_.table_path).calibrations == {}


def test_what_cannot_be_measured_alone_does_not_keep_the_rest_from_it(
    fake_bench: type[FakeBench], request_: ProfileRequest
) -> None:
    """The others are measured and kept; the error names what is left and why, each time, and nothing is redone."""
    key = "while;float32;in=1x{0};out=1x{0};@body_subgraph_index=2;@cond_subgraph_index=1"
    loops, plain = [OpSpec.parse(key.format(size)) for size in range(1, 8)], all_ops(SPACE)[:3]
    for measured in (3, 0):
        with pytest.raises(DataError, match=r"cannot be measured alone: .*other graphs.*; and 2 others$") as caught:
            quietly(request_, Order((*loops[:4], *plain, *loops[4:])))
        assert loops[0].key in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(fake_bench.measured) == measured
        assert set(load_table(request_.table_path).rows) == {op.key for op in plain}
        fake_bench.measured.clear()


def test_whole_models_calibrate_a_table(fake_bench: type[FakeBench], request_: ProfileRequest, tmp_path: Path) -> None:
    """Where the user's own files are measured whole, and there are enough of them, the fit is theirs."""
    distinct = dict.fromkeys(random_model(graph_in(graph_of(SPACE, arch), "float32")) for arch in every_arch(SPACE))
    files = []
    for number, content in enumerate(itertools.islice(distinct, MIN_NETWORKS)):
        path = tmp_path / f"model{number}.tflite"
        path.write_bytes(content)
        files.append(read_model(path))
    assert len(files) == MIN_NETWORKS
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(files[0].content)
    quietly(request_, Order.for_models([*files[:-1], read_model(copy)], whole=True))  # a copy is no eighth network
    assert load_table(request_.table_path).calibrations == {}
    quietly(request_, Order.for_models(files[:-1], whole=True))
    assert load_table(request_.table_path).calibrations == {}
    quietly(request_, Order.for_models(files, whole=True))
    table = load_table(request_.table_path)
    assert set(table.calibrations) == {"float32"}
    assert set(table.networks) == {f"network:float32:{model.name}" for model in files}


def test_an_unknown_device_suggests_the_nearest() -> None:
    """Before anything is opened."""
    with pytest.raises(UnknownDevice, match=r"hosst.*host"):
        DeviceChoice("hosst").find()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, list[int]]:
    """Give a bench that measures one network with the sentinels that a test lists, from the last to the first."""
    sentinels: list[int] = []

    def measure(self: Bench, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        sentinel_ns = sentinels.pop()
        for model in models:
            yield measurement(model.name, 10 * sentinel_ns, sentinel_ns=sentinel_ns)

    monkeypatch.setattr(Bench, "measure", measure)
    return Bench(DeviceChoice().find(), lambda warning: None), sentinels


def test_a_slow_machine_is_given_another_chance(settled: tuple[Bench, list[int]]) -> None:
    """Measured again until the sentinel is nearly as fast as for the table; all samples are kept, the best counts."""
    bench, sentinels = settled
    sentinels += [999, 101, 130, 150]
    found = bench.measure_settled([Model("network", b"", "network")], sentinel_ns=100)["network"]
    assert sentinels == [999]
    assert (found.sentinel_ns, found.attempt, len(found.samples_ns)) == (101, 3, 9)
    assert found.quiet_ms == 1010 / 1e6


def test_a_machine_that_stays_slow_does_not_keep_the_job_from_ending(settled: tuple[Bench, list[int]]) -> None:
    """The attempts are bounded, and the result says how slow the machine was."""
    bench, sentinels = settled
    sentinels += [200] * 100
    found = bench.measure_settled([Model("network", b"", "network")], sentinel_ns=100)["network"]
    assert found.sentinel_ns == 200
    assert 1 < found.attempt == 100 - len(sentinels) <= 30


def test_without_a_known_speed_once_is_enough(settled: tuple[Bench, list[int]]) -> None:
    """A table that knows no sentinel, such as an imported one, sets no speed to wait for."""
    bench, sentinels = settled
    sentinels += [200, 200]
    assert bench.measure_settled([Model("network", b"", "network")], sentinel_ns=0)["network"].attempt == 1
    assert len(sentinels) == 1


def test_all_of_a_table_is_measured_beside_one_network_of_its_kind() -> None:
    """Whatever the space, so that what a later profile adds is told by the same; its name says what it is."""
    for space in (NARROW, SPACES["tiny-28"]):
        order = Order.for_space(space, networks=MIN_NETWORKS)
        for subject in (*order.ops[:2], *order.ops[-2:], *order.networks):
            assert order.model_of(subject).beside == f"mnasnet-96 {subject.dtype}"


@pytest.mark.slow  # a real runner measures this machine
def test_the_host_measures_beside_a_network(tmp_path: Path) -> None:
    """Each has its readings, one a visit, and is told by them; what names no network has a micro-model and none."""
    op = next(op for op in all_ops(NARROW) if op.kind == "conv_2d")
    name = network_name("float32")
    models = [
        Model("alone", micro_model(op)),
        Model(op.key, micro_model(op), beside=name),
        Model("same", network_content(name), "network", name),
    ]
    with own_device(tmp_path), Bench(DeviceChoice().find(), lambda warning: None) as bench:
        rows = {row.subject: row for row in bench.measure(models)}
    assert {name: row.beside for name, row in rows.items()} == {"alone": "", op.key: name, "same": name}
    assert rows["alone"].beside_ns == ()
    for told in (rows[op.key], rows["same"]):
        assert len(told.samples_ns) % len(told.beside_ns) == 0
    assert rows[op.key].times_beside < 0.5 < rows["same"].times_beside < 2


@pytest.mark.slow  # a real runner measures this machine
def test_the_host_measures_models_and_names_the_one_that_fails(tmp_path: Path) -> None:
    """Really measured: each row has its model's name and positive times; what cannot run is named with its device."""
    op = next(op for op in all_ops(NARROW) if op.kind == "conv_2d")
    good = [Model(op.key, micro_model(op)), Model("again", micro_model(op))]
    with own_device(tmp_path), Bench(DeviceChoice().find(), lambda warning: None) as bench:
        assert (bench.key.device, bench.key.threads, bench.key.clock) == ("host", 1, "thread_cpu")
        rows = {row.subject: row for row in bench.measure(good)}
        assert set(rows) == {op.key, "again"}
        for row in rows.values():
            assert 0 < row.quiet_ms <= row.median_ms
            assert row.wall_median_ms > 0
            assert row.sentinel_ns > 0
            assert row.source == "measured"
        with pytest.raises(MeasuringFailed, match="device host could not measure garbage"):
            list(bench.measure([Model("garbage", b"\x1c\0\0\0TFL3 and nothing else")]))
