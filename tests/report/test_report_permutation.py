"""The permutation test over runs, against values by hand and a slow definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.report.permutation import DRAWN, permutation_test

pytestmark = pytest.mark.whole  # many draws

Floats = npt.NDArray[np.float64]


@st.composite
def grouped_distances(draw: st.DrawFn) -> tuple[Floats, list[int]]:
    """Draw a symmetric matrix, with ties now and then, and groups of which one has two runs."""
    groups = [0, 0, 1, *draw(st.lists(st.integers(0, 2), max_size=3))]
    runs = len(groups)
    values = draw(st.lists(st.integers(0, 8), min_size=runs * runs, max_size=runs * runs))
    half = np.triu(np.array(values, float).reshape(runs, runs) / 8, 1)
    return half + half.T, draw(st.permutations(groups))


def difference(distances: Floats, labels: tuple[int, ...]) -> float:
    """Reckon the statistic pair by pair."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    within = [distances[a, b] for a, b in pairs if labels[a] == labels[b]]
    between = [distances[a, b] for a, b in pairs if labels[a] != labels[b]]
    return float(np.mean(between) - np.mean(within))


def separated(sizes: tuple[int, ...]) -> tuple[Floats, list[int]]:
    """Make runs that are 0.1 apart within their group and 0.5 between groups."""
    labels = [group for group, size in enumerate(sizes) for _ in range(size)]
    same = np.equal.outer(labels, labels)
    return np.where(same, 0.1, 0.5), labels


def test_two_runs_against_two_by_hand() -> None:
    """Of the six labellings the observed one and its mirror image have the largest difference: p = 2/6."""
    distances = np.array([[0, 0.1, 0.5, 0.5], [0.1, 0, 0.5, 0.5], [0.5, 0.5, 0, 0.2], [0.5, 0.5, 0.2, 0]])
    test = permutation_test(distances, [0, 0, 1, 1])
    assert test is not None
    assert (test.between, test.within, test.difference) == pytest.approx((0.5, 0.15, 0.35))
    assert (test.p_value, test.least_p, test.labellings, test.exact) == (pytest.approx(1 / 3), 1 / 3, 6, True)
    assert not test.can_be_significant


@pytest.mark.parametrize(
    ("sizes", "p_value"),
    [((4, 4), 2 / 70), ((3, 3), 2 / 20), ((4, 3), 1 / 35), ((5, 1), 1 / 6), ((4, 4, 4), 6 / 34650)],
)
def test_clear_groups_have_the_least_p_there_is(sizes: tuple[int, ...], p_value: float) -> None:
    """The observed labelling counts, and so do those that only swap the names of groups of one size."""
    test = permutation_test(*separated(sizes))
    assert test is not None
    assert (test.p_value, test.least_p) == (pytest.approx(p_value), pytest.approx(p_value))
    assert test.can_be_significant == (p_value < 0.05)


def test_equal_distances_are_no_evidence() -> None:
    """Where every labelling is as good as the observed one, p is 1."""
    test = permutation_test(np.full((6, 6), 0.3), [0, 0, 0, 1, 1, 1])
    assert test is not None
    assert test.p_value == 1


@given(grouped_distances())
def test_the_exact_p_is_the_share_of_all_permutations(case: tuple[Floats, list[int]]) -> None:
    """Counting over all permutations of the runs' labels, equal ones included, gives the same share."""
    distances, labels = case
    test = permutation_test(distances, labels)
    assert test is not None
    observed = difference(distances, tuple(labels))
    every = [difference(distances, p) for p in itertools.permutations(labels)]
    assert test.difference == pytest.approx(observed)
    assert test.p_value == pytest.approx(sum(d >= observed - 1e-12 for d in every) / len(every))
    assert test.p_value >= test.least_p - 1e-12


@given(grouped_distances(), st.randoms(use_true_random=False))
def test_the_order_of_runs_and_the_names_of_groups_do_not_matter(
    case: tuple[Floats, list[int]], random: object
) -> None:
    """Shuffled runs and renumbered groups have the same p-value."""
    distances, labels = case
    order = list(range(len(labels)))
    getattr(random, "shuffle")(order)  # noqa: B009 - hypothesis types its randoms as object
    shuffled = permutation_test(distances[np.ix_(order, order)], [7 - labels[place] for place in order])
    plain = permutation_test(distances, labels)
    assert shuffled is not None
    assert plain is not None
    assert (shuffled.p_value, shuffled.difference) == (pytest.approx(plain.p_value), pytest.approx(plain.difference))


def test_many_runs_are_sampled_with_a_seed() -> None:
    """Ten runs against ten have too many labellings; (1 + count) / (1 + drawn) of random ones is never 0."""
    distances, labels = separated((10, 10))
    test = permutation_test(distances, labels, seed=3)
    assert test is not None
    assert (test.exact, test.labellings) == (False, DRAWN)
    assert 1 <= round(test.p_value * (1 + DRAWN)) <= 3
    assert test.p_value == pytest.approx(round(test.p_value * (1 + DRAWN)) / (1 + DRAWN))
    assert permutation_test(distances, labels, seed=3) == test
    assert test.least_p >= 1 / (1 + DRAWN)


def test_a_sampled_p_is_close_to_the_exact_one() -> None:
    """Noise alone: twelve against eight, sampled, is near the share that all labellings of fewer runs suggest."""
    half = np.triu(np.random.default_rng(5).random((20, 20)), 1)
    first, second = (permutation_test(half + half.T, [0] * 12 + [1] * 8, seed=seed) for seed in (1, 2))
    assert first is not None
    assert second is not None
    assert math.isclose(first.p_value, second.p_value, abs_tol=0.02)  # five standard deviations of either


@pytest.mark.parametrize("groups", [[], [0], [0, 1], [0, 1, 2], [0, 0], [0, 0, 0]])
def test_without_pairs_of_either_kind_there_is_no_test(groups: list[int]) -> None:
    """One run a group says nothing about groups, and one group has nothing to be compared with."""
    assert permutation_test(np.full((len(groups), len(groups)), 0.5), groups) is None
