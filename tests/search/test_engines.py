"""What every search engine promises, and what the AKD agent learns."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import EdgekdError
from edgekd.search.engines import ENGINES, AkdSettings, Choices, Engine, EngineSettings, Told, learning_rate_for
from edgekd.search.engines.akd import AkdEngine
from edgekd.search.engines.base import Ledger
from edgekd.search.errors import InvalidChoices, InvalidReward, InvalidSetting, SearchError

SEVEN_BLOCKS = (4, 2, 2, 3, 3, 3) * 7  # 42 decisions, as in the factorised space of seven blocks
SMALL = EngineSettings(budget=60, batch=10)

both = pytest.mark.parametrize("name", ["akd", "random"])
spaces = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple)


def hamming_reward(sizes: Sequence[int], seed: int, noise: float = 0.0) -> Callable[[Choices], float]:
    """Reward the share of decisions that agree with a hidden vector, with optional Gaussian noise."""
    rng = random.Random(f"target {seed}")  # not the engine's own seed: random search would draw the target first
    target = [rng.randrange(size) for size in sizes]
    return lambda choices: fmean(a == b for a, b in zip(choices, target, strict=True)) + rng.gauss(0, noise)


def search(engine: Engine, reward: Callable[[Choices], float], asks: Sequence[int]) -> list[Told]:
    """Ask for and rate one batch after another; return all that was told."""
    journal: list[Told] = []
    for count in asks:
        told = [Told(choices, reward(choices)) for choices in engine.ask(count)]
        engine.tell(told)
        journal += told
    return journal


def gain(name: str, seed: int) -> float:
    """Return the mean reward of the last quarter of 120 samples less that of the first."""
    engine = ENGINES[name](SEVEN_BLOCKS, EngineSettings(budget=120, batch=10), seed)
    rewards = [told.reward for told in search(engine, hamming_reward(SEVEN_BLOCKS, seed, noise=0.04), [10] * 12)]
    return fmean(rewards[-30:]) - fmean(rewards[:30])


@both
def test_proposals_are_in_range_and_distinct_however_they_are_asked_for(name: str) -> None:
    """No vector is proposed twice within or across asks, and each choice is an option of its decision."""
    journal = search(ENGINES[name](SEVEN_BLOCKS, SMALL, 3), hamming_reward(SEVEN_BLOCKS, 3), [1, 7, 0, 12, 10, 30])
    proposals = [told.choices for told in journal]
    assert len(set(proposals)) == len(proposals) == 60
    assert all(0 <= c < size for choices in proposals for c, size in zip(choices, SEVEN_BLOCKS, strict=True))


@pytest.mark.parametrize("name", [pytest.param("akd", marks=pytest.mark.slow), "random"])  # which trains 25 agents
@settings(max_examples=25, deadline=None)
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


@both
def test_a_space_of_one_architecture_works(name: str) -> None:
    """Decisions of one option are legal: their only vector is proposed, learned from, and not repeated."""
    engine = ENGINES[name]((1, 1, 1), EngineSettings(budget=1, batch=1), 0)
    assert engine.ask(5) == [(0, 0, 0)]
    engine.tell([Told((0, 0, 0), 0.5)])
    assert engine.ask(5) == []


@both
def test_the_same_seed_and_rewards_give_the_same_proposals(name: str) -> None:
    """Two engines of one seed that hear the same rewards propose the same vectors in the same order."""
    runs = [search(ENGINES[name]((3,) * 12, SMALL, 5), hamming_reward((3,) * 12, 5, 0.1), [10] * 6) for _ in range(2)]
    assert runs[0] == runs[1]


@both
def test_another_seed_gives_other_proposals(name: str) -> None:
    """The seed decides where a search begins."""
    assert ENGINES[name](SEVEN_BLOCKS, SMALL, 1).ask(10) != ENGINES[name](SEVEN_BLOCKS, SMALL, 2).ask(10)


@both
def test_a_killed_study_goes_on_where_its_journal_ends(name: str) -> None:
    """Repeated asks and journalled rewards rebuild an engine, even when it died halfway through a batch."""
    reward = hamming_reward((3,) * 12, 9)
    unbroken = search(ENGINES[name]((3,) * 12, SMALL, 9), reward, [10] * 5)
    journal = unbroken[:34]  # killed four rewards into the fourth batch

    revived = ENGINES[name]((3,) * 12, SMALL, 9)
    for start in range(0, 40, 10):
        assert revived.ask(10) == [told.choices for told in unbroken[start : start + 10]]
        revived.tell(journal[start : start + 10])
    revived.tell([Told(told.choices, reward(told.choices)) for told in unbroken[34:40]])
    assert revived.ask(10) == [told.choices for told in unbroken[40:50]]


@pytest.mark.slow  # thirty agents are trained
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_how_rewards_are_grouped_into_tells_is_irrelevant(cuts: list[int]) -> None:
    """Forty rewards lead to the same policy whether they are told at once or in any pieces."""
    reward = hamming_reward((3,) * 8, 2)
    at_once, in_pieces = (ENGINES["akd"]((3,) * 8, SMALL, 2) for _ in range(2))
    told = [Told(choices, reward(choices)) for choices in at_once.ask(40)]
    in_pieces.ask(40)
    at_once.tell(told)
    start = 0
    for cut in [*cuts, 40]:
        in_pieces.tell(told[start : start + cut])
        start += cut
    assert at_once.ask(5) == in_pieces.ask(5)


@both
@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf, 1e300])
def test_a_reward_that_is_no_usable_number_is_refused_and_changes_nothing(name: str, reward: float) -> None:
    """NaN, infinite and absurd rewards raise InvalidReward, and the batch they came in is not taken at all."""
    shaken, calm = (ENGINES[name]((3,) * 8, EngineSettings(batch=4), 1) for _ in range(2))
    told = [Told(choices, 0.1 * i) for i, choices in enumerate(shaken.ask(4))]
    calm.ask(4)
    with pytest.raises(InvalidReward, match="finite"):
        shaken.tell([*told[:3], Told(told[3].choices, reward)])
    shaken.tell(told)
    calm.tell(told)
    assert shaken.ask(4) == calm.ask(4)


@both
@pytest.mark.parametrize("choices", [(0, 0), (0, 0, 0, 0), (0, 3, 0), (0, -1, 0), (0, 1.0, 0)])
def test_choices_that_do_not_fit_the_space_are_refused(name: str, choices: Choices) -> None:
    """A vector of the wrong length, range or type raises InvalidChoices."""
    with pytest.raises(InvalidChoices):
        ENGINES[name]((3, 3, 3), SMALL, 0).tell([Told(choices, 0.5)])


@both
def test_a_vector_told_without_being_asked_for_is_taken_and_not_proposed(name: str) -> None:
    """An earlier study's results can be told: of three vectors the two that are left are proposed."""
    engine = ENGINES[name]((3,), EngineSettings(batch=1), 0)
    engine.tell([Told((1,), 0.5)])
    assert sorted(engine.ask(3)) == [(0,), (2,)]


