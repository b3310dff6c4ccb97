#!/usr/bin/env python3
"""Find out which mix of measurements predicts whole networks best for its device time: why a profile is as it is.

Isolated operators, operators inside whole networks (the runtime's own per-node profile) and whole networks to calibrate
on are measured once; every mix of them then predicts the same held-out networks, which are not those that
`bench_tables.py` sets its bars on. Besides: how well hidden rows are estimated from the rest, and what the runtime
fuses, told by T1 + T2 against T12. Needs Linux, the project's environment and some minutes.

    .venv/bin/python tools/study_tables.py [--json FILE] [--px 96] [--held-out 60] [--quick]
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_errors import errors_of, interval_coverage
from bench_parts import Result, machine, positive, print_machine, space_options, write_result
from bench_workshop import FULL, QUICK, Host, Workshop, warn
from study_context import Context, nodes_of

from edgekd.bench import Bench, Model
from edgekd.graph.micro import micro_model
from latency_tables.builder import FIXED_COST_OPS, fixed_cost_ms
from latency_tables.calibrate import TERMS, Calibration, calibrate, own_ms, uncalibrated
from latency_tables.errors import OpNotInTable
from latency_tables.fetching import Work
from latency_tables.fitting import Observation
from latency_tables.op_spec import DTYPES, OpSpec, TensorSpec
from latency_tables.predictor import Predictor
from latency_tables.schema import Measurement, Prediction
from latency_tables.speed import Speed
from latency_tables.store import LatencyTable

Floats = npt.NDArray[np.float64]
CALIBRATIONS = (8, 12, 20)  # networks
MOST = max(CALIBRATIONS)
SEED = 2718  # of the held-out networks; a default chosen on the benchmark's own would flatter it


def main() -> int:
    """Measure, compare and write; give the exit code."""
    options = _options()
    result: Result = {"machine": machine()}
    print_machine(result["machine"])
    with tempfile.TemporaryDirectory(prefix="edgekd-study-") as name:
        scale = replace(QUICK if options.quick else FULL, heldout=options.held_out, calibration=MOST)
        shop = Workshop(Path(name), scale, SEED)
        cells = {f"{dtype}@{options.px}": mixes_part(shop, options.px, dtype) for dtype in DTYPES}
        result["in_context"] = {name: context for name, (_, context) in cells.items()}
        result["mixes"] = {name: mixes for name, (mixes, _) in cells.items()}
        result["estimates"] = estimates_part(shop.profiled(options.px).table)
    result["fusion"] = fusion_part()
    write_result(result, options.json)
    return 0


# --- mixes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """All that was measured of one dtype at one resolution; ms, by operator key or in the networks' order."""

    dtype: str
    table: LatencyTable
    speed: Speed  # the table's
    calibration: list[tuple[OpSpec, ...]]
    calibration_ms: list[float]
    context: Context
    seconds: Mapping[str, float]  # of device time: rows, networks

    def row_ms(self, op: OpSpec) -> float:
        """Give an operator's isolated time, at the speed that the table speaks of."""
        return self.speed.quiet_ms(self.table.rows[op.key])

    def own_ms(self, op: OpSpec) -> float:
        """Give an operator's isolated time without the fixed cost of a call."""
        return own_ms(self.row_ms(op), fixed_cost_ms(self.table, self.dtype, self.speed))

    def in_context_ms(self, op: OpSpec) -> float:
        """Give an operator's time inside networks; one that no network held has its isolated time, put right by what
        its kind costs inside beside outside.
        """
        return self.context.op_ms.get(op.key) or self.own_ms(op) * self._kind_ratio(op.kind)

    def blended_ms(self, op: OpSpec) -> float:
        """Give an operator's isolated time, put right by its kind's ratio."""
        return self.own_ms(op) * self._kind_ratio(op.kind)

    def _kind_ratio(self, kind: str) -> float:
        inside = outside = 0.0
        for key, ms in self.context.op_ms.items():
            if key.startswith(f"{kind};"):
                inside, outside = inside + ms, outside + self.own_ms(OpSpec.parse(key))
        return inside / outside if inside and outside else 1.0


Times = Callable[[OpSpec], float]
Mix = tuple[float, Callable[[Sequence[OpSpec]], float]]  # device seconds, and a network's ms
COLUMNS = ("rows", "operators", "weight_mb", "constant")


def mixes_part(shop: Workshop, px: int, dtype: str) -> tuple[Result, Result]:
    """Predict held-out networks by every mix, each with its device seconds; say also how much was read in context."""
    files = shop.held_out(px, dtype)
    known = _measured(shop, px, dtype)
    measured, again = (shop.measured(files, known.table).ms for _ in range(2))
    print(f"{dtype}@{px}, {len(files)} held-out networks; device seconds, mean and median error")
    found = {"measured again": {"seconds": 0.0, **errors_of(again, measured)}}
    for name, (seconds, predict) in _mixes(known).items():
        found[name] = {"seconds": seconds, **errors_of([predict(file.ops) for file in files], measured)}
    for name, stats in found.items():
        print(f"  {name:58}{stats['seconds']:7.1f} s{stats['mean_ape']:7.2f} %{stats['median_ape']:7.2f} %", flush=True)
    left_out = "" if known.context.is_enough else ": too little for a mix, left out"
    print(f"  the runtime's profiler could be read for {known.context}{left_out}", flush=True)
    return found, known.context.counts


