"""Regularised evolution: the oldest of a population leaves, the best of a random sample has a mutated child.

Source: Real et al., Regularized Evolution for Image Classifier Architecture Search (arXiv 1802.01548), algorithm 1.
A child differs from its parent in one decision. There is no crossover and no elite: only what is confirmed by good
children stays.

Read next: base.py for the protocol and the ledger that keeps proposals distinct.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.search.engines.base import Choices, EngineSettings, Evaluated, Ledger, require

RESAMPLES = 32  # children tried before one is mutated further: neighbourhoods of good parents fill up


@dataclass(frozen=True)
class EvolutionSettings(EngineSettings):
    """Set the evolution: how many are alive, and how many are compared to find a parent."""

    population: int = 50
    sample: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.population >= 1, "population", self.population, "at least 1")
        require(1 <= self.sample <= self.population, "sample", self.sample, "from 1 to the population")

    @classmethod
    def suited_to(cls, settings: EngineSettings) -> EvolutionSettings:
        """Choose a population of an eighth of the budget, from 10 to 50, and a sample of 30 % of it."""
        population = max(10, min(50, settings.budget // 8))
        return cls(settings.budget, settings.batch, settings.feasible_ms, population, round(0.3 * population))


class EvolutionEngine:
    """Propose random vectors until a population is there, then children of the winners of tournaments.

    A winner is feasible first (``EngineSettings.rank``), then the best by reward. Proposals are distinct: a child
    that was seen before is drawn again, and after RESAMPLES of them mutated further until it is fresh. Vectors told
    without having been asked for join the population like others.
    """

    def __init__(self, decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> None:
        if not isinstance(settings, EvolutionSettings):
            settings = EvolutionSettings.suited_to(settings)
        self._ledger = Ledger(decision_sizes)
        self._settings = settings
        self._random = random.Random(seed)  # noqa: S311  # a search needs no secrets
        self._alive: deque[Evaluated] = deque(maxlen=settings.population)
        self._founders = settings.population  # random vectors still to be proposed

    def ask(self, count: int) -> list[Choices]:
        """Propose up to ``count`` fresh vectors; fewer once the space is exhausted."""
        return [self._propose() for _ in range(self._ledger.capped(count))]

    def tell(self, told: Sequence[Evaluated]) -> None:
        """Take results: each joins the population, the oldest leaves; raise InvalidReward or InvalidChoices."""
        self._ledger.check(told)
        for item in told:
            if item.choices not in self._ledger:  # not one of our founders: somebody else's takes a founder's place
                self._founders -= 1
            self._ledger.add(item.choices)
            self._alive.append(item)

    def _propose(self) -> Choices:
        if self._founders > 0 or not self._alive:
            self._founders -= 1
            fresh = self._fresh_founder()
        else:
            fresh = self._fresh_child()
        self._ledger.add(fresh)
        return fresh

    def _fresh_founder(self) -> Choices:
        for _ in range(RESAMPLES):
            choices = tuple(self._random.randrange(size) for size in self._ledger.sizes)
            if choices not in self._ledger:
                break
        return self._ledger.successor(choices)

    def _fresh_child(self) -> Choices:
        for _ in range(RESAMPLES):
            child = self._mutated(self._parent())
            if child not in self._ledger:
                return child
        for _ in self._ledger.sizes:
            child = self._mutated(child)
            if child not in self._ledger:
                return child
        return self._ledger.successor(child)

    def _parent(self) -> Choices:
        rivals = self._random.choices(self._alive, k=self._settings.sample)  # with replacement, as published
        return max(rivals, key=self._settings.rank).choices

    def _mutated(self, choices: Choices) -> Choices:
        """Change one decision to another of its options; a space of single options has no other vector."""
        changeable = [position for position, size in enumerate(self._ledger.sizes) if size > 1]
        if not changeable:
            return choices
        position = self._random.choice(changeable)
        shift = self._random.randrange(1, self._ledger.sizes[position])
        mutated = (choices[position] + shift) % self._ledger.sizes[position]
        return (*choices[:position], mutated, *choices[position + 1 :])
