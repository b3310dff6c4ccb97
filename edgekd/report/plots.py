"""The plots of a report, from the samples of its studies.

(A) histogram of latencies, (B) scatter with the Pareto front, (C) latency and (D) accuracy over the samples,
(E) latency against multiply-accumulates; (F), where the searches went, is in where.py.
Latency is that in the target's dtype which the search saw, accuracy that of the short proxy training. Each plot says in
one sentence what it shows. It draws with svg.py and reckons with analysis.py. Next: where.py, then html.py.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report import analysis, formats, svg
from edgekd.report.data import Target
from edgekd.report.scene import Figure, Legend, Scene, Series
from edgekd.search.study_file import Sample

_HISTOGRAM_BINS = 26  # at most; about 16 user units a bin


def figures(scene: Scene) -> tuple[Figure, ...]:
    """Draw the plots (A) to (E) in order of the page."""
    return tuple(draw(scene) for draw in (histogram, scatter, latency_history, accuracy_history, latency_by_macs))


@dataclass(frozen=True)
class Histogram:
    """Counts of samples by latency: `counts[s][b]` for study s and the bin from edge b (excluded) to edge b + 1."""

    edges_ms: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, scene: Scene) -> Histogram:
        """Count the samples of each study; the target is the edge of two bins."""
        low, high = svg.padded(scene.latencies_ms, share=0)
        width = svg.nice_step(high - low, _HISTOGRAM_BINS)
        places = [_bin(ms - scene.target.ms, width) for ms in (low, high)]
        bins = range(min(-1, places[0]), max(0, places[1]) + 1)
        edges = tuple(scene.target.ms + place * width for place in (*bins, bins.stop))
        return cls(edges, tuple(_counts(series, scene.target, bins, width) for series in scene.series))

    @property
    def shares(self) -> list[list[float]]:
        """The counts in percent of each study's samples."""
        return [[100 * n / max(1, sum(counts)) for n in counts] for counts in self.counts]


def histogram(scene: Scene) -> Figure:
    """Draw (A): how the latencies of the samples lie around the target."""
    counted = Histogram.of(scene)
    edges, shares = counted.edges_ms, counted.shares
    x = svg.horizontal(edges[0], edges[-1], scene.latency_title)
    y = svg.vertical(0, max(max(map(max, shares)) * 1.12, 1), "share of the samples (%)")
    at = svg.place_of(x, y)
    drawn = [_targets_x(scene, x), _bars(at, edges, shares[0])]
    for series, extra in zip(scene.series[1:], shares[1:], strict=True):
        outline = svg.staircase([*(at(e, v) for e, v in zip(edges, extra, strict=False)), at(edges[-1], 0)])
        drawn.append(svg.path([at(edges[0], 0), *outline], f"outline {series.class_}"))
    drawn.append(_bin_titles(scene, x, counted))
    parts = [
        f"{s.name} put {formats.share(_under(s, scene.target), len(s.points))} of its samples at or under the target"
        for s in scene.series
    ]
    insight = "; ".join(parts) + "."
    legend = (("square", "search", scene.series[0].name), *(("line", s.class_, s.name) for s in scene.series[1:]))
    layers = svg.Layers(x, y, "".join(drawn), _target_labels(scene, x, svg.TOP + 7), zooms=False)
    title = "Latencies that were sampled"
    return Figure(title, insight, legend, svg.plot("plot-histogram", title, insight, layers))


def _bin(distance_ms: float, width: float) -> int:
    """Return the number of the bin of a distance from the target; at the target is still under it."""
    return math.ceil(distance_ms / width) - 1


def _counts(series: Series, target: Target, bins: range, width: float) -> tuple[int, ...]:
    counts = [0] * len(bins)
    for point in series.points:
        counts[_bin(target.latency_ms(point.sample) - target.ms, width) - bins.start] += 1
    return tuple(counts)


def _targets_x(scene: Scene, x: svg.Axis) -> str:
    """Draw vertical target lines, the first with its shade."""
    return svg.target_x(x, scene.target.ms) + "".join(svg.rule_x(x, t.ms) for t in scene.targets[1:])


def _targets_y(scene: Scene, x: svg.Axis, y: svg.Axis) -> str:
    """Draw horizontal target lines, the first with its shade."""
    return svg.target_y(x, y, scene.target.ms) + "".join(svg.rule_y(x, y, t.ms) for t in scene.targets[1:])


