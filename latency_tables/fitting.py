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

from latency_tables.fetching import Floats, Memory, Way, Work, columns_of, fetched_ms, shares

_COEFFICIENTS = 3  # scale, per_op_ms, offset_ms
# How much the networks weigh against what physics says is taken from how they scatter around a fit, within these limits
# of the relative error of one of them: the better they agree on something, the more it is believed.
_LEAST_NOISE, _MOST_NOISE = 0.001, 0.03
# Around 1: where rows and networks were read by calm visits it was 0 to 3 % away. A looser one lets the scale take up
# what fetching costs, which is another share of networks of other shapes: 24 of other families were 6.5 instead of 3.8
# % off, and 20 files of other authors 6.7 instead of 3.6 %. Where the scale is far from 1, enough networks say so all
# the same.
_SCALE_SPREAD = 0.05
# Of the median network: how much all its operators may take beside their rows, and how much it may take beside them and
# the one call that it is. Looser spreads predict a space's networks no better, and other families worse: small networks
# and those of many cheap operators have little else. Where the cost of a call was not measured every row holds it, and
# little is known of either.
_SPREADS, _SPREADS_WITHOUT_CALL = (0.006, 0.001), (0.3, 0.03)
# What an operator is expected to take beside its row, as a share of a call's cost: in a network other code and data
# were at work before it. On one thread int8 networks of four tables told 0.23 to 0.35; float32 ones, which mostly wait
# for weights, tell little of it, and small ones of other families were predicted 10 instead of 7 % too fast without
# it.
OP_OF_CALL = 0.25
_OF_CALL = 0.2  # nothing is known better than to this share of a call's cost, which tiny networks are mostly made of
# Of weights, about what a core's own cache keeps. With 2 MB of it three tables predicted five sessions of 30 networks
# to 1.2 (float32) and 1.0 % (int8) by it, to 1.3 and 1.2 % by 1, to 1.2 and 1.4 % by 2, and to 1.8 and 1.3 % where
# operators measured alone were thought to have all of their weights at hand.
_KEPT_MB = 1.5
_ROWS_AT_ONCE = 12.0  # kernels for x86 and Arm do 4 to 16; 6, 12 and 24 fitted alike
_STEP = 1.5  # of what is tried of far rates and of times
_SMALLER_STEPS = (1.2, 1.08)  # of what is then tried around the best, one after the other
# By so much for each parameter must the misfit fall before a kind of memory is believed, in units of what is left for
# each network: where there was no limit, one of 46 rates lowered it by more in one of 60 sets of 20 networks; where
# there was one, by 6 to 64.
_EVIDENCE = 5.5
_ALIKE = 2.0  # × at most, between the near rate of one dtype and those that are tried for another on the same machine
_STARTS = 3


@dataclass(frozen=True, slots=True)
class _Kind:
    """Memories that are tried, how many parameters tell one of them from no limit, and for how many it has to pay."""

    parameters: int
    memories: tuple[Memory, ...]
    price: int

    def best(self, misfits: Floats) -> list[Memory]:
        """Give, of a few near rates, the memory that fits best: between them may lie a better one."""
        by_near: dict[float, Memory] = {}
        for index in np.argsort(misfits, kind="stable")[: np.isfinite(misfits).sum()]:
            by_near.setdefault(self.memories[index].near_gb_per_s, self.memories[index])
        return list(by_near.values())[:_STARTS]


_LIKELY = Memory(kept_mb=_KEPT_MB, rows_at_once=_ROWS_AT_ONCE, at_hand_mb=_KEPT_MB)
_NO_LIMIT = _Kind(0, (Memory(),), price=0)
# from a small board's memory to a large chip's cache
_NEAR = _Kind(1, tuple(replace(_LIKELY, near_gb_per_s=2.0 ** (step / 5)) for step in range(-10, 36)), price=1)
_FAR = _Kind(
    3,
    tuple(
        replace(_LIKELY, near_gb_per_s=near, far_gb_per_s=far, kept_ms=kept_ms)
        for near in (0.0, 2.5, 5.0, 10.0, 20.0, 40.0)
        for far in (0.25 * _STEP**step for step in range(12))
        for kept_ms in (0.3 * _STEP**step for step in range(13))
        if not near or near > far
    ),
    price=3,
)
_KINDS = (_NO_LIMIT, _NEAR, _FAR)


