#!/usr/bin/env python3
"""Find out by which reading of their samples fresh sessions agree best on the same networks, on a machine that others
use, too: why times are read as they are, and what is left to gain.

Every session is a process of its own that measures the same networks by the default stop rule, beside the network that
tables are measured beside, and with the space's reference network among them. A reading takes one number of each
network's samples; how far two successive sessions are apart by it is printed, like the errors of `bench_tables.py`.
Readings relative to another network say nothing of a session's own level. Predicts nothing. Needs Linux, the project's
environment and some minutes.

    .venv/bin/python tools/study_sessions.py [--json FILE] [--px 96] [--networks 16] [--sessions 4] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from bench_errors import errors_of
from bench_parts import Result, machine, positive, print_machine, space_options, write_result
from bench_workshop import FULL, QUICK, Host, NetworkFile, Workshop, warn

from edgekd.bench import Bench
from edgekd.graph.ir import graph_in
from edgekd.graph.micro import random_model
from edgekd.spaces.layers import graph_of
from latency_tables.op_spec import DTYPES
from latency_tables.schema import Measurement

SEED = 3141  # of the networks; those that the benchmark's bars are judged by are others
Session = Mapping[str, Measurement]  # by the network's name
Reading = Callable[[Measurement, Measurement], float]  # of a network, and of the reference in the same session


def main() -> int:
    """Measure, compare and write; give the exit code."""
    options = _options()
    result: Result = {"machine": machine(), "sessions": options.sessions, "disagreement": {}}
    print_machine(result["machine"])
    with tempfile.TemporaryDirectory(prefix="edgekd-study-") as name:
        scale = replace(QUICK if options.quick else FULL, heldout=options.networks)
        shop = Workshop(Path(name), scale, SEED)
        for dtype in DTYPES:
            cell = f"{dtype}@{options.px}"
            result["disagreement"][cell] = _disagreements(shop, options.px, dtype, options.sessions)
            _show(cell, result["disagreement"][cell])
    write_result(result, options.json)
    return 0


# --- readings ---------------------------------------------------------------------------------------------------------


def _tenth_ms(measurement: Measurement) -> float:
    return float(np.quantile(measurement.samples_ns, 0.1)) / 1e6


READINGS: dict[str, Reading] = {
    "fastest sample": lambda network, _: network.quiet_ms,
    "fastest tenth": lambda network, _: _tenth_ms(network),
    "median": lambda network, _: network.median_ms,
    "fastest sample / the reference's": lambda network, reference: network.quiet_ms / reference.quiet_ms,
    "fastest tenth / the reference's": lambda network, reference: _tenth_ms(network) / _tenth_ms(reference),
    "median / the reference's": lambda network, reference: network.median_ms / reference.median_ms,
    "beside another, visit by visit": lambda network, _: network.times_beside,
}


# --- sessions ---------------------------------------------------------------------------------------------------------


def _disagreements(shop: Workshop, px: int, dtype: str, sessions: int) -> Result:
    """Measure networks in so many sessions; give by reading how far successive ones are apart, each the mean of all."""
    networks, reference = shop.held_out(px, dtype), _reference(shop, px, dtype)
    measured = [_session([reference, *networks]) for _ in range(sessions)]
    found: Result = {}
    for name, reading in READINGS.items():
        read = [[reading(session[n.name], session[reference.name]) for n in networks] for session in measured]
        errors = [errors_of(later, earlier) for earlier, later in itertools.pairwise(read)]
        found[name] = {key: statistics.fmean(error[key] for error in errors) for key in errors[0]}
    return found


def _reference(shop: Workshop, px: int, dtype: str) -> NetworkFile:
    space = shop.space(px)
    graph = graph_in(graph_of(space, space.reference()), dtype)
    return NetworkFile.write(shop.folder / f"reference-{dtype}-{px}.tflite", partial(random_model, graph), graph.ops)


def _session(networks: Sequence[NetworkFile]) -> Session:
    with Bench(Host().find(), warn) as bench:
        return {row.subject: row for row in bench.measure(network.model for network in networks)}


def _show(cell: str, found: Result) -> None:
    print(f"{cell}: successive sessions are apart by (mean, median, within 5 %, Spearman)")
    for name, stats in found.items():
        figures = f"{stats['mean_ape']:7.2f} %{stats['median_ape']:7.2f} %{stats['within_5']:7.2f}"
        print(f"  {name:40}{figures}{stats['spearman']:9.4f}", flush=True)


def _options() -> argparse.Namespace:
    parser = space_options(__doc__, "networks")
    parser.add_argument("--networks", type=positive, default=16, metavar="N", help="beside the reference (default 16)")
    parser.add_argument("--sessions", type=_sessions, default=4, metavar="N", help="a dtype, 2 or more (default 4)")
    return parser.parse_args()


def _sessions(text: str) -> int:
    count = positive(text)
    if count < 2:
        raise argparse.ArgumentTypeError(f"{count} session has no other to agree with; name 2 or more")
    return count


if __name__ == "__main__":
    raise SystemExit(main())
