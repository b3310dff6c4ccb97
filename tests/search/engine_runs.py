"""What the engines' tests share: spaces, a reward with a known best vector, and a study's loop in small."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean

from hypothesis import strategies as st

from edgekd.search.engines import ENGINES, Choices, Engine, EngineSettings, Evaluated

SEVEN_BLOCKS = (4, 2, 2, 3, 3, 3) * 7  # 42 decisions, as in the factorised space of seven blocks
SMALL = EngineSettings(budget=60, batch=10)

spaces = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple)


def hamming_reward(sizes: Sequence[int], seed: int, noise: float = 0.0) -> Callable[[Choices], float]:
    """Reward the share of decisions that agree with a hidden vector, with optional Gaussian noise."""
    rng = random.Random(f"target {seed}")  # not the engine's own seed: random search would draw the target first
    target = [rng.randrange(size) for size in sizes]
    return lambda choices: fmean(a == b for a, b in zip(choices, target, strict=True)) + rng.gauss(0, noise)


def search(engine: Engine, reward: Callable[[Choices], float], asks: Sequence[int]) -> list[Evaluated]:
    """Ask for and rate one batch after another; return all that was told, the reward as the accuracy too."""
    journal: list[Evaluated] = []
    for count in asks:
        told = [rated(choices, reward(choices)) for choices in engine.ask(count)]
        engine.tell(told)
        journal += told
    return journal


def rated(choices: Choices, reward: float) -> Evaluated:
    """Give a result whose latency is the sum of its choices."""
    return Evaluated(choices, reward, reward, 1.0 + sum(choices))


def propose_again(engine: Engine, journal: Sequence[Evaluated], split: int) -> Engine:
    """Repeat asks of ten, check their answers, and tell the journal; the last ten in two parts."""
    for start in range(0, len(journal), 10):
        batch = journal[start : start + 10]
        assert engine.ask(10) == [told.choices for told in batch]
        parts = [batch] if start + 10 < len(journal) else [batch[:split], batch[split:]]
        for part in parts:
            engine.tell(part)
    return engine


def gain(name: str, seed: int) -> float:
    """Return the mean reward of the last quarter of 120 samples less that of the first."""
    engine = ENGINES[name](SEVEN_BLOCKS, EngineSettings(budget=120, batch=10), seed)
    rewards = [told.reward for told in search(engine, hamming_reward(SEVEN_BLOCKS, seed, noise=0.04), [10] * 12)]
    return fmean(rewards[-30:]) - fmean(rewards[:30])
