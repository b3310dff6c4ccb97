"""What every search engine promises, whichever way it searches."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
from engine_runs import SEVEN_BLOCKS, SMALL, hamming_reward, propose_again, search, spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import EdgekdError, UnknownName
from edgekd.search.engines import ENGINES, Choices, EngineSettings, Evaluated, engine_named
from edgekd.search.errors import InvalidChoices, InvalidReward, InvalidSetting, SearchError

pytestmark = pytest.mark.whole  # whole searches

OPTUNAS = ("tpe", "nsga2")
DISTINCT = tuple(name for name in ENGINES if name not in OPTUNAS)  # engines that never propose a vector again

TWO_BLOCKS = SEVEN_BLOCKS[:12]

LEARNING = ("akd", "tpe")  # which take their time to learn from dozens of results
every = pytest.mark.parametrize("name", ENGINES)
every_in_a_search = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.whole) if name in LEARNING else name for name in ENGINES]
)
distinct = pytest.mark.parametrize("name", DISTINCT)


def test_all_engines_are_here_by_name() -> None:
    """The study's engines, and a typing error gets the nearest."""
    assert set(ENGINES) == {"akd", "reinforce", "evolution", "nsga2", "tpe", "random"}
    assert engine_named("evolution") is ENGINES["evolution"]
    with pytest.raises(UnknownName, match="did you mean 'evolution'"):
        engine_named("evolutoin")


@cache
def proposed_unevenly(name: str) -> tuple[Choices, ...]:
    """Give the thirty vectors that an engine proposes when it is asked for uneven numbers of them."""
    journal = search(ENGINES[name](TWO_BLOCKS, SMALL, 3), hamming_reward(TWO_BLOCKS, 3), [1, 7, 0, 12, 10])
    return tuple(told.choices for told in journal)


@every
def test_proposals_are_in_range_however_they_are_asked_for(name: str) -> None:
    """As many vectors come as were asked for, and each choice is an option of its decision."""
    proposals = proposed_unevenly(name)
    assert len(proposals) == 30
    assert all(0 <= c < size for choices in proposals for c, size in zip(choices, TWO_BLOCKS, strict=True))
    assert all(type(c) is int for choices in proposals for c in choices)


@distinct
def test_our_own_engines_never_repeat_themselves(name: str) -> None:
    """No vector is proposed twice within or across asks."""
    assert len(set(proposed_unevenly(name))) == 30


TRAINED = {"akd": pytest.mark.slow, "reinforce": pytest.mark.whole}  # in every example


@pytest.mark.parametrize("name", [pytest.param(n, marks=TRAINED[n]) if n in TRAINED else n for n in DISTINCT])
@settings(max_examples=15, deadline=None)
@given(sizes=spaces, seed=st.integers(0, 2**31), count=st.integers(1, 40))
def test_a_small_space_is_enumerated_once_and_then_yields_nothing(
    name: str, sizes: tuple[int, ...], seed: int, count: int
) -> None:
    """An engine proposes min(asked, remaining) vectors: the whole space exactly once, then none, without looping."""
    total = min(math.prod(sizes), 120)
    engine = ENGINES[name](sizes, EngineSettings(budget=120, batch=8), seed)
    asks = [count] * math.ceil(total / count)
    journal = search(engine, hamming_reward(sizes, seed), asks)
    expected = min(math.prod(sizes), sum(asks))
    assert len({told.choices for told in journal}) == len(journal) == expected
    if expected == math.prod(sizes):
        assert engine.ask(count) == []


@pytest.mark.parametrize("name", OPTUNAS)
@pytest.mark.parametrize("sizes", [(2, 2), (3,), (1, 2, 1)])
def test_repeats_are_bounded_in_a_space_that_runs_out(name: str, sizes: tuple[int, ...]) -> None:
    """Optuna's samplers repeat themselves, find the whole space within 20 proposals a vector, and then stop."""
    engine, reward, found = ENGINES[name](sizes, SMALL, 1), hamming_reward(sizes, 1), set()
    for _ in range(10 * math.prod(sizes)):
        asked = search(engine, reward, [2])
        if not asked:
            break
        found.update(told.choices for told in asked)
    assert len(found) == math.prod(sizes)
    assert engine.ask(2) == []


@every
def test_a_space_of_one_architecture_works(name: str) -> None:
    """Decisions of one option are legal: their only vector is proposed, learned from, and then the space is done."""
    engine = ENGINES[name]((1, 1, 1), EngineSettings(budget=1, batch=1), 0)
    assert set(engine.ask(5)) == {(0, 0, 0)}
    engine.tell([Evaluated((0, 0, 0), 0.5)])
    assert engine.ask(5) == []


@every
def test_a_budget_of_one_evaluation_works(name: str) -> None:
    """The shortest study asks once and tells once."""
    journal = search(ENGINES[name](SEVEN_BLOCKS, EngineSettings(budget=1, batch=1), 0), lambda choices: 0.5, [1])
    assert len(journal) == 1


@every_in_a_search
def test_the_same_seed_and_rewards_give_the_same_proposals(name: str) -> None:
    """Two engines of one seed that hear the same rewards propose the same vectors in the same order."""
    runs = [search(ENGINES[name]((3,) * 12, SMALL, 5), hamming_reward((3,) * 12, 5, 0.1), [10] * 6) for _ in range(2)]
    assert runs[0] == runs[1]


@every
def test_another_seed_gives_other_proposals(name: str) -> None:
    """The seed decides where a search begins."""
    assert ENGINES[name](SEVEN_BLOCKS, SMALL, 1).ask(10) != ENGINES[name](SEVEN_BLOCKS, SMALL, 2).ask(10)


