"""The five plots of a report, from the samples of its studies.

(A) histogram of latencies, (B) scatter with the Pareto front, (C) latency and (D) accuracy over the samples,
(E) latency against multiply-accumulates.
Latency is the predicted one in the target's dtype, accuracy that of the short proxy training. Each plot says in one
sentence what it shows. It draws with svg.py and reckons with analysis.py. Next: html.py.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.report import analysis, formats, svg
from edgekd.report.analysis import Point, Target
from edgekd.report.data import ReportData, Sample

_HISTOGRAM_BINS = 26  # at most; about 16 user units a bin
_ENGINE_NAMES = {"akd": "AKD", "dna": "DNA"}  # the others are named by words


@dataclass(frozen=True)
class Figure:
    """A plot with its caption; `legend` lists (shape, class, text)."""

    title: str
    insight: str
    legend: tuple[tuple[str, str, str], ...]
    drawing: str


@dataclass(frozen=True)
class Series:
    """One study as it is drawn."""

    name: str
    class_: str
    shape: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Scene:
    """What all plots share: the target, the studies (search first) and the winner's sample if a study holds it."""

    target: Target
    series: tuple[Series, ...]
    winner: Point | None

    @classmethod
    def of(cls, data: ReportData) -> Scene:
        """Arrange the studies of a report."""
        points = analysis.points_of(data)
        series = tuple(
            Series(engine_name(study.engine), study_key, shape, tuple(p for p in points if p.study == study_key))
            for study, study_key, shape in zip(data.studies, ("search", "random"), ("dot", "triangle"), strict=False)
        )
        winner = next((p for p in points if p.sample.arch_id == data.manifest.arch_id), None)
        return cls(Target.of(data.manifest), series, winner)

    @property
    def points(self) -> tuple[Point, ...]:
        """All samples."""
        return tuple(point for series in self.series for point in series.points)

    @property
    def latencies_ms(self) -> list[float]:
        """The latencies of all samples and the target: what a latency axis must hold."""
        return [self.target.ms, *(self.target.latency_ms(p.sample) for p in self.points)]

    @property
    def latency_title(self) -> str:
        """The title of a latency axis."""
        return f"predicted {self.target.dtype} latency (ms)"

    @property
    def target_label(self) -> str:
        """The direct label of the target line."""
        return f"target {formats.ms(self.target.ms)} ms"

    def legend(self) -> tuple[tuple[str, str, str], ...]:
        """Name the studies with their marks."""
        return tuple((s.shape, s.class_, f"{s.name} ({len(s.points)})") for s in self.series)

    def title_of(self, point: Point) -> str:
        """Word one sample for a tooltip: what it is, its figures, its architecture."""
        sample = point.sample
        name = next(s.name for s in self.series if s.class_ == point.study)
        latency = formats.ms(self.target.latency_ms(sample))
        figures = f"{latency} ms · {formats.percent(sample.proxy_accuracy)} · {formats.count(sample.macs)} MACs"
        return f"{name} sample {sample.index}\n{figures}\n{sample.arch}"

    def marks(self, place: Callable[[Sample], tuple[float, float]], *, full: bool = False) -> str:
        """Draw every sample once, the search on top; only one plot carries full titles, or pages get large."""
        groups = []
        for series in reversed(self.series):
            drawn = (
                svg.mark(series.shape, place(p.sample), p.key, self.title_of(p) if full else f"{series.name} {p.key}")
                for p in series.points
            )
            groups.append(svg.element("g", *drawn, class_=f"marks {series.class_}"))
        return "".join(groups)

    def star(self, place: Callable[[Sample], tuple[float, float]]) -> str:
        """Draw the winner's star and its label, left above it: faster and more accurate, where no samples are."""
        if self.winner is None:
            return ""
        x, y = place(self.winner.sample)
        anchor, shift = ("end", -9) if x > svg.LEFT + 60 else ("start", 9)
        shape = svg.element("use", href="#star", x=x, y=y, class_="winner")
        return shape + svg.label(x + shift, y - 6, "winner", "label", anchor)


def figures(data: ReportData) -> tuple[Figure, ...]:
    """Draw all plots in order of the page."""
    scene = Scene.of(data)
    return tuple(draw(scene) for draw in (histogram, scatter, latency_history, accuracy_history, latency_by_macs))


def engine_name(engine: str) -> str:
    """Word the name of a search engine."""
    return _ENGINE_NAMES.get(engine, engine)


