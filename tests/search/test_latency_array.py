"""Latency of many architectures at once: equal to one prediction after the other, and strict about its array."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CALIBRATION, every_arch, table_for, tiny_space

from edgekd.errors import UsageError
from edgekd.search.latency import LatencyModel
from edgekd.spaces.mnasnet import SPACES
from edgekd.spaces.space import Space
from latency_tables.calibrate import Calibration
from latency_tables.errors import OpNotInTable
from latency_tables.op_spec import DTYPES

pytestmark = pytest.mark.slow  # thousands of architectures of every space, one by one

KNOWN = {space.name: space for space in (*SPACES.values(), tiny_space(3))}
TINY = SPACES["tiny-28"]
DECISIONS = len(TINY.decision_sizes)


@cache
def model(name: str) -> LatencyModel:
    """Make the model of a space from made-up rows."""
    return LatencyModel.of(KNOWN[name], table_for(KNOWN[name]))


def drawn(space: Space, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw architectures uniformly, as option indices."""
    sizes = space.decision_sizes
    return np.random.default_rng(seed).integers(0, sizes, (count, len(sizes)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KNOWN)
@settings(max_examples=20)  # of 10 spaces and dtypes each; one takes 10 ms
@given(seed=st.integers(0, 2**32))
def test_it_agrees_with_the_prediction_of_each_architecture(name: str, dtype: str, seed: int) -> None:
    """In every known space and dtype, an int8 file's QUANTIZE and DEQUANTIZE included, to rounding."""
    one = model(name)
    choices = drawn(one.space, 1, seed)
    (ms,) = one.arrays(dtype).predict_ms(choices)
    assert ms == pytest.approx(one.predict(one.space.arch(choices[0].tolist()), dtype).total_ms, rel=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_architecture_of_a_small_space_agrees(dtype: str) -> None:
    """No option of any decision, and no pair of neighbouring widths, is looked up in a wrong place."""
    one = model("tiny")
    archs = list(every_arch(tiny_space(2)))
    two = LatencyModel.of(tiny_space(2), table_for(tiny_space(2)))
    choices = np.array([two.space.choices(arch) for arch in archs])
    expected = [two.predict(arch, dtype).total_ms for arch in archs]
    assert two.arrays(dtype).predict_ms(choices) == pytest.approx(expected, rel=1e-9)
    assert one.space.name == two.space.name


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_any_integers_in_any_layout_are_read(dtype: type[np.integer[Any]]) -> None:
    """Options are small numbers; how they are stored does not matter, nor does the order in memory."""
    arrays, choices = model(TINY.name).arrays("float32"), drawn(TINY, 100, 1)
    expected = arrays.predict_ms(choices)
    assert (arrays.predict_ms(choices.astype(dtype)) == expected).all()
    assert (arrays.predict_ms(np.asfortranarray(choices.astype(dtype))) == expected).all()
    assert (arrays.predict_ms(choices[::-3]) == expected[::-3]).all()


def test_no_architectures_take_no_time_at_all() -> None:
    """An empty batch gives an empty answer."""
    assert model(TINY.name).arrays("int8").predict_ms(np.zeros((0, DECISIONS), np.int64)).shape == (0,)


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 10_000])
def test_an_answer_does_not_depend_on_its_batch(count: int) -> None:
    """Wherever the work is cut into pieces, each architecture gets the same ms."""
    arrays, choices = model(TINY.name).arrays("float32"), drawn(TINY, 10_000, 2)
    assert (arrays.predict_ms(choices[:count]) == arrays.predict_ms(choices)[:count]).all()


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ([[0] * DECISIONS], "not list"),
        (np.zeros((2, DECISIONS)), "not float64"),
        (np.zeros((2, DECISIONS), bool), "not bool"),
        (np.zeros((2, DECISIONS), object), "not object"),
        (np.zeros(DECISIONS, int), rf"of shape \({DECISIONS},\)"),
        (np.zeros((2, DECISIONS - 1), int), rf"of shape \(2, {DECISIONS - 1}\)"),
        (np.zeros((1, 1, DECISIONS), int), rf"of shape \(1, 1, {DECISIONS}\)"),
    ],
)
def test_what_is_no_array_of_choices_is_refused(choices: object, named: str) -> None:
    """The message says what was wanted and what came, on one line."""
    with pytest.raises(UsageError, match=rf"\(N, {DECISIONS}\).*{named}") as caught:
        model(TINY.name).arrays("float32").predict_ms(choices)  # type: ignore[arg-type]  # that is the test
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [-1, -(2**40), 200, 2**62])
@given(row=st.integers(0, 9_999), decision=st.integers(0, DECISIONS - 1))
def test_an_option_out_of_range_is_named_with_its_place(wrong: int, row: int, decision: int) -> None:
    """Nothing is looked up beyond a table, wherever the wrong number stands."""
    choices = np.zeros((10_000, DECISIONS), np.int64)
    choices[row, decision] = wrong
    expected = rf"choices\[{row}, {decision}\] is {wrong}, .* has {TINY.decision_sizes[decision]} options$"
    with pytest.raises(UsageError, match=expected):
        model(TINY.name).arrays("float32").predict_ms(choices)


@given(decision=st.integers(0, DECISIONS - 1))
def test_one_beyond_the_last_option_is_refused(decision: int) -> None:
    """The largest index of a decision is its number of options less one."""
    choices = np.array([[size - 1 for size in TINY.decision_sizes]])
    model(TINY.name).arrays("float32").predict_ms(choices)
    choices[0, decision] += 1
    with pytest.raises(UsageError, match=rf"choices\[0, {decision}\]"):
        model(TINY.name).arrays("float32").predict_ms(choices)


def test_a_table_without_an_operator_is_refused() -> None:
    """What one architecture at a time could not predict, many at once cannot either."""
    table = table_for(TINY)
    missing, _ = table.rows.popitem()
    one = LatencyModel.of(TINY, table)
    with pytest.raises(OpNotInTable) as caught:
        [one.arrays(dtype) for dtype in DTYPES]
    assert caught.value.op_key == missing


FITS = {
    "below zero": replace(CALIBRATION, offset_ms=-1.0),
    "no limit": replace(CALIBRATION, fetch_gb_per_s=0.0, kept_mb=0.0),
    "near and far": replace(CALIBRATION, far_gb_per_s=0.05, kept_ms=0.05),
    "far": replace(CALIBRATION, fetch_gb_per_s=0.0, far_gb_per_s=0.05, kept_ms=0.05),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_whatever_a_fit_came_to_many_at_once_agree_with_one_at_a_time(fit: Calibration) -> None:
    """An absurd offset is held by the same floor, and what comes from near and from far is the same."""
    table = replace(table_for(TINY), calibrations=dict.fromkeys(DTYPES, fit))
    one, choices = LatencyModel.of(TINY, table), drawn(TINY, 50, 3)
    expected = [one.predict(TINY.arch(row.tolist()), "float32").total_ms for row in choices]
    assert min(expected) > 0
    assert one.arrays("float32").predict_ms(choices) == pytest.approx(expected, rel=1e-9)


def test_a_batch_is_far_faster_than_one_at_a_time() -> None:
    """A hundred times the architectures a second, at the very least."""
    one = model("mnasnet-96")
    arrays, choices = one.arrays("int8"), drawn(one.space, 100_000, 4)
    began = time.perf_counter()
    arrays.predict_ms(choices)
    batch_s = (time.perf_counter() - began) / len(choices)
    began = time.perf_counter()
    for row in choices[:10]:
        one.predict(one.space.arch(row.tolist()), "int8")
    assert 100 * batch_s < (time.perf_counter() - began) / 10