def _mixes(known: Known) -> dict[str, Mix]:
    """Name every mix, what it costs, and how it predicts."""
    rows, networks = (known.seconds[name] for name in ("rows", "networks"))
    mixes: dict[str, Mix] = {"isolated rows": (rows, lambda ops: sum(map(known.row_ms, ops)))}
    for count in CALIBRATIONS:
        cost = rows + networks * count / MOST
        for columns in ((0,), (0, 3), (0, 1), (0, 1, 3), (0, 1, 2, 3)):
            name = f"rows, {count} networks: {' + '.join(COLUMNS[column] for column in columns)}"
            mixes[name] = (cost, _least_squares(known, known.row_ms, columns, count))
        mixes[f"rows - fixed cost, {count} networks, held near physics"] = (
            cost,
            _with_prior(known, known.own_ms, count),
        )
    return mixes | _in_context_mixes(known) if known.context.is_enough else mixes


def _in_context_mixes(known: Known) -> dict[str, Mix]:
    plain = known.seconds["rows"] + known.context.seconds
    cost = plain + known.seconds["networks"]
    return {
        "in context, uncalibrated": (plain, lambda ops: sum(map(known.in_context_ms, ops))),
        "in context, held near physics": (cost, _with_prior(known, known.in_context_ms, MOST)),
        "rows by kind's ratio in context, held near physics": (cost, _with_prior(known, known.blended_ms, MOST)),
    }


def _least_squares(
    known: Known, times: Times, columns: tuple[int, ...], count: int
) -> Callable[[Sequence[OpSpec]], float]:
    """Fit some coefficients by plain least squares on relative errors."""
    measured = np.array(known.calibration_ms[:count])
    features = np.array([_features(ops, times) for ops in known.calibration[:count]])[:, columns]
    solution = np.linalg.lstsq(features / measured[:, None], np.ones(count), rcond=None)[0]
    return lambda ops: float(_features(ops, times)[list(columns)] @ solution)


def _with_prior(known: Known, times: Times, count: int) -> Callable[[Sequence[OpSpec]], float]:
    """Fit as a table does."""
    pairs = zip(known.calibration[:count], known.calibration_ms[:count], strict=True)
    observations = [Observation(_works(ops, times), ms) for ops, ms in pairs]
    fit = calibrate(observations, fixed_cost_ms(known.table, known.dtype, known.speed))

    def predicted_ms(ops: Sequence[OpSpec]) -> float:
        return float(fit.sum_ms(sum(map(fit.terms, _works(ops, times)), np.zeros(TERMS))))

    return predicted_ms


def _works(ops: Sequence[OpSpec], times: Times) -> tuple[Work, ...]:
    return tuple(Work.of(op, times(op)) for op in ops)


def _features(ops: Sequence[OpSpec], times: Times) -> Floats:
    return np.array([sum(map(times, ops)), len(ops), sum(op.weight_bytes for op in ops) / 1e6, 1.0])


def _measured(shop: Workshop, px: int, dtype: str) -> Known:
    table = shop.profiled(px).table
    networks = [network for network in table.networks.values() if network.dtype == dtype]
    ops = [tuple(map(OpSpec.parse, network.op_keys)) for network in networks]
    makers = {spec.name: make for spec, make in shop.order(px).networks.items()}
    with Bench(Host().find(), warn) as bench:
        nodes = [nodes_of(bench, Model(network.name, makers[network.name](), "network")) for network in networks]
    context = Context.of(list(zip(ops, nodes, strict=True)))
    seconds = {
        "rows": sum(_seconds(row) for key, row in table.rows.items() if f";{dtype};" in key),
        "networks": sum(_seconds(network.measurement) for network in networks),
    }
    speed = table.speed
    ms = [speed.quiet_ms(network.measurement) for network in networks]
    return Known(dtype, table, speed, ops, ms, context, seconds)


def _seconds(measurement: Measurement) -> float:
    """Give the device time of one subject: loading it, its warm-up and its samples."""
    samples = sum(measurement.samples_ns) * measurement.inferences_per_sample
    return (measurement.init_ns + measurement.warmup_ns + samples) / 1e9


# --- operators that were never measured -------------------------------------------------------------------------------

HIDDEN_SHARE = 5  # one row in so many is hidden
DRAWS = 4