def _target_labels(scene: Scene, x: svg.Axis, y: float) -> str:
    """Label vertical target lines, one above the other."""
    step = svg.LABEL_GAP if y < svg.HEIGHT / 2 else -svg.LABEL_GAP
    places = enumerate(scene.targets)
    return "".join(svg.rule_label(x, t.ms, scene.target_label(t), y + place * step) for place, t in places)


def _target_ends(scene: Scene, y: svg.Axis) -> list[tuple[float, str, str]]:
    """Name the ends of horizontal target lines, as side_labels takes them."""
    names = ["target"] if len(scene.targets) == 1 else [f"{formats.ms(t.ms)} ms" for t in scene.targets]
    return [(y.scale.at(t.ms), name, "") for t, name in zip(scene.targets, names, strict=True)]


def _bars(at: svg.Place, edges: Sequence[float], shares: Sequence[float]) -> str:
    bars = []
    for left, right, value in zip(edges, edges[1:], shares, strict=False):
        (x1, y1), (x2, y2) = at(left, value), at(right, 0)
        if value > 0:
            bars.append(svg.element("rect", x=x1 + 0.5, y=y1, width=max(0.5, x2 - x1 - 1), height=y2 - y1))
    return svg.element("g", *bars, class_="bars search")


def _bin_titles(scene: Scene, x: svg.Axis, counted: Histogram) -> str:
    """Lay a clear column over each bin that carries its tooltip."""
    columns = []
    for place, (left, right) in enumerate(itertools.pairwise(counted.edges_ms)):
        found = [
            f"{s.name} {c[place]} ({formats.share(c[place], len(s.points))})"
            for s, c in zip(scene.series, counted.counts, strict=True)
        ]
        text = f"{formats.ms(left)} to {formats.ms(right)} ms\n{' · '.join(found)}"
        box = {"x": x.scale.at(left), "y": svg.TOP, "width": x.scale.at(right) - x.scale.at(left)}
        title = svg.element("title", svg.escape(text))
        columns.append(svg.element("rect", title, **box, height=svg.BOTTOM - svg.TOP, class_="mark column"))
    return svg.element("g", *columns)


def _under(series: Series, target: Target) -> int:
    return sum(target.met_by(point.sample) for point in series.points)


def scatter(scene: Scene) -> Figure:
    """Draw (B): accuracy against latency of every rated sample, with the Pareto front, the targets and the winner."""
    front = analysis.pareto_front(scene.points, scene.target)
    x = svg.horizontal(*svg.padded(scene.latencies_ms), scene.latency_title)
    y = svg.vertical(*svg.padded([100 * p.sample.proxy_accuracy for p in scene.rated]), "proxy accuracy (%)")

    def place(sample: Sample) -> tuple[float, float]:
        return x.scale.at(scene.target.latency_ms(sample)), y.scale.at(100 * sample.proxy_accuracy)

    line = svg.path(svg.staircase([place(p.sample) for p in front]), "front")
    star, star_label = scene.star(place)
    area = _targets_x(scene, x) + scene.marks(place, full=True) + line + star
    # at the bottom: the best networks, and the winner's label, crowd the top of the line
    labels = _target_labels(scene, x, svg.BOTTOM - 9) + star_label
    legend: Legend = (*scene.legend(), ("line", "front", "Pareto front"))
    if star:
        legend = (*legend, ("star", "winner", "winner"))
    title, insight = "Accuracy against latency", _best_found(scene, front)
    return Figure(title, insight, legend, svg.plot("plot-scatter", title, insight, svg.Layers(x, y, area, labels)))


def _best_found(scene: Scene, front: Sequence[analysis.Point]) -> str:
    failed = len(scene.points) - len(scene.rated)
    apart = f" {failed} samples failed and are not in this plot." if failed else ""
    best = analysis.best_under(scene.points, scene.target, 1)
    if not best:
        return f"No sample is under the target.{apart}"
    found = sum(p.study == "search" for p in front)
    latency, accuracy = scene.target.latency_ms(best[0].sample), best[0].sample.proxy_accuracy
    return (
        f"Best under the target: {formats.percent(accuracy)} at {formats.ms(latency)} ms. "
        f"{scene.series[0].name} found {found} of the {len(front)} networks on the front.{apart}"
    )


