"""Kendall's τ-b against worked examples and a count by hand, and the intervals around it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.search.errors import InvalidSetting
from edgekd.search.rank_correlation import DRAWS, interval, kendall_tau, resampled_taus

RANKS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


def counted(first: list[float], second: list[float]) -> float:
    """Count τ-b pair by pair, as its definition reads."""
    agreement = decided_first = decided_second = 0
    for (a, x), (b, y) in itertools.combinations(list(zip(first, second, strict=True)), 2):
        agreement += ((a > b) - (a < b)) * ((x > y) - (x < y))
        decided_first += a != b
        decided_second += x != y
    decided = math.sqrt(decided_first * decided_second)
    return agreement / decided if decided else 0.0


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),  # five pairs agree, one does not
        ([12, 2, 1, 12, 2], [1, 4, 7, 1, 0], -0.47140452079103173),  # the example of scipy.stats.kendalltau
        ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(6)),  # a tie on one side: 2 of √(2 · 3)
        ([1, 1, 1], [1, 2, 3], 0.0),
        ([5], [7], 0.0),
    ],
)
def test_tau_of_worked_examples(first: list[float], second: list[float], tau: float) -> None:
    """Perfect, reversed, one swap, ties on both sides, a ranking that says nothing."""
    assert kendall_tau(first, second) == pytest.approx(tau, abs=1e-15)


@given(RANKS)
def test_tau_is_what_counting_pairs_gives(pairs: list[tuple[int, int]]) -> None:
    """It lies between −1 and 1, is symmetric, and does not depend on the order or the scale."""
    first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    tau = kendall_tau(first, second)
    assert tau == pytest.approx(counted(first, second), abs=1e-12)
    assert kendall_tau(second, first) == pytest.approx(tau, abs=1e-12)
    assert kendall_tau(first[::-1], second[::-1]) == pytest.approx(tau, abs=1e-12)
    assert kendall_tau([math.exp(a) for a in first], second) == pytest.approx(tau, abs=1e-12)


@pytest.mark.whole  # many draws
@settings(max_examples=10)
@given(RANKS)
def test_a_draw_is_the_tau_of_the_items_drawn(pairs: list[tuple[int, int]]) -> None:
    """An item drawn twice counts as two equal items."""
    first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    draws = resampled_taus(first, [second], seed=4)
    count = len(first)
    drawn = np.random.default_rng(4).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    for number in (0, 1, DRAWS - 1):
        items = [i for i, times in enumerate(drawn[number]) for _ in range(times)]
        assert draws[0, number] == pytest.approx(counted([first[i] for i in items], [second[i] for i in items]))


def test_rankings_are_resampled_together() -> None:
    """Two equal proxies differ in no draw, though each varies by itself."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=20)
    noisy = (truth + rng.normal(size=20)).tolist()
    draws = resampled_taus(truth.tolist(), [noisy, noisy])
    assert draws.shape == (2, DRAWS)
    assert (draws[0] == draws[1]).all()
    assert draws[0].std() > 0.05


@pytest.mark.slow  # a hundred samples, each with all its draws
def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 100 samples of 40 from a normal pair with τ = 2/π · arcsin(0.8), about 95 intervals hold it."""
    tau = 2 / math.pi * math.asin(0.8)
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        first = rng.normal(size=40)
        second = 0.8 * first + 0.6 * rng.normal(size=40)
        found = interval(
            kendall_tau(first.tolist(), second.tolist()), resampled_taus(first.tolist(), [second.tolist()])[0]
        )
        held += found.low <= tau <= found.high
    assert held >= 85


def test_no_proxies_have_no_draws() -> None:
    """The shape says so."""
    assert resampled_taus([1.0, 2.0], []).shape == (0, DRAWS)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([1.0], [math.inf])])
def test_what_cannot_be_ranked_is_refused(first: list[float], second: list[float]) -> None:
    """Nothing, unequal lengths, NaN and infinity."""
    with pytest.raises(InvalidSetting, match="equally many finite numbers"):
        kendall_tau(first, second)
