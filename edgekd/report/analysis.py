"""What the samples of a search say: Pareto front, running median and best, quarter means, rank correlation.

A sample whose training failed has no accuracy and no part in any of these but latencies. Pure functions over Sample
and numbers; nothing here draws or reads. Next: plots.py, which draws the results.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report.data import ReportData, Study, Target
from edgekd.search.pareto import unbeaten
from edgekd.search.reward import Reward, feasible_first
from edgekd.search.study_file import WARM, Sample


@dataclass(frozen=True)
class Point:
    """A sample and the study it comes from; `key` is unique on the page."""

    study: str
    sample: Sample

    @property
    def key(self) -> str:
        """Return the name of the point, such as s17 (search) or b17 (baseline)."""
        return f"{self.study[0]}{self.sample.index}"


@dataclass(frozen=True)
class Summary:
    """How one study did under a target. Rewards are means of the first and last quarter of its rated samples, in order.

    `failures` counts the samples without an accuracy by their reason, `early` those whose training was ended early,
    `taken_over` those that another study had evaluated.
    """

    samples: int
    under_target: int
    best: Sample | None
    best_reward: Sample | None
    first_quarter_reward: float | None
    last_quarter_reward: float | None
    seconds: float
    failures: dict[str, int]
    early: int
    taken_over: int


def points_of(data: ReportData) -> tuple[Point, ...]:
    """List all samples, those of the search first; `study` is "search" or "baseline"."""
    baseline = data.baseline.samples if data.baseline else ()
    return tuple(Point("search", s) for s in data.search.samples) + tuple(Point("baseline", s) for s in baseline)


def rated(points: Sequence[Point]) -> tuple[Point, ...]:
    """Leave out the points whose training failed."""
    return tuple(point for point in points if not point.sample.failure)


def pareto_front(points: Sequence[Point], target: Target) -> tuple[Point, ...]:
    """Return the rated points that no other beats in latency and proxy accuracy, fastest first, one of equals."""
    return tuple(unbeaten(rated(points), lambda p: target.latency_ms(p.sample), lambda p: p.sample.proxy_accuracy))


def best_under(points: Sequence[Point], target: Target, count: int) -> tuple[Point, ...]:
    """Return the points under the target, most accurate first (the faster of equals), at most `count` architectures."""
    feasible = sorted(
        (p for p in rated(points) if target.met_by(p.sample)),
        key=lambda p: (-p.sample.proxy_accuracy, target.latency_ms(p.sample)),
    )
    distinct = {p.sample.arch_id: p for p in reversed(feasible)}
    return tuple(p for p in feasible if distinct[p.sample.arch_id] is p)[:count]


def summarize(study: Study, target: Target) -> Summary:
    """Sum a study up."""
    settings = study.header.settings
    rewards = [s.reward for s in study.rated]
    quarter = max(1, len(rewards) // 4)
    feasible = [s for s in study.rated if target.met_by(s)]
    return Summary(
        samples=len(study.samples),
        under_target=sum(target.met_by(s) for s in study.samples),
        best=max(feasible, key=lambda s: (s.proxy_accuracy, -target.latency_ms(s)), default=None),
        best_reward=max(study.rated, key=lambda s: _reward_rank(s, settings.reward, target), default=None),
        first_quarter_reward=statistics.fmean(rewards[:quarter]) if rewards else None,
        last_quarter_reward=statistics.fmean(rewards[-quarter:]) if rewards else None,
        seconds=math.fsum(sample.seconds for sample in study.samples),
        failures=dict(Counter(sample.failure for sample in study.failed).most_common()),
        early=sum(s.epochs < settings.epochs_each for s in study.rated),
        taken_over=sum(s.target == WARM for s in study.samples),
    )


def _reward_rank(sample: Sample, reward: Reward, target: Target) -> tuple[bool, float]:
    """Give what the best reward is chosen by, as in a search: under a hard reward what meets the target comes first."""
    latency_ms = target.latency_ms(sample)
    value = reward(sample.proxy_accuracy, latency_ms, target.ms)
    return feasible_first(value, latency_ms, target.ms if reward.form == "hard" else math.inf)


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
        if target.met_by(sample) and not sample.failure:
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
