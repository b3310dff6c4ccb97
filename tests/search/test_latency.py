"""Latency of architectures: the fastest is found exactly, and a target that nothing meets ends a search at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import CALIBRATION, NARROW, every_arch, random_archs, table_for, tiny_space

from edgekd.errors import InfeasibleTarget
from edgekd.graph.ir import graph_in
from edgekd.search.latency import LatencyModel
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import SPACES
from latency_tables.calibrate import Calibration
from latency_tables.errors import NotCalibrated, OpNotInTable
from latency_tables.op_spec import DTYPES
from latency_tables.store import LatencyTable

TINY = tiny_space()
CALIBRATIONS = {
    "usual": CALIBRATION,
    "operators cost": replace(CALIBRATION, per_op_ms=0.02),
    "operators are free": replace(CALIBRATION, per_op_ms=-0.0009),
    "weights come slowly": replace(CALIBRATION, fetch_gb_per_s=0.01, kept_mb=0.0),
    "many weights are kept": replace(CALIBRATION, fetch_gb_per_s=0.01, kept_mb=0.05),
    "all weights are kept": replace(CALIBRATION, fetch_gb_per_s=0.01, kept_mb=1e3),
    "weights come at once": replace(CALIBRATION, fetch_gb_per_s=0.0, kept_mb=0.0),
    "long networks lose their weights": replace(CALIBRATION, far_gb_per_s=0.05, kept_ms=0.06),
    "all networks lose their weights": replace(CALIBRATION, far_gb_per_s=0.02, kept_ms=0.001),
    "only what is lost takes time": replace(CALIBRATION, fetch_gb_per_s=0.0, far_gb_per_s=0.05, kept_ms=0.04),
}


@pytest.fixture(scope="module")
def tiny_table() -> LatencyTable:
    """Make the table of a space of 512 architectures."""
    return table_for(TINY)


@pytest.fixture(scope="module")
def narrow() -> LatencyModel:
    """Make the model of the narrow space."""
    return LatencyModel.of(NARROW, table_for(NARROW))


@pytest.mark.whole  # predicts every architecture of a space
@pytest.mark.parametrize("fit", CALIBRATIONS.values(), ids=CALIBRATIONS)
def test_the_fastest_is_the_minimum_over_all_architectures(fit: Calibration, tiny_table: LatencyTable) -> None:
    """The search block by block agrees with trying all of a small space, whatever is expensive."""
    model = LatencyModel.of(TINY, replace(tiny_table, calibrations=dict.fromkeys(DTYPES, fit)))
    arch, fastest_ms = model.fastest("float32")
    tried = {other: model.predict(other, "float32").total_ms for other in every_arch(TINY)}
    assert fastest_ms == pytest.approx(min(tried.values()), rel=1e-9)
    assert tried[arch] == fastest_ms
    assert max(tried.values()) > 1.5 * fastest_ms


@pytest.mark.whole  # predicts every architecture of a space
def test_each_dtype_has_its_own_fastest(tiny_table: LatencyTable) -> None:
    """int8 is searched with int8 rows."""
    model = LatencyModel.of(TINY, tiny_table)
    tried = [model.predict(arch, "int8").total_ms for arch in every_arch(TINY)]
    assert model.fastest("int8")[1] == pytest.approx(min(tried), rel=1e-9)
    assert model.fastest("int8")[1] != model.fastest("float32")[1]


@pytest.mark.whole  # makes the table of a large space
def test_no_random_architecture_beats_the_fastest_of_a_large_space(narrow: LatencyModel) -> None:
    """Where trying all is out of the question, none of fifty is faster, and the fastest is of the space."""
    arch, fastest_ms = narrow.fastest("int8")
    assert NARROW.arch(NARROW.choices(arch)) == arch
    assert narrow.predict(arch, "int8").total_ms == fastest_ms
    assert all(narrow.predict(other, "int8").total_ms > fastest_ms for other in random_archs(NARROW, 50, 2))


@pytest.mark.whole  # makes the table of a large space
def test_a_prediction_is_that_of_the_graphs_operators(narrow: LatencyModel) -> None:
    """The int8 file's QUANTIZE and DEQUANTIZE are counted too."""
    arch = NARROW.reference()
    for dtype in DTYPES:
        prediction = narrow.predict(arch, dtype)
        assert [part.op for part in prediction.parts] == graph_in(graph_of(NARROW, arch), dtype).ops
        assert narrow.predicted_ms(arch)[dtype] == prediction.total_ms
    assert [part.op.kind for part in narrow.predict(arch, "int8").parts][:: len(prediction.parts) - 1] == [
        "quantize",
        "dequantize",
    ]


def test_a_target_that_nothing_meets_names_the_fastest(tiny_table: LatencyTable) -> None:
    """The message holds target, dtype, the fastest architecture, its ms and what to do, on one line."""
    model = LatencyModel.of(TINY, tiny_table)
    arch, fastest_ms = model.fastest("int8")
    with pytest.raises(InfeasibleTarget) as caught:
        model.check_target(fastest_ms / 2, "int8")
    text = str(caught.value)
    for part in (f"{fastest_ms / 2:.4g} ms (int8)", str(arch), "raise --target-ms"):
        assert part in text
    named_ms = float(text.split("predicted at ")[1].split(" ms", maxsplit=1)[0])
    assert fastest_ms <= named_ms < 1.001 * fastest_ms, "the number that is named is enough, and no more"
    assert caught.value.fastest_ms == fastest_ms
    assert caught.value.exit_code == 1
    assert "\n" not in text


def test_a_target_of_exactly_the_fastest_can_be_met(tiny_table: LatencyTable) -> None:
    """The limit itself is feasible, and the smallest step below it is not."""
    model = LatencyModel.of(TINY, tiny_table)
    fastest_ms = model.fastest("float32")[1]
    model.check_target(fastest_ms, "float32")
    with pytest.raises(InfeasibleTarget):
        model.check_target(fastest_ms * (1 - 1e-9), "float32")


def test_a_table_of_another_space_is_refused_by_operator() -> None:
    """The first operator without a row is named; nothing is guessed."""
    model = LatencyModel.of(SPACES["mnasnet-96"], table_for(TINY))
    with pytest.raises(OpNotInTable, match="conv_2d;float32;in=1x96x96x3"):
        model.predict(model.space.reference(), "float32")
    with pytest.raises(OpNotInTable):
        model.check_target(1.0, "float32")


def test_an_incomplete_table_is_refused(tiny_table: LatencyTable) -> None:
    """Every dtype has to be calibrated before a search begins."""
    with pytest.raises(NotCalibrated, match="int8"):
        LatencyModel.of(TINY, replace(tiny_table, calibrations={"float32": CALIBRATION}))