def estimates_part(table: LatencyTable) -> Result:
    """Hide rows of a table and let a prediction estimate them from the rest."""
    found, speed = {}, table.speed
    print(f"rows estimated from others, one in {HIDDEN_SHARE} hidden, {DRAWS} draws")
    for dtype in DTYPES:
        fixed_ms = fixed_cost_ms(table, dtype, speed)
        pairs = [pair for seed in range(DRAWS) for pair in _hidden(table, dtype, seed)]
        measured = [own_ms(speed.quiet_ms(table.rows[key]), fixed_ms) for key, _ in pairs]
        estimates = [estimate for _, estimate in pairs]
        stats = errors_of([estimate.total_ms for estimate in estimates], measured)
        found[dtype] = {**stats, "interval_coverage": interval_coverage(estimates, measured)}
        print(
            f"  {dtype:8} mean {stats['mean_ape']:.2f} %, median {stats['median_ape']:.2f} %, within 5 % "
            f"{stats['within_5']:.2f}, 10 % {stats['within_10']:.2f}, interval {found[dtype]['interval_coverage']:.2f}"
        )
    return found


def _hidden(table: LatencyTable, dtype: str, seed: int) -> list[tuple[str, Prediction]]:
    """Hide a random share of a dtype's rows; give the key of each that the rest can tell, and its estimate alone."""
    fixed_cost_op = FIXED_COST_OPS[dtype]  # what all rows are freed of stays
    keys = sorted(op.key for op in map(OpSpec.parse, table.rows) if op.dtype == dtype and op != fixed_cost_op)
    hidden = random.Random(seed).sample(keys, len(keys) // HIDDEN_SHARE)  # noqa: S311 - a choice of rows, not a secret
    rows = {key: row for key, row in table.rows.items() if key not in set(hidden)}
    predictor = Predictor(LatencyTable(table.key, rows, {}, {dtype: _plain(table, dtype)}), dtype, with_estimates=True)
    found = []
    for key in hidden:
        with suppress(OpNotInTable):  # the only row of its kind
            found.append((key, predictor.predict([OpSpec.parse(key)])))
    return found


def _plain(table: LatencyTable, dtype: str) -> Calibration:
    """Give the calibration that adds nothing to an operator's estimate, and leaves its interval as it is."""
    fixed_ms = fixed_cost_ms(table, dtype, Speed(0, table.beside_ns))
    return replace(uncalibrated(fixed_ms), offset_ms=0.0, interval_error=0.0)


# --- what the runtime fuses -------------------------------------------------------------------------------------------

_MAP = (TensorSpec((1, 28, 28, 64)),)
_PADDED = (TensorSpec((1, 30, 30, 64)),)
_PADDINGS = TensorSpec((4, 2), constant=True, dtype="int32", values=(0, 0, 1, 1, 1, 1, 0, 0))
_PAD = OpSpec("pad", (*_MAP, _PADDINGS), "float32", out=((1, 30, 30, 64),))
_ADD = OpSpec("add", (*_MAP, *_MAP), "float32")
_CONV = OpSpec("conv_2d", _MAP, "float32", 64, (3, 3))
_DEPTHWISE = OpSpec("depthwise_conv_2d", _MAP, "float32", 64, (3, 3))
# first operator, second operator, both as one row
PAIRS: dict[str, tuple[OpSpec, OpSpec, OpSpec]] = {
    **{
        f"{op.kind} + {act}": (op, OpSpec(act, _MAP, "float32", out=((1, 28, 28, 64),)), replace(op, then=act))
        for op in (_CONV, _DEPTHWISE, _ADD)
        for act in ("relu", "relu6")
    },
    **{
        f"pad + {op.kind}": (
            _PAD,
            replace(op, inputs=_PADDED, padding="valid"),
            replace(op, padding="valid", pad=(1, 1, 1, 1)),
        )
        for op in (_CONV, _DEPTHWISE)
    },
}


def fusion_part() -> Result:
    """Measure pairs of operators alone and together; a runtime that fuses pays for one of them only."""
    ops = {op.key: op for pair in PAIRS.values() for op in pair} | {
        FIXED_COST_OPS["float32"].key: FIXED_COST_OPS["float32"]
    }
    with Bench(Host().find(), warn) as bench:
        rows = bench.measure_settled([Model(key, micro_model(op)) for key, op in ops.items()])
    fixed_ms = rows[FIXED_COST_OPS["float32"].key].quiet_ms
    us = {key: 1000 * own_ms(row.quiet_ms, fixed_ms) for key, row in rows.items()}
    found = {}
    print("what the runtime fuses, µs without the fixed cost of a call")
    for name, (first, second, both) in PAIRS.items():
        t1, t2, t12 = us[first.key], us[second.key], us[both.key]
        is_fused = t12 < t1 + t2 - min(t1, t2) / 2
        found[name] = {"t1_us": t1, "t2_us": t2, "t12_us": t12, "is_fused": is_fused}
        print(f"  {name:28} T1 {t1:7.2f}  T2 {t2:7.2f}  T12 {t12:7.2f}  {'fused' if is_fused else 'not fused'}")
    return found


def _options() -> argparse.Namespace:
    parser = space_options(__doc__, "few networks")
    parser.add_argument("--held-out", type=positive, default=60, metavar="N", help="networks to judge by (default 60)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
