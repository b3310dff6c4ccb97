"""Profiles a device: the operators of a space or of model files, and whole networks → a calibrated LatencyTable.

Chooses what to measure and writes the models; bench.py measures them and latency_tables/builder.py keeps the rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekd.bench import ROUNDS, DeviceChoice, Model
from edgekd.bench_group import BenchGroup
from edgekd.errors import DataError
from edgekd.graph.ir import graph_in, int8_graph
from edgekd.graph.micro import random_model
from edgekd.graph.model_file import ModelFile, model_of_op
from edgekd.sentinels import network_name
from edgekd.spaces.arch import MAX_LAYERS, Arch
from edgekd.spaces.layers import graph_of, reachable_ops
from edgekd.spaces.space import Space
from latency_tables.builder import (
    FIXED_COST_OPS,
    MAX_ATTEMPTS,
    ONNX_FIXED_COST_OP,
    NetworkSpec,
    OnRow,
    Plan,
    Subject,
    build,
)
from latency_tables.calibrate import MIN_NETWORKS
from latency_tables.features import sizes_of
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.schema import Measurement
from latency_tables.store import LatencyTable, TableFile

CALIBRATION_NETWORKS = 20  # a dtype; the fit has four unknowns, and keeps the error of leaving each one out


@dataclass(frozen=True, slots=True)
class Effort:
    """How much device time a table may take: calibration networks a dtype, rounds of samples, attempts at slow rows."""

    networks: int = CALIBRATION_NETWORKS
    rounds: int = ROUNDS
    attempts: int = MAX_ATTEMPTS


FULL = Effort()
QUICK = Effort(MIN_NETWORKS, 24, 1)  # less than half of the time, for a first look or an emulated device

_CALIBRATION_SEED = 20
_FEW = 5  # reasons in one message
_DRAWS = 8  # for each uniform calibration network that is chosen
_MAX_LIGHTNESS = 0.9  # share of the decisions that the lightest calibration network takes the light way


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """On which device to measure and where the table goes. `share` lets all devices of that name work together."""

    device: DeviceChoice
    table_path: Path
    share: bool = False
    effort: Effort = FULL


@dataclass(frozen=True, slots=True)
class Order:
    """What a table shall cover: operators, and networks with how each one's file is made."""

    ops: tuple[OpSpec, ...]
    networks: Mapping[NetworkSpec, Callable[[], bytes]] = field(default_factory=dict)
    least_networks: int = 0  # see builder.Plan

    @staticmethod
    def for_space(space: Space, dtypes: Sequence[str] = DTYPES, networks: int = CALIBRATION_NETWORKS) -> Order:
        """Cover every operator that a space can reach, calibrated on so many of its networks a dtype."""

        def maker(arch: Arch, dtype: str) -> Callable[[], bytes]:
            return lambda: random_model(graph_in(graph_of(space, arch), dtype))

        archs = calibration_archs(space, networks)
        specs = {_network_spec(space, arch, dtype): maker(arch, dtype) for arch in archs for dtype in dtypes}
        ops = (*all_ops(space, dtypes), *(FIXED_COST_OPS[dtype] for dtype in dtypes))
        in_networks = (op for spec in specs for op in spec.ops)  # more than the space's own where that is very small
        return Order(tuple(dict.fromkeys([*ops, *in_networks])), specs)

    @staticmethod
    def for_models(models: Sequence[ModelFile], *, whole: bool = False) -> Order:
        """Cover the operators of model files, and with `whole` measure the files, too, to calibrate on them."""

        def maker(model: ModelFile) -> Callable[[], bytes]:
            return lambda: model.content

        ops = [op for model in models for op in model.ops if not op.is_folded]
        fixed = [ONNX_FIXED_COST_OP if model.is_onnx else FIXED_COST_OPS[model.dtype] for model in models]
        distinct = {model.content: model for model in reversed(models)} if whole else {}  # a copy is no second network
        networks = {
            NetworkSpec(f"network:{model.dtype}:{model.name}", model.dtype, model.ops): maker(model)
            for model in distinct.values()
        }
        return Order(tuple(dict.fromkeys([*ops, *fixed])), networks, MIN_NETWORKS)

    def model_of(self, subject: Subject) -> Model:
        """Write the file by which a subject is measured. Raises DataError for an operator that has none."""
        if isinstance(subject, OpSpec):
            return Model(subject.key, model_of_op(subject), beside=network_name(subject.dtype))
        return Model(subject.name, self.networks[subject](), "network", network_name(subject.dtype))


