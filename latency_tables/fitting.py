"""Finds the memory and the coefficients by which whole networks take what they were measured to take.

Regularised least squares on relative errors, once for each memory that is tried: few networks are fitted, so each
coefficient is held near what physics says unless the data speak against it, and a memory with more to fit is believed
only where it explains far more than chance would. What comes of it is calibrate.py's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from latency_tables.fetching import Floats, Memory, fetched_ms

_COEFFICIENTS = 3  # scale, per_op_ms, offset_ms
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
_KEPT_MB = 1.0  # about a core's own cache, .5 to 2 MB; the fits of float32 and of int8 networks agree on it
# What is tried: no limit; weights that come from near, at rates from a small board's memory to a large chip's cache;
# and those of longer networks from far.
_NEAR = tuple(Memory(2.0 ** (step / 5), _KEPT_MB) for step in range(-10, 36))
_STEP = 1.5  # of far rates and of times, which are tried more finely around the best
_FAR = tuple(
    Memory(near, _KEPT_MB if near else 0.0, far, kept_ms)
    for near in (0.0, 10.0, 20.0, 40.0)
    for far in (0.25 * _STEP**step for step in range(12))
    for kept_ms in (0.3 * _STEP**step for step in range(13))
    if not near or near > far
)
_TRIED: tuple[tuple[Memory, ...], ...] = ((Memory(),), _NEAR, _FAR)  # each kind has more to fit than the one before
# By so much must the misfit fall before a kind is believed, in units of what is left for each network: where there was
# no limit, one of 46 rates lowered it by more in one of 60 sets of networks; where there was one, by 6 to 64.
_EVIDENCE = 5.5
_SMALLER_STEPS = tuple(_STEP ** (step / 4) for step in (-2, -1, 0, 1, 2))


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


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit: where weights come from, and scale, price of an operator and constant, the latter two in ms."""

    memory: Memory
    coefficients: Floats


@dataclass(frozen=True, slots=True)
class Fitting:
    """Networks to be fitted: what is tried for all of them, and which ones a fit may look at."""

    sums: _Sums
    tried: tuple[tuple[Memory, ...], ...]  # by kind, each with more to fit than the one before
    features: Floats  # (memories, networks, 3) by those that are tried
    measured: Floats  # (networks,) ms
    fixed_ms: float  # of a call
    is_seen: npt.NDArray[np.bool_]  # (networks,)

    @staticmethod
    def of(observations: Sequence[Observation], fixed_ms: float) -> Fitting:
        """Prepare to fit all of some networks; `fixed_ms` is the cost of a call, 0 where it was not measured."""
        sums = _Sums.of(observations)
        features = np.stack([sums.features(memory) for memory in itertools.chain(*_TRIED)])
        measured = np.array([one.measured_ms for one in observations])
        return Fitting(sums, _TRIED, features, measured, fixed_ms, np.ones(len(observations), dtype=bool))

    def left_out_errors(self) -> Floats:
        """Give the relative error of each network's prediction by a fit to all others."""
        everyone = np.arange(len(self.measured))
        found = [replace(self, is_seen=everyone != index)._errors_of_fit()[index] for index in everyone]
        return np.array(found)

    def _errors_of_fit(self) -> Floats:
        return self._errors(self.fitted())

    def fitted(self) -> Fitted:
        """Fit as if nothing was noise, and once more with what is left as the noise."""
        errors = self._errors(self._fitted_with(_LEAST_NOISE))[self.is_seen]
        scatter = math.sqrt(float(errors @ errors) / (len(errors) - _COEFFICIENTS))
        return self._fitted_with(min(_MOST_NOISE, max(_LEAST_NOISE, scatter)))

    def _errors(self, found: Fitted) -> Floats:
        """Give the relative error of each network's prediction by a fit, of those that it has not seen, too."""
        predicted: Floats = self.sums.features(found.memory) @ found.coefficients
        return predicted / self.measured - 1.0

    def _fitted_with(self, noise: float) -> Fitted:
        """Fit by every memory; take the one of each kind that fits best if it does so clearly better."""
        goal = _Goal.of(self, noise)
        misfits, found = goal.fits(self.features[:, self.is_seen])
        chosen = start = 0
        for kind in self.tried:
            best = start + int(np.argmin(misfits[start : start + len(kind)]))
            left = max(1.0, misfits[best] / (len(goal.measured) - _COEFFICIENTS))  # for each network, 1 at least
            chosen = best if misfits[chosen] - misfits[best] > _EVIDENCE * left else chosen
            start += len(kind)
        memories = list(itertools.chain(*self.tried))
        if not memories[chosen].far_gb_per_s:
            return Fitted(memories[chosen], found[chosen])
        by_near: dict[float, Memory] = {}
        for index in np.argsort(misfits[-len(self.tried[-1]) :], kind="stable"):
            by_near.setdefault(self.tried[-1][index].near_gb_per_s, self.tried[-1][index])
        finer = [one for memory in by_near.values() for one in _around(memory)]
        misfits, found = goal.fits(np.stack([self.sums.features(one)[self.is_seen] for one in finer]))
        best = int(np.argmin(misfits))
        return Fitted(finer[best], found[best])


