"""What the samples of a search say: Pareto front, running median and best, quarter means, rank correlation.

Pure functions over Sample and numbers; nothing here draws or reads. Next: plots.py, which draws the results.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report.data import Manifest, ReportData, Sample, Study
from edgekd.search.pareto import unbeaten


@dataclass(frozen=True)
class Target:
    """The latency that the student must meet, and the dtype in which it is counted."""

    ms: float
    dtype: str

    @classmethod
    def of(cls, manifest: Manifest) -> Target:
        """Take the target of a run."""
        return cls(manifest.target_ms, manifest.target_dtype)

    def latency_ms(self, sample: Sample) -> float:
        """Return the sample's predicted latency in the target's dtype, in ms."""
        return sample.predicted_ms[self.dtype]

    def met_by(self, sample: Sample) -> bool:
        """Tell whether the sample is predicted to be at the target or below."""
        return self.latency_ms(sample) <= self.ms


@dataclass(frozen=True)
class Point:
    """A sample and the study it comes from; `key` is unique on the page."""

    study: str
    sample: Sample

    @property
    def key(self) -> str:
        """Return the name of the point, such as s17 (search) or r17 (random)."""
        return f"{self.study[0]}{self.sample.index}"


@dataclass(frozen=True)
class Summary:
    """How one study did. Rewards are means of the first and last quarter of its samples, in order."""

    samples: int
    under_target: int
    best: Sample | None
    first_quarter_reward: float | None
    last_quarter_reward: float | None
    seconds: float


def points_of(data: ReportData) -> tuple[Point, ...]:
    """List all samples, those of the search first; `study` is "search" or "random"."""
    random = data.random.samples if data.random else ()
    return tuple(Point("search", s) for s in data.search.samples) + tuple(Point("random", s) for s in random)


def pareto_front(points: Sequence[Point], target: Target) -> tuple[Point, ...]:
    """Return the points that no other beats in latency and proxy accuracy, fastest first, one of equals."""
    return tuple(unbeaten(points, lambda p: target.latency_ms(p.sample), lambda p: p.sample.proxy_accuracy))


def best_under(points: Sequence[Point], target: Target, count: int) -> tuple[Point, ...]:
    """Return the points under the target, most accurate first (the faster of equals), at most `count` architectures."""
    feasible = sorted(
        (p for p in points if target.met_by(p.sample)),
        key=lambda p: (-p.sample.proxy_accuracy, target.latency_ms(p.sample)),
    )
    distinct = {p.sample.arch_id: p for p in reversed(feasible)}
    return tuple(p for p in feasible if distinct[p.sample.arch_id] is p)[:count]


def summarize(study: Study, target: Target) -> Summary:
    """Sum a study up."""
    rewards = [sample.reward for sample in study.samples]
    quarter = max(1, len(rewards) // 4)
    feasible = [s for s in study.samples if target.met_by(s)]
    return Summary(
        samples=len(rewards),
        under_target=len(feasible),
        best=max(feasible, key=lambda s: s.proxy_accuracy, default=None),
        first_quarter_reward=statistics.fmean(rewards[:quarter]) if rewards else None,
        last_quarter_reward=statistics.fmean(rewards[-quarter:]) if rewards else None,
        seconds=math.fsum(sample.seconds for sample in study.samples),
    )


def running_median(values: Sequence[float]) -> list[float]:
    """Return the median of the last eighth of the values (5 at least) at each place."""
    window = max(5, len(values) // 8)
    inside: list[float] = []
    medians: list[float] = []
    for place, value in enumerate(values):
        bisect.insort(inside, value)
        if place >= window:
            del inside[bisect.bisect_left(inside, values[place - window])]
        medians.append((inside[(len(inside) - 1) // 2] + inside[len(inside) // 2]) / 2)
    return medians


def running_best(samples: Sequence[Sample], target: Target) -> list[tuple[Sample, float]]:
    """Pair each sample from the first that meets the target on with the best proxy accuracy under the target so far."""
    best: float | None = None
    steps: list[tuple[Sample, float]] = []
    for sample in samples:
        if target.met_by(sample):
            best = sample.proxy_accuracy if best is None else max(best, sample.proxy_accuracy)
        if best is not None:
            steps.append((sample, best))
    return steps


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return Spearman's rho (ties get their mean rank); None if either side does not vary."""
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    return statistics.correlation(_ranks(xs), _ranks(ys))


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [(bisect.bisect_left(ordered, v) + bisect.bisect_right(ordered, v)) / 2 for v in values]
