"""The usual speed: what was measured at another one is read as of it, and a sentinel's scatter changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import measurement

from latency_tables.schema import Measurement
from latency_tables.speed import SLOW, Speed

USUAL = Speed(40_000)


@pytest.mark.parametrize(("sentinel_ns", "slowdown"), [(40_000, 1.0), (52_000, 1.3), (36_000, 0.9)])
def test_the_sentinel_tells_how_many_times_slower_the_machine_was(sentinel_ns: int, slowdown: float) -> None:
    """Below 1 is a boosted clock."""
    assert USUAL.slowdown(measurement("x", sentinel_ns=sentinel_ns)) == pytest.approx(slowdown)


@pytest.mark.parametrize("factor", [0.9, 0.95, SLOW + 0.001, 1.1, 1.31, 3.0])
def test_one_factor_on_both_is_taken_back(factor: float) -> None:
    """A subject and the sentinel beside it on another clock tell what the subject takes on the usual one."""
    odd = measurement("x", round(1_000_000 * factor), sentinel_ns=round(40_000 * factor))
    assert USUAL.quiet_ms(odd) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [0.5, 0.89, 1 / SLOW + 0.001, 1.0, 1.01, SLOW - 0.001])
def test_scatter_and_absurd_boosts_of_the_sentinel_change_no_time(factor: float) -> None:
    """They would be put on every row otherwise; so fast no machine was for as long as rows take."""
    row = measurement("x", 1_000_000, sentinel_ns=round(40_000 * factor))
    assert USUAL.quiet_ms(row) == row.quiet_ms == 1.0


@pytest.mark.parametrize(("usual_ns", "sentinel_ns"), [(0, 40_000), (40_000, 0), (0, 0)])
def test_an_unknown_speed_is_taken_for_the_usual_one(usual_ns: int, sentinel_ns: int) -> None:
    """Tables of others, and engines without a sentinel, tell nothing of their machine's speed."""
    row = measurement("x", 1_000_000, sentinel_ns=sentinel_ns)
    assert Speed(usual_ns).slowdown(row) == 1.0
    assert Speed(usual_ns).quiet_ms(row) == 1.0


def beside(name: str, ns: int, states: list[float], **changes: object) -> Measurement:
    """Make a measurement of two samples a visit beside a network of 2 ms; each visit has a state that slows both."""
    samples = tuple(round(ns * state) + extra for state in states for extra in (0, 7))
    other = tuple(round(2_000_000 * state) for state in states)
    return measurement(name, samples_ns=samples, wall_samples_ns=samples, beside="other", beside_ns=other, **changes)


@given(st.lists(st.floats(1, 5), min_size=1, max_size=40))
def test_a_network_is_told_by_the_one_beside_it_whatever_others_do(states: list[float]) -> None:
    """It takes so many times what that one takes, which no session's own speed changes."""
    assert beside("x", 3_000_000, states).times_beside == pytest.approx(1.5, rel=1e-5)


@pytest.mark.parametrize(
    ("states", "ms"),
    [
        ([1.0, 1.0, 1.05, 1.7], 3.0),
        ([1.0, 1.7, 1.7, 1.7], 3.0),
        ([1.0, 1.0], 3.0),
        ([1.3, 1.3, 1.3, 1.3], 3.0),
        ([0.8, 0.8, 0.8, 0.8], 3.0),
    ],
    ids=["mostly calm", "calm once", "few visits", "slow", "boosted"],
)
def test_one_factor_on_a_network_and_what_is_beside_it_is_taken_back(states: list[float], ms: float) -> None:
    """Whether visits were on a calm machine or on none."""
    assert Speed(40_000, {"other": 2_000_000}).quiet_ms(beside("x", 3_000_000, states)) == pytest.approx(ms, rel=1e-5)


