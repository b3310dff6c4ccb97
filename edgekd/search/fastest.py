"""The fastest architecture of a space, exactly: block by block, without the ways that others beat and that cannot win.

What a network takes is no sum over its blocks where its weights and its length decide how many of them are fetched: see
latency_tables/fetching.py. But it grows with each of a few sums, so what a begun way takes at least is known from the
least that each of them can still grow by. Made for latency_array.py, whose tables it looks at; it predicts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.spaces.space import Choices

Floats = npt.NDArray[np.float64]
TotalMs = Callable[[Floats], Floats]  # (sums, ...) → (...) ms, which no sum of terms that grows makes less

_ROUNDING = 1e-12  # of what is added up; the order in which it is differs


@dataclass(frozen=True, slots=True)
class _Ways:
    """Begun architectures that end in one width: (sums, N), and the (N, decisions) choices so far."""

    sums: Floats
    choices: npt.NDArray[np.intp]


def fastest(fixed: Floats, blocks: Sequence[Floats], total_ms: TotalMs) -> Choices:
    """Find the choices whose total is least.

    The sums are those of `Calibration.terms`, or others of which none makes the total less. `fixed` are every
    architecture's (sums,); `blocks` has a (sums, widths before, options of its six decisions) array a block, whose last
    decision is its width.
    """
    rest = _rest(blocks)
    limit_ms = min(_limits_ms(fixed, blocks, total_ms))
    limit_ms += _ROUNDING * (abs(limit_ms) + sum(float(np.abs(sums).max()) for sums in (fixed, *blocks)))
    ways = [_Ways(fixed[:, None], np.empty((1, 0), np.intp))]
    for block, ahead in zip(blocks, rest, strict=True):
        may_win = _MayWin(total_ms, limit_ms, ahead)
        ways = [_reach(ways, block, width, may_win) for width in range(block.shape[-1])]
    found = min((way for way in ways if way.sums.size), key=lambda way: float(total_ms(way.sums).min()))
    return tuple(map(int, found.choices[total_ms(found.sums).argmin()]))


def _rest(blocks: Sequence[Floats]) -> list[Floats]:
    """Give, for each width behind each block, (sums, widths) the least that each sum grows by in the blocks to come."""
    rest = [np.zeros((len(blocks[-1]), blocks[-1].shape[-1]))]
    for block in blocks[:0:-1]:
        ahead = rest[-1].reshape(len(block), *[1] * (block.ndim - 2), -1)
        rest.append((block + ahead).min(axis=tuple(range(2, block.ndim))))
    return rest[::-1]


def _limits_ms(fixed: Floats, blocks: Sequence[Floats], total_ms: TotalMs) -> list[float]:
    """Give the totals of some fast architectures: those of the least first sum, and of it and one other."""
    limits_ms = []
    for others in range(len(fixed)):
        terms = sorted({0, others})
        ways_ms, sums = np.zeros(1), fixed[:, None]  # the cheapest way to each width, and all its sums
        for block in blocks:
            flat = block.reshape(len(block), -1, block.shape[-1])  # (sums, widths before · options, width)
            before = np.repeat(np.arange(block.shape[1]), flat.shape[1] // block.shape[1])
            reached_ms = ways_ms[before, None] + flat[terms].sum(axis=0)
            best = reached_ms.argmin(axis=0)
            ways_ms, widths = reached_ms.min(axis=0), np.arange(block.shape[-1])
            sums = sums[:, before[best]] + flat[:, best, widths]
        limits_ms.append(float(total_ms(sums).min()))
    return limits_ms


@dataclass(frozen=True, slots=True)
class _MayWin:
    """What a begun way must be able to stay below, and (sums, widths) the least that is ahead of it."""

    total_ms: TotalMs
    limit_ms: float
    ahead: Floats

    def __call__(self, sums: Floats, width: int) -> npt.NDArray[np.bool_]:
        """Tell of (sums, N, M) of ways that end in a width."""
        may_win: npt.NDArray[np.bool_] = self.total_ms(sums + self.ahead[:, width, None, None]) <= self.limit_ms
        return may_win


def _reach(ways: Sequence[_Ways], block: Floats, width: int, may_win: _MayWin) -> _Ways:
    """Go on from every width before to one width, by every option that may still win."""
    sums, choices = [], []
    for before, way in enumerate(ways):
        table = block[:, before, ..., width]
        options = np.stack(np.unravel_index(np.arange(table[0].size), table.shape[1:]), axis=1)
        reached = way.sums[:, :, None] + table.reshape(len(table), 1, -1)
        begun, option = np.nonzero(may_win(reached, width))
        sums.append(reached[:, begun, option])
        own = np.column_stack([options[option], np.full(len(option), width)])
        choices.append(np.concatenate([way.choices[begun], own], axis=1))
    every = np.concatenate(sums, axis=1)
    kept = _undominated(every)
    return _Ways(every[:, kept], np.concatenate(choices)[kept])


def _undominated(sums: Floats) -> list[int]:
    """List the ways than which no other one is as good in all sums; of equal ones, one.

    In the order of the first sum, then the second and so on, a way is dominated by one before it.
    """
    kept: list[int] = []
    best = np.empty_like(sums)  # of those that are kept
    for index in map(int, np.lexsort(sums[::-1])):
        if not (best[:, : len(kept)] <= sums[:, index, None]).all(axis=0).any():
            best[:, len(kept)] = sums[:, index]
            kept.append(index)
    return kept