def _around(memory: Memory) -> list[Memory]:
    """List what lies around a memory that was tried, by smaller steps; none is farther than near."""
    most = memory.near_gb_per_s or math.inf
    return [
        replace(memory, far_gb_per_s=min(most, memory.far_gb_per_s * rate), kept_ms=memory.kept_ms * time)
        for rate, time in itertools.product(_SMALLER_STEPS, repeat=2)
    ]


@dataclass(frozen=True, slots=True)
class _Sums:
    """What features are made of: (networks,) sums, and each network's operators."""

    rows_ms: Floats
    weight_mb: Floats
    operators: Floats
    networks: tuple[tuple[Floats, Floats], ...]  # ms and megabytes of each operator
    fetched: dict[float, Floats] = field(default_factory=dict)  # by rate, as they are asked for

    @staticmethod
    def of(observations: Sequence[Observation]) -> _Sums:
        networks = tuple((np.array(one.own_ms), np.array(one.weights_mb)) for one in observations)
        rows_ms, weight_mb = (np.array([float(part.sum()) for part in parts]) for parts in zip(*networks, strict=True))
        return _Sums(rows_ms, weight_mb, np.array([float(len(one.own_ms)) for one in observations]), networks)

    def features(self, memory: Memory) -> Floats:
        """Give (networks, 3): the sum that the scale is of, the count of operators, and 1."""
        near, far = memory.shares(self.weight_mb, self.rows_ms)
        from_near, from_far = self._fetched_ms(memory.near_gb_per_s), self._fetched_ms(memory.far_gb_per_s)
        whole = (1 - near - far) * self.rows_ms + near * from_near + far * from_far
        return np.stack([whole, self.operators, np.ones_like(whole)], axis=1)

    def _fetched_ms(self, gb_per_s: float) -> Floats:
        if gb_per_s not in self.fetched:
            sums = [float(fetched_ms(own, weights, gb_per_s).sum()) for own, weights in self.networks]
            self.fetched[gb_per_s] = np.array(sums)
        return self.fetched[gb_per_s]


@dataclass(frozen=True, slots=True)
class _Prior:
    """What the three coefficients are expected to be, each give or take its spread (one standard deviation)."""

    mean: Floats
    spread: Floats

    @staticmethod
    def of(operators: Floats, measured: Floats, fixed_ms: float) -> _Prior:
        network_ms, least_ms = float(np.median(measured)), _OF_CALL * fixed_ms
        operators_of_one = max(1.0, float(np.median(operators)))
        ops_spread, offset_spread = _SPREADS if fixed_ms else _SPREADS_WITHOUT_CALL
        op_ms, offset_ms = (
            max(ops_spread * network_ms / operators_of_one, least_ms),
            max(offset_spread * network_ms, least_ms),
        )
        spread = (_SCALE_SPREAD, op_ms, offset_ms)
        return _Prior(np.array([1.0, 0.0, fixed_ms]), np.array(spread))


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a fit of some networks makes least: ‖(A·c − 1)/noise‖² + ‖(c − mean)/spread‖²."""

    measured: Floats
    noise: float
    prior: _Prior

    @staticmethod
    def of(fitting: Fitting, noise: float) -> _Goal:
        measured = fitting.measured[fitting.is_seen]
        return _Goal(measured, noise, _Prior.of(fitting.sums.operators[fitting.is_seen], measured, fitting.fixed_ms))

    def fits(self, features: Floats) -> tuple[Floats, Floats]:
        """Give (memories,) misfits and (memories, 3) coefficients, by the normal equations in units of the spread."""
        prior = self.prior.mean / self.prior.spread
        scaled = features * self.prior.spread / (self.measured[:, None] * self.noise)
        grams = scaled.transpose(0, 2, 1) @ scaled + np.eye(_COEFFICIENTS)
        goals = scaled.sum(axis=1) / self.noise + prior
        found = _solved(grams, goals, prior)
        whole = len(self.measured) / self.noise**2 + float(prior @ prior)
        misfits = whole + np.einsum("mi,mij,mj->m", found, grams, found) - 2 * np.sum(goals * found, axis=1)
        return misfits, found * self.prior.spread


def _solved(grams: Floats, goals: Floats, prior: Floats) -> Floats:
    """Solve by every memory for a positive scale, dropping the constant and then the operators until it is one."""
    found: Floats = np.tile(prior, (len(grams), 1))
    left = np.arange(len(grams))
    for terms in range(_COEFFICIENTS, 0, -1):
        solutions = np.linalg.solve(grams[left, :terms, :terms], goals[left, :terms, None])[..., 0]
        is_fit = solutions[:, 0] > 0
        found[left[is_fit]] = np.pad(solutions[is_fit], ((0, 0), (0, _COEFFICIENTS - terms)))
        left = left[~is_fit]
    return found
