#!/usr/bin/env python3
"""Measure how well a latency table predicts whole networks, beside simpler ways, and what it costs.

Networks that no calibration has seen, of the tables' spaces and of other families, are measured in fresh processes and
predicted from tables that `edgekd profile`, with and without --quick, measures in the same run; measuring them again
says how well anything could do. All of them, tables, predictions and measurements, are told beside one network a dtype
and at the speed that the table speaks of: how fast the machine was meanwhile is no error of a table. Besides: device
time against one process of the runtime's own benchmark a row, predictions a second, the time to read a table. Ends with
1 where a bar is missed. Needs Linux, the project's environment, 20 GB of disk and half an hour.

    .venv/bin/python tools/bench_tables.py [--json FILE] [--parts heldout,other_family] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench_costs import device_part, load_part, predictions_part
from bench_errors import OpCountFit, both_ms, compared, errors_of, print_stats
from bench_families import PX, family_graphs
from bench_foreign import third_party_part
from bench_parts import Result, concluded, machine, positive, print_machine, shown
from bench_workshop import ALONE, FULL, QUICK, RESOLUTIONS, Condition, NetworkFile, Scale, Workshop

from edgekd.graph.ir import graph_in
from edgekd.graph.micro import random_model
from edgekd.sentinels import network_name
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.predictor import Predictor
from latency_tables.store import LatencyTable

LOADED, TWO_THREADS = Condition(loaded=True), Condition(threads=2)

MAX_MEDIAN_PERCENT, MAX_MEAN_PERCENT = 1.0, 1.5
QUIET_REPEAT_PERCENT = 1.0  # mean error of measuring again, below which the two bars above hold; otherwise:
MAX_OF_REPEAT = 1.5  # × the errors of measuring again
MIN_WITHIN_5_HIGH = 0.99
MIN_SPEARMAN = 0.995
MAX_OTHER_MEAN_PERCENT, MIN_OTHER_WITHIN_10 = 5.0, 0.95
MIN_FOREIGN_WITHIN_10 = 0.90  # of the files that the runtime runs
MIN_COVERAGE, MAX_COVERAGE = 0.85, 0.95  # of 90 % intervals
MIN_DEVICE_RATIO = 30.0
MIN_VECTORISED_PER_S = 1_000_000.0
MAX_LOAD_SECONDS = 0.3

Stats = Mapping[str, float]


def main() -> int:
    """Measure, print and write; give the exit code."""
    options = _options()
    result: Result = {"machine": machine(), "quick": options.quick}
    print_machine(result["machine"])
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as name:
        shop = Workshop(Path(name), _scale(options))
        parts = {part: PARTS[part] for part in PARTS if part in options.parts}
        if options.third_party:
            parts["third_party"] = partial(third_party_part, folder=options.third_party)
        if options.two_threads:
            parts["two_threads"] = two_threads_part
        for part in parts.values():
            result |= shown(partial(part, shop))
    return concluded(result, missed_bars(result), options.json)


# --- bars -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """A number and its limit, the most or the least that it may be."""

    name: str
    value: float
    limit: float
    is_most: bool = True

    @property
    def missed(self) -> str:
        """Say how the limit is missed; empty where it holds, and reaching it exactly is enough."""
        if self.value <= self.limit if self.is_most else self.value >= self.limit:
            return ""
        return f"{self.name} {self.value:.4g} is {'above' if self.is_most else 'below'} {self.limit:.4g}"


def missed_bars(result: Result) -> list[str]:
    """Say which bars a result does not reach, of the parts that it has."""
    return [bar.missed for bar in _bars(result) if bar.missed]


def _bars(result: Result) -> Iterator[Bar]:
    for part in ("heldout", "heldout_loaded"):
        for cell, methods in result.get(part, {}).items():
            yield from _heldout_bars(f"{part}.{cell}", methods)
    for dtype, methods in result.get("other_family", {}).items():
        name, stats = f"other_family.{dtype}.edgekd", methods["edgekd"]
        yield Bar(f"{name}.mean_ape", stats["mean_ape"], MAX_OTHER_MEAN_PERCENT)
        yield Bar(f"{name}.within_10", stats["within_10"], MIN_OTHER_WITHIN_10, is_most=False)
    if foreign := result.get("third_party"):
        yield Bar("third_party.within_10", foreign["within_10"], MIN_FOREIGN_WITHIN_10, is_most=False)
    if (coverage := result.get("interval_coverage")) is not None:
        yield Bar("interval_coverage", coverage, MIN_COVERAGE, is_most=False)
        yield Bar("interval_coverage", coverage, MAX_COVERAGE)
    if seconds := result.get("device_seconds"):
        ratio = seconds["process_per_row"] / seconds["edgekd"]
        yield Bar("device_seconds ratio", ratio, MIN_DEVICE_RATIO, is_most=False)
        ratio = seconds["process_per_quick_row"] / seconds["quick"]
        yield Bar("device_seconds ratio of --quick", ratio, MIN_DEVICE_RATIO, is_most=False)
    if speeds := result.get("predictions_per_s"):
        yield Bar("predictions_per_s.vectorised", speeds["vectorised"], MIN_VECTORISED_PER_S, is_most=False)
    if "load_table_5000_s" in result:
        yield Bar("load_table_5000_s", result["load_table_5000_s"], MAX_LOAD_SECONDS)


def _heldout_bars(cell: str, methods: Mapping[str, Stats]) -> Iterator[Bar]:
    name = f"{cell}.edgekd"
    ours, repeat = methods["edgekd"], methods["repeat"]
    is_quiet = repeat["mean_ape"] < QUIET_REPEAT_PERCENT
    for error, most in (("median_ape", MAX_MEDIAN_PERCENT), ("mean_ape", MAX_MEAN_PERCENT)):
        yield Bar(f"{name}.{error}", ours[error], most if is_quiet else MAX_OF_REPEAT * repeat[error])
    yield Bar(f"{name}.within_5_high", ours["within_5_high"], MIN_WITHIN_5_HIGH, is_most=False)
    yield Bar(f"{name}.spearman", ours["spearman"], MIN_SPEARMAN, is_most=False)
    for other in ("isolated_sum", "op_count_fit"):
        yield Bar(f"{name}.mean_ape beside {other}'s", ours["mean_ape"], methods[other]["mean_ape"])
    if quick := methods.get("quick"):  # for its few seconds it must at least beat plain sums of the full table's rows
        theirs = methods["isolated_sum"]["mean_ape"]
        yield Bar(f"{cell}.quick.mean_ape beside isolated_sum's", quick["mean_ape"], theirs)


# --- networks of the tables' spaces -----------------------------------------------------------------------------------


def heldout_part(shop: Workshop) -> Result:
    """Predict and measure held-out networks of each resolution and dtype, one thread."""
    cells = _cells(shop, ALONE)
    inside = [hit for cell in cells.values() for hit in cell.inside]
    coverage = statistics.fmean(inside)
    print(f"interval_coverage: {100 * coverage:.1f} % of {len(inside)} measurements are inside their 90 % interval")
    return {
        "heldout": {name: cell.stats for name, cell in cells.items()},
        "interval_coverage": coverage,
        **_raw("heldout", cells),
    }


def loaded_part(shop: Workshop) -> Result:
    """Do the same, tables included, while another process keeps a core busy."""
    cells = _cells(shop, LOADED)
    return {
        "heldout_loaded": {name: cell.stats for name, cell in cells.items()},
        **_raw("heldout_loaded", cells),
    }


def two_threads_part(shop: Workshop) -> Result:
    """Do the same at the larger resolution on the wall clock with two threads; no bar."""
    px = max(shop.scale.resolutions)
    cells = {f"{dtype}@{px}": Cell.measured(shop, px, dtype, TWO_THREADS) for dtype in DTYPES}
    return {"two_threads": {name: cell.stats for name, cell in cells.items()}}


def _raw(part: str, cells: Mapping[str, Cell]) -> Result:
    return {
        f"{part}_ms": {name: cell.ms for name, cell in cells.items()},
        f"{part}_slowdown": {name: cell.slowdown for name, cell in cells.items()},
    }


def _cells(shop: Workshop, condition: Condition) -> dict[str, Cell]:
    pairs = itertools.product(shop.scale.resolutions, DTYPES)
    return {f"{dtype}@{px}": Cell.measured(shop, px, dtype, condition) for px, dtype in pairs}


@dataclass(frozen=True, slots=True)
class Cell:
    """One dtype at one resolution: each method's errors, all its ms, and which measurements an interval held."""

    stats: dict[str, Stats]
    ms: dict[str, list[float]]
    slowdown: list[list[float]]  # of the machine beside the table's usual speed, by session and network
    inside: list[bool]

    @staticmethod
    def measured(shop: Workshop, px: int, dtype: str, condition: Condition) -> Cell:
        """Measure the networks once for reference and again a few times, each in a fresh process, and predict them."""
        files = shop.held_out(px, dtype)  # before a device is held, which would wait for them
        table = shop.profiled(px, condition).table
        rough = shop.rough(px).table if condition == ALONE else None
        print(f"{dtype}@{px}: {len(files)} networks measured {1 + shop.scale.pairs} times", flush=True)
        runs = [shop.measured(files, table, condition) for _ in range(1 + shop.scale.pairs)]
        reference, *again = (run.ms for run in runs)
        ops = [file.ops for file in files]
        found = [Predictor(table, dtype).predict(each) for each in ops]
        ms = {"reference": reference, **simple_predictions(table, dtype, ops)}
        ms["edgekd"] = [one.total_ms for one in found]
        if rough:
            of_level = _level(table, dtype) / _level(rough, dtype)  # each speaks at the speed of its own minutes
            ms["quick"] = [of_level * Predictor(rough, dtype).predict(each).total_ms for each in ops]
        stats: dict[str, Stats] = {
            method: errors_of(of, reference) for method, of in ms.items() if method != "reference"
        }
        ms |= {f"repeat_{i}": run for i, run in enumerate(again, 1)}
        ms |= {f"raw_{i}": run.raw_ms for i, run in enumerate(runs)}  # of the reference, then of each repeat
        stats["repeat"] = _median([errors_of(run, reference) for run in again])
        print_stats(stats)
        inside = [one.low_ms <= measured <= one.high_ms for one, measured in zip(found, reference, strict=True)]
        return Cell(stats, ms, [run.slowdown for run in runs], inside)