def latency_history(scene: Scene) -> Figure:
    """Draw (C): latency in order of the samples with its running median; failed samples have a latency, too."""
    x = sample_axis(scene)
    y = svg.vertical(*svg.padded(scene.latencies_ms), scene.latency_title)
    at = svg.place_of(x, y)

    def place(sample: Sample) -> tuple[float, float]:
        return at(sample.index, scene.target.latency_ms(sample))

    drawn = [_targets_y(scene, x, y), scene.marks(place), scene.failed_marks(place, full=True)]
    ends, parts = _target_ends(scene, y), []
    for series in scene.series:
        samples = [p.sample for p in series.points]
        values = [scene.target.latency_ms(s) for s in samples]
        line = [at(s.index, m) for s, m in zip(samples, analysis.running_median(values), strict=True)]
        drawn.append(svg.path(svg.thinned(line), f"trend {series.class_}"))
        if line:
            ends.append((line[-1][1], series.name, series.class_))
            last = statistics.median(values[-max(1, len(values) // 4) :])
            parts.append(f"{series.name} {formats.ms(last)} ms")
    insight = f"Median of the last quarter: {', '.join(parts) or formats.DASH}."
    legend = (*scene.legend(), *scene.failed_legend(), ("line", "trend", "running median"))
    title, layers = "Latency over the search", svg.Layers(x, y, "".join(drawn), svg.side_labels(x, ends))
    return Figure(title, insight, legend, svg.plot("plot-latency", title, insight, layers))


def accuracy_history(scene: Scene) -> Figure:
    """Draw (D): proxy accuracy in order of the samples with the running best among those under the target.

    Failed samples have no accuracy: they stand on the lower edge.
    """
    x = sample_axis(scene)
    y = svg.vertical(*svg.padded([100 * p.sample.proxy_accuracy for p in scene.rated]), "proxy accuracy (%)")
    at = svg.place_of(x, y)
    drawn = [
        scene.marks(lambda s: at(s.index, 100 * s.proxy_accuracy)),
        scene.failed_marks(lambda s: (x.scale.at(s.index), svg.BOTTOM - 5)),
    ]
    ends, parts = [], []
    for series in scene.series:
        steps = analysis.running_best([p.sample for p in series.points], scene.target)
        line = svg.staircase([at(sample.index, 100 * best) for sample, best in steps])
        drawn.append(svg.path(svg.corners(line), f"trend {series.class_}"))
        if steps:
            best = steps[-1][1]
            first = next(sample.index for sample, value in steps if value == best)
            ends.append((line[-1][1], series.name, series.class_))
            parts.append(f"{series.name} {formats.percent(best)} (sample {first})")
    insight = f"Best so far under the target: {', '.join(parts)}." if parts else "No sample is under the target."
    legend = (*scene.legend(), *scene.failed_legend(), ("line", "trend", "best so far under the target"))
    title, layers = "Accuracy over the search", svg.Layers(x, y, "".join(drawn), svg.side_labels(x, ends))
    return Figure(title, insight, legend, svg.plot("plot-accuracy", title, insight, layers))


def latency_by_macs(scene: Scene) -> Figure:
    """Draw (E): latency against multiply-accumulates, with their rank correlation."""
    counts = [p.sample.macs for p in scene.points]
    unit, factor = macs_unit(counts)
    low, high = svg.padded([n / factor for n in counts])
    x = svg.horizontal(low, high, f"multiply-accumulates ({unit})", svg.SIDE_LABELS)
    y = svg.vertical(*svg.padded(scene.latencies_ms), scene.latency_title)
    at = svg.place_of(x, y)

    def place(sample: Sample) -> tuple[float, float]:
        return at(sample.macs / factor, scene.target.latency_ms(sample))

    star, star_label = scene.star(place)
    area = _targets_y(scene, x, y) + scene.marks(place) + scene.failed_marks(place) + star
    rho = analysis.rank_correlation(counts, [scene.target.latency_ms(p.sample) for p in scene.points])
    insight = "Too few different samples to compare the two orders."
    if rho is not None:
        insight = (
            f"Spearman's \N{GREEK SMALL LETTER RHO} = {rho:.2f}: how far operations alone put these networks in order "
            "of their latency."
        )
    labels = svg.side_labels(x, _target_ends(scene, y)) + star_label
    legend = (*scene.legend(), *scene.failed_legend())
    title, layers = "Latency against operations", svg.Layers(x, y, area, labels)
    return Figure(title, insight, legend, svg.plot("plot-macs", title, insight, layers))


def macs_unit(counts: Sequence[int]) -> tuple[str, float]:
    """Choose the unit of multiply-accumulates and how many of them it is."""
    return ("G", 1e9) if max(counts, default=0) >= 2e9 else ("M", 1e6)


def sample_axis(scene: Scene) -> svg.Axis:
    """Make the x axis of plots over the search."""
    indices = [p.sample.index for p in scene.points] or [0]
    return svg.horizontal(min(indices), max(*indices, min(indices) + 5), "sample", svg.SIDE_LABELS)
