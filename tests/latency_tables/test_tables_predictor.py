"""Predictions: sums of rows put right by the calibration; never negative, never silently without a row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CALIBRATION, conv, synthetic_ns, table_of

from latency_tables.errors import NotCalibrated, OpNotInTable
from latency_tables.op_spec import OpSpec
from latency_tables.predictor import Predictor

OPS = [conv(channels, dtype=dtype) for channels in range(4, 24) for dtype in ("float32", "int8")]
FLOATS = [op for op in OPS if op.dtype == "float32"]
TABLE = table_of(OPS)
networks = st.lists(st.sampled_from(FLOATS), min_size=1, max_size=40)
coefficients = st.floats(-100, 100)


def test_a_prediction_is_the_calibrated_sum() -> None:
    """Checked by hand on three operators, of which one comes twice."""
    ops = [FLOATS[0], FLOATS[5], FLOATS[0]]
    rows_ms = sum(synthetic_ns(op) for op in ops) / 1e6
    weight_mb = sum(op.out_channels**2 * 9 * 4 for op in ops) / 1e6
    expected = 0.9 * rows_ms - 0.0002 * 3 + 0.05 * weight_mb + 0.004
    prediction = Predictor(TABLE, "float32").predict(ops)
    assert prediction.total_ms == pytest.approx(expected, rel=1e-12)
    assert prediction.low_ms == pytest.approx(expected * 0.98)
    assert prediction.high_ms == pytest.approx(expected * 1.02)


@given(ops=networks, values=st.tuples(*[coefficients] * 4), interval=st.floats(0, 10))
def test_no_prediction_is_negative_and_its_parts_sum_to_it(
    ops: list[OpSpec], values: tuple[float, float, float, float], interval: float
) -> None:
    """Whatever a fit came to: 0 < total, every part too, low ≤ total ≤ high, and the parts are the whole."""
    fit = replace(
        CALIBRATION,
        scale=values[0],
        per_op_ms=values[1],
        per_mb_ms=values[2],
        offset_ms=values[3],
        interval_error=interval,
    )
    prediction = Predictor(replace(TABLE, calibrations={"float32": fit}), "float32").predict(ops)
    assert 0 <= prediction.low_ms <= prediction.total_ms <= prediction.high_ms
    assert prediction.total_ms > 0
    assert sum(part.ms for part in prediction.parts) == pytest.approx(prediction.total_ms)
    assert all(part.ms > 0 and part.how == "table" for part in prediction.parts)
    assert [part.op for part in prediction.parts] == ops


@given(networks, networks)
def test_marginal_times_add_up(first: list[OpSpec], second: list[OpSpec]) -> None:
    """A network costs what its pieces add, so pieces may be compared by themselves."""
    predictor = Predictor(TABLE, "float32")
    whole = sum(map(predictor.op_ms, first + second))
    assert predictor.predict(first + second).total_ms == pytest.approx(whole + predictor.offset_ms)


def test_a_missing_row_is_an_error_that_names_operator_and_nearest() -> None:
    """Nothing is counted as 0 ms: the message says what to measure, and how."""
    op = replace(FLOATS[0], stride=(2, 2))
    with pytest.raises(OpNotInTable) as caught:
        Predictor(TABLE, "float32").predict([FLOATS[3], op])
    assert caught.value.op_key == op.key
    for part in (op.key, f"the nearest row is {FLOATS[0].key}", "edgekd profile"):
        assert part in str(caught.value)


def test_an_empty_table_has_no_nearest_row() -> None:
    """The message does without."""
    with pytest.raises(OpNotInTable, match=r"no row for conv_2d.*; measure it with"):
        Predictor(replace(TABLE, rows={}), "float32").predict(FLOATS[:1])


def test_a_dtype_that_was_not_calibrated_is_refused() -> None:
    """Rows alone do not make a prediction."""
    with pytest.raises(NotCalibrated, match="not calibrated for int8; run edgekd profile"):
        Predictor(replace(TABLE, calibrations={"float32": CALIBRATION}), "int8")
