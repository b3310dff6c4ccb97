"""The Pareto front against its definition."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgekd.search.pareto import unbeaten

Point = tuple[int, int, int]  # latency, accuracy, place in the list


def front(points: list[Point]) -> list[Point]:
    """Give the front of (latency, accuracy) pairs."""
    return unbeaten(points, lambda p: float(p[0]), lambda p: float(p[1]))


def beats(one: Point, other: Point) -> bool:
    """Say whether a point is at least as good on both counts and better on one."""
    return one[0] <= other[0] and one[1] >= other[1] and one[:2] != other[:2]


pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40)  # few values, so many ties
points = pairs.map(lambda some: [(*pair, place) for place, pair in enumerate(some)])


@given(points)
def test_the_front_is_exactly_what_nothing_beats(points: list[Point]) -> None:
    """By comparing all pairs; of equal points the first one stands for all."""
    first = {point[:2]: point for point in reversed(points)}
    unbeaten = [point for point in first.values() if not any(beats(other, point) for other in points)]
    assert front(points) == sorted(unbeaten)


@given(points)
def test_the_front_goes_from_fast_to_accurate(points: list[Point]) -> None:
    """Both latency and accuracy rise strictly along it."""
    found = front(points)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(found))
    assert bool(found) == bool(points)


def test_a_front_by_hand() -> None:
    """Four candidates, of which one is slower and no better."""
    assert front([(5, 9, 0), (1, 3, 1), (2, 3, 2), (3, 7, 3)]) == [(1, 3, 1), (3, 7, 3), (5, 9, 0)]
