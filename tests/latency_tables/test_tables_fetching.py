"""Fetching: how many weights come from where, and what this adds to computing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_tables.calibrate import uncalibrated
from latency_tables.fetching import Memory, Way, Work, columns_of, fetched_ms, shares
from latency_tables.op_spec import OpSpec

_RATES = {"fetch_gb_per_s": 20.0, "kept_mb": 1.0, "far_gb_per_s": 6.0, "kept_ms": 2.0}
FIT = replace(uncalibrated(0.001), **_RATES, rows_at_once=12.0, at_hand_mb=1.5)
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


def test_no_size_that_a_key_may_tell_breaks_a_fit() -> None:
    """Foreign tables may hold anything that can be spelled."""
    op = OpSpec.parse("conv_2d;float32;in=16777216x16777216x16777216x1;out_channels=1")
    assert np.isfinite(fetched_ms(columns_of([Work.of(op, 0.3)]), Way(10.0, 12.0, 1.5))).all()


def test_without_a_far_rate_length_does_not_matter() -> None:
    """Nothing is driven out where no such limit was seen."""
    assert shares_of(Memory(20.0, 1.0), 4.0, 1e3) == (0.75, 0.0)
    assert fetched_ms(columns_of([Work(0.3, 5.0)]), Way(0.0)).tolist() == [0.3]


@pytest.mark.parametrize(("key", "rows"), [
    ("conv_2d;float32;in=1x6x6x160;out_channels=960", 36),
    ("conv_2d;float32;in=1x48x48x8;out_channels=16;kernel=3x3;stride=2x2", 576),
    ("fully_connected;float32;in=1x1280;out_channels=1000", 1),
    ("fully_connected;float32;in=196x768;out_channels=3072", 196),
    ("onnx_conv;float32;in=1x32x14x14,c64x32x3x3,c64;out=1x64x14x14;@pads=1_1_1_1", 196),
    ("conv_2d;float32;in=1x2x2x8;out_channels=16;kernel=5x5;padding=valid", 1),
    ("add;float32;in=1x6x6x160,1x6x6x160", 36),
])  # fmt: skip
def test_the_pixels_of_an_operator_share_its_weights(key: str, rows: int) -> None:
    """They are the rows of a matrix product; one whose shapes make no sense has at least one."""
    op = OpSpec.parse(key)
    assert Work.of(op, 0.3) == Work(0.3, op.weight_bytes / 1e6, rows)


def test_weights_come_while_the_first_rows_are_computed() -> None:
    """Checked by hand: a third of 36 rows computes for .3 of .9 ms while 4 MB come at 10 GB/s, and then all are there.

    An operator of fewer rows than a kernel does at once computes all the while, like every one where that is not known.
    """
    columns = columns_of([Work(0.9, 4.0, 36), Work(0.9, 4.0, 9)])
    meanwhile = (0.9**3 + 0.4**3) ** (1 / 3)
    assert fetched_ms(columns, Way(10.0, 12.0)) == pytest.approx([0.6 + (0.3**3 + 0.4**3) ** (1 / 3), meanwhile])
    assert fetched_ms(columns, Way(10.0)) == pytest.approx([meanwhile] * 2)


def test_what_an_operator_measured_alone_had_to_fetch_is_in_its_own_time() -> None:
    """Beyond what the core keeps weights came from near then, too; from far, where others drive them to, come all."""
    memory = Memory(20.0, 1.5, 6.0, 2.0, rows_at_once=12.0, at_hand_mb=1.5)
    assert (memory.near, memory.far) == (Way(20.0, 12.0, 1.5), Way(6.0, 12.0, 0.0))
    columns = columns_of([Work(0.1, 1.0, 9), Work(0.1, 4.0, 9)])
    come = [1.0 / 20.0, 1.5 / 20.0]
    assert fetched_ms(columns, memory.near) == pytest.approx([(0.1**3 + ms**3) ** (1 / 3) for ms in come])
    come = [1.0 / 6.0, 4.0 / 6.0]
    assert fetched_ms(columns, memory.far) == pytest.approx([(0.1**3 + ms**3) ** (1 / 3) for ms in come])


@given(weight_mb=amounts, own_ms=amounts)
def test_no_weight_comes_twice(weight_mb: float, own_ms: float) -> None:
    """The shares are within 0 and 1 and so is what they leave."""
    near, far = shares_of(FIT.memory, weight_mb, own_ms)
    assert 0 <= near <= near + far <= 1 + 1e-12


@given(
    operators=st.lists(
        st.builds(Work, st.floats(1e-4, 2.0), st.floats(0.0, 5.0), st.integers(1, 5000)), min_size=1, max_size=6
    ),
    more=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 5.0)),
    near_gb_per_s=st.sampled_from([0.0, 6.0, 20.0]),
)
def test_a_slower_or_a_heavier_operator_never_makes_a_network_faster(
    operators: list[Work], more: tuple[float, float], near_gb_per_s: float
) -> None:
    """Both only ever make more of the weights come, from farther off, and take longer."""
    first, fit = operators[0], replace(FIT, fetch_gb_per_s=near_gb_per_s)
    changed = [Work(first.own_ms + more[0], first.weight_mb + more[1], first.rows), *operators[1:]]
    plain, slower = (
        float(fit.sum_ms(np.array(list(map(fit.terms, network))).sum(axis=0))) for network in (operators, changed)
    )
    assert slower >= plain * (1 - 1e-12)
