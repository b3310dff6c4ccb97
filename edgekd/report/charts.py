"""What the plots of a run show, as tables of numbers: the same data become CSV files and PNG pictures.

A table's columns bear their units; a chart says how one table is drawn. Does not draw (png.py) and does not write
(chart_files.py). Next: compare_charts.py, the same of a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekd.report import analysis
from edgekd.report.plots import Histogram
from edgekd.report.regions import Decision, Floats
from edgekd.report.scene import Scene, Series
from edgekd.report.where import Where

Cell = str | int | float | None
Row = tuple[Cell, ...]
FRONT = "front_percent"  # the column of accuracies on the Pareto front, which a staircase goes through


@dataclass(frozen=True)
class Table:
    """Plotted data: a name, columns with units, rows. None is a value that there is not."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, name: str) -> list[Cell]:
        """Give the values of one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Chart:
    """A table and how it is drawn.

    `kind` is points (a mark a row, at `x` and `y`), bars (from `x` to the column after it, `y` high) or matrix (a cell
    a row, at `x` and all columns up to `shade`, which colours it). `line` is a second y column that a line goes
    through; `series` the column whose values have a colour each; `shade` of points a column from 0 (early) to 1
    (late). `rules_x` and `rules_y` are target lines. `labels` words columns for the axes.
    """

    table: Table
    title: str
    x: str
    y: str
    kind: str = "points"
    series: str = "study"
    line: str = ""
    shade: str = ""
    rules_x: tuple[float, ...] = ()
    rules_y: tuple[float, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def label(self, column: str) -> str:
        """Word a column for an axis."""
        return self.labels.get(column, column.replace("_", " "))


def charts_of(scene: Scene, where: Where) -> tuple[Chart, ...]:
    """List the charts of a run, (A) to (F)."""
    targets = tuple(target.ms for target in scene.targets)
    latency = latency_column(scene)
    labels = {
        latency: scene.latency_title, "low_ms": scene.latency_title, "share_percent": "share of the samples (%)",
        "proxy_accuracy_percent": "proxy accuracy (%)", "index": "sample", "macs": "multiply-accumulates",
    }  # fmt: skip
    accuracy = "proxy_accuracy_percent"
    return (
        Chart(_histogram(scene), "Latencies that were sampled", "low_ms", "share_percent", "bars", rules_x=targets[:1],
              labels=labels),
        Chart(_scatter(scene), "Accuracy against latency", latency, accuracy, line=FRONT, rules_x=targets,
              labels=labels),
        Chart(_latencies(scene), "Latency over the search", "index", latency, line="running_median_ms", rules_y=targets,
              labels=labels),
        Chart(_accuracies(scene), "Accuracy over the search", "index", accuracy, line="best_so_far_percent",
              labels=labels),
        Chart(_operations(scene), "Latency against operations", "macs", latency, rules_y=targets, labels=labels),
        Chart(_projection(scene, where), "Where the search went", "component_1", "component_2", shade="time"),
        Chart(marginals("decisions", where.decisions, [(p.name, p.shares) for p in where.parts]), "Decisions",
              "samples", "option", "matrix", shade="share_percent"),
    )  # fmt: skip


def latency_column(scene: Scene) -> str:
    """Name the column of latencies: what they are, their dtype and unit."""
    return f"{scene.latency_word}_{scene.target.dtype}_ms"


def marginals(name: str, decisions: Sequence[Decision], columns: Sequence[tuple[str, Floats]]) -> Table:
    """List the share of each option among each set of samples."""
    names = [(decision.name, option) for decision in decisions for option in decision.options]
    rows = tuple(
        (label, decision, option, round(100 * float(share), 6))
        for label, shares in columns
        for (decision, option), share in zip(names, shares, strict=True)
    )
    return Table(name, ("samples", "decision", "option", "share_percent"), rows)


def _histogram(scene: Scene) -> Table:
    counted = Histogram.of(scene)
    rows = tuple(
        (series.name, low, high, count, share)
        for series, counts, shares in zip(scene.series, counted.counts, counted.shares, strict=True)
        for low, high, count, share in zip(counted.edges_ms, counted.edges_ms[1:], counts, shares, strict=False)
    )
    return Table("histogram", ("study", "low_ms", "high_ms", "samples", "share_percent"), rows)


def _scatter(scene: Scene) -> Table:
    target, front = scene.target, {p.key for p in analysis.pareto_front(scene.points, scene.target)}
    rows = []
    for series in scene.series:
        for point in series.rated:
            sample, accuracy = point.sample, 100 * point.sample.proxy_accuracy
            figures = (target.latency_ms(sample), accuracy, accuracy if point.key in front else None)
            rows.append((series.name, sample.index, *figures, sample.arch))
    columns = ("study", "index", latency_column(scene), "proxy_accuracy_percent", FRONT, "arch")
    return Table("scatter", columns, tuple(rows))


def _latencies(scene: Scene) -> Table:
    rows: list[Row] = []
    for series in scene.series:
        values = [scene.target.latency_ms(p.sample) for p in series.points]
        medians = analysis.running_median(values)
        for point, value, median in zip(series.points, values, medians, strict=True):
            rows.append((series.name, point.sample.index, value, median, point.sample.failure))
    columns = ("study", "index", latency_column(scene), "running_median_ms", "failure")
    return Table("latency", columns, tuple(rows))


def _accuracies(scene: Scene) -> Table:
    """List accuracies; a failed sample has none."""
    rows: list[Row] = []
    for series in scene.series:
        best = _bests(series, scene)
        for point in series.points:
            accuracy = None if point.sample.failure else 100 * point.sample.proxy_accuracy
            rows.append((series.name, point.sample.index, accuracy, best.get(point.sample.index), point.sample.failure))
    columns = ("study", "index", "proxy_accuracy_percent", "best_so_far_percent", "failure")
    return Table("accuracy", columns, tuple(rows))


def _bests(series: Series, scene: Scene) -> dict[int, float]:
    steps = analysis.running_best([p.sample for p in series.points], scene.target)
    return {sample.index: 100 * best for sample, best in steps}


def _operations(scene: Scene) -> Table:
    rows = tuple(
        (s.name, p.sample.index, p.sample.macs, scene.target.latency_ms(p.sample))
        for s in scene.series
        for p in s.points
    )
    return Table("operations", ("study", "index", "macs", latency_column(scene)), rows)


def _projection(scene: Scene, where: Where) -> Table:
    rows = []
    for series in scene.series:
        for point in series.points:
            first, second = map(float, where.projection.coordinates[where.places[point.key]])
            time = point.sample.index / max(1, len(series.points) - 1)
            rows.append((series.name, point.sample.index, round(time, 4), first, second))
    return Table("projection", ("study", "index", "time", "component_1", "component_2"), tuple(rows))
