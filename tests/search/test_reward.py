"""Rewards: the three forms of the literature, by hand and at their limits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.errors import UnknownName
from edgekd.search.engines.base import LARGEST_REWARD
from edgekd.search.errors import InvalidReward, InvalidSetting
from edgekd.search.reward import FORMS, Reward, feasible_first

forms = pytest.mark.parametrize("form", FORMS)
accuracies = st.floats(0, 1)
times = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(
    ("form", "accuracy", "latency_ms", "target_ms", "reward"),
    [
        ("soft", 0.8, 2.0, 1.0, 0.8 * 0.9526379979), # 2^−0.07
        ("soft", 0.8, 0.5, 1.0, 0.8 * 1.0497166836),
        ("soft", 0.75, 76.0, 80.0, 0.75 * 1.0035970),
        ("hard", 0.8, 0.5, 1.0, 0.8),
        ("hard", 0.8, 1.0, 1.0, 0.8),
        ("hard", 0.8, 4.0, 1.0, 0.2),
        ("absolute", 0.8, 1.0, 1.0, 0.8),
        ("absolute", 0.8, 1.5, 1.0, 0.55),
        ("absolute", 0.8, 0.5, 1.0, 0.55),
        ("absolute", 0.1, 3.0, 1.0, -0.9),
    ],
)  # fmt: skip
def test_rewards_by_hand(form: str, accuracy: float, latency_ms: float, target_ms: float, reward: float) -> None:
    """Each form on numbers small enough to check with a pocket calculator."""
    assert Reward(form)(accuracy, latency_ms, target_ms) == pytest.approx(reward, rel=1e-6)


@forms
@given(accuracy=accuracies, target_ms=times)
def test_on_the_target_the_reward_is_the_accuracy(form: str, accuracy: float, target_ms: float) -> None:
    """All three forms agree where latency is exactly what was asked for."""
    assert Reward(form)(accuracy, target_ms, target_ms) == pytest.approx(accuracy)


@forms
@given(accuracy=accuracies, latency_ms=times, target_ms=times, factor=st.floats(0.1, 10))
def test_only_the_ratio_to_the_target_counts(
    form: str, accuracy: float, latency_ms: float, target_ms: float, factor: float
) -> None:
    """Milliseconds or microseconds: the unit is irrelevant."""
    reward = Reward(form)
    scaled = reward(accuracy, latency_ms * factor, target_ms * factor)
    assert scaled == pytest.approx(reward(accuracy, latency_ms, target_ms), rel=1e-6, abs=1e-6)


@forms
@given(pair=st.tuples(accuracies, accuracies), latency_ms=times, target_ms=times)
def test_more_accuracy_at_the_same_latency_is_never_worse(
    form: str, pair: tuple[float, float], latency_ms: float, target_ms: float
) -> None:
    """The reward is monotone in accuracy."""
    lower, higher = (Reward(form)(accuracy, latency_ms, target_ms) for accuracy in sorted(pair))
    assert lower <= higher


@forms
@given(accuracy=accuracies, pair=st.tuples(times, times), target_ms=times)
def test_above_the_target_slower_is_never_better(
    form: str, accuracy: float, pair: tuple[float, float], target_ms: float
) -> None:
    """The reward is monotone in latency beyond the target; below it, hard does not care and soft still pays."""
    faster, slower = (target_ms * (1 + ms) for ms in sorted(pair))
    assert Reward(form)(accuracy, faster, target_ms) >= Reward(form)(accuracy, slower, target_ms)
    below = [Reward(form)(accuracy, share * target_ms, target_ms) for share in (0.25, 0.5, 1.0)]
    if form == "hard":
        assert below == [accuracy] * 3
    elif form == "soft":
        assert below == sorted(below, reverse=True)
    else:
        assert below == sorted(below)


def test_a_latency_of_zero_is_not_infinitely_good() -> None:
    """The ratio is clamped a thousand times below the target, so the soft form stays finite."""
    assert Reward("soft")(0.8, 0.0, 1.0) == Reward("soft")(0.8, 1e-3, 1.0) == pytest.approx(0.8 * 1000**0.07)
    assert Reward("hard")(0.8, 0.0, 1.0) == 0.8
    assert Reward("absolute")(0.8, 0.0, 1.0) == pytest.approx(0.8 - 0.5 * 0.999)


@forms
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -0.1])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_values_that_are_none_are_refused(form: str, wrong: float, place: int) -> None:
    """NaN, infinite and negative values never become a reward; the message holds them."""
    values = [0.5, 1.0, 1.0]
    values[place] = wrong
    with pytest.raises(InvalidReward, match=f"no reward for .*{wrong}"):
        Reward(form)(*values)


@forms
def test_a_target_of_zero_is_refused(form: str) -> None:
    """There is nothing to divide by."""
    with pytest.raises(InvalidReward, match="target 0"):
        Reward(form)(0.5, 1.0, 0.0)


def test_an_unknown_form_is_refused_with_the_known_ones() -> None:
    """A typing error gets the nearest name."""
    with pytest.raises(UnknownName, match="unknown reward form 'absolut': did you mean 'absolute'"):
        Reward("absolut")


@pytest.mark.parametrize(
    ("reward", "latency_ms", "expected"),
    [
        (Reward("soft", soft_exponent=-1.0), 2.0, 0.4),
        (Reward("hard", hard_exponent=-2.0), 2.0, 0.2),
        (Reward("absolute", absolute_weight=-0.07), 2.0, 0.73),
        (Reward("soft", soft_exponent=0.0), 2.0, 0.8),
    ],
)
def test_exponents_and_weights_can_be_set(reward: Reward, latency_ms: float, expected: float) -> None:
    """An accuracy of 0.8 at twice the target, by hand; an exponent of 0 leaves latency out."""
    assert reward(0.8, latency_ms, 1.0) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["soft_exponent", "hard_exponent", "absolute_weight"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 0.07, -1000.0])
def test_weights_that_would_reward_slowness_are_refused(name: str, wrong: float) -> None:
    """A weight above 0, infinite, NaN or absurdly strong is named with its value."""
    with pytest.raises(InvalidSetting, match=f"{name} of a reward is {wrong}"):
        Reward(**{name: wrong})


@pytest.mark.parametrize(
    "reward",
    [
        Reward("soft", soft_exponent=-4.0),
        Reward("hard", hard_exponent=-100.0),
        Reward("absolute", absolute_weight=-100.0),
    ],
)
@given(accuracy=accuracies, latency_ms=times, target_ms=times)
def test_the_strongest_weights_give_rewards_that_engines_take(
    reward: Reward, accuracy: float, latency_ms: float, target_ms: float
) -> None:
    """Finite, and small enough to be squared: however far a latency is from the target."""
    assert abs(reward(accuracy, latency_ms, target_ms)) <= LARGEST_REWARD * (1 + 1e-9)


@given(rewards=st.tuples(accuracies, accuracies), latency_ms=times, over=st.floats(1e-6, 10), target_ms=times)
def test_feasible_first_prefers_anything_under_the_target(
    rewards: tuple[float, float], latency_ms: float, over: float, target_ms: float
) -> None:
    """Whatever the rewards, a candidate on or under the target beats one above it; on one side the reward decides."""
    under, above = min(latency_ms, target_ms), target_ms * (1 + over)
    assert feasible_first(rewards[0], under, target_ms) > feasible_first(rewards[1], above, target_ms)
    for latency in (under, above):
        keys = [feasible_first(reward, latency, target_ms) for reward in sorted(rewards)]
        assert keys == sorted(keys)


def test_the_hard_form_alone_does_not_put_the_feasible_first() -> None:
    """One per cent above the target and far more accurate: the higher reward, and still the loser of a tournament."""
    hard = Reward("hard")
    within, above = hard(0.6, 1.0, 1.0), hard(0.8, 1.01, 1.0)
    assert above > within
    assert feasible_first(above, 1.01, 1.0) < feasible_first(within, 1.0, 1.0)
