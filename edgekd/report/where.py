"""(F): where the searches of one run went: shares of the options that they chose, and a projection coloured by time.

Early against late, search against baseline; several runs are compared in comparison.py. It reckons with regions.py.
Next: html.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.report import formats, regions, svg
from edgekd.report.analysis import Point
from edgekd.report.data import ReportData
from edgekd.report.decisions import decisions_of
from edgekd.report.regions import Decision, Floats, Ints, Projection
from edgekd.report.scene import Figure, Scene, Series
from edgekd.search.study_file import Sample

TIMES = 5  # shades, early to late
_NAMED = 3  # decisions that a sentence names


@dataclass(frozen=True)
class Part:
    """Samples of one search, and the shares of the options among them in the order of one-hot encodings."""

    name: str
    samples: int
    shares: Floats


@dataclass(frozen=True)
class Where:
    """Where the searches of a run went; `places` gives each sample's row of the projection by its point's key."""

    decisions: tuple[Decision, ...]
    parts: tuple[Part, ...]
    moved: tuple[float, ...]
    projection: Projection
    places: dict[str, int]

    @classmethod
    def of(cls, data: ReportData, scene: Scene) -> Where:
        """Reckon shares and projection; `moved` compares the first two parts, early and late."""
        decisions = decisions_of(data.studies)
        sizes = data.search.header.decision_sizes
        parts = tuple(_part(*named, sizes) for named in _parts_of(data, scene))
        moved = tuple(regions.variation([part.shares for part in parts[:2]], sizes))
        points = scene.points
        projection = regions.project(regions.one_hot(choices_of([p.sample for p in points], sizes), sizes))
        return cls(decisions, parts, moved, projection, {p.key: row for row, p in enumerate(points)})

    @property
    def insight(self) -> str:
        """Name the decisions in which the search's last quarter differs most from its first."""
        order = sorted(range(len(self.moved)), key=lambda place: -self.moved[place])[:_NAMED]
        named = [f"{self.decisions[place].name} ({self.moved[place]:.2f})" for place in order if self.moved[place] > 0]
        if not named:
            return "The first and the last samples of the search chose alike."
        return f"From its first to its last quarter the search moved most in {', '.join(named)}."


def choices_of(samples: Sequence[Sample], sizes: Sequence[int]) -> Ints:
    """Give the option indices of samples, (N, D)."""
    return np.array([s.choices for s in samples], dtype=np.int64).reshape(len(samples), len(sizes))


def where_figure(where: Where, scene: Scene) -> Figure:
    """Draw the projection of all samples, the darker the later they came."""
    x_axis, y_axis = projection_axes(where.projection)
    at = svg.place_of(x_axis, y_axis)

    def mark(series: Series, point: Point) -> str:
        first, second = where.projection.coordinates[where.places[point.key]]
        title = f"{point.study} {point.sample.index}"
        return svg.mark(series.shape, at(float(first), float(second)), point.key, title)

    groups = []
    for series in reversed(scene.series):
        for time, points in enumerate(in_times(series)):
            drawn = (mark(series, p) for p in points)
            groups.append(svg.element("g", *drawn, class_=f"marks {series.class_} t{time}"))
    shares = where.projection.shares
    insight = (
        f"The two directions in which the networks differ most hold {100 * sum(shares):.0f} % of their variance. "
        f"{where.insight}"
    )
    legend = (*scene.legend(), ("dot", "search t0", "early"), ("dot", "search t4", "late"))
    title, layers = "Where the search went", svg.Layers(x_axis, y_axis, "".join(groups))
    return Figure(title, insight, legend, svg.plot("plot-where", title, insight, layers))


def projection_axes(projection: Projection) -> tuple[svg.Axis, svg.Axis]:
    """Make the axes of a projection."""
    bounds = []
    for values in projection.coordinates.T:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        air = 0.06 * (high - low) or 1.0
        bounds.append((low - air, high + air))
    first, second = (f"{nth} component ({100 * s:.0f} %)" for nth, s in zip(_NTH, projection.shares, strict=True))
    return svg.horizontal(*bounds[0], first), svg.vertical(*bounds[1], second)


_NTH = ("first", "second")


def in_times(series: Series) -> list[list[Point]]:
    """Part the marked points by when they came, into TIMES parts of the whole study."""
    parts: list[list[Point]] = [[] for _ in range(TIMES)]
    for point in series.marked:
        parts[time_of(point.sample.index, len(series.points))].append(point)
    return parts


def time_of(index: int, samples: int) -> int:
    """Give the shade of a sample, 0 (early) to TIMES − 1 (late)."""
    return min(TIMES - 1, TIMES * index // max(1, samples))


def shares_text(decision: Decision, shares: Sequence[float]) -> str:
    """Word the shares of a decision's options, the largest first; options that nobody chose are left out."""
    order = sorted(range(len(shares)), key=lambda place: -shares[place])
    words = [
        f"{decision.options[place]} {formats.percent(float(shares[place]))}" for place in order if shares[place] > 0
    ]
    return ", ".join(words) or formats.DASH


def _parts_of(data: ReportData, scene: Scene) -> list[tuple[str, Sequence[Sample]]]:
    samples, name = data.search.samples, scene.series[0].name
    quarter = max(1, len(samples) // 4)
    parts: list[tuple[str, Sequence[Sample]]] = [
        (f"{name}, first quarter", samples[:quarter]),
        (f"{name}, last quarter", samples[-quarter:]),
    ]
    if data.baseline:
        parts.append((f"{scene.series[1].name}, all", data.baseline.samples))
    return parts


def _part(name: str, samples: Sequence[Sample], sizes: Sequence[int]) -> Part:
    return Part(name, len(samples), regions.marginals(choices_of(samples, sizes), sizes))
