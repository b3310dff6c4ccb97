"""Fits what isolated rows miss: networks measured whole against the sums of their operators' rows.

    network_ms ≈ scale · Σ ((1 − share) · row + share · (row³ + fetch³)^⅓) + per_op_ms · operators + offset_ms

Every row has been freed of the fixed cost of one call of the runtime, which was measured by itself. The weights of an
operator measured alone stay in the cache, while those of a network are fetched again in every run, all but what the
cache keeps: `share` of them is what exceeds `kept_mb`. Fetching costs little where an operator computes for longer than
it takes, and else up to the whole of it; `fetch` is an operator's weights by the rate at which they come, which is
fitted too. Few networks are fitted, so each coefficient is held near what physics says unless the data speak against
it. The error kept beside the fit is that of leaving each network out in turn. No row is changed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latency_tables.errors import TooFewNetworks

Floats = npt.NDArray[np.float64]

_COEFFICIENTS = 3  # scale, per_op_ms, offset_ms
MIN_NETWORKS = 8  # the coefficients and a rate, and as many again to judge them by
# How much the networks weigh against what physics says is taken from how they scatter around a fit, within these limits
# of the relative error of one of them: the better they agree on something, the more it is believed.
_LEAST_NOISE, _MOST_NOISE = 0.001, 0.03
_SCALE_SPREAD = 0.3  # around 1: measured 3 to 10 % away, far more on a machine whose speed changed meanwhile
# Of the median network: how much all its operators may take beside their rows, and how much it may take beside them and
# the one call that it is. Looser spreads predict a space's networks no better, and other families worse: small networks
# and those of many cheap operators have little else. Where the cost of a call was not measured every row holds it, and
# little is known of either.
_SPREADS, _SPREADS_WITHOUT_CALL = (0.012, 0.001), (0.3, 0.03)
_OF_CALL = 0.2  # nothing is known better than to this share of a call's cost, which tiny networks are mostly made of
_LEAST_INTERVAL = 0.001  # no two clocks agree on a network more closely
_NORMAL_90 = 1.645  # standard deviations that hold 90 % of normal errors
UNCALIBRATED_ERROR = 0.25  # isolated sums were up to a quarter off where weights exceed the cache
_LEAST_SHARE = 0.05  # of a row, which stays when the fixed cost is taken from it; a row is never 0
# Rates that are tried: 0 is no limit at all, and then from a small board's memory, 0.25, to a large chip's cache, 128.
_FETCH_GB_PER_S = (0.0, *(2.0 ** (step / 5) for step in range(-10, 36)))
_LEAST_RATE, _MOST_RATE = 1e-3, 1e6  # GB/s, of a calibration that is read
_LEAST_MB = 1e-9  # what a network has at least, for shares of it
_KEPT_MB = 1.0  # about a core's own cache, .5 to 2 MB; the fits of float32 and of int8 networks agree on it
# By so much must the misfit fall before a limit is believed, in units of what is left for each network: where there was
# none, one of 46 rates lowered it by more in one of 60 sets of networks; where there was one, by 6 to 64.
_EVIDENCE = 5.5
_TOGETHER = 3.0  # 1 would add computing and fetching up, ∞ hide the shorter behind the longer; 3 and 4 fitted best


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
    fetch_gb_per_s: float = 0.0  # at which weights come back in every run; 0: no such limit was seen
    kept_mb: float = 0.0  # of a network's weights, which need not come back; a megabyte is 10⁶ bytes

    def __post_init__(self) -> None:
        """Raise ValueError for what would make times infinite, or less of slower operators and of more weights."""
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale!r}, not above 0")
        if self.fetch_gb_per_s and not _LEAST_RATE <= self.fetch_gb_per_s <= _MOST_RATE:
            raise ValueError(f"fetch_gb_per_s is {self.fetch_gb_per_s!r}, not 0 or {_LEAST_RATE:g} to {_MOST_RATE:g}")
        if not self.kept_mb >= 0:
            raise ValueError(f"kept_mb is {self.kept_mb!r}, not 0 or more")

    def op_ms(self, row_ms: float, weight_mb: float) -> tuple[float, float]:
        """Give what an operator adds to any network, which may be below 0, and what besides where its weights are
        fetched; `row_ms` is without the fixed cost, see `own_ms`.
        """
        fetched_ms = float(_fetched_ms(np.array(row_ms), np.array(weight_mb), self.fetch_gb_per_s))
        return self.scale * row_ms + self.per_op_ms, self.scale * (fetched_ms - row_ms)

    def fetched_share(self, weight_mb: Floats) -> Floats:
        """Give the share, 0 to 1, of networks' weights that are fetched in every run."""
        return _fetched_share(weight_mb, self.kept_mb)

    def sum_ms(self, always_ms: Floats, fetching_ms: Floats, weight_mb: Floats) -> Floats:
        """Predict networks from sums over their operators, see `op_ms`; a larger sum never makes the time less."""
        return always_ms + self.fetched_share(weight_mb) * fetching_ms + self.offset_ms


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
    return Calibration(1.0, 0.0, fixed_ms, error, error, error, 0.0, fixed_ms)