def test_what_others_slow_otherwise_is_told_by_the_visits_on_a_calm_machine() -> None:
    """An operator that they do not slow at all would seem faster by all that they slow the network beside it."""
    speed, others = Speed(40_000, {"other": 2_000_000}), (2_000_000, 3_400_000, 2_000_000, 3_400_000, 2_000_000)
    samples = (1_000_000, 990_000, 1_030_000, 980_000, 1_010_000)
    op = measurement("x", samples_ns=samples, wall_samples_ns=samples, beside="other", beside_ns=others)
    assert speed.quiet_ms(op) == pytest.approx(1.005)  # the lower quartile of three
    assert not speed.is_slow(op)
    only_slow = replace(op, beside_ns=(3_400_000,) * 5)
    assert speed.is_slow(only_slow)
    assert speed.quiet_ms(only_slow) == pytest.approx(1.0 * 2.0 / 3.4)


def test_the_visits_on_a_calm_machine_tell_how_far_they_scatter() -> None:
    """By how much their median is above the quartile; too few, or what was measured beside no network, tell nothing."""
    speed, others = Speed(40_000, {"other": 2_000_000}), (2_000_000, 3_400_000, 2_000_000, 2_000_000)
    samples = (1_050_000, 1_000_000, 1_900_000, 1_800_000, 1_020_000, 1_100_000, 1_200_000, 1_030_000)
    network = measurement("x", samples_ns=samples, wall_samples_ns=samples, beside="other", beside_ns=others)
    assert speed.scatter(network) == pytest.approx(1.02 / 1.01 - 1)
    assert speed.scatter(replace(network, beside_ns=(2_000_000, 3_400_000, 3_400_000, 3_400_000))) == 0.0
    assert speed.scatter(replace(network, beside="", beside_ns=())) == 0.0


def test_half_of_what_a_calm_machine_is_off_is_taken_back() -> None:
    """A slower clock slows all alike, but what slows the network beside it by its weights slows few others as much."""
    op = measurement("x", 1_000_000, beside="other", beside_ns=(2_000_000,))
    read = [Speed(40_000, {"other": level_ns}).quiet_ms(op) for level_ns in (1_900_000, 2_000_000, 2_100_000)]
    assert read == pytest.approx([math.sqrt(0.95), 1.0, math.sqrt(1.05)])


def test_neither_a_boost_nor_a_clock_that_lost_time_tells_what_is_usual() -> None:
    """What one visit seemed to take is no lower quartile of them."""
    samples = (1_010_000, 600_000, 1_000_000, 1_000_000, 1_020_000)
    op = measurement("x", samples_ns=samples, wall_samples_ns=samples, beside="other", beside_ns=(2_000_000,) * 5)
    assert Speed(40_000, {"other": 2_000_000}).quiet_ms(op) == pytest.approx(1.0)


def test_what_had_no_calm_may_be_measured_again() -> None:
    """Where it is known what calm is: of a network by the table, of the micro-model by what it usually takes."""
    speed = Speed(40_000, {"other": 1_800_000})
    network = beside("x", 3_000_000, [1.5], sentinel_ns=2_700_000)
    assert speed.slowdown(network) == pytest.approx(1.5)
    assert speed.is_slow(network)
    assert not speed.is_slow(beside("x", 3_000_000, [0.9, 1.5, 0.9, 0.95]))
    assert not Speed(40_000).is_slow(network)
    assert speed.is_slow(measurement("x", sentinel_ns=60_000))
    assert not speed.is_slow(measurement("x", sentinel_ns=40_000))
    assert Speed(40_000).slowdown(network) == 1.0


def test_what_is_measured_until_it_settles_is_read_as_it_is() -> None:
    """Unless a network beside it tells what it takes at the usual speed."""
    speed = Speed(40_000, {"other": 1_800_000})
    assert speed.settled_ms(beside("x", 3_000_000, [1.5, 2.0])) == pytest.approx(2.7, rel=1e-5)
    assert speed.settled_ms(measurement("x", 1_000_000, sentinel_ns=60_000)) == 1.0


def test_a_single_session_tells_how_fast_it_was_itself() -> None:
    """What is beside it is unknown to tables of others; its fastest reading then is the speed."""
    network = beside("x", 3_000_000, [1.0, 2.0], sentinel_ns=1_900_000)
    assert Speed(40_000).quiet_ms(network) == pytest.approx(1.5 * 1.9, rel=1e-5)


def test_a_measurement_beside_no_other_tells_no_ratio() -> None:
    """Its own fastest sample counts."""
    assert measurement("x").times_beside == 0.0
