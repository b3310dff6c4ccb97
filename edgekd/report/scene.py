"""What the plots of a page share: studies as they are drawn, the target, the marks and their tooltips.

A page of many samples draws some of the marks only, always those on the front, the best and those that failed; lines,
counts and tables are of all samples. Next: plots.py, where.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.report import analysis, formats, svg
from edgekd.report.analysis import Point
from edgekd.report.data import ReportData, Study, Target
from edgekd.search.study_file import Sample

MOST_MARKS = 3_000  # in one plot; with more a page gets larger than 5 MB and slow
_MOST_FAILED = 300  # of these
_KEPT_BEST = 10
_ENGINE_NAMES = {"akd": "AKD", "dna": "DNA", "tpe": "TPE", "nsga2": "NSGA-II", "reinforce": "REINFORCE"}

Place = Callable[[Sample], tuple[float, float]]
Legend = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Figure:
    """A plot with its caption; `legend` lists (shape, class, text). An entry of one class toggles that class."""

    title: str
    insight: str
    legend: Legend
    drawing: str


@dataclass(frozen=True)
class Series:
    """One study as it is drawn: all its points, and those among them that have a mark."""

    name: str
    class_: str
    shape: str
    points: tuple[Point, ...]
    marked: tuple[Point, ...]

    @property
    def rated(self) -> tuple[Point, ...]:
        """The points that have an accuracy."""
        return analysis.rated(self.points)


@dataclass(frozen=True)
class Scene:
    """The studies (search first), their targets, and the winner's sample if a study holds it."""

    targets: tuple[Target, ...]
    series: tuple[Series, ...]
    winner: Point | None
    latency_word: str

    @classmethod
    def of(cls, data: ReportData) -> Scene:
        """Arrange the studies of a report."""
        points = analysis.points_of(data)
        marked = _marked(points, data.target)
        series = tuple(_series(study, key, points, marked) for study, key in zip(data.studies, _KEYS, strict=False))
        winner = next((p for p in points if data.manifest and p.sample.arch_id == data.manifest.arch_id), None)
        return cls(data.search.targets, series, winner, data.search.latency_word)

    @property
    def target(self) -> Target:
        """The target of the student."""
        return self.targets[0]

    @property
    def points(self) -> tuple[Point, ...]:
        """All samples."""
        return tuple(point for series in self.series for point in series.points)

    @property
    def rated(self) -> tuple[Point, ...]:
        """All samples that have an accuracy."""
        return analysis.rated(self.points)

    @property
    def latencies_ms(self) -> list[float]:
        """The latencies of all samples and the targets: what a latency axis must hold."""
        return [*(t.ms for t in self.targets), *(self.target.latency_ms(p.sample) for p in self.points)]

    @property
    def latency_title(self) -> str:
        """The title of a latency axis."""
        return f"{self.latency_word} {self.target.dtype} latency (ms)"

    @property
    def note(self) -> str:
        """Say which samples have no mark; nothing if all have one."""
        marks, samples = sum(len(s.marked) for s in self.series), len(self.points)
        if marks == samples:
            return ""
        return (
            f"Of {samples} samples {marks} are drawn as marks: all of the Pareto front, the best under the target, and "
            "the others evenly. Lines, counts and tables are of all samples."
        )

    def target_label(self, target: Target) -> str:
        """Word the direct label of a target line."""
        return f"target {formats.ms(target.ms)} ms"

    def legend(self) -> Legend:
        """Name the studies with their marks."""
        return tuple((s.shape, s.class_, f"{s.name} ({len(s.points)})") for s in self.series)

    def failed_legend(self) -> Legend:
        """Name the mark of failed samples, if there are any."""
        failed = len(self.points) - len(self.rated)
        return (("cross", "failed", f"failed ({failed})"),) if failed else ()

    def title_of(self, point: Point) -> str:
        """Word one sample for a tooltip: what it is, its figures, its architecture."""
        sample = point.sample
        name = next(s.name for s in self.series if s.class_ == point.study)
        latency = formats.ms(self.target.latency_ms(sample))
        accuracy = f"failed: {sample.failure}" if sample.failure else formats.percent(sample.proxy_accuracy)
        figures = f"{latency} ms · {accuracy} · {formats.count(sample.macs)} MACs"
        return f"{name} sample {sample.index}\n{figures}\n{sample.arch}"

    def marks(self, place: Place, *, full: bool = False) -> str:
        """Draw the marks of rated samples, the search on top; one plot carries full titles, or pages get large."""
        groups = []
        for series in reversed(self.series):
            drawn = [self._mark(series.shape, place, p, full) for p in series.marked if not p.sample.failure]
            groups.append(svg.element("g", *drawn, class_=f"marks {series.class_}"))
        return "".join(groups)

    def failed_marks(self, place: Place, *, full: bool = False) -> str:
        """Draw the marks of failed samples, with another shape in another colour."""
        failed = [p for series in self.series for p in series.marked if p.sample.failure]
        return svg.element("g", *(self._mark("cross", place, p, full) for p in failed), class_="marks failed")

    def _mark(self, shape: str, place: Place, point: Point, full: bool) -> str:
        title = self.title_of(point) if full else f"{point.study} {point.sample.index}"
        return svg.mark(shape, place(point.sample), point.key, title)

    def star(self, place: Place) -> tuple[str, str]:
        """Draw the winner's star and, apart, its label: left above it, where no samples are."""
        if self.winner is None or self.winner.sample.failure:
            return "", ""
        x, y = place(self.winner.sample)
        anchor, shift = ("end", -9) if x > svg.LEFT + 60 else ("start", 9)
        shape = svg.element("use", href="#star", x=x, y=y)
        return svg.element("g", shape, class_="winner"), svg.label(x + shift, y - 6, "winner", "label winner", anchor)


_KEYS = ("search", "baseline")


def engine_name(engine: str) -> str:
    """Word the name of a search engine."""
    return _ENGINE_NAMES.get(engine, engine)


def evenly(items: Sequence[Point], count: int) -> tuple[Point, ...]:
    """Take `count` of the items, evenly apart, the first and the last among them; all if there are no more."""
    if len(items) <= count:
        return tuple(items)
    return tuple(items[round(place * (len(items) - 1) / max(1, count - 1))] for place in range(count))


def _series(study: Study, key: str, points: Sequence[Point], marked: frozenset[str]) -> Series:
    own = tuple(p for p in points if p.study == key)
    shape = "dot" if key == "search" else "triangle"
    return Series(engine_name(study.engine), key, shape, own, tuple(p for p in own if p.key in marked))


def _marked(points: Sequence[Point], target: Target) -> frozenset[str]:
    """Choose the points that get a mark, by their keys."""
    if len(points) <= MOST_MARKS:
        return frozenset(p.key for p in points)
    kept = [*analysis.pareto_front(points, target), *analysis.best_under(points, target, _KEPT_BEST)]
    kept += evenly([p for p in points if p.sample.failure], _MOST_FAILED)
    rest = evenly(analysis.rated(points), max(0, MOST_MARKS - len(kept)))
    return frozenset(p.key for p in (*kept, *rest))