def calibrate(observations: Sequence[Observation], fixed_ms: float = 0.0) -> Calibration:
    """Fit by regularised least squares on relative errors.

    Raises:
        TooFewNetworks: fewer than MIN_NETWORKS observations.

    """
    if len(observations) < MIN_NETWORKS:
        raise TooFewNetworks(len(observations), MIN_NETWORKS)
    data = _Data.of(observations, fixed_ms)
    found = _fit(data)
    scale, per_op_ms, offset_ms = map(float, found.coefficients)
    errors = np.abs([data.left_out_error(index) for index in range(len(observations))])
    return Calibration(
        scale,
        per_op_ms,
        offset_ms,
        heldout_mean_error=float(errors.mean()),
        heldout_max_error=float(errors.max()),
        interval_error=_interval_error(errors),
        networks=float(len(observations)),
        fixed_ms=fixed_ms,
        fetch_gb_per_s=_FETCH_GB_PER_S[found.rate_index],
        kept_mb=_KEPT_MB if found.rate_index else 0.0,
    )


def _fetched_share(weight_mb: Floats, kept_mb: float) -> Floats:
    share: Floats = 1.0 - kept_mb / np.maximum(weight_mb, max(kept_mb, _LEAST_MB))  # 0 where all of them are kept
    return share


def _fetched_ms(own_ms: Floats, weights_mb: Floats, fetch_gb_per_s: float) -> Floats:
    """Give the times of operators whose weights come from memory while they compute; megabytes by GB/s are ms."""
    if not fetch_gb_per_s:
        return own_ms
    both: Floats = own_ms**_TOGETHER + (weights_mb / fetch_gb_per_s) ** _TOGETHER
    return both ** (1 / _TOGETHER)


@dataclass(frozen=True, slots=True)
class _Found:
    """A fit: which rate it is by, its misfit in squares of the noise, and the coefficients."""

    rate_index: int  # in _FETCH_GB_PER_S
    misfit: float
    coefficients: Floats


@dataclass(frozen=True, slots=True)
class _Data:
    """What is fitted: (rates, networks, 3) features, and (networks,) ms that were measured."""

    features: Floats
    measured: Floats
    fixed_ms: float

    @staticmethod
    def of(observations: Sequence[Observation], fixed_ms: float) -> _Data:
        features = [[_features(one, rate) for one in observations] for rate in _FETCH_GB_PER_S]
        return _Data(np.array(features), np.array([one.measured_ms for one in observations]), fixed_ms)

    def left_out_error(self, index: int) -> float:
        """Give the relative error of a network's prediction by a fit to all others."""
        features, measured = np.delete(self.features, index, axis=1), np.delete(self.measured, index)
        return float(self.errors(_fit(replace(self, features=features, measured=measured)))[index])

    def errors(self, found: _Found) -> Floats:
        """Give the relative error of each network's prediction by a fit."""
        predicted: Floats = self.features[found.rate_index] @ found.coefficients
        return predicted / self.measured - 1.0


