"""Shares, distances and projections, against slow definitions and under changes that must not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.report import regions
from edgekd.report.regions import Ints

SIZES = (4, 2, 1, 3)


@st.composite
def chosen(draw: st.DrawFn, least: int = 1) -> Ints:
    """Draw option indices of some architectures, (N, 4)."""
    one = st.tuples(*(st.integers(0, size - 1) for size in SIZES))
    return np.array(draw(st.lists(one, min_size=least, max_size=12)), dtype=np.int64)


@given(chosen(), chosen())
def test_distances_of_two_sets_are_means_over_all_pairs(first: Ints, second: Ints) -> None:
    """Marginals give the same mean as comparing every architecture with every other."""
    marginals = [regions.marginals(one, SIZES) for one in (first, second)]
    found = regions.distances_between(marginals, decisions=len(SIZES))
    expected = float((first[:, None] != second[None]).mean())
    assert (found[0, 1], found[1, 0]) == (pytest.approx(expected), pytest.approx(expected))


@given(chosen(least=2))
def test_the_distance_within_leaves_a_sample_s_distance_to_itself_out(one: Ints) -> None:
    """The mean is over pairs of different places."""
    pairs = [(a, b) for a in range(len(one)) for b in range(len(one)) if a != b]
    found = regions.distance_within(regions.marginals(one, SIZES), len(one), len(SIZES))
    assert found == pytest.approx(float(np.mean([(one[a] != one[b]).mean() for a, b in pairs])))


def test_one_sample_has_no_distance_within() -> None:
    """There is no pair."""
    assert regions.distance_within(regions.marginals(np.zeros((1, 4), np.int64), SIZES), 1, 4) is None


@given(chosen(), st.integers(0, 2**32 - 1))
def test_the_order_of_samples_does_not_matter(one: Ints, seed: int) -> None:
    """Shuffled samples have the same shares, and the same places in the projection."""
    order = np.random.default_rng(seed).permutation(len(one))
    assert regions.marginals(one[order], SIZES) == pytest.approx(regions.marginals(one, SIZES))
    plain, shuffled = (regions.project(regions.one_hot(c, SIZES)) for c in (one, one[order]))
    assert shuffled.shares == pytest.approx(plain.shares)
    assert sum(plain.shares) <= 1 + 1e-9


def test_a_projection_follows_its_rows() -> None:
    """With components of different variance, shuffling the samples shuffles their places and nothing else."""
    draw = np.random.default_rng(0)
    one = np.stack([draw.integers(0, 4, 60), draw.integers(0, 2, 60), np.zeros(60, np.int64), np.arange(60) // 20], 1)
    encoded = regions.one_hot(one, SIZES)
    order = draw.permutation(60)
    assert regions.project(encoded[order]).coordinates == pytest.approx(regions.project(encoded).coordinates[order])


def test_the_sign_of_a_component_is_fixed() -> None:
    """The largest weight is positive, so mirrored data have a mirrored picture, not a random one."""
    encoded = np.array([[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    found = regions.project(encoded)
    assert found.coordinates[:, 0] == pytest.approx([-1, -1, 2])
    assert regions.project(-encoded).coordinates[:, 0] == pytest.approx([1, 1, -2])
    assert found.coordinates[:, 1] == pytest.approx([0, 0, 0])
    assert found.shares == pytest.approx((1, 0))


@pytest.mark.parametrize("samples", [0, 1, 5])
def test_equal_samples_stand_at_one_place(samples: int) -> None:
    """Where nothing varies there is no direction, and no division by zero."""
    found = regions.project(regions.one_hot(np.zeros((samples, 4), np.int64), SIZES))
    assert found.coordinates == pytest.approx(np.zeros((samples, 2)))
    assert found.shares == (0, 0)


@given(chosen())
def test_shares_of_a_decision_add_up_to_one(one: Ints) -> None:
    """Every architecture has one option of each decision."""
    bounds = np.cumsum([0, *SIZES])
    shares = regions.marginals(one, SIZES)
    assert [shares[a:b].sum() for a, b in itertools.pairwise(bounds)] == pytest.approx([1] * 4)


def test_variation_is_the_largest_between_two_sets() -> None:
    """Disjoint options are 1 apart, equal shares 0, decision by decision."""
    sets = [np.array([1, 0, 0.5, 0.5]), np.array([0, 1, 0.5, 0.5]), np.array([0.5, 0.5, 0.25, 0.75])]
    assert regions.variation(sets, (2, 2)) == pytest.approx([1.0, 0.25])
    assert regions.variation(sets[:1], (2, 2)) == [0, 0]
