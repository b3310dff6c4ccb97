"""The command `edgekd table simulate`: a table from published figures, for want of the device.

The table is simulate.py's; the parser that this joins, cli_tables.py's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.cli_output import print_result

if TYPE_CHECKING:
    from edgekd.simulate import Compared

_ALL = "all"


def add_simulate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edgekd table simulate`."""
    parser.add_argument("device", help="device to simulate, such as pixel4, rpi4 or rpi5; it need not be attached")
    parser.add_argument("out", type=Path, metavar="OUT", help="table file to begin or complete")
    parser.add_argument("--space", default="mnasnet-28-narrow", help="search space whose operators to simulate")
    parser.add_argument("--dtype", choices=(_ALL, "float32", "int8"), default=_ALL, help="dtypes of the operators")


def simulate(options: argparse.Namespace) -> None:
    """Run `edgekd table simulate`; the warning that nothing was measured goes to stderr."""
    from edgekd.files import make_folder
    from edgekd.simulate import FITTED_DTYPES, SimulationRequest, compare, interval_error, processor_named, simulate
    from edgekd.spaces.mnasnet import space_named
    from latency_tables.op_spec import DTYPES

    processor, space = processor_named(options.device), space_named(options.space)
    dtypes = DTYPES if options.dtype == _ALL else (options.dtype,)
    make_folder(options.out.parent)
    table = simulate(SimulationRequest(processor, space, options.out, dtypes))
    warning = f"SIMULATED, not measured: no {processor.device} was asked; {options.out} holds a roofline's guesses"
    print(f"edgekd: {warning}", file=sys.stderr)
    intervals = {dtype: interval_error(processor, dtype) for dtype in dtypes}
    compared = compare(dtypes)
    text = [f"{options.out}: {len(table.rows)} simulated operators of {table.key.device} ({processor.core})"]
    text += [f"  {dtype}: networks may be off by {100 * error:.0f} %" for dtype, error in intervals.items()]
    text += ["  against published latencies:", *_comparison(compared)]
    result = {
        "table": str(options.out),
        "device": table.key.device,
        "source": "simulated",
        "rows": len(table.rows),
        "interval_error": intervals,
        "published": [
            {"network": c.figure.network, "dtype": c.figure.dtype, "device": c.figure.device}
            | {"published_ms": c.figure.ms, "simulated_ms": c.simulated_ms, "error": c.error}
            | {"is_fitted": c.figure.dtype in FITTED_DTYPES, "left_out_error": c.left_out_error}
            | {"source": c.figure.source}
            for c in compared
        ],
    }
    print_result(result, text, options.format)


def _comparison(compared: Sequence[Compared]) -> list[str]:
    lines = [
        f"    {c.figure.network:31} {c.figure.dtype:7} {c.figure.device:7} "
        f"{c.figure.ms:6.1f} ms published, {c.simulated_ms:6.1f} ms simulated ({100 * c.error:+.0f} %)"
        for c in compared
    ]
    means = [_mean_line(dtype, compared) for dtype in dict.fromkeys(c.figure.dtype for c in compared)]
    sources = dict.fromkeys(c.figure.source for c in compared)
    return [*lines, *means, *(f"    source: {source}" for source in sources)]


def _mean_line(dtype: str, compared: Sequence[Compared]) -> str:
    """Tell the mean error of a dtype, and whether it is that of a fit to these very figures."""
    from edgekd.simulate import FITTED_DTYPES

    of_dtype = [c for c in compared if c.figure.dtype == dtype]
    mean, left_out = (
        100 * sum(map(abs, errors)) / len(of_dtype)
        for errors in ([c.error for c in of_dtype], [c.left_out_error for c in of_dtype])
    )
    if dtype in FITTED_DTYPES:
        return f"    {dtype}: mean error {mean:.0f} %, fitted to these, {left_out:.0f} % of networks not fitted"
    return f"    {dtype}: mean error {mean:.0f} %, nothing fitted"