@every_in_a_search
def test_a_killed_study_goes_on_where_its_journal_ends(name: str) -> None:
    """Repeated asks and journalled results rebuild an engine, even when it died halfway through a batch."""
    unbroken = search(ENGINES[name]((3,) * 12, SMALL, 9), hamming_reward((3,) * 12, 9), [10] * 5)
    revived = propose_again(ENGINES[name]((3,) * 12, SMALL, 9), unbroken[:40], split=4)
    assert revived.ask(10) == [told.choices for told in unbroken[40:50]]


@every
@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf, 1e300])
def test_a_reward_that_is_no_usable_number_is_refused_and_changes_nothing(name: str, reward: float) -> None:
    """NaN, infinite and absurd rewards raise InvalidReward, and the batch they came in is not taken at all."""
    shaken, calm = (ENGINES[name]((3,) * 8, EngineSettings(batch=4), 1) for _ in range(2))
    told = [Evaluated(choices, 0.1 * i) for i, choices in enumerate(shaken.ask(4))]
    calm.ask(4)
    with pytest.raises(InvalidReward, match="finite"):
        shaken.tell([*told[:3], replace(told[3], reward=reward)])
    shaken.tell(told)
    calm.tell(told)
    assert shaken.ask(4) == calm.ask(4)


@every
@pytest.mark.parametrize("changes", [{"accuracy": math.nan}, {"latency_ms": math.inf}, {"latency_ms": -1.0}])
def test_accuracies_and_latencies_that_are_none_are_refused(name: str, changes: dict[str, float]) -> None:
    """An engine of two objectives would sort NaN anywhere, so no engine takes it."""
    item = replace(Evaluated((0, 0, 0), 0.5, 0.5, 1.0), **changes)
    with pytest.raises(InvalidReward, match="is told with accuracy"):
        ENGINES[name]((3, 3, 3), SMALL, 0).tell([item])


@every
@pytest.mark.parametrize("choices", [(0, 0), (0, 0, 0, 0), (0, 3, 0), (0, -1, 0), (0, 1.0, 0)])
def test_choices_that_do_not_fit_the_space_are_refused(name: str, choices: Choices) -> None:
    """A vector of the wrong length, range or type raises InvalidChoices."""
    with pytest.raises(InvalidChoices):
        ENGINES[name]((3, 3, 3), SMALL, 0).tell([Evaluated(choices, 0.5)])


@distinct
def test_a_vector_told_without_being_asked_for_is_taken_and_not_proposed(name: str) -> None:
    """An earlier study's results can be told: of three vectors the two that are left are proposed."""
    engine = ENGINES[name]((3,), EngineSettings(batch=1), 0)
    engine.tell([Evaluated((1,), 0.5)])
    assert sorted(engine.ask(3)) == [(0,), (2,)]


@pytest.mark.slow  # engines learn from 300 results
@pytest.mark.parametrize("name", [n for n in ENGINES if n not in ("random", "nsga2")])  # which say that they do not
def test_an_earlier_studys_results_are_used(name: str) -> None:
    """After 300 results of another engine, the first proposals are better than what was told."""
    reward = hamming_reward(SEVEN_BLOCKS, 4)
    vectors = ENGINES["random"](SEVEN_BLOCKS, SMALL, 8).ask(300)
    engine = ENGINES[name](SEVEN_BLOCKS, EngineSettings(budget=300, batch=10), 1)
    engine.tell([Evaluated(choices, reward(choices), reward(choices), 1.0) for choices in vectors])
    proposed = search(engine, reward, [40])
    average = sum(map(reward, vectors)) / len(vectors)
    assert sum(told.reward for told in proposed) / len(proposed) > average + 0.03


@every_in_a_search
def test_failed_candidates_are_taken_like_others(name: str) -> None:
    """A search in which every third candidate fails goes on; what failed has a reward that says so."""
    engine = ENGINES[name]((3,) * 10, SMALL, 2)
    for _ in range(6):
        asked = engine.ask(10)
        assert len(asked) == 10
        engine.tell(
            [
                Evaluated(choices, -0.5, 0.0, 1.0, failed=True) if i % 3 == 0 else Evaluated(choices, 0.5, 0.5, 1.0)
                for i, choices in enumerate(asked)
            ]
        )


@every
def test_decision_sizes_and_counts_are_checked(name: str) -> None:
    """A space without decisions, a decision without options and a negative count are refused."""
    for sizes in [(), (3, 0)]:
        with pytest.raises(InvalidChoices):
            ENGINES[name](sizes, SMALL, 0)
    with pytest.raises(InvalidChoices, match="-1"):
        ENGINES[name]((3,), SMALL, 0).ask(-1)


def test_errors_are_value_errors_below_the_packages_root() -> None:
    """A caller may catch a refused reward as SearchError, as EdgekdError or as ValueError."""
    assert issubclass(InvalidReward, SearchError)
    assert issubclass(SearchError, EdgekdError)
    assert issubclass(InvalidReward, ValueError)


@pytest.mark.parametrize("changes", [{"batch": 0}, {"budget": 0}, {"feasible_ms": 0.0}, {"feasible_ms": math.nan}])
def test_what_every_engine_knows_of_a_study_is_checked(changes: dict[str, float]) -> None:
    """InvalidSetting names the setting that is wrong."""
    with pytest.raises(InvalidSetting, match=next(iter(changes))):
        replace(EngineSettings(), **changes)  # type: ignore[arg-type]  # wrong values are the point
