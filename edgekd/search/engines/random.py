"""Uniform random search over decision vectors: the floor that every other engine has to beat.

It does not learn: a tell is only checked and noted as seen.

Read next: akd.py, the engine that learns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from edgekd.search.engines.base import Choices, EngineSettings, Evaluated, Ledger

RESAMPLES = 32  # below one seen vector in two, 32 misses in a row are a matter of 2^-32


class RandomEngine:
    """Propose uniformly drawn vectors, each of them once.

    After RESAMPLES misses in a row the next fresh vector in counting order is taken, so that nearly
    exhausted spaces end too; an exhausted space yields fewer proposals, at last none.
    """

    def __init__(self, decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> None:
        self._ledger = Ledger(decision_sizes)
        self._settings = settings
        self._random = random.Random(seed)  # noqa: S311  # a search needs no secrets

    def ask(self, count: int) -> list[Choices]:
        """Propose up to ``count`` fresh vectors; fewer once the space is exhausted."""
        return [self._propose() for _ in range(self._ledger.capped(count))]

    def tell(self, told: Sequence[Evaluated]) -> None:
        """Check the rewards and note their vectors as seen; raise InvalidReward or InvalidChoices."""
        self._ledger.check(told)
        for item in told:
            self._ledger.add(item.choices)

    def _propose(self) -> Choices:
        choices = self._draw()
        for _ in range(RESAMPLES):
            if choices not in self._ledger:
                break
            choices = self._draw()
        fresh = self._ledger.successor(choices)
        self._ledger.add(fresh)
        return fresh

    def _draw(self) -> Choices:
        return tuple(self._random.randrange(size) for size in self._ledger.sizes)