def histogram(scene: Scene) -> Figure:
    """Draw (A): how the latencies of the samples lie around the target; the target is the edge of two bins."""
    low, high = svg.padded(scene.latencies_ms, share=0)
    width = svg.nice_step(high - low, _HISTOGRAM_BINS)
    places = [_bin(ms - scene.target.ms, width) for ms in (low, high)]
    bins = range(min(-1, places[0]), max(0, places[1]) + 1)
    counts = [_counts(series, scene.target, bins, width) for series in scene.series]
    shares = [[100 * n / max(1, len(s.points)) for n in c] for s, c in zip(scene.series, counts, strict=True)]
    edges = [scene.target.ms + place * width for place in (*bins, bins.stop)]
    x = svg.horizontal(edges[0], edges[-1], scene.latency_title)
    y = svg.vertical(0, max(max(map(max, shares)) * 1.12, 1), "share of the samples (%)")
    at = svg.place_of(x, y)
    drawn = [svg.axes(x, y), svg.target_x(x, scene.target.ms), _bars(at, edges, shares[0])]
    for extra in shares[1:]:
        outline = svg.staircase([*(at(e, v) for e, v in zip(edges, extra, strict=False)), at(edges[-1], 0)])
        drawn.append(svg.path([at(edges[0], 0), *outline], "outline random"))
    drawn += [svg.rule_label(x, scene.target.ms, scene.target_label, svg.TOP + 7), _bin_titles(scene, x, edges, counts)]
    parts = [
        f"{s.name} put {formats.share(_under(s, scene.target), len(s.points))} of its samples at or under the target"
        for s in scene.series
    ]
    insight = "; ".join(parts) + "."
    legend = (("square", "search", scene.series[0].name), *(("line", "random", s.name) for s in scene.series[1:]))
    title = "Latencies that were sampled"
    return Figure(title, insight, legend, svg.plot("plot-histogram", title, insight, *drawn))


def _bin(distance_ms: float, width: float) -> int:
    """Return the number of the bin of a distance from the target; at the target is still under it."""
    return math.ceil(distance_ms / width) - 1


def _counts(series: Series, target: Target, bins: range, width: float) -> list[int]:
    counts = [0] * len(bins)
    for point in series.points:
        counts[_bin(target.latency_ms(point.sample) - target.ms, width) - bins.start] += 1
    return counts


def _bars(at: Callable[[float, float], tuple[float, float]], edges: Sequence[float], shares: Sequence[float]) -> str:
    bars = []
    for left, right, value in zip(edges, edges[1:], shares, strict=False):
        (x1, y1), (x2, y2) = at(left, value), at(right, 0)
        if value > 0:
            bars.append(svg.element("rect", x=x1 + 0.5, y=y1, width=max(0.5, x2 - x1 - 1), height=y2 - y1))
    return svg.element("g", *bars, class_="bars search")


def _bin_titles(scene: Scene, x: svg.Axis, edges: Sequence[float], counts: Sequence[Sequence[int]]) -> str:
    """Lay a clear column over each bin that carries its tooltip."""
    columns = []
    for place, (left, right) in enumerate(itertools.pairwise(edges)):
        found = [
            f"{s.name} {c[place]} ({formats.share(c[place], len(s.points))})"
            for s, c in zip(scene.series, counts, strict=True)
        ]
        text = f"{formats.ms(left)} to {formats.ms(right)} ms\n{' · '.join(found)}"
        box = {"x": x.scale.at(left), "y": svg.TOP, "width": x.scale.at(right) - x.scale.at(left)}
        title = svg.element("title", svg.escape(text))
        columns.append(svg.element("rect", title, **box, height=svg.BOTTOM - svg.TOP, class_="mark column"))
    return svg.element("g", *columns)


def _under(series: Series, target: Target) -> int:
    return sum(target.met_by(point.sample) for point in series.points)


def scatter(scene: Scene) -> Figure:
    """Draw (B): accuracy against latency of every sample, with the Pareto front, the target and the winner."""
    front = analysis.pareto_front(scene.points, scene.target)
    x = svg.horizontal(*svg.padded(scene.latencies_ms), scene.latency_title)
    y = svg.vertical(*svg.padded([100 * p.sample.proxy_accuracy for p in scene.points]), "proxy accuracy (%)")

    def place(sample: Sample) -> tuple[float, float]:
        return x.scale.at(scene.target.latency_ms(sample)), y.scale.at(100 * sample.proxy_accuracy)

    line = svg.staircase([place(p.sample) for p in front])
    drawn = [svg.axes(x, y), svg.target_x(x, scene.target.ms), scene.marks(place, full=True), svg.path(line, "front")]
    # at the bottom: the best networks, and the winner's label, crowd the top of the line
    drawn += [svg.rule_label(x, scene.target.ms, scene.target_label, svg.BOTTOM - 9), scene.star(place)]
    best = analysis.best_under(scene.points, scene.target, 1)
    insight = "No sample is under the target."
    if best:
        found = sum(p.study == "search" for p in front)
        latency, accuracy = scene.target.latency_ms(best[0].sample), best[0].sample.proxy_accuracy
        insight = (
            f"Best under the target: {formats.percent(accuracy)} at {formats.ms(latency)} ms. "
            f"{scene.series[0].name} found {found} of the {len(front)} networks on the front."
        )
    legend = (*scene.legend(), ("line", "front", "Pareto front"))
    if scene.winner is not None:
        legend = (*legend, ("star", "winner", "winner"))
    title = "Accuracy against latency"
    return Figure(title, insight, legend, svg.plot("plot-scatter", title, insight, *drawn))


