"""Scales, ticks and the other pieces that plots are made of."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.report import svg

pytestmark = pytest.mark.whole  # draws whole pages

NUMBERS = st.floats(0, 1e12, allow_subnormal=False)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[float, float]:
    """Draw a range as plots have it: padded around values."""
    return svg.padded(draw(st.lists(NUMBERS.filter(lambda v: v == 0 or v > 1e-9), max_size=5)))


@given(ranges(), st.floats(-0.5, 1.5))
def test_a_scale_and_its_inverse_cancel(bounds: tuple[float, float], share: float) -> None:
    """A value survives the way to its place and back."""
    low, high = bounds
    scale = svg.Scale(low, high, 46, 466)
    value = low + share * (high - low)
    assert scale.invert(scale.at(value)) == pytest.approx(value, abs=1e-9 * (high - low))


@given(ranges())
def test_a_scale_maps_ends_to_ends(bounds: tuple[float, float]) -> None:
    """The data range fills the pixel range, here upside down as in a y axis."""
    scale = svg.vertical(*bounds, "title").scale
    assert scale.at(bounds[0]) == pytest.approx(svg.BOTTOM)
    assert scale.at(bounds[1]) == pytest.approx(svg.TOP)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_a_padded_range_holds_its_values_and_has_a_width(values: list[float]) -> None:
    """All values are inside; the range is never empty and not negative for data that are not."""
    low, high = svg.padded(values)
    assert 0 <= low <= min(values)
    assert high >= max(values)
    assert high > low


@given(ranges(), st.integers(2, 12))
def test_ticks_are_round_even_and_inside(bounds: tuple[float, float], count: int) -> None:
    """Ticks are multiples of 1, 2 or 5 times 10^k, lie in the range and are as many as asked for at most."""
    low, high = bounds
    values = svg.ticks(low, high, count)
    step = svg.nice_step(high - low, count)
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert round(mantissa, 6) in {1, 2, 5}
    assert len(values) <= count + 1
    slack = 1e-6 * step
    assert all(low - slack <= value <= high + slack for value in values)
    assert all(b - a == pytest.approx(step, rel=1e-6) for a, b in itertools.pairwise(values))


@given(ranges())
def test_a_range_has_ticks_whose_labels_tell_them_apart(bounds: tuple[float, float]) -> None:
    """With the six parts of an axis there are two ticks or more, and no two read the same."""
    values = svg.ticks(*bounds)
    labels = svg.tick_labels(values)
    assert len(values) >= 2
    assert len(set(labels)) == len(labels)


def test_tick_labels_show_values_exactly() -> None:
    """Labels have the decimals of the step, no more, and zero has no sign."""
    assert svg.tick_labels(svg.ticks(0, 0.3)) == ("0.00", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30")
    assert svg.tick_labels(svg.ticks(0, 60)) == ("0", "10", "20", "30", "40", "50", "60")
    assert svg.tick_labels((-0.0, 1.0)) == ("0", "1")


def test_elements_escape_attributes_and_name_them() -> None:
    """Quotes cannot end an attribute; names become those of HTML and numbers are short."""
    written = svg.element("use", class_='a"b', data_s="<", viewBox="0 0 1 1", x=1.26, y=2.0)
    assert written == '<use class="a&quot;b" data-s="&lt;" viewBox="0 0 1 1" x="1.3" y="2"></use>'


def test_a_staircase_holds_each_height_until_the_next_point() -> None:
    """Corners lie at the next place and the old height."""
    assert svg.staircase([(0, 5), (2, 3)])[:3] == [(0, 5), (2, 5), (2, 3)]
    assert svg.staircase([]) == []


@given(st.lists(st.floats(30, 276), min_size=2, max_size=4))
def test_side_labels_keep_their_distance(heights: list[float]) -> None:
    """Labels of lines that end together do not lie on each other."""
    axis = svg.horizontal(0, 1, "x", svg.SIDE_LABELS)
    drawn = svg.side_labels(axis, [(y, "name", "") for y in heights])
    places = [float(part.split('"')[0]) for part in drawn.split(' y="')[1:]]
    assert len(places) == len(heights)
    assert all(b - a >= svg.LABEL_GAP - 0.11 for a, b in itertools.pairwise(places))
