"""Predictions: sums of rows put right by the calibration; never negative, never silently without a row."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CALIBRATION, conv, measurement, synthetic_ns, table_of

from latency_tables.builder import FIXED_COST_OPS
from latency_tables.calibrate import TERMS, uncalibrated
from latency_tables.errors import NotCalibrated, OpNotInTable
from latency_tables.estimate import Estimate, Estimator
from latency_tables.op_spec import DTYPES, OpSpec, TensorSpec
from latency_tables.predictor import FLOOR_SHARE, Predictor
from latency_tables.reach import OTHER_KINDS_ERROR, Extent, Reach
from latency_tables.schema import Network

OPS = [conv(channels, dtype=dtype) for channels in range(4, 24) for dtype in ("float32", "int8")]
FLOATS = [op for op in OPS if op.dtype == "float32"]
TABLE = table_of(OPS)
networks = st.lists(st.sampled_from(FLOATS), min_size=1, max_size=40)
coefficients = st.floats(-100, 100)


def test_a_prediction_is_the_calibrated_sum() -> None:
    """Checked by hand on three operators, of which one comes twice."""
    ops = [FLOATS[0], FLOATS[5], FLOATS[0]]
    rows_ms = [synthetic_ns(op) / 1e6 for op in ops]
    weights_mb = [op.out_channels**2 * 9 * 4 / 1e6 for op in ops]
    fetched_ms = [(row**3 + (mb / 0.5) ** 3) ** (1 / 3) for row, mb in zip(rows_ms, weights_mb, strict=True)]
    share = 1 - 0.002 / sum(weights_mb)
    expected = 0.9 * ((1 - share) * sum(rows_ms) + share * sum(fetched_ms)) - 0.0002 * 3 + 0.004
    assert 0.3 < share < 1
    assert sum(fetched_ms) > 1.1 * sum(rows_ms)
    prediction = Predictor(TABLE, "float32").predict(ops)
    assert prediction.total_ms == pytest.approx(expected, rel=1e-12)
    assert prediction.low_ms == pytest.approx(expected * 0.98)
    assert prediction.high_ms == pytest.approx(expected * 1.02)


def test_a_convolutions_weights_come_while_it_computes_its_first_pixels() -> None:
    """Checked by hand on one operator whose 14 rows of 14 pixels are computed one after the other."""
    op, fit = FLOATS[5], replace(CALIBRATION, kept_mb=0.0, rows_at_once=14.0)
    assert op.inputs[0].shape[1:3] == (14, 14)
    first_ms, fetch_ms = synthetic_ns(op) / 1e6 / 14, op.weight_bytes / 1e6 / fit.fetch_gb_per_s
    expected = 0.9 * (13 * first_ms + (first_ms**3 + fetch_ms**3) ** (1 / 3)) - 0.0002 + 0.004
    prediction = Predictor(replace(TABLE, calibrations={"float32": fit}), "float32").predict([op])
    assert prediction.total_ms == pytest.approx(expected, rel=1e-12)


def test_a_long_networks_weights_come_from_far() -> None:
    """Checked by hand: of what the cache does not keep, 1 - exp(-(rows/kept_ms)³) comes at the lower rate."""
    ops = [FLOATS[0], FLOATS[5], FLOATS[0]]
    fit = replace(CALIBRATION, far_gb_per_s=0.1, kept_ms=0.02)
    rows_ms = [synthetic_ns(op) / 1e6 for op in ops]
    weights_mb = [op.out_channels**2 * 9 * 4 / 1e6 for op in ops]
    fetched_ms = {
        rate: sum((row**3 + (mb / rate) ** 3) ** (1 / 3) for row, mb in zip(rows_ms, weights_mb, strict=True))
        for rate in (0.5, 0.1)
    }
    exceeding, lost = 1 - 0.002 / sum(weights_mb), 1 - math.exp(-((sum(rows_ms) / 0.02) ** 3))
    parts = ((1 - exceeding) * sum(rows_ms), (1 - lost) * fetched_ms[0.5], lost * fetched_ms[0.1])
    assert 0.01 < lost < 0.99
    prediction = Predictor(replace(TABLE, calibrations={"float32": fit}), "float32").predict(ops)
    expected = 0.9 * (parts[0] + exceeding * (parts[1] + parts[2])) - 0.0002 * 3 + 0.004
    assert prediction.total_ms == pytest.approx(expected, rel=1e-12)
    assert sum(part.ms for part in prediction.parts) == pytest.approx(expected, rel=1e-12)


@given(ops=networks, values=st.tuples(*[coefficients] * 4), interval=st.floats(0, 10))
def test_no_prediction_is_negative_and_its_parts_sum_to_it(
    ops: list[OpSpec], values: tuple[float, float, float, float], interval: float
) -> None:
    """Whatever a fit came to: 0 < total, every part too, low ≤ total ≤ high, and the parts are the whole."""
    fit = replace(
        CALIBRATION,
        scale=abs(values[0]) or 1e-9,
        per_op_ms=values[1],
        fetch_gb_per_s=abs(values[2]) if abs(values[2]) > 0.001 else 0.0,
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
def test_terms_add_up(first: list[OpSpec], second: list[OpSpec]) -> None:
    """A network costs what the sums of its operators' terms say, so its pieces may be summed up by themselves."""
    predictor = Predictor(TABLE, "float32")
    sums = sum(map(predictor.terms, first + second), np.zeros(TERMS))
    total_ms = float(predictor.calibration.sum_ms(sums))
    assert predictor.predict(first + second).total_ms == pytest.approx(max(total_ms, FLOOR_SHARE * sums[-1]))


