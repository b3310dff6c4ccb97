"""Fetching: how many weights come from where, and what this adds to computing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_tables.calibrate import uncalibrated
from latency_tables.fetching import Memory, fetched_ms, shares

FIT = replace(uncalibrated(0.001), fetch_gb_per_s=20.0, kept_mb=1.0, far_gb_per_s=6.0, kept_ms=2.0)
amounts = st.floats(0.0, 20.0)


def shares_of(memory: Memory, weight_mb: float, own_ms: float) -> tuple[float, float]:
    """Give the shares of one network."""
    (near,), (far,) = shares([memory], np.array(weight_mb), np.array(own_ms))
    return float(near), float(far)


def test_weights_come_from_near_until_a_network_takes_long() -> None:
    """What the core keeps does not come at all; after `kept_ms` most of the rest comes from far, later all of it."""
    assert shares_of(FIT.memory, 0.5, 20.0) == (0.0, 0.0)
    assert shares_of(FIT.memory, 4.0, 0.01) == pytest.approx((0.75, 0.0), abs=1e-6)
    assert shares_of(FIT.memory, 4.0, 2.0) == pytest.approx((0.75 / np.e, 0.75 - 0.75 / np.e))
    assert shares_of(FIT.memory, 4.0, 20.0) == pytest.approx((0.0, 0.75))


def test_without_a_far_rate_length_does_not_matter() -> None:
    """Nothing is driven out where no such limit was seen."""
    assert shares_of(Memory(20.0, 1.0), 4.0, 1e3) == (0.75, 0.0)
    assert fetched_ms(np.array(0.3), np.array(5.0), 0.0) == 0.3


@given(weight_mb=amounts, own_ms=amounts)
def test_no_weight_comes_twice(weight_mb: float, own_ms: float) -> None:
    """The shares are within 0 and 1 and so is what they leave."""
    near, far = shares_of(FIT.memory, weight_mb, own_ms)
    assert 0 <= near <= near + far <= 1 + 1e-12


@given(
    operators=st.lists(st.tuples(st.floats(1e-4, 2.0), st.floats(0.0, 5.0)), min_size=1, max_size=6),
    more=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 5.0)),
    near_gb_per_s=st.sampled_from([0.0, 6.0, 20.0]),
)
def test_a_slower_or_a_heavier_operator_never_makes_a_network_faster(
    operators: list[tuple[float, float]], more: tuple[float, float], near_gb_per_s: float
) -> None:
    """Both only ever make more of the weights come, from farther off, and take longer."""
    changed = [(operators[0][0] + more[0], operators[0][1] + more[1]), *operators[1:]]
    plain, slower = (
        float(FIT.sum_ms(np.array([FIT.terms(*one) for one in network]).sum(axis=0)))
        for network in (operators, changed)
    )
    assert slower >= plain * (1 - 1e-12)
