"""Fits what isolated rows miss: networks measured whole against the sums of their operators' rows.

    network_ms ≈ scale · Σ rows + per_op_ms · operators + per_mb_ms · megabytes of weights + offset_ms

Every row has been freed of the fixed cost of one call of the runtime, which was measured by itself. The weights of an
operator measured alone stay in the cache, while those of a large network are fetched again in every run: that is what
per_mb_ms is for. Few networks are fitted, so each coefficient is held near what physics says unless the data speak
against it. The error kept beside the fit is that of leaving each network out in turn. No row is changed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latency_tables.errors import TooFewNetworks

Floats = npt.NDArray[np.float64]

MIN_NETWORKS = 8  # four coefficients, and as many again to judge them by
_NOISE = 0.01  # relative error of one measured network on a quiet machine; how much the data weigh against the prior
_SCALE_SPREAD = 0.3  # around 1: measured 3 to 10 % away, far more on a machine whose speed changed meanwhile
_TERM_SPREAD = 0.3  # of the median network: how much operators, weights and the constant may each come to
_NORMAL_90 = 1.645  # standard deviations that hold 90 % of normal errors
UNCALIBRATED_ERROR = 0.25  # isolated sums were up to a quarter off where weights exceed the cache
_LEAST_SHARE = 0.05  # of a row, which stays when the fixed cost is taken from it; a row is never 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coefficients, and the relative errors of networks left out of the fit (0.01 is 1 %)."""

    scale: float
    per_op_ms: float
    per_mb_ms: float  # a megabyte is 10⁶ bytes
    offset_ms: float
    heldout_mean_error: float
    heldout_max_error: float
    interval_error: float  # 90 % of networks that were not fitted are expected within this relative error
    networks: float  # how many were fitted; 0 where none were and the coefficients are what physics says
    fixed_ms: float = 0.0  # cost of one call of the runtime, which every row holds and is freed of


@dataclass(frozen=True, slots=True)
class Observation:
    """One network for the fit: the sum of its rows, its operators and weights, and what it measured."""

    rows_ms: float  # freed of the fixed cost, see `own_ms`
    operators: int
    weight_mb: float
    measured_ms: float


def own_ms(row_ms: float, fixed_ms: float) -> float:
    """Free a row of the fixed cost of a call; what is left is above 0."""
    return max(row_ms - fixed_ms, _LEAST_SHARE * row_ms)


def uncalibrated(fixed_ms: float) -> Calibration:
    """Give the coefficients for a table without networks: plain sums and one call, with a wide interval."""
    error = UNCALIBRATED_ERROR
    return Calibration(1.0, 0.0, 0.0, fixed_ms, error, error, error, 0.0, fixed_ms)


def calibrate(observations: Sequence[Observation], fixed_ms: float = 0.0) -> Calibration:
    """Fit by regularised least squares on relative errors.

    Raises:
        TooFewNetworks: fewer than MIN_NETWORKS observations.

    """
    if len(observations) < MIN_NETWORKS:
        raise TooFewNetworks(len(observations), MIN_NETWORKS)
    features = np.array([[o.rows_ms, o.operators, o.weight_mb, 1.0] for o in observations])
    measured = np.array([o.measured_ms for o in observations])
    coefficients = _fit(features, measured, fixed_ms)
    errors = np.abs([_left_out_error(features, measured, fixed_ms, i) for i in range(len(observations))])
    return Calibration(
        scale=float(coefficients[0]),
        per_op_ms=float(coefficients[1]),
        per_mb_ms=float(coefficients[2]),
        offset_ms=float(coefficients[3]),
        heldout_mean_error=float(errors.mean()),
        heldout_max_error=float(errors.max()),
        interval_error=_interval_error(errors),
        networks=float(len(observations)),
        fixed_ms=fixed_ms,
    )


@dataclass(frozen=True, slots=True)
class _Prior:
    """What the four coefficients are expected to be, each give or take its spread (one standard deviation)."""

    mean: Floats
    spread: Floats

    @staticmethod
    def of(features: Floats, measured: Floats, fixed_ms: float) -> _Prior:
        typical = np.maximum(np.median(features, axis=0), 1e-12)
        spread = _TERM_SPREAD * float(np.median(measured)) / typical
        spread[0] = _SCALE_SPREAD
        return _Prior(np.array([1.0, 0.0, 0.0, fixed_ms]), spread)


def _fit(features: Floats, measured: Floats, fixed_ms: float) -> Floats:
    """Solve min ‖(A·c − 1)/noise‖² + ‖(c − mean)/spread‖² for a positive scale and weights that cost something."""
    prior, relative = _Prior.of(features, measured, fixed_ms), features / measured[:, None]
    free = [0, 1, 2, 3]
    while True:
        rows = np.vstack([relative[:, free] / _NOISE, np.diag(1 / prior.spread[free])])
        goal = np.concatenate([np.full(len(relative), 1 / _NOISE), (prior.mean / prior.spread)[free]])
        solution = np.zeros(4)
        solution[free] = np.linalg.lstsq(rows, goal, rcond=None)[0]
        if 2 in free and solution[2] < 0:
            free.remove(2)
        elif solution[0] <= 0 and len(free) > 1:
            free.pop()
        else:
            return solution if solution[0] > 0 else prior.mean


def _left_out_error(features: Floats, measured: Floats, fixed_ms: float, index: int) -> float:
    rest = _fit(np.delete(features, index, axis=0), np.delete(measured, index), fixed_ms)
    return float(features[index] @ rest) / float(measured[index]) - 1.0


def _interval_error(errors: Floats) -> float:
    """Give the relative error that 90 % of further networks stay within.

    The root mean square tells it from few errors with less scatter than their 90 % quantile does, and the quantile
    (split conformal) tells it where errors are far from normal; their geometric mean is between.
    """
    rank = min(len(errors) - 1, math.ceil((len(errors) + 1) * 0.9) - 1)
    quantile = float(np.sort(errors)[rank])
    normal = _NORMAL_90 * math.sqrt(float(np.mean(errors**2)))
    return math.sqrt(quantile * normal)
