"""Profiles a device for a space: its reachable operators and a few whole networks → a calibrated LatencyTable.

Chooses what to measure and writes the models; bench.py measures them and latency_tables/builder.py keeps the rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.bench import ROUNDS, DeviceChoice, Model
from edgekd.bench_group import BenchGroup
from edgekd.graph.ir import graph_in, int8_graph
from edgekd.graph.micro import micro_model, random_model
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of, reachable_ops
from edgekd.spaces.space import Space
from latency_tables.builder import MAX_ATTEMPTS, NetworkSpec, OnRow, Plan, Subject, build
from latency_tables.calibrate import MIN_NETWORKS
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.schema import Measurement
from latency_tables.store import LatencyTable, TableFile

CALIBRATION_NETWORKS = 24  # a dtype; the fit has four coefficients, and keeps the error of leaving each one out


@dataclass(frozen=True, slots=True)
class Effort:
    """How much device time a table may take: calibration networks a dtype, rounds of samples, attempts at slow rows."""

    networks: int = CALIBRATION_NETWORKS
    rounds: int = ROUNDS
    attempts: int = MAX_ATTEMPTS


FULL = Effort()
QUICK = Effort(MIN_NETWORKS, 4, 1)  # a fifth of the time, for a first look or an emulated device

_CALIBRATION_SEED = 20
_MAX_LIGHTNESS = 0.9  # share of the decisions that the lightest calibration network takes the light way


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What to profile, and where the table goes. `share` lets all attached devices of that name work together."""

    device: DeviceChoice
    space: Space
    table_path: Path
    dtypes: tuple[str, ...] = DTYPES
    share: bool = False
    effort: Effort = FULL


def profile(
    request: ProfileRequest,
    on_row: OnRow,
    on_warning: Callable[[str], None],
) -> LatencyTable:
    """Measure what the table lacks and calibrate it.

    Raises:
        MeasuringFailed: an operator cannot be run on the device.
        DeviceError: the device is unknown, busy or lost.
        TableError: the table file is damaged, or was measured under another key.

    """
    space = request.space
    archs, dtypes = calibration_archs(space, request.effort.networks), request.dtypes
    networks = {_network_spec(space, arch, dtype): arch for arch in archs for dtype in dtypes}

    def model_of(subject: Subject) -> Model:
        if isinstance(subject, OpSpec):
            return Model(subject.key, micro_model(subject))
        graph = graph_in(graph_of(space, networks[subject]), subject.dtype)
        return Model(subject.name, random_model(graph), "network")

    devices = request.device.find_all() if request.share else [request.device.find()]
    with BenchGroup(devices, on_warning) as bench:
        file = TableFile(request.table_path, bench.key)

        def measure(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Measurement]]:
            named = {_name(subject): subject for subject in subjects}
            for measurement in bench.measure(map(model_of, subjects), request.effort.rounds):
                yield named[measurement.subject], measurement

        plan = Plan(all_ops(space, dtypes), tuple(networks), request.effort.attempts)
        return build(file, plan, measure, on_row)


def all_ops(space: Space, dtypes: Sequence[str] = DTYPES) -> tuple[OpSpec, ...]:
    """List the space's reachable operators in these dtypes, the int8 files' QUANTIZE and DEQUANTIZE included."""
    plain = reachable_ops(space)
    edges = int8_graph(graph_of(space, space.reference())).ops
    quantized = (*(replace(op, dtype="int8") for op in plain), edges[0], edges[-1])
    return (*(plain if "float32" in dtypes else ()), *(quantized if "int8" in dtypes else ()))


def calibration_archs(space: Space, count: int = CALIBRATION_NETWORKS) -> list[Arch]:
    """Choose so many architectures to calibrate on, always the same: the reference, and random ones, uniform to light.

    A search under a target ends among the fast architectures, which uniform sampling hardly ever shows; a fit without
    them would have to extrapolate just where it counts.
    """
    rng = random.Random(_CALIBRATION_SEED)  # noqa: S311 - a choice of networks, not a secret
    archs = {space.reference(): None}
    for _ in range(10 * count):  # a space of few architectures runs out of distinct ones
        if len(archs) == count:
            break
        lightness = _MAX_LIGHTNESS * len(archs) / count
        pairs = zip(space.decision_sizes, space.lightest, strict=True)
        archs[space.arch([light if rng.random() < lightness else rng.randrange(n) for n, light in pairs])] = None
    return list(archs)


def _network_spec(space: Space, arch: Arch, dtype: str) -> NetworkSpec:
    return NetworkSpec(f"network:{dtype}:{arch}", dtype, tuple(graph_in(graph_of(space, arch), dtype).ops))


def _name(subject: Subject) -> str:
    return subject.key if isinstance(subject, OpSpec) else subject.name