@both
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


@pytest.mark.parametrize(
    "changes",
    [
        *({name: 0} for name in ("batch", "budget", "epochs", "hidden", "embedding")),
        *({name: 0.0} for name in ("learning_rate", "clip", "max_grad_norm")),
        *({"learning_rate": math.nan}, {"entropy_weight": -1.0}, {"value_weight": math.inf}),
    ],
)
def test_settings_out_of_range_are_refused_by_name(changes: dict[str, float]) -> None:
    """InvalidSetting names the setting that is wrong."""
    with pytest.raises(InvalidSetting, match=next(iter(changes))):
        replace(AkdSettings(), **changes)  # type: ignore[arg-type]  # wrong values are the point


@given(shorter=st.integers(1, 10_000), longer=st.integers(1, 10_000))
def test_longer_studies_learn_more_slowly(shorter: int, longer: int) -> None:
    """The learning rate never rises with the budget and stays where the agent was seen to learn."""
    shorter, longer = sorted((shorter, longer))
    assert 2e-3 <= learning_rate_for(longer) <= learning_rate_for(shorter) <= 1.5e-2
    assert AkdSettings.suited_to(EngineSettings(budget=120)).learning_rate == pytest.approx(1e-2)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])  # training
def test_the_agent_learns_within_120_noisy_samples_of_42_decisions(seed: int) -> None:
    """The last quarter scores at least 0.15 above the first in every seed: over two deviations of a random vector."""
    assert gain("akd", seed) > 0.15


