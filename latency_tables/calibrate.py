"""Fits what isolated rows miss: networks measured whole against the sums of their operators' rows.

    network_ms ≈ scale · Σ (row³ + fetch³)^⅓ + per_op_ms · operators + per_mb_ms · megabytes of weights + offset_ms

Every row has been freed of the fixed cost of one call of the runtime, which was measured by itself. The weights of an
operator measured alone stay in the cache, while those of a large network are fetched again in every run. That costs
little where an operator computes for longer than the fetch takes, and else up to the whole of it; `fetch` is its
weights by the rate at which they come, which is fitted too, and per_mb_ms what they cost any operator. Few networks are
fitted, so each coefficient is held near what physics says unless the data speak against it. The error kept beside the
fit is that of leaving each network out in turn. No row is changed here.
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
# Rates that are tried: 0 is no limit at all, and then from a small board's memory to a large chip's cache.
_FETCH_GB_PER_S = (0.0, *(2.0 ** (step / 6) for step in range(43)))
_EVIDENCE = 4.0  # by so much must the misfit fall before a limit is believed: two standard deviations of one network
_TOGETHER = 3.0  # 1 would add computing and fetching up, ∞ hide the shorter behind the longer; 3 and 4 fitted best


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
    fetch_gb_per_s: float = 0.0  # at which weights come back in every run; 0: no such limit was seen

    def op_ms(self, own_ms: float, weight_mb: float) -> float:
        """Give what an operator adds to a network, which may be below 0; `own_ms` is its row's, see there."""
        in_network_ms = _in_network_ms(np.array(own_ms), np.array(weight_mb), self.fetch_gb_per_s)
        return self.scale * float(in_network_ms) + self.per_op_ms + self.per_mb_ms * weight_mb


@dataclass(frozen=True, slots=True)
class Observation:
    """One network for the fit: its operators' times and weights, and what it measured."""

    own_ms: tuple[float, ...]  # of each operator that costs something, freed of the fixed cost, see `own_ms`
    weights_mb: tuple[float, ...]  # of each
    measured_ms: float

    @property
    def rows_ms(self) -> float:
        """Give the sum of its rows."""
        return sum(self.own_ms)

    @property
    def weight_mb(self) -> float:
        """Give the sum of its weights."""
        return sum(self.weights_mb)


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
    data = _Data.of(observations, fixed_ms)
    found = _fit(data)
    scale, per_op_ms, per_mb_ms, offset_ms = map(float, found.coefficients)
    errors = np.abs([data.left_out_error(index) for index in range(len(observations))])
    return Calibration(
        scale,
        per_op_ms,
        per_mb_ms,
        offset_ms,
        heldout_mean_error=float(errors.mean()),
        heldout_max_error=float(errors.max()),
        interval_error=_interval_error(errors),
        networks=float(len(observations)),
        fixed_ms=fixed_ms,
        fetch_gb_per_s=_FETCH_GB_PER_S[found.rate],
    )


def _in_network_ms(own_ms: Floats, weights_mb: Floats, fetch_gb_per_s: float) -> Floats:
    """Give the times of operators whose weights come from memory while they compute; megabytes by GB/s are ms."""
    if not fetch_gb_per_s:
        return own_ms
    both: Floats = own_ms**_TOGETHER + (weights_mb / fetch_gb_per_s) ** _TOGETHER
    return both ** (1 / _TOGETHER)


@dataclass(frozen=True, slots=True)
class _Found:
    """A fit: which rate it is by, its misfit in squares of the noise but for a constant, and the four coefficients."""

    rate: int  # in _FETCH_GB_PER_S
    misfit: float
    coefficients: Floats


@dataclass(frozen=True, slots=True)
class _Data:
    """What is fitted: (rates, networks, 4) features, and (networks,) ms that were measured."""

    features: Floats
    measured: Floats
    fixed_ms: float

    @staticmethod
    def of(observations: Sequence[Observation], fixed_ms: float) -> _Data:
        features = [[_features(one, rate) for one in observations] for rate in _FETCH_GB_PER_S]
        return _Data(np.array(features), np.array([one.measured_ms for one in observations]), fixed_ms)

    def left_out_error(self, index: int) -> float:
        """Give the relative error of a network's prediction by a fit to all others."""
        found = _fit(_Data(np.delete(self.features, index, axis=1), np.delete(self.measured, index), self.fixed_ms))
        return float(self.features[found.rate, index] @ found.coefficients) / float(self.measured[index]) - 1.0


def _features(one: Observation, fetch_gb_per_s: float) -> list[float]:
    times_ms = _in_network_ms(np.array(one.own_ms), np.array(one.weights_mb), fetch_gb_per_s)
    return [float(np.sum(times_ms)), len(one.own_ms), one.weight_mb, 1.0]


@dataclass(frozen=True, slots=True)
class _Prior:
    """What the four coefficients are expected to be, each give or take its spread (one standard deviation)."""

    mean: Floats
    spread: Floats

    @staticmethod
    def of(data: _Data) -> _Prior:
        typical = np.maximum(np.median(data.features[0], axis=0), 1e-12)
        spread = _TERM_SPREAD * float(np.median(data.measured)) / typical
        spread[0] = _SCALE_SPREAD
        return _Prior(np.array([1.0, 0.0, 0.0, data.fixed_ms]), spread)


def _fit(data: _Data) -> _Found:
    """Fit the coefficients by every rate; take the one that fits best if it does so clearly better than no limit.

    Each fit is min ‖(A·c − 1)/noise‖² + ‖(c − mean)/spread‖², by its normal equations with c in units of its spread.
    """
    prior = _Prior.of(data)
    scaled = data.features * prior.spread / (data.measured[:, None] * _NOISE)  # (rates, networks, 4)
    grams = scaled.transpose(0, 2, 1) @ scaled + np.eye(4)
    goals = scaled.sum(axis=1) / _NOISE + prior.mean / prior.spread
    fits = []
    for rate, (gram, goal) in enumerate(zip(grams, goals, strict=True)):
        solution = _solve(gram, goal, prior)
        fits.append(_Found(rate, float(solution @ gram @ solution - 2 * goal @ solution), solution * prior.spread))
    best = min(fits[1:], key=lambda found: found.misfit)
    return best if best.misfit < fits[0].misfit - _EVIDENCE else fits[0]


def _solve(gram: Floats, goal: Floats, prior: _Prior) -> Floats:
    """Solve for a positive scale and weights that cost something, dropping terms until both hold."""
    free = [0, 1, 2, 3]
    while True:
        solution = np.zeros(4)
        solution[free] = np.linalg.solve(gram[np.ix_(free, free)], goal[free])
        if 2 in free and solution[2] < 0:
            free.remove(2)
        elif solution[0] <= 0 and len(free) > 1:
            free.pop()
        else:
            return solution if solution[0] > 0 else prior.mean / prior.spread


def _interval_error(errors: Floats) -> float:
    """Give the relative error that 90 % of further networks stay within.

    The root mean square tells it from few errors with less scatter than their 90 % quantile does, and the quantile
    (split conformal) tells it where errors are far from normal; their geometric mean is between.
    """
    rank = min(len(errors) - 1, math.ceil((len(errors) + 1) * 0.9) - 1)
    quantile = float(np.sort(errors)[rank])
    normal = _NORMAL_90 * math.sqrt(float(np.mean(errors**2)))
    return math.sqrt(quantile * normal)