def profile(
    request: ProfileRequest,
    order: Order,
    on_row: OnRow,
    on_warning: Callable[[str], None],
) -> LatencyTable:
    """Measure what the table lacks and calibrate it.

    Raises:
        MeasuringFailed: an operator cannot be run on the device.
        DataError: operators of a model file cannot be measured by themselves; all others have been.
        DeviceError: the device is unknown, busy or lost.
        TableError: the table file is damaged, or was measured under another key.

    """
    devices = request.device.find_all() if request.share else [request.device.find()]
    with BenchGroup(devices, on_warning) as bench, closing(TableFile(request.table_path, bench.key)) as file:
        unmade: dict[Subject, str] = {}  # with the reason

        def measure(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Measurement]]:
            named = {_name(subject): subject for subject in subjects if subject not in unmade}
            models = _models(order, named.values(), unmade)
            for measurement in bench.measure(models, request.effort.rounds) if named else ():
                yield named[measurement.subject], measurement

        plan = Plan(order.ops, tuple(order.networks), request.effort.attempts, order.least_networks)
        table = build(file, plan, measure, on_row)
    if unmade:
        raise DataError(_cannot_be_made(request.table_path, list(unmade.values())))
    return table


def _models(order: Order, subjects: Iterable[Subject], unmade: dict[Subject, str]) -> Iterator[Model]:
    """Write the files of subjects; those that have none are put into `unmade`."""
    for subject in subjects:
        try:
            model = order.model_of(subject)
        except DataError as error:
            unmade[subject] = str(error)
        else:
            yield model


def _cannot_be_made(path: Path, reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - _FEW} others" if len(reasons) > _FEW else ""
    return f"{path} holds all but what cannot be measured alone: {'; '.join(reasons[:_FEW])}{more}"


def all_ops(space: Space, dtypes: Sequence[str] = DTYPES) -> tuple[OpSpec, ...]:
    """List the space's reachable operators in these dtypes, the int8 files' QUANTIZE and DEQUANTIZE included."""
    plain = reachable_ops(space)
    edges = int8_graph(graph_of(space, space.reference())).ops
    quantized = (*(replace(op, dtype="int8") for op in plain), edges[0], edges[-1])
    return (*(plain if "float32" in dtypes else ()), *(quantized if "int8" in dtypes else ()))


def calibration_archs(space: Space, count: int = CALIBRATION_NETWORKS) -> list[Arch]:
    """Choose so many architectures to calibrate on, always the same: the reference, then for one half uniform ones from
    small to large, for the other ever lighter ones.

    A search under a target ends among the fast architectures, which uniform sampling hardly ever shows, and begins
    among those that it does; a fit without either would have to extrapolate. Weights that come from far, because a
    network takes so long that they are driven out meanwhile, show in those alone that are both heavy and long. A space
    of fewer architectures lends its layers to deeper ones.
    """
    rng = random.Random(_CALIBRATION_SEED)  # noqa: S311 - a choice of networks, not a secret
    half = count // 2
    archs = {space.reference(): None} | dict.fromkeys(_uniform(space, half - 1, rng))
    for _ in range(10 * count):  # a space of few architectures runs out of distinct ones
        if len(archs) == count:
            break
        lightness = _MAX_LIGHTNESS * (len(archs) - half) / max(1, count - half - 1)
        archs[_drawn(space, lightness, rng)] = None
    for deeper in _deeper(list(archs)):
        if len(archs) >= count:
            break
        archs[deeper] = None
    return list(archs)


def _uniform(space: Space, count: int, rng: random.Random) -> list[Arch]:
    """Draw architectures uniformly and choose some of them, spread evenly over their order by size."""
    drawn = [_drawn(space, 0.0, rng) for _ in range(_DRAWS * count)]
    drawn.sort(key=lambda arch: _size(space, arch))
    return [drawn[number * (len(drawn) - 1) // max(1, count - 1)] for number in range(count)]


def _drawn(space: Space, lightness: float, rng: random.Random) -> Arch:
    """Draw an architecture; so large a share of its decisions, at random, is taken the light way."""
    pairs = zip(space.decision_sizes, space.lightest, strict=True)
    return space.arch([least if rng.random() < lightness else rng.randrange(size) for size, least in pairs])


def _size(space: Space, arch: Arch) -> int:
    """Say how heavy and how long a network is: its weights times its multiplications."""
    ops = graph_of(space, arch).ops
    return sum(op.weight_bytes for op in ops) * sum(sizes_of(op).macs for op in ops)


def _deeper(archs: Sequence[Arch]) -> Iterator[Arch]:
    """Give all architectures with one layer more in each block, then with two, and so on."""
    for more in range(1, MAX_LAYERS):
        for arch in archs:
            blocks = tuple(replace(block, layers=block.layers + more) for block in arch.blocks)
            if max(block.layers for block in blocks) <= MAX_LAYERS:
                yield Arch(arch.space, blocks)


def _network_spec(space: Space, arch: Arch, dtype: str) -> NetworkSpec:
    return NetworkSpec(f"network:{dtype}:{arch}", dtype, tuple(graph_in(graph_of(space, arch), dtype).ops))


def _name(subject: Subject) -> str:
    return subject.key if isinstance(subject, OpSpec) else subject.name