@pytest.mark.parametrize("seed", range(5))
def test_random_search_stays_where_it_is(seed: int) -> None:
    """Half that margin is out of reach without learning."""
    assert abs(gain("random", seed)) < 0.075


@pytest.mark.slow  # an agent is trained on 300 samples
def test_the_agent_learns_a_pair_of_choices_that_pays_only_together() -> None:
    """Neither choice of the pair is worth anything by itself, and the agent still finds that they have to agree."""
    sizes = (2, 2) + (3,) * 8
    engine = ENGINES["akd"](sizes, EngineSettings(budget=300, batch=10), 0)
    journal = search(engine, lambda choices: float(choices[0] == choices[1]), [10] * 30)
    assert fmean(told.reward for told in journal[-60:]) > 0.9


def test_equal_rewards_teach_nothing_and_break_nothing() -> None:
    """A deviation of 0 does not divide: the policy stays near uniform and keeps proposing."""
    engine = AkdEngine((3,) * 6, AkdSettings(batch=10), 0)
    search(engine, lambda _: 0.7, [10] * 6)
    assert engine.last_update is not None
    assert engine.last_update.entropy == pytest.approx(math.log(3), rel=0.02)


def test_probability_ratios_are_one_in_the_first_epoch() -> None:
    """The log-probabilities kept at ask time are those that the unchanged policy gives again at tell time."""
    engine = AkdEngine(SEVEN_BLOCKS, AkdSettings(batch=10), 4)
    reward = hamming_reward(SEVEN_BLOCKS, 4)
    for batch in range(1, 5):
        search(engine, reward, [10])
        assert engine.last_update is not None
        assert engine.last_update.rewards_told == 10 * batch
        assert engine.last_update.first_ratio_gap < 1e-4


def test_probability_ratios_are_one_for_mutated_proposals_too() -> None:
    """Vectors found by mutation are kept with the policy's log-probability of them, not of the sampled ones."""
    engine = AkdEngine((2, 2, 1), AkdSettings(batch=4), 0)
    search(engine, hamming_reward((2, 2, 1), 0), [4])
    assert engine.last_update is not None
    assert engine.last_update.first_ratio_gap < 1e-4


def test_probability_ratios_show_proposals_older_than_the_policy() -> None:
    """A batch asked for before an update and told after it is weighted by what the policy was when asked."""
    engine = AkdEngine(SEVEN_BLOCKS, AkdSettings(batch=10), 4)
    reward = hamming_reward(SEVEN_BLOCKS, 4)
    told = [Told(choices, reward(choices)) for choices in engine.ask(20)]
    engine.tell(told)
    assert engine.last_update is not None
    assert engine.last_update.first_ratio_gap > 0.01


def test_the_callers_random_state_and_threads_are_left_alone() -> None:
    """An engine neither reads nor moves torch's global generator, and restores the number of threads."""
    torch.manual_seed(0)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = search(ENGINES["akd"]((3,) * 8, SMALL, 0), hamming_reward((3,) * 8, 0), [10] * 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads

    torch.manual_seed(1)
    random.seed(1)
    assert search(ENGINES["akd"]((3,) * 8, SMALL, 0), hamming_reward((3,) * 8, 0), [10] * 2) == first


def test_settings_and_random_search_do_not_import_torch() -> None:
    """Commands that only read settings start at once: torch comes with the agent."""
    code = (
        "import sys; from edgekd.search.engines import ENGINES, EngineSettings as S; "
        "ENGINES['random']((2,), S(), 0).ask(1); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