def latency_history(scene: Scene) -> Figure:
    """Draw (C): latency in order of the samples with its running median."""
    x = _sample_axis(scene)
    y = svg.vertical(*svg.padded(scene.latencies_ms), scene.latency_title)
    at = svg.place_of(x, y)
    drawn = [svg.axes(x, y), svg.target_y(x, y, scene.target.ms)]
    drawn.append(scene.marks(lambda s: at(s.index, scene.target.latency_ms(s))))
    ends, parts = [(y.scale.at(scene.target.ms), "target", "")], []
    for series in scene.series:
        samples = [p.sample for p in series.points]
        values = [scene.target.latency_ms(s) for s in samples]
        line = [at(s.index, m) for s, m in zip(samples, analysis.running_median(values), strict=True)]
        drawn.append(svg.path(line, f"trend {series.class_}"))
        if line:
            ends.append((line[-1][1], series.name, series.class_))
            last = statistics.median(values[-max(1, len(values) // 4) :])
            parts.append(f"{series.name} {formats.ms(last)} ms")
    drawn.append(svg.side_labels(x, ends))
    insight = f"Median of the last quarter: {', '.join(parts) or formats.DASH}."
    legend = (*scene.legend(), ("line", "plain", "running median"))
    title = "Latency over the search"
    return Figure(title, insight, legend, svg.plot("plot-latency", title, insight, *drawn))


def accuracy_history(scene: Scene) -> Figure:
    """Draw (D): proxy accuracy in order of the samples with the running best among those under the target."""
    x = _sample_axis(scene)
    y = svg.vertical(*svg.padded([100 * p.sample.proxy_accuracy for p in scene.points]), "proxy accuracy (%)")
    at = svg.place_of(x, y)
    drawn = [svg.axes(x, y), scene.marks(lambda s: at(s.index, 100 * s.proxy_accuracy))]
    ends, parts = [], []
    for series in scene.series:
        steps = analysis.running_best([p.sample for p in series.points], scene.target)
        line = svg.staircase([at(sample.index, 100 * best) for sample, best in steps])
        drawn.append(svg.path(line, f"trend {series.class_}"))
        if steps:
            best = steps[-1][1]
            first = next(sample.index for sample, value in steps if value == best)
            ends.append((line[-1][1], series.name, series.class_))
            parts.append(f"{series.name} {formats.percent(best)} (sample {first})")
    drawn.append(svg.side_labels(x, ends))
    insight = f"Best so far under the target: {', '.join(parts)}." if parts else "No sample is under the target."
    legend = (*scene.legend(), ("line", "plain", "best so far under the target"))
    title = "Accuracy over the search"
    return Figure(title, insight, legend, svg.plot("plot-accuracy", title, insight, *drawn))


def latency_by_macs(scene: Scene) -> Figure:
    """Draw (E): latency against multiply-accumulates, with their rank correlation."""
    counts = [p.sample.macs for p in scene.points]
    unit, factor = ("G", 1e9) if max(counts, default=0) >= 2e9 else ("M", 1e6)
    low, high = svg.padded([n / factor for n in counts])
    x = svg.horizontal(low, high, f"multiply-accumulates ({unit})", svg.SIDE_LABELS)
    y = svg.vertical(*svg.padded(scene.latencies_ms), scene.latency_title)
    at = svg.place_of(x, y)

    def place(sample: Sample) -> tuple[float, float]:
        return at(sample.macs / factor, scene.target.latency_ms(sample))

    drawn = [svg.axes(x, y), svg.target_y(x, y, scene.target.ms), scene.marks(place), scene.star(place)]
    drawn.append(svg.side_labels(x, [(y.scale.at(scene.target.ms), "target", "")]))
    rho = analysis.rank_correlation(counts, [scene.target.latency_ms(p.sample) for p in scene.points])
    insight = "Too few different samples to compare the two orders."
    if rho is not None:
        insight = (
            f"Spearman's \N{GREEK SMALL LETTER RHO} = {rho:.2f}: how far operations alone put these networks in order "
            "of their latency."
        )
    title = "Latency against operations"
    return Figure(title, insight, scene.legend(), svg.plot("plot-macs", title, insight, *drawn))


def _sample_axis(scene: Scene) -> svg.Axis:
    indices = [p.sample.index for p in scene.points] or [0]
    return svg.horizontal(min(indices), max(*indices, min(indices) + 5), "sample", svg.SIDE_LABELS)