def _features(one: Observation, fetch_gb_per_s: float) -> list[float]:
    share = float(_fetched_share(np.array(one.weight_mb), _KEPT_MB))
    fetched_ms = _fetched_ms(np.array(one.own_ms), np.array(one.weights_mb), fetch_gb_per_s)
    return [(1 - share) * one.rows_ms + share * float(np.sum(fetched_ms)), len(one.own_ms), 1.0]


@dataclass(frozen=True, slots=True)
class _Prior:
    """What the three coefficients are expected to be, each give or take its spread (one standard deviation)."""

    mean: Floats
    spread: Floats

    @staticmethod
    def of(data: _Data) -> _Prior:
        operators, network_ms = max(1.0, float(np.median(data.features[0, :, 1]))), float(np.median(data.measured))
        least_ms = _OF_CALL * data.fixed_ms
        ops_spread, offset_spread = _SPREADS if data.fixed_ms else _SPREADS_WITHOUT_CALL
        op_ms, offset_ms = max(ops_spread * network_ms / operators, least_ms), max(offset_spread * network_ms, least_ms)
        spread = (_SCALE_SPREAD, op_ms, offset_ms)
        return _Prior(np.array([1.0, 0.0, data.fixed_ms]), np.array(spread))


def _fit(data: _Data) -> _Found:
    """Fit as if nothing was noise, and once more with what is left as the noise."""
    errors = data.errors(_fit_with(data, _LEAST_NOISE))
    scatter = math.sqrt(float(errors @ errors) / (len(errors) - _COEFFICIENTS))
    return _fit_with(data, min(_MOST_NOISE, max(_LEAST_NOISE, scatter)))


def _fit_with(data: _Data, noise: float) -> _Found:
    """Fit the coefficients by every rate; take the one that fits best if it does so clearly better than no limit.

    Each fit is min ‖(A·c − 1)/noise‖² + ‖(c − mean)/spread‖², by its normal equations with c in units of its spread.
    """
    prior = _Prior.of(data)
    scaled = data.features * prior.spread / (data.measured[:, None] * noise)  # (rates, networks, coefficients)
    grams = scaled.transpose(0, 2, 1) @ scaled + np.eye(_COEFFICIENTS)
    goals = scaled.sum(axis=1) / noise + prior.mean / prior.spread
    whole = len(data.measured) / noise**2 + float(np.sum((prior.mean / prior.spread) ** 2))
    fits = []
    for index, (gram, goal) in enumerate(zip(grams, goals, strict=True)):
        solution = _solve(gram, goal, prior)
        misfit = whole + float(solution @ gram @ solution - 2 * goal @ solution)
        fits.append(_Found(index, misfit, solution * prior.spread))
    best = min(fits[1:], key=lambda found: found.misfit)
    left = max(1.0, best.misfit / (len(data.measured) - _COEFFICIENTS))  # for each network, 1 at least
    return best if fits[0].misfit - best.misfit > _EVIDENCE * left else fits[0]


def _solve(gram: Floats, goal: Floats, prior: _Prior) -> Floats:
    """Solve for a positive scale, dropping the constant and then the operators until it is one."""
    for terms in range(_COEFFICIENTS, 0, -1):
        solution = np.zeros(_COEFFICIENTS)
        solution[:terms] = np.linalg.solve(gram[:terms, :terms], goal[:terms])
        if solution[0] > 0:
            return solution
    return prior.mean / prior.spread


def _interval_error(errors: Floats) -> float:
    """Give the relative error that 90 % of further networks stay within.

    The root mean square tells it from few errors with less scatter than their 90 % quantile does, and the quantile
    (split conformal) tells it where errors are far from normal; their geometric mean is between.
    """
    rank = min(len(errors) - 1, math.ceil((len(errors) + 1) * 0.9) - 1)
    quantile = float(np.sort(errors)[rank])
    normal = _NORMAL_90 * math.sqrt(float(np.mean(errors**2)))
    return max(_LEAST_INTERVAL, math.sqrt(quantile * normal))
