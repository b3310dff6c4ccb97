"""Fits what isolated rows miss: networks measured whole against the sums of their operators' rows.

    network_ms ≈ scale · Σ (kept · row + near · fetched(near rate) + far · fetched(far rate))
                 + per_op_ms · operators + offset_ms
    fetched(rate) = row - first + (first³ + (weights/rate)³)^⅓

Here first is the part of a row's time in which an operator uses its weights for the first time; of its weights those
come from near that it had at hand where it was measured alone, again and again, and from far all. Every row has been
freed of the fixed cost of one call of the runtime, which was measured by itself. Which shares of a network's weights
are kept, come from near and come from far is fetching.py's, and how the coefficients are found is fitting.py's. The
errors kept beside the fit are those of leaving each network out in turn; its interval holds besides how far another
session may be off. No row is changed here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_tables.errors import TooFewNetworks
from latency_tables.fetching import Floats, Memory, Work, columns_of, fetched_ms, shares
from latency_tables.fitting import OP_OF_CALL, Fitting, Observation

TERMS = 5  # of an operator, see `Calibration.terms`
MIN_NETWORKS = 8  # three coefficients and a rate, and as many again to judge them by
_LEAST_INTERVAL = 0.001  # no two clocks agree on a network more closely
_NORMAL_90 = 1.645  # standard deviations that hold 90 % of normal errors
# Of how much calm visits scatter, how far another session is off, one standard deviation. So the intervals of three
# tables held 91 % of 30 networks of each dtype in sessions of the same hour; hours before and after it 71 %.
_SESSION = 0.5
UNCALIBRATED_ERROR = 0.25  # isolated sums were up to a quarter off where weights exceed the cache
_LEAST_SHARE = 0.05  # of a row, which stays when the fixed cost is taken from it; a row is never 0
_LEAST_RATE, _MOST_RATE = 1e-3, 1e6  # GB/s, of a calibration that is read
_LEAST_KEPT_MS, _MOST_KEPT_MS = 1e-3, 1e6  # likewise


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coefficients, and the relative errors of networks left out of the fit (0.01 is 1 %)."""

    scale: float
    per_op_ms: float
    offset_ms: float
    heldout_mean_error: float
    heldout_max_error: float
    interval_error: float  # 90 % of networks that were not fitted are expected within this relative error
    networks: float  # how many were fitted; 0 where none were and the coefficients are what physics says
    fixed_ms: float = 0.0  # cost of one call of the runtime, which every row holds and is freed of
    fetch_gb_per_s: float = 0.0  # at which weights come back from near in every run; 0: no such limit was seen
    kept_mb: float = 0.0  # of a network's weights, which need not come back; a megabyte is 10⁶ bytes
    far_gb_per_s: float = 0.0  # at which they come from far where a network takes longer than kept_ms; 0: not seen
    kept_ms: float = 0.0  # for how long they stay near
    usual_sentinel_ns: int = 0  # times are read as of this speed, see speed.py; 0: as they were measured
    rows_at_once: float = 0.0  # that a kernel computes with each weight before it takes the next; 0: all
    at_hand_mb: float = 0.0  # of an operator's weights, for which its row did not wait; 0: all

    def __post_init__(self) -> None:
        """Raise ValueError for what would make times infinite, or less of slower operators and of more weights."""
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale!r}, not above 0")
        for name in ("fetch_gb_per_s", "far_gb_per_s"):
            rate = getattr(self, name)
            if rate and not _LEAST_RATE <= rate <= _MOST_RATE:
                raise ValueError(f"{name} is {rate!r}, not 0 or {_LEAST_RATE:g} to {_MOST_RATE:g}")
        if self.fetch_gb_per_s and self.far_gb_per_s > self.fetch_gb_per_s:
            raise ValueError(f"far_gb_per_s is {self.far_gb_per_s!r}, above fetch_gb_per_s {self.fetch_gb_per_s!r}")
        for name in ("kept_mb", "rows_at_once", "at_hand_mb", "usual_sentinel_ns"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}, not 0 or more")
        if bool(self.kept_ms) != bool(self.far_gb_per_s):
            raise ValueError(f"kept_ms is {self.kept_ms!r} at far_gb_per_s {self.far_gb_per_s!r}; both or none are 0")
        if self.kept_ms and not _LEAST_KEPT_MS <= self.kept_ms <= _MOST_KEPT_MS:
            raise ValueError(f"kept_ms is {self.kept_ms!r}, not 0 or {_LEAST_KEPT_MS:g} to {_MOST_KEPT_MS:g}")

    @property
    def memory(self) -> Memory:
        """Say where weights come from."""
        kept_ms, use = self.kept_ms or math.inf, (self.rows_at_once, self.at_hand_mb)
        return Memory(self.fetch_gb_per_s, self.kept_mb, self.far_gb_per_s, kept_ms, *use)

    def terms(self, work: Work) -> Floats:
        """Give (5,) of what an operator adds to the sums of `sum_ms`.

        They are ms that it takes in any network, which may be below 0; ms that it takes besides where its weights come
        from near, and from far; megabytes of weights; and ms of its own.
        """
        columns, row_ms = columns_of([work]), work.own_ms
        near_ms, far_ms = (float(fetched_ms(columns, way)[0]) for way in (self.memory.near, self.memory.far))
        besides = self.scale * (near_ms - row_ms), self.scale * (far_ms - row_ms)
        return np.array([self.scale * row_ms + self.per_op_ms, *besides, work.weight_mb, row_ms])

    def sum_ms(self, sums: Floats) -> Floats:
        """Predict networks, (...) ms, from (5, ...) sums of `terms`.

        A larger sum never makes the time less, as long as the third is not below the second: far is slower than near.
        """
        return self._added_ms(sums, sums) + self.offset_ms

    def each_ms(self, terms: Floats) -> Floats:
        """Say what each operator takes of its network, (N,) ms which may be below 0, from their (N, 5) `terms`."""
        return self._added_ms(terms.T, terms.sum(axis=0))

    def _added_ms(self, terms: Floats, sums: Floats) -> Floats:
        (near,), (far,) = shares([self.memory], *sums[-2:])
        found: Floats = terms[0] + near * terms[1] + far * terms[2]
        return found


