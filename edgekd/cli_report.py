"""The command `edgekd report`: the page and table of one run, or the comparison of several.

It only reads run folders and writes what was asked for; what a report says is edgekd/report's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.cli_output import print_result
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from edgekd.report.charts import Chart

_ABOUT = (
    "Write a run's report.html and print its final table; with several runs, compare where their searches went and "
    "test, over whole runs, whether groups of other settings than the seed went to other regions."
)


def register(commands: Any) -> None:
    """Add the command to those of the parser."""
    report = commands.add_parser("report", help="report a run, or compare the searches of several", description=_ABOUT)
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder with at least a search")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="the page (default for one run: RUN/report.html)")
    report.add_argument("--plots", type=Path, metavar="FOLDER", help="write every plot as PNG, too")
    report.add_argument("--csv", type=Path, metavar="FOLDER", help="write what every plot shows as CSV, too")
    report.add_argument("--last", type=int, metavar="N", help="compare the last N samples of each run (default: 1/4)")
    report.add_argument(
        "--format", choices=("text", "json"), default="text", help="how the result is printed on stdout"
    )
    report.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Report one run, or compare several.

    Raises:
        UsageError: --last is no count, or there is nothing to compare.
        DataError, TableError: a run cannot be read, or the runs cannot be compared.
        CannotWrite: a file cannot be written.

    """
    if options.last is not None and (options.last < 1 or len(options.runs) < 2):
        raise UsageError(
            f"--last is {options.last}; it is a number of samples, from 1 on, in a comparison of several runs"
        )
    if len(options.runs) == 1:
        _report(options)
    else:
        _compare(options)


def _report(options: argparse.Namespace) -> None:
    from edgekd.report.charts import charts_of
    from edgekd.report.data import ReportData
    from edgekd.report.html import render
    from edgekd.report.scene import Scene
    from edgekd.report.text import as_json, final_table
    from edgekd.report.where import Where

    folder = options.runs[0]
    data = ReportData.load(folder)
    written = [_write_page(options.out or folder / "report.html", render(data))]
    if options.plots or options.csv:
        scene = Scene.of(data)
        written += _write_charts(options, charts_of(scene, Where.of(data, scene)))
    text = [final_table(data), *(f"report: {path}" for path in written)]
    print_result(as_json(data), text, options.format)


def _compare(options: argparse.Namespace) -> None:
    from edgekd.report.compare_charts import charts_of
    from edgekd.report.compare_html import render
    from edgekd.report.compare_text import as_json, compared_table
    from edgekd.report.comparison import Comparison

    comparison = Comparison.load(options.runs, options.last)
    written = [_write_page(options.out, render(comparison))] if options.out else []
    if options.plots or options.csv:
        written += _write_charts(options, charts_of(comparison))
    text = [compared_table(comparison), *([""] if written else []), *(f"report: {path}" for path in written)]
    print_result(as_json(comparison), text, options.format)


def _write_page(path: Path, page: str) -> Path:
    from edgekd.files import write_atomic

    write_atomic(path, page)
    return path


def _write_charts(options: argparse.Namespace, charts: Sequence[Chart]) -> list[Path]:
    """Write what was asked for, and name the folders."""
    from edgekd.report.chart_files import write_csv, write_png

    if options.csv:
        write_csv(options.csv, charts)
    if options.plots:
        write_png(options.plots, charts)
    return [folder for folder in (options.csv, options.plots) if folder]