def test_weights_that_the_cache_keeps_are_not_fetched() -> None:
    """A small network costs the plain sum; what exceeds the cache is fetched, and ever more of a larger one."""
    fit = replace(uncalibrated(0.0), fetch_gb_per_s=0.1, kept_mb=0.05)
    predictor = Predictor(replace(TABLE, calibrations={"float32": fit}), "float32")
    factors = []
    for count in (1, 4, 16, 64):
        ops = [FLOATS[-1]] * count
        factors.append(predictor.predict(ops).total_ms / (count * synthetic_ns(FLOATS[-1]) / 1e6))
    assert FLOATS[-1].weight_bytes < 50_000 < 4 * FLOATS[-1].weight_bytes
    assert factors[0] == pytest.approx(1)
    assert factors == sorted(set(factors))


def test_what_is_computed_at_loading_costs_an_inference_nothing() -> None:
    """Folded operators are parts of 0 ms with their own label, and no operator for the calibration either."""
    folded = OpSpec.parse("dequantize;float32;in=cfloat16:3x3x8x8")
    predictor = Predictor(TABLE, "float32")
    plain, both = predictor.predict(FLOATS[:2]), predictor.predict([folded, *FLOATS[:2], folded])
    assert both.total_ms == plain.total_ms
    assert [part.how for part in both.parts] == ["folded", "table", "table", "folded"]
    assert both.covered == {"table": pytest.approx(1), "folded": 0.0}
    assert predictor.predict([folded]).total_ms == 0
    assert predictor.missing([folded, FLOATS[0]]) == []


@pytest.mark.whole  # fits the operators of a table in every example
@given(st.sampled_from(FLOATS[3:-3]))
def test_an_operator_without_a_row_is_estimated_where_that_is_asked_for(gone: OpSpec) -> None:
    """The part is labelled, the interval is wider than the table's own, and nothing of another dtype is used."""
    holed = replace(TABLE, rows={key: row for key, row in TABLE.rows.items() if key != gone.key})
    predictor = Predictor(holed, "float32", with_estimates=True)
    prediction, whole = predictor.predict([gone]), Predictor(TABLE, "float32").predict([gone])
    assert prediction.parts[0].how in ("interpolated", "fitted")
    assert prediction.high_ms / prediction.total_ms > whole.high_ms / whole.total_ms
    assert predictor.missing([gone, gone]) == [gone]
    with pytest.raises(OpNotInTable):
        Predictor(replace(TABLE, rows={}), "float32", with_estimates=True).predict([gone])


def test_a_calibration_that_networks_came_after_is_not_believed() -> None:
    """A build that was killed leaves networks that the fit does not know: the interval is that of no calibration."""
    keys = tuple(op.key for op in FLOATS[:4])
    networks = {f"network:{n}": Network(f"network:{n}", "float32", keys, measurement(f"network:{n}")) for n in range(9)}
    fit = replace(CALIBRATION, networks=9.0)
    known = replace(TABLE, networks=networks, calibrations={"float32": fit})
    outdated = replace(known, calibrations={"float32": replace(fit, networks=8.0)})
    assert not Predictor(known, "float32").is_outdated
    assert Predictor(outdated, "float32").is_outdated
    assert not Predictor(TABLE, "float32").is_outdated
    prediction = Predictor(outdated, "float32").predict(FLOATS[:4])
    assert prediction.high_ms > 1.2 * prediction.total_ms


