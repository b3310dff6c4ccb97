"""How well one ranking agrees with another: Kendall's τ-b, and its uncertainty by resampling what was ranked.

Several rankings are resampled together, so that two of them can be compared pair by pair. Does not know what is ranked;
proxy calibration (calibrate_proxy.py) does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.search.errors import InvalidSetting

DRAWS = 10_000  # a 95 % interval's ends then vary by about 0.01 of its width
_TAILS = (2.5, 97.5)  # per cent

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Give Kendall's τ-b, from −1 to 1: agreeing less disagreeing pairs, over those that each ranking decides.

    A ranking that decides nothing, because all its values are equal, agrees with nothing: 0.
    Source: Kendall, The treatment of ties in ranking problems, Biometrika 33 (1945).

    Raises:
        InvalidSetting: the rankings are of different length, or a value is not finite.

    """
    signs = _signs(first, second)
    return float(_taus(signs[0], signs[1], np.ones((1, len(first))))[0])


def resampled_taus(truth: Sequence[float], proxies: Sequence[Sequence[float]], seed: int = 0) -> Numbers:
    """Give τ of each proxy against the truth, (proxies, DRAWS); a draw takes the same items for all of them.

    Items are drawn with replacement. An item beside its copy is tied in both rankings and so decides nothing.

    Raises:
        InvalidSetting: the rankings are of different length, or a value is not finite.

    """
    signs = _signs(truth, *proxies)
    count = len(truth)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)  # (DRAWS, items)
    weights = drawn.astype(np.float64)
    return np.stack([_taus(signs[0], sign, weights) for sign in signs[1:]]) if proxies else np.empty((0, DRAWS))


def interval(value: float, draws: Numbers) -> Interval:
    """Join a figure with the 95 % percentile interval of its draws."""
    low, high = np.percentile(draws, _TAILS)
    return Interval(value, float(low), float(high))


def _signs(*rankings: Sequence[float]) -> list[Numbers]:
    """Give for each ranking the sign of every pair's difference, (items, items)."""
    arrays = [np.asarray(ranking, np.float64) for ranking in rankings]
    for array in arrays:
        if array.shape != (len(rankings[0]),) or not len(array) or not np.isfinite(array).all():
            raise InvalidSetting(f"rankings of shapes {[a.shape for a in arrays]}: give equally many finite numbers")
    return [np.sign(array[:, None] - array[None, :]) for array in arrays]


def _taus(first: Numbers, second: Numbers, weights: Numbers) -> Numbers:
    """Give τ-b for each row of weights, which say how often an item is there: (draws,)."""

    def pairs(signs: Numbers) -> Numbers:
        weighed: Numbers = ((weights @ signs) * weights).sum(1)
        return weighed

    decided = np.sqrt(pairs(first**2) * pairs(second**2))
    agreement: Numbers = pairs(first * second)
    return np.divide(agreement, decided, out=np.zeros_like(agreement), where=decided > 0)
