"""The engines without a network, the ledger they share, and what is missing without Optuna."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from statistics import fmean

import pytest
from engine_runs import SMALL, hamming_reward, search, spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import MissingExtra
from edgekd.search.engines import ENGINES, EngineSettings, Evaluated
from edgekd.search.engines.base import Ledger
from edgekd.search.engines.evolution import EvolutionEngine, EvolutionSettings
from edgekd.search.errors import InvalidChoices, InvalidSetting


@pytest.mark.parametrize(("budget", "population", "sample"), [(1000, 50, 15), (400, 50, 15), (120, 15, 4), (1, 10, 3)])
def test_the_population_is_scaled_to_the_budget(budget: int, population: int, sample: int) -> None:
    """From 400 evaluations on it is the published 50 with samples of 15; short studies get an eighth."""
    suited = EvolutionSettings.suited_to(EngineSettings(budget))
    assert (suited.population, suited.sample) == (population, sample)


@pytest.mark.parametrize("changes", [{"population": 0}, {"sample": 0}, {"sample": 51}])
def test_populations_that_cannot_be_are_refused(changes: dict[str, int]) -> None:
    """InvalidSetting names the setting."""
    with pytest.raises(InvalidSetting, match=next(iter(changes))):
        replace(EvolutionSettings(), **changes)


def evolved(settings: EvolutionSettings, told: list[Evaluated]) -> EvolutionEngine:
    engine = EvolutionEngine((9,) * 5, settings, 0)
    engine.tell(told)
    return engine


def differences(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_children_differ_from_the_winner_in_one_decision() -> None:
    """A tournament of the whole population has one winner, and every proposal is its mutant."""
    told = [Evaluated((i,) * 5, 0.1 * i) for i in range(4)]
    engine = evolved(EvolutionSettings(population=4, sample=4), told)
    near = [min(differences(child, item.choices) for item in told) for child in engine.ask(20)]
    assert near == [1] * 20


def test_the_oldest_leaves_however_good_it_is() -> None:
    """The best vector is gone from a population of 3 after 3 more results, and no child is near it any more."""
    best = Evaluated((8,) * 5, 1.0)
    engine = evolved(EvolutionSettings(population=3, sample=3), [best, *(Evaluated((i,) * 5, 0.0) for i in range(3))])
    assert all(differences(child, best.choices) > 1 for child in engine.ask(20))


def test_tournaments_put_the_feasible_first() -> None:
    """Above the limit a reward of 1 loses to one of 0.1 under it."""
    told = [Evaluated((0,) * 5, 0.1, 0.1, 1.0), Evaluated((8,) * 5, 1.0, 1.0, 3.0)]
    limited = EvolutionSettings(feasible_ms=2.0, population=2, sample=2)
    children = evolved(limited, told).ask(30)
    near = fmean(differences(child, (0,) * 5) == 1 for child in children)
    assert near > 0.5  # a sample of two with replacement is the slower one twice in a quarter of all draws


@pytest.mark.parametrize("feasible_ms", [2.0, math.inf])
def test_what_failed_ranks_below_all_that_did_not(feasible_ms: float) -> None:
    """However fast it would be, and whatever its reward: there is nothing to be bred from it."""
    settings = EngineSettings(feasible_ms=feasible_ms)
    failed = Evaluated((0,), 0.5, 0.0, 1.0, failed=True)
    assert settings.rank(failed) < settings.rank(Evaluated((1,), -0.3, 0.1, 1.0))
    slow = Evaluated((2,), 0.6, 0.9, 3.0)
    assert settings.rank(failed) < settings.rank(slow)


def test_evolution_learns() -> None:
    """The last fifth of 300 samples is far better than the first."""
    engine = ENGINES["evolution"]((3,) * 20, EngineSettings(300, 10), 0)
    rewards = [told.reward for told in search(engine, hamming_reward((3,) * 20, 0), [10] * 30)]
    assert fmean(rewards[-60:]) - fmean(rewards[:60]) > 0.2


@pytest.mark.whole  # a whole search
def test_tpe_learns_the_reward() -> None:
    """The last third of 120 samples is better than the first."""
    engine = ENGINES["tpe"]((3,) * 10, EngineSettings(120, 10), 0)
    rewards = [told.reward for told in search(engine, hamming_reward((3,) * 10, 0), [10] * 12)]
    assert fmean(rewards[-40:]) - fmean(rewards[:40]) > 0.1


@pytest.mark.whole  # two whole searches
def test_nsga2_looks_at_accuracy_and_latency_and_not_at_the_reward() -> None:
    """Other rewards change nothing; with accuracy the same for all, the fastest vectors are bred."""

    def run(reward: float) -> list[Evaluated]:
        engine = ENGINES["nsga2"]((3,) * 10, EngineSettings(200, 10), 0)
        journal: list[Evaluated] = []
        for _ in range(20):
            told = [Evaluated(choices, reward, 0.5, 1.0 + sum(choices)) for choices in engine.ask(10)]
            engine.tell(told)
            journal += told
        return journal

    first, second = ([told.choices for told in run(reward)] for reward in (0.1, 0.9))
    assert first == second
    assert fmean(map(sum, first[-50:])) < fmean(map(sum, first[:50])) - 2


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_a_missing_optuna_is_one_clear_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"edgekd\[engines\]"):
        ENGINES[name]((2,), SMALL, 0)


@pytest.mark.whole  # fills a space in every example
@given(sizes=spaces, data=st.data())
@settings(max_examples=50, deadline=None)
def test_the_ledgers_successor_is_fresh_and_finds_the_last_gap(sizes: tuple[int, ...], data: st.DataObject) -> None:
    """Counting on from any vector reaches a fresh one while there is one, and the search for it ends."""
    ledger = Ledger(sizes)
    vector = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    for _ in range(min(math.prod(sizes), 30)):
        fresh = ledger.successor(data.draw(vector))
        assert fresh not in ledger
        ledger.add(fresh)
    if ledger.remaining == 0:
        with pytest.raises(InvalidChoices, match="space"):
            ledger.successor(data.draw(vector))