def test_an_estimate_that_tells_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interval would reach 0 the operator to blame is named instead, as if it could not be estimated."""
    gone = FLOATS[5]
    holed = replace(TABLE, rows={key: row for key, row in TABLE.rows.items() if key != gone.key})
    predictor = Predictor(holed, "float32", with_estimates=True)
    monkeypatch.setattr(Estimator, "estimate", lambda self, op: Estimate(1.0, 1.5, "fitted"))
    with pytest.raises(OpNotInTable) as caught:
        predictor.predict([FLOATS[0], gone])
    assert caught.value.op_key == gone.key


def test_without_a_calibration_sums_are_plain_where_estimates_are_allowed() -> None:
    """A search insists on a calibrated table; a look at one file may do with physics, and says so by its interval."""
    bare = replace(TABLE, calibrations={})
    with pytest.raises(NotCalibrated):
        Predictor(bare, "float32")
    prediction = Predictor(bare, "float32", with_estimates=True).predict(FLOATS)
    assert prediction.total_ms == pytest.approx(sum(map(synthetic_ns, FLOATS)) / 1e6)
    assert prediction.high_ms > 1.2 * prediction.total_ms


@pytest.mark.parametrize("dtype", DTYPES)
def test_additions_are_not_estimated_from_the_row_of_the_fixed_cost(dtype: str) -> None:
    """That row holds a call of the runtime and no addition: without it an estimate is as it is, or there is none."""
    adds = {n: OpSpec("add", (TensorSpec((1, 14, 14, n)),) * 2, dtype) for n in range(8, 40, 2)}
    gone, fixed = adds.pop(20), FIXED_COST_OPS[dtype]
    rows = {op.key: measurement(op.key, 1000 + 100 * n) for n, op in adds.items()}
    with_fixed = replace(TABLE, rows=rows | {fixed.key: measurement(fixed.key, 900)}, calibrations={})
    prediction = Predictor(with_fixed, dtype, with_estimates=True).predict([gone])
    assert prediction.total_ms == pytest.approx((1000 + 100 * 20) / 1e6, rel=0.1)
    only_fixed = replace(with_fixed, rows={fixed.key: with_fixed.rows[fixed.key]})
    with pytest.raises(OpNotInTable):
        Predictor(only_fixed, dtype, with_estimates=True).predict([gone])


# --- networks unlike those calibrated on ------------------------------------------------------------------------------

DEPTHWISE = [replace(op, kind="depthwise_conv_2d") for op in FLOATS]
HUGE = [conv(channels) for channels in range(100, 104)]
SMALL = [conv(1), conv(2)]
CALIBRATED_ON = {
    name: Network(name, "float32", tuple(op.key for op in ops), measurement(name))
    for name, ops in {f"network:{n}": FLOATS[n : n + 10] for n in range(10)}.items()
}
KNOWN = table_of([*FLOATS, *DEPTHWISE, *HUGE])
REACHING = replace(
    KNOWN,
    rows=KNOWN.rows | {op.key: measurement(op.key, 100) for op in SMALL},
    networks=CALIBRATED_ON,
    calibrations=dict.fromkeys(DTYPES, replace(CALIBRATION, networks=float(len(CALIBRATED_ON)))),
)


def margin_of(ops: list[OpSpec]) -> float:
    """Give the upper half of an interval, as a share of the total."""
    prediction = Predictor(REACHING, "float32").predict(ops)
    assert prediction.total_ms - prediction.low_ms == pytest.approx(prediction.high_ms - prediction.total_ms)
    return prediction.high_ms / prediction.total_ms - 1


@pytest.mark.whole  # a whole table
@given(st.lists(st.sampled_from(FLOATS[6:14]), min_size=8, max_size=12))
def test_inside_the_family_the_interval_is_the_calibrations(ops: list[OpSpec]) -> None:
    """Networks of the kinds and sizes that were calibrated on are what it was found for."""
    assert margin_of(ops) == pytest.approx(CALIBRATION.interval_error)


def test_kinds_that_no_calibration_network_held_widen_the_interval_by_their_share() -> None:
    """The total is the same sum; more time in such kinds is more doubt, up to a tenth."""
    mixed, other = margin_of([*FLOATS[4:12], DEPTHWISE[6]]), margin_of([*FLOATS[4:8], *DEPTHWISE[4:8]])
    assert CALIBRATION.interval_error < mixed < other
    assert margin_of(DEPTHWISE[4:12]) == pytest.approx(math.hypot(CALIBRATION.interval_error, OTHER_KINDS_ERROR))


@pytest.mark.parametrize(("near", "far"), [(FLOATS[10:20], HUGE), (HUGE[:1], HUGE), (FLOATS[:10], SMALL)])
def test_sizes_far_from_those_calibrated_on_widen_the_interval(near: list[OpSpec], far: list[OpSpec]) -> None:
    """Operators far larger or smaller, or far more weights, are an extrapolation."""
    assert margin_of(far) > max(margin_of(near), CALIBRATION.interval_error + 0.001)


def test_the_doubt_of_another_family_grows_steadily_and_has_an_end() -> None:
    """It begins at 0, however it is reached, and never exceeds what a table without calibration says."""
    reach = Reach(frozenset(), Extent(0.1, 1.0, 5.0), Extent(0.2, 4.0, 10.0))
    sizes = [reach.doubt(Extent(0.15, mb, 7.0), 0.0) for mb in (0.0, 2.0, 8.0, 8.01, 16.0, 64.0, 1e9)]
    assert sizes[:3] == [0.0, 0.0, 0.0]
    assert 0 < sizes[3] < 0.001
    assert sizes == sorted(sizes)
    assert sizes[-1] == reach.doubt(Extent(1e-9, 1.0, 7.0), 0.0) == uncalibrated(0.0).interval_error
    assert reach.doubt(Extent(0.15, 2.0, 0.1), 0.0) == 0 < reach.doubt(Extent(0.15, 2.0, 40.0), 0.0)  # too long
    weightless = replace(reach, most=Extent(0.2, 0.0, 10.0))
    assert weightless.doubt(Extent(0.15, 0.0, 7.0), 0.0) == 0 < weightless.doubt(Extent(0.15, 0.1, 7.0), 0.0)


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
