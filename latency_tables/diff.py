"""Compares two tables: what differs in their keys, what only one holds, and which rows differ beyond their noise.

Two rows differ when their medians are further apart than twice the spread of both together; a spread is at least
1 %, since the same file measured in two fresh processes differs by that much. The ratio is always B over A.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latency_tables.schema import Measurement
from latency_tables.store import LatencyTable

_LEAST_SPREAD = 0.01  # of the median
_BEYOND = 2.0  # × the spread of both rows
_SIGMA = 1.4826  # × the median absolute deviation is the standard deviation of a normal distribution


@dataclass(frozen=True, slots=True)
class Pair:
    """One subject that both tables hold."""

    subject: str
    a_ms: float  # medians
    b_ms: float
    noise_ms: float  # differences up to this one say nothing

    @property
    def ratio(self) -> float:
        """Give how much B takes of what A takes."""
        return self.b_ms / self.a_ms

    @property
    def differs(self) -> bool:
        """Tell whether the medians are further apart than the noise."""
        return abs(self.b_ms - self.a_ms) > self.noise_ms


@dataclass(frozen=True, slots=True)
class Ratios:
    """How B's times compare with A's over many subjects."""

    count: int
    geometric_mean: float
    median: float
    p10: float
    p90: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything in which two tables differ."""

    key: tuple[str, ...]  # each as `field: A's / B's`
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    both: tuple[Pair, ...]  # rows and networks, the largest ratio either way first

    @property
    def beyond_noise(self) -> tuple[Pair, ...]:
        """List the subjects whose medians differ beyond their noise."""
        return tuple(pair for pair in self.both if pair.differs)

    @property
    def ratios(self) -> Ratios | None:
        """Give the statistics of all ratios, None where the tables share nothing."""
        return _ratios([pair.ratio for pair in self.both])


def compare(a: LatencyTable, b: LatencyTable) -> Difference:
    """Compare two tables' keys, rows and networks."""
    mine, theirs = _by_subject(a), _by_subject(b)
    pairs = [_pair(mine[subject], theirs[subject]) for subject in mine if subject in theirs]
    return Difference(
        key=tuple(a.key.differences(b.key)),
        only_a=tuple(subject for subject in mine if subject not in theirs),
        only_b=tuple(subject for subject in theirs if subject not in mine),
        both=tuple(sorted(pairs, key=lambda pair: -abs(math.log(pair.ratio)))),
    )


def spread_ms(measurement: Measurement) -> float:
    """Give the standard deviation of one sample in ms, as the median absolute deviation tells it; 0 of one sample."""
    middle = statistics.median(measurement.samples_ns)
    return _SIGMA * statistics.median([abs(sample - middle) for sample in measurement.samples_ns]) / 1e6


def _by_subject(table: LatencyTable) -> Mapping[str, Measurement]:
    return {measurement.subject: measurement for measurement in table.measurements}


def _pair(a: Measurement, b: Measurement) -> Pair:
    a_ms, b_ms = a.median_ms, b.median_ms
    noise = math.hypot(max(spread_ms(a), _LEAST_SPREAD * a_ms), max(spread_ms(b), _LEAST_SPREAD * b_ms))
    return Pair(a.subject, a_ms, b_ms, _BEYOND * noise)


def _ratios(ratios: Sequence[float]) -> Ratios | None:
    if not ratios:
        return None
    ordered = sorted(ratios)
    tenth = (len(ordered) - 1) / 10
    return Ratios(
        count=len(ordered),
        geometric_mean=math.exp(statistics.fmean(map(math.log, ordered))),
        median=statistics.median(ordered),
        p10=ordered[round(tenth)],
        p90=ordered[round(9 * tenth)],
        least=ordered[0],
        most=ordered[-1],
    )