@dataclass(frozen=True, slots=True)
class Observation:
    """One network for the fit: its operators' times and weights, and what it measured."""

    works: tuple[Work, ...]  # of each operator that costs something
    measured_ms: float
    scatter: float = 0.0  # of its visits on a calm machine, see `Measurement.scatter_beside`

    @property
    def rows_ms(self) -> float:
        """Give the sum of its rows."""
        return sum(one.own_ms for one in self.works)

    @property
    def weight_mb(self) -> float:
        """Give the sum of its weights."""
        return sum(one.weight_mb for one in self.works)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit: where weights come from; scale, price of an operator and constant, the latter two in ms; and how well."""

    memory: Memory
    coefficients: Floats
    misfit: float  # in squares of the noise


@dataclass(frozen=True, slots=True)
class Fitting:
    """Networks to be fitted, and which of them a fit may look at."""

    sums: _Sums
    features: Floats  # (memories, networks, 3) by all that are tried
    measured: Floats  # (networks,) ms
    fixed_ms: float  # of a call
    is_seen: npt.NDArray[np.bool_]  # (networks,)
    kinds: tuple[_Kind, ...]  # of memory; the first needs no evidence

    @staticmethod
    def of(observations: Sequence[Observation], fixed_ms: float, near_gb_per_s: float = 0.0) -> Fitting:
        """Prepare to fit all of some networks; `fixed_ms` is the cost of a call, 0 where it was not measured.

        `near_gb_per_s` is the near rate that networks of a dtype with more weights showed on the same machine, if any.
        """
        sums, kinds = _Sums.of(observations), _kinds_like(near_gb_per_s) if near_gb_per_s else _KINDS
        features = sums.features([memory for kind in kinds for memory in kind.memories])
        measured = np.array([one.measured_ms for one in observations])
        return Fitting(sums, features, measured, fixed_ms, np.ones(len(observations), dtype=bool), kinds)

    def left_out_errors(self) -> Floats:
        """Give the relative error of each network's prediction by a fit to all others."""
        everyone = np.arange(len(self.measured))
        fits = (replace(self, is_seen=everyone != index) for index in everyone)
        return np.array([fit.errors(fit.fitted())[index] for index, fit in enumerate(fits)])

    def fitted(self) -> Fitted:
        """Fit as if nothing was noise, and once more with what is left as the noise."""
        errors = self.errors(self._fitted_with(_LEAST_NOISE))[self.is_seen]
        scatter = math.sqrt(float(errors @ errors) / (len(errors) - _COEFFICIENTS))
        return self._fitted_with(min(_MOST_NOISE, max(_LEAST_NOISE, scatter)))

    def errors(self, found: Fitted) -> Floats:
        """Give the relative error of each network's prediction by a fit, of those that it has not seen, too."""
        predicted: Floats = self.sums.features([found.memory])[0] @ found.coefficients
        return predicted / self.measured - 1.0

    def _fitted_with(self, noise: float) -> Fitted:
        """Fit by every kind of memory; take the one with the most to fit that explains clearly more than the others.

        The first is taken for nothing, and what others cost more than it has to be paid for.
        """
        goal = _Goal.of(self, noise)
        misfits, _ = goal.fits(self.features[:, self.is_seen])
        longest_ms = self._longest_ms()
        misfits[[not _can_tell(longest_ms, memory) for kind in self.kinds for memory in kind.memories]] = math.inf
        ends = list(itertools.accumulate(len(kind.memories) for kind in self.kinds[:-1]))
        (first, tried), *further = zip(self.kinds, np.split(misfits, ends), strict=True)
        believed, price = self._polished(goal, first.best(tried)), first.price
        for kind, tried in further:
            free = len(goal.measured) - _COEFFICIENTS - kind.parameters
            needed = _EVIDENCE * (kind.price - price)
            if free < 1:
                break
            if believed.misfit - float(tried.min()) < needed / 2:
                continue  # what lies between those that are tried does not fit so much better than they
            best = self._polished(goal, kind.best(tried))
            left = max(1.0, best.misfit / free)  # for each network, 1 at least
            if believed.misfit - best.misfit > needed * left:
                believed, price = best, kind.price
        return believed

    def _polished(self, goal: _Goal, memories: Sequence[Memory]) -> Fitted:
        """Look around some memories by ever smaller steps."""
        longest_ms = self._longest_ms()
        for step in _SMALLER_STEPS:
            around = [near for memory in memories for near in _around(memory, step)]
            best = self._best(goal, [one for one in around if _can_tell(longest_ms, one)])
            memories = [best.memory]
        return best

    def _longest_ms(self) -> float:
        return float(self.sums.rows_ms[self.is_seen].max())

    def _best(self, goal: _Goal, memories: Sequence[Memory]) -> Fitted:
        misfits, found = goal.fits(self.sums.features(memories)[:, self.is_seen])
        best = int(np.argmin(misfits))
        return Fitted(memories[best], found[best], float(misfits[best]))