def _level(table: LatencyTable, dtype: str) -> float:
    """Give the speed that a table speaks of, in ns that the network beside all others takes; 1 where none was."""
    return table.beside_ns.get(network_name(dtype), 1)


def simple_predictions(table: LatencyTable, dtype: str, networks: Sequence[Sequence[OpSpec]]) -> dict[str, list[float]]:
    """Predict networks by plain sums of rows, and by an operator-count fit on the networks of the calibration."""
    speed = table.speed
    known = [network for network in table.networks.values() if network.dtype == dtype]
    fit = OpCountFit.of(
        [[OpSpec.parse(key) for key in network.op_keys] for network in known],
        [speed.quiet_ms(network.measurement) for network in known],
    )
    row_ms = {key: speed.quiet_ms(row) for key, row in table.rows.items()}
    return {
        "isolated_sum": [sum(row_ms[op.key] for op in ops) for ops in networks],
        "op_count_fit": [fit.predict_ms(ops) for ops in networks],
    }


def _median(runs: Sequence[Stats]) -> Stats:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


# --- other networks ---------------------------------------------------------------------------------------------------


def other_family_part(shop: Workshop) -> Result:
    """Predict networks of other families from a space's table, in which operators that it lacks are measured too."""
    graphs = family_graphs(PX, shop.scale.of_each_family)
    stats, ms, slowdown = {}, {}, {}
    for dtype in DTYPES:
        made = {name: graph_in(graph, dtype) for name, graph in graphs.items()}
        folder = shop.folder / f"families-{dtype}"
        files = [
            NetworkFile.write(folder / f"{name}.tflite", partial(random_model, graph), graph.ops)
            for name, graph in made.items()
        ]
        table = shop.completed(PX, [op for file in files for op in file.ops])
        measured = shop.settled(files, table)
        found = dict(zip(made, [Predictor(table, dtype).predict(file.ops) for file in files], strict=True))
        print(f"other families, {dtype}, {len(files)} networks")
        stats[dtype] = {"edgekd": compared(found, measured.ms)}
        ms[dtype], slowdown[dtype] = both_ms(found, measured.ms), measured.slowdown
    return {"other_family": stats, "other_family_ms": ms, "other_family_slowdown": slowdown}


