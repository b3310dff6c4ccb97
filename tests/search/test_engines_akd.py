"""The AKD agent and its plain relation: what they learn, and how their updates come about."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from engine_runs import SEVEN_BLOCKS, SMALL, gain, hamming_reward, search
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.search.engines import ENGINES, AkdSettings, EngineSettings, Evaluated, learning_rate_for
from edgekd.search.engines.akd import AkdEngine
from edgekd.search.errors import InvalidSetting

pytestmark = pytest.mark.whole  # whole searches


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
    """Equal results share the middle rank: the policy stays near uniform and keeps proposing."""
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
    told = [Evaluated(choices, reward(choices)) for choices in engine.ask(20)]
    engine.tell(told)
    assert engine.last_update is not None
    assert engine.last_update.first_ratio_gap > 0.01


def test_only_the_ranks_of_rewards_count() -> None:
    """Any rising function of the rewards, however crooked, leads to the same proposals."""
    reward = hamming_reward((3,) * 10, 6)
    plain = search(ENGINES["akd"]((3,) * 10, SMALL, 6), reward, [10] * 4)
    bent = search(ENGINES["akd"]((3,) * 10, SMALL, 6), lambda choices: math.exp(9 * reward(choices)) - 3, [10] * 4)
    assert [told.choices for told in plain] == [told.choices for told in bent]


def test_what_is_over_the_target_ranks_below_all_that_is_under_it() -> None:
    """With a latency limit, only the feasible option is learned, though the other one has the higher reward."""
    limited = EngineSettings(budget=200, batch=10, feasible_ms=1.0)
    engine = AkdEngine((2,) + (4,) * 6, limited, 0)
    for _ in range(20):
        engine.tell([Evaluated(c, 0.9 if c[0] else 0.5, 0.5, 2.0 if c[0] else 1.0) for c in engine.ask(10)])
    assert fmean(choices[0] for choices in engine.ask(40)) < 0.2


@pytest.mark.slow  # thirty agents are trained
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_how_rewards_are_grouped_into_tells_is_irrelevant(cuts: list[int]) -> None:
    """Forty rewards lead to the same policy whether they are told at once or in any pieces."""
    reward = hamming_reward((3,) * 8, 2)
    at_once, in_pieces = (ENGINES["akd"]((3,) * 8, SMALL, 2) for _ in range(2))
    told = [Evaluated(choices, reward(choices)) for choices in at_once.ask(40)]
    in_pieces.ask(40)
    at_once.tell(told)
    start = 0
    for cut in [*cuts, 40]:
        in_pieces.tell(told[start : start + cut])
        start += cut
    assert at_once.ask(5) == in_pieces.ask(5)


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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])  # training
def test_reinforce_learns_too(seed: int) -> None:
    """It is a floor, not a dummy: in a study of 600 samples the plain gradient improves clearly."""
    engine = ENGINES["reinforce"]((3,) * 12, EngineSettings(budget=600, batch=10), seed)
    rewards = [told.reward for told in search(engine, hamming_reward((3,) * 12, seed), [10] * 60)]
    assert fmean(rewards[-100:]) - fmean(rewards[:100]) > 0.1


def test_reinforce_takes_equal_rewards() -> None:
    """A deviation of 0 does not divide: the next proposals are still spread over all options."""
    engine = ENGINES["reinforce"]((3,) * 6, SMALL, 0)
    search(engine, lambda _: 0.7, [10] * 6)
    proposals = engine.ask(200)
    assert all({choices[position] for choices in proposals} == {0, 1, 2} for position in range(6))