def _kinds_like(near_gb_per_s: float) -> tuple[_Kind, ...]:
    """Give the kinds for networks on a machine whose near rate is known.

    The memories like it come first, for nothing. That the networks see no limit all the same, because a cache keeps all
    of their fewer weights, takes as much evidence as a parameter does.
    """
    least, most = near_gb_per_s / _ALIKE, near_gb_per_s * _ALIKE
    near, far = (
        replace(kind, memories=tuple(memory for memory in kind.memories if least <= memory.near_gb_per_s <= most))
        for kind in (_NEAR, _FAR)
    )
    kinds = near, replace(_NO_LIMIT, price=near.price + 1), far
    return tuple(kind for kind in kinds if kind.memories)


def _can_tell(longest_ms: float, memory: Memory) -> bool:
    """Tell whether a network that takes so long loses most of what the cache does not keep.

    What is fitted to the little that it loses else means nothing for longer ones: 0.5 GB/s after 11 ms came of one
    network of 5 ms that took 20 % longer than in another table.
    """
    return not memory.far_gb_per_s or memory.kept_ms <= longest_ms


def _around(memory: Memory, step: float) -> list[Memory]:
    """List a memory and those a step from it, up or down, in each of what it is made of; far stays slower than near."""
    ways = [
        (value / step, value, value * step) for value in (memory.near_gb_per_s, memory.far_gb_per_s, memory.kept_ms)
    ]
    near, far, kept_ms = (sorted(set(values)) for values in ways)  # 0 and ∞ stay what they are
    return [
        replace(memory, near_gb_per_s=near_gb_per_s, far_gb_per_s=far_gb_per_s, kept_ms=ms)
        for near_gb_per_s, far_gb_per_s, ms in itertools.product(near, far, kept_ms)
        if not near_gb_per_s or near_gb_per_s > far_gb_per_s
    ]


@dataclass(frozen=True, slots=True)
class _Sums:
    """What features are made of: (networks,) sums, and each network's operators."""

    rows_ms: Floats
    weight_mb: Floats
    operators: Floats
    networks: tuple[Floats, ...]  # see `columns_of`
    fetched: dict[Way, Floats] = field(default_factory=dict)  # as they are asked for

    @staticmethod
    def of(observations: Sequence[Observation]) -> _Sums:
        networks = tuple(columns_of(one.works) for one in observations)
        rows_ms, weight_mb, _ = np.array([columns.sum(axis=1) for columns in networks]).T
        return _Sums(rows_ms, weight_mb, np.array([float(len(one.works)) for one in observations]), networks)

    def features(self, memories: Sequence[Memory]) -> Floats:
        """Give (memories, networks, 3): the sum that the scale is of, the count of operators, and 1."""
        near, far = shares(memories, self.weight_mb, self.rows_ms)
        from_near = np.stack([self._fetched_ms(one.near) for one in memories])
        from_far = np.stack([self._fetched_ms(one.far) for one in memories])
        features = np.ones((*near.shape, _COEFFICIENTS))
        features[..., 0] = (1 - near - far) * self.rows_ms + near * from_near + far * from_far
        features[..., 1] = self.operators
        return features

    def _fetched_ms(self, way: Way) -> Floats:
        if way not in self.fetched:
            self.fetched[way] = np.array([float(fetched_ms(columns, way).sum()) for columns in self.networks])
        return self.fetched[way]


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
        op_ms, offset_ms = ops_spread * network_ms / operators_of_one, offset_spread * network_ms
        spread = (_SCALE_SPREAD, max(op_ms, least_ms), max(offset_ms, least_ms))
        return _Prior(np.array([1.0, OP_OF_CALL * fixed_ms, fixed_ms]), np.array(spread))


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
        solutions = np.zeros((len(left), _COEFFICIENTS))
        solutions[:, :terms] = np.linalg.solve(grams[left, :terms, :terms], goals[left, :terms, None])[..., 0]
        is_fit = solutions[:, 0] > 0
        found[left[is_fit]] = solutions[is_fit]
        left = left[~is_fit]
        if not len(left):
            break
    return found
