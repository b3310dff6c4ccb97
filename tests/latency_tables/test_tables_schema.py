"""The nouns of a table: measurements, and what is derived from them."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from synthetic import KEY, conv, measurement

from latency_tables.schema import CONTENDED, THROTTLED, Measurement, TableKey, merged


@example([1, 2], 3)  # the clocks disagree most on the fastest sample
@given(st.lists(st.integers(1, 10**9), min_size=1), st.integers(1, 1000))
def test_derived_times_come_from_the_raw_samples(samples: list[int], extra: int) -> None:
    """The fastest and the median sample in ms, on the table's clock and on the wall's."""
    wall = tuple(ns + extra for ns in samples)
    made = measurement("x", samples_ns=tuple(samples), wall_samples_ns=wall)
    assert made.median_ms == statistics.median(samples) / 1e6
    assert made.wall_median_ms == pytest.approx(made.median_ms + extra / 1e6)
    assert min(samples) / 1e6 <= made.quiet_ms <= max(samples) / 1e6  # of two, both clocks may say: the slower


@given(st.lists(st.integers(1000, 10**9), min_size=1), st.integers(100, 10**4))
def test_the_quiet_time_is_the_fastest_sample(samples: list[int], percent: int) -> None:
    """However much of the time others have the CPU, as long as that is all the same to the samples."""
    wall = tuple(ns * percent // 100 for ns in samples)
    assert measurement("x", samples_ns=tuple(samples), wall_samples_ns=wall).quiet_ms == min(samples) / 1e6


@pytest.mark.parametrize(("stretch", "quiet_ns"), [(1.0, 1000), (1.5, 1000), (2.5, 600)])
def test_a_sample_that_lost_time_counts_by_the_wall(stretch: float, quiet_ns: int) -> None:
    """A hypervisor charged it with more than it took; where all samples share the CPU so, their own clock is right."""
    samples, wall = (1000, 1010, 600, 1020), (1000 * stretch, 1010 * stretch, 1500, 1020 * stretch)
    made = measurement("x", samples_ns=samples, wall_samples_ns=tuple(map(round, wall)))
    assert made.quiet_ms == quiet_ns / 1e6


def test_of_few_samples_none_is_made_up() -> None:
    """Of two that differ in what they lost, the one that lost nothing counts."""
    assert measurement("x", samples_ns=(1000, 600), wall_samples_ns=(1000, 1500)).quiet_ms == 1000 / 1e6


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), min_size=1))
def test_no_samples_make_a_time_less_than_the_fastest(pairs: list[tuple[int, int]]) -> None:
    """Whatever two clocks say, files included that nobody measured: above 0, and never faster than any sample."""
    samples, wall = zip(*pairs, strict=True)
    assert 0 < min(samples) / 1e6 <= measurement("x", samples_ns=samples, wall_samples_ns=wall).quiet_ms


def test_attempts_join_with_all_their_samples() -> None:
    """Samples add up in order, flags unite, and the faster sentinel counts: its samples are there too."""
    first = measurement("x", 1000, sentinel_ns=9000, flags=("contended",))
    second = measurement("x", 800, sentinel_ns=5000, attempt=2)
    both = merged(first, second)
    assert both.samples_ns == first.samples_ns + second.samples_ns
    assert both.wall_samples_ns == first.wall_samples_ns + second.wall_samples_ns
    assert (both.sentinel_ns, both.attempt, both.flags) == (5000, 2, ("contended",))
    assert both.quiet_ms == second.quiet_ms


def test_attempts_beside_one_network_join_with_what_that_took() -> None:
    """Each visit keeps its own; an attempt beside another network, or of longer visits, replaces them, and one beside
    none does not.
    """
    first = measurement("x", beside="other", beside_ns=(500, 600, 700))
    second = measurement("x", attempt=2, beside="other", beside_ns=(800, 900, 950))
    assert merged(first, second).beside_ns == (500, 600, 700, 800, 900, 950)
    for later in (replace(second, beside="third"), replace(second, beside_ns=(800,))):
        assert merged(first, later) == later
    alone = measurement("x", attempt=2)
    assert merged(first, alone) == replace(first, attempt=2)
    assert merged(replace(alone, attempt=1), second) == second


@pytest.mark.parametrize("flag", [THROTTLED, CONTENDED])
def test_disturbed_samples_on_the_wall_go_once_there_are_others(flag: str) -> None:
    """Whichever attempt was the quiet one, its samples and its sentinel are kept alone."""
    quiet, bad = (measurement("x", ns, wall_samples_ns=(ns + 20, ns, ns + 10)) for ns in (1000, 900))
    bad = replace(bad, sentinel_ns=9000, flags=(flag,))
    assert merged(bad, replace(quiet, attempt=2)) == replace(quiet, attempt=2)
    assert merged(quiet, replace(bad, attempt=2)) == replace(quiet, attempt=2)


@pytest.mark.parametrize(("earlier", "later", "known"), [(0, 7000, 7000), (7000, 0, 7000), (0, 0, 0)])
def test_an_unknown_sentinel_does_not_count_as_the_fastest(earlier: int, later: int, known: int) -> None:
    """0 stands for unknown, not for infinitely fast."""
    pair = measurement("x", sentinel_ns=earlier), measurement("x", sentinel_ns=later, attempt=2)
    assert merged(*pair).sentinel_ns == known


@pytest.mark.parametrize(
    "later", [measurement("y", attempt=2), measurement("x", attempt=1), measurement("x", attempt=3)]
)
def test_only_successive_attempts_at_one_subject_join(later: Measurement) -> None:
    """Another subject, the same attempt again and a gap are refused."""
    with pytest.raises(ValueError, match="does not follow attempt 1 at x"):
        merged(measurement("x"), later)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TableKey)])
def test_keys_name_what_differs(field: str) -> None:
    """Each field of the key is compared, and the message holds both values."""
    other = dataclasses.replace(KEY, **{field: 4 if field == "threads" else "other"})
    assert KEY.differences(other) == [f"{field}: {getattr(KEY, field)!r} / {getattr(other, field)!r}"]


def test_equal_keys_do_not_differ() -> None:
    """Two tables of one device are comparable."""
    assert KEY.differences(dataclasses.replace(KEY)) == []
    assert conv().key == conv().key
