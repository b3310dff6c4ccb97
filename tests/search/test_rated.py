"""When a candidate is hopeless: a rule that earlier batches make, and nothing else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.search.errors import InvalidSetting
from edgekd.search.rated import Hopeless, early_epochs, hopeless_after

ACCURACIES = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=60)


@pytest.mark.parametrize(("epochs", "after"), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (9, 3), (100, 33)])
def test_candidates_are_looked_at_after_a_third_of_their_epochs(epochs: int, after: int) -> None:
    """After one epoch at least; a training of one epoch cannot be cut."""
    assert early_epochs(epochs) == after


def test_nobody_is_looked_at_where_it_is_not_wanted_or_of_no_use() -> None:
    """A share of 0 turns it off, and one epoch is too short."""
    assert hopeless_after([0.5] * 20, 0.0, 9) is None
    assert hopeless_after([0.5] * 20, 0.5, 1) is None


def test_the_first_candidates_are_looked_at_and_none_is_ended() -> None:
    """Their accuracies make the rule for later ones; seven are too few, and failures tell nothing."""
    assert hopeless_after([], 0.5, 9) == Hopeless(3, 0.0)
    assert hopeless_after([0.9] * 7 + [None] * 20, 0.5, 9) == Hopeless(3, 0.0)
    assert hopeless_after([0.9] * 8, 0.5, 9) == Hopeless(3, 0.9)


def test_the_floor_is_the_quantile_of_earlier_candidates() -> None:
    """Of ten accuracies from 0.0 to 0.9, three are below the floor of a share of 0.3, and none below that of 0.05."""
    known = [0.9, 0.1, 0.5, 0.0, 0.3, 0.2, 0.8, 0.4, 0.7, 0.6]
    assert hopeless_after(known, 0.3, 6) == Hopeless(2, 0.3)
    assert hopeless_after(known, 0.05, 6) == Hopeless(2, 0.0)
    assert hopeless_after(known, 0.99, 6) == Hopeless(2, 0.9)


@given(ACCURACIES, st.floats(0.01, 0.99), st.randoms())
def test_the_rule_ends_at_most_the_share_whatever_the_order(
    accuracies: list[float | None], share: float, rng: object
) -> None:
    """It depends on what is known, not on the order in which it became known."""
    rule = hopeless_after(accuracies, share, 9)
    assert rule is not None
    known = [a for a in accuracies if a is not None]
    assert sum(a < rule.floor for a in known) <= share * len(known)
    shuffled = list(accuracies)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert hopeless_after(shuffled, share, 9) == rule


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, math.nan, math.inf])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    """All of the earlier candidates cannot be a share that one must not fall behind."""
    with pytest.raises(InvalidSetting, match=r"stop_share is .* below 1"):
        hopeless_after([], share, 9)
