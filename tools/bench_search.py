#!/usr/bin/env python3
"""Measure edgekd's search: the engines' regret, the journal, the workers and the proxy task, each against its bars.

Every part prints its figures side by side and can be run alone. The regret part needs the public benchmarks' files in
--data and hours for all of its 720 studies; finished ones are kept in --work, so it can be stopped and started again
(empty the folder after changing an engine). Ends with 1 where a bar is missed.

    .venv/bin/python tools/bench_search.py --data DIR [--work DIR] [--parts regret,journal] [--quick] [--json FILE]
        [--engines akd,evolution] [--seeds 20] [--jobs 1]
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench_parts import Result, concluded, machine, positive, print_machine, shown
from bench_search_truth import ACCEL_FILE, MACRO_FILE

from edgekd.search.engines import ENGINES

PARTS = ("regret", "journal", "workers", "proxy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; give the exit code."""
    options = _options(arguments)
    result: Result = {"machine": machine(), "quick": options.quick}
    print_machine(result["machine"])
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as folder:
        for name in options.parts:
            part = importlib.import_module(f"bench_search_{name}")
            own = {"options": _regret_options(options, Path(folder))} if name == "regret" else {}
            found = shown(partial(part.run, quick=options.quick, **own))
            result |= found
            missed += part.missed_bars(found)
    return concluded(result, missed, options.json)


def _regret_options(options: argparse.Namespace, folder: Path) -> object:
    from bench_search_regret import RegretOptions

    seeds = tuple(range(options.first_seed, options.first_seed + options.seeds))
    return RegretOptions(options.data, options.work or folder, tuple(options.engines), seeds, options.jobs)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help=f"folder that holds {MACRO_FILE} and {ACCEL_FILE}")
    parser.add_argument("--work", type=Path, help="folder that keeps finished studies of the regret part")
    parser.add_argument("--parts", type=partial(_names, known=PARTS), default=PARTS, help=",".join(PARTS))
    parser.add_argument("--engines", type=partial(_names, known=tuple(ENGINES)), default=tuple(ENGINES))
    parser.add_argument("--seeds", type=positive, default=20, help="studies of each kind (20)")
    parser.add_argument("--first-seed", type=int, default=0, help="1000 and above for tuning, 0 for reporting")
    parser.add_argument("--jobs", type=positive, default=1, help="processes of the regret part (1)")
    parser.add_argument("--quick", action="store_true", help="a small share of everything, to see that it works")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    options = parser.parse_args(arguments)
    needed = (MACRO_FILE,) if options.quick else (MACRO_FILE, ACCEL_FILE)
    if "regret" in options.parts and not (options.data and all((options.data / name).is_file() for name in needed)):
        parser.error(f"the regret part needs --data DIR with {MACRO_FILE} and {ACCEL_FILE}; or choose other --parts")
    return options


def _names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