def own_ms(row_ms: float, fixed_ms: float) -> float:
    """Free a row of the fixed cost of a call; what is left is above 0."""
    return max(row_ms - fixed_ms, _LEAST_SHARE * row_ms)


def uncalibrated(fixed_ms: float) -> Calibration:
    """Give the coefficients for a table without networks, those that a fit expects, with a wide interval."""
    error = UNCALIBRATED_ERROR
    return Calibration(1.0, OP_OF_CALL * fixed_ms, fixed_ms, error, error, error, 0.0, fixed_ms)


def calibrate(observations: Sequence[Observation], fixed_ms: float = 0.0, near_gb_per_s: float = 0.0) -> Calibration:
    """Fit by regularised least squares on relative errors; `near_gb_per_s` as in `Fitting.of`.

    Raises:
        TooFewNetworks: fewer than MIN_NETWORKS observations.

    """
    if len(observations) < MIN_NETWORKS:
        raise TooFewNetworks(len(observations), MIN_NETWORKS)
    fitting = Fitting.of(observations, fixed_ms, near_gb_per_s)
    found, errors = fitting.fitted(), np.abs(fitting.left_out_errors())
    scale, per_op_ms, offset_ms = map(float, found.coefficients)
    return Calibration(
        scale,
        per_op_ms,
        offset_ms,
        heldout_mean_error=float(errors.mean()),
        heldout_max_error=float(errors.max()),
        interval_error=math.hypot(_interval_error(errors), _NORMAL_90 * _SESSION * _scatter(observations)),
        networks=float(len(observations)),
        fixed_ms=fixed_ms,
        fetch_gb_per_s=found.memory.near_gb_per_s,
        kept_mb=found.memory.kept_mb,
        far_gb_per_s=found.memory.far_gb_per_s,
        kept_ms=found.memory.kept_ms if found.memory.far_gb_per_s else 0.0,
        rows_at_once=found.memory.rows_at_once,
        at_hand_mb=found.memory.at_hand_mb,
    )


def _scatter(observations: Sequence[Observation]) -> float:
    return statistics.median(one.scatter for one in observations)


def _interval_error(errors: Floats) -> float:
    """Give the relative error that 90 % of further networks stay within.

    The root mean square tells it from few errors with less scatter than their 90 % quantile does, and the quantile
    (split conformal) tells it where errors are far from normal; their geometric mean is between.
    """
    rank = min(len(errors) - 1, math.ceil((len(errors) + 1) * 0.9) - 1)
    quantile = float(np.sort(errors)[rank])
    normal = _NORMAL_90 * math.sqrt(float(np.mean(errors**2)))
    return max(_LEAST_INTERVAL, math.sqrt(quantile * normal))
