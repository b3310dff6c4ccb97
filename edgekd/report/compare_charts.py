"""What the plots of a comparison show, as tables of numbers that become CSV files and PNG pictures.

Next: charts.py, whose tables and charts these are; chart_files.py, which writes them.
"""

from __future__ import annotations

import math

from edgekd.report import analysis
from edgekd.report.charts import Chart, Row, Table, marginals
from edgekd.report.comparison import Comparison, all_samples


def charts_of(comparison: Comparison) -> tuple[Chart, ...]:
    """List the charts of a comparison."""
    shares = [(name, comparison.group_shares(group)) for group, name in enumerate(comparison.groups)]
    labels = {"best_so_far_percent": "best proxy accuracy so far under the target (%)", "index": "sample"}
    return (
        Chart(_projection(comparison), "Where the searches went", "component_1", "component_2", series="group",
              shade="time"),
        Chart(_bests(comparison), "Accuracy over the search", "index", "best_so_far_percent", series="group",
              labels=labels),
        Chart(_distances(comparison), "Distances of the last samples", "run", "other_run", "matrix", shade="distance"),
        Chart(marginals("decisions", comparison.decisions, shares), "Decisions", "samples", "option", "matrix",
              shade="share_percent"),
    )  # fmt: skip


def _projection(comparison: Comparison) -> Table:
    rows: list[Row] = []
    for (run, sample), place in zip(all_samples(comparison), comparison.projection.coordinates, strict=True):
        time = round(sample.index / max(1, len(run.study.samples) - 1), 4)
        rows.append((run.name, comparison.groups[run.group], sample.index, time, float(place[0]), float(place[1])))
    return Table("projection", ("run", "group", "index", "time", "component_1", "component_2"), tuple(rows))


def _bests(comparison: Comparison) -> Table:
    rows: list[Row] = []
    for run in comparison.runs:
        for sample, best in analysis.running_best(run.study.samples, run.target):
            rows.append((run.name, comparison.groups[run.group], sample.index, 100 * best))
    return Table("accuracy", ("run", "group", "index", "best_so_far_percent"), tuple(rows))


def _distances(comparison: Comparison) -> Table:
    names = [run.name for run in comparison.runs]
    rows = tuple(
        (a, b, None if math.isnan(value) else float(value))
        for a, row in zip(names, comparison.distances.tolist(), strict=True)
        for b, value in zip(names, row, strict=True)
    )
    return Table("distances", ("run", "other_run", "distance"), rows)
