"""Fits what isolated rows miss: networks measured whole against the sums of their operators' rows.

    network_ms ≈ scale · Σ rows + per_op_ms · operators + per_mb_ms · megabytes of weights + offset_ms

An operator measured alone pays the fixed cost of one call of the runtime, so per_op_ms comes out negative; and its
weights stay in the cache, while those of a large network are fetched again in every run, which per_mb_ms is for. The
error kept beside the fit is that of leaving each network out in turn. No row is changed here.
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
_INTERVAL = 0.90


@dataclass(frozen=True, slots=True)
class Calibration:
    """Four coefficients, and the relative errors of networks left out of the fit (0.01 is 1 %)."""

    scale: float
    per_op_ms: float
    per_mb_ms: float  # a megabyte is 10⁶ bytes
    offset_ms: float
    heldout_mean_error: float
    heldout_max_error: float
    interval_error: float  # 90 % of the networks left out were within this relative error
    networks: float  # how many were fitted


@dataclass(frozen=True, slots=True)
class Observation:
    """One network for the fit: the sum of its rows, its operators and weights, and what it measured."""

    rows_ms: float
    operators: int
    weight_mb: float
    measured_ms: float


def calibrate(observations: Sequence[Observation]) -> Calibration:
    """Fit by least squares on relative errors.

    Raises:
        TooFewNetworks: fewer than MIN_NETWORKS observations.

    """
    if len(observations) < MIN_NETWORKS:
        raise TooFewNetworks(len(observations), MIN_NETWORKS)
    features = np.array([[o.rows_ms, o.operators, o.weight_mb, 1.0] for o in observations])
    measured = np.array([o.measured_ms for o in observations])
    relative = features / measured[:, None]
    coefficients = _fit(relative)
    errors = np.array([_left_out_error(relative, i) for i in range(len(observations))])
    return Calibration(
        scale=float(coefficients[0]),
        per_op_ms=float(coefficients[1]),
        per_mb_ms=float(coefficients[2]),
        offset_ms=float(coefficients[3]),
        heldout_mean_error=float(errors.mean()),
        heldout_max_error=float(errors.max()),
        interval_error=float(np.sort(errors)[_interval_rank(len(errors))]),
        networks=float(len(observations)),
    )


def _interval_rank(count: int) -> int:
    """Give the rank whose value covers a new error with the wanted chance (split conformal prediction)."""
    return min(count - 1, math.ceil((count + 1) * _INTERVAL) - 1)


def _fit(relative: Floats) -> Floats:
    """Solve min ‖A·c − 1‖² with the scale kept positive: with fewer columns, if it would not be."""
    for columns in (4, 3, 2, 1):
        solution = np.linalg.lstsq(relative[:, :columns], np.ones(len(relative)), rcond=None)[0].astype(np.float64)
        if solution[0] > 0:
            break
    return np.pad(solution, (0, 4 - columns))


def _left_out_error(relative: Floats, index: int) -> float:
    rest = np.delete(relative, index, axis=0)
    return abs(float(relative[index] @ _fit(rest)) - 1.0)