# --- common -----------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Workshop], Result]] = {
    "device_seconds": device_part,  # first: it times a table's measurement between others
    "heldout": heldout_part,
    "heldout_loaded": loaded_part,
    "other_family": other_family_part,
    "predictions_per_s": predictions_part,
    "load_table": load_part,
}


def _scale(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else FULL
    wanted = {"heldout": options.held_out, "pairs": options.pairs, "resolutions": options.px}
    return replace(scale, **{name: value for name, value in wanted.items() if value is not None})


def _folder(text: str) -> Path:
    if not Path(text).is_dir():  # told now, not after half an hour
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return Path(text)


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    return names


def _resolutions(text: str) -> tuple[int, ...]:
    if unknown := sorted(set(text.split(",")) - set(map(str, RESOLUTIONS))):
        raise argparse.ArgumentTypeError(f"unknown resolution {unknown[0]!r}; known: {_spelled(RESOLUTIONS)}")
    return tuple(map(int, text.split(",")))


def _spelled(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _options(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), metavar="A,B", help=f"only {', '.join(PARTS)}")
    parser.add_argument("--third-party", type=_folder, metavar="FOLDER", help="also predict the .tflite files below it")
    parser.add_argument("--two-threads", action="store_true", help="also measure and predict with two threads, no bar")
    parser.add_argument("--held-out", type=positive, metavar="N", help=f"networks of a cell (default {FULL.heldout})")
    parser.add_argument(
        "--pairs", type=positive, metavar="N", help=f"times they are measured again (default {FULL.pairs})"
    )
    known = _spelled(RESOLUTIONS)
    parser.add_argument("--px", type=_resolutions, metavar="A,B", help=f"of held-out networks (default {known})")
    parser.add_argument("--quick", action="store_true", help="few networks of small spaces: a trial, no result")
    return parser.parse_args(list(arguments) if arguments is not None else None)


if __name__ == "__main__":
    raise SystemExit(main())
