"""Simulated times: a roofline's shape, no operator for nothing, and rows that say what they are."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_tables.op_spec import OpSpec, TensorSpec
from latency_tables.processors import PROCESSORS, Processor
from latency_tables.simulate import SIMULATED, simulate_rows, simulated_key, simulated_measurement
from latency_tables.store import TableFile, load_table

PIXEL4 = PROCESSORS["pixel4"]
CONV = OpSpec("conv_2d", (TensorSpec((1, 28, 28, 64)),), "float32", 64, (3, 3))
DEPTHWISE = OpSpec("depthwise_conv_2d", (TensorSpec((1, 28, 28, 64)),), "float32", 64, (3, 3))
ADD = OpSpec("add", (TensorSpec((1, 28, 28, 64)),) * 2, "float32")


def ms_of(op: OpSpec, device: str = "pixel4") -> float:
    return simulate_rows(PROCESSORS[device], [op])[op]


def macs_a_ms(op: OpSpec, reads: int) -> float:
    return 28 * 28 * 64 * reads / ms_of(op)


def test_no_operator_is_faster_than_the_peak() -> None:
    """A dense convolution comes near the core's peak, which nothing exceeds."""
    peak = PIXEL4.float_macs * PIXEL4.clock_ghz * 1e6
    assert 0.5 * peak < macs_a_ms(CONV, 9 * 64) < peak


def test_a_depthwise_convolution_makes_poor_use_of_the_core() -> None:
    """For the same products it takes much longer than a dense one, which reads its operands many times."""
    assert macs_a_ms(DEPTHWISE, 9) < macs_a_ms(CONV, 9 * 64) / 2


def test_what_multiplies_nothing_pays_for_its_bytes() -> None:
    """An addition takes the time of its bytes, so that a quarter of the bytes, in int8, is faster."""
    moved = 3 * 28 * 28 * 64 * 4
    assert ms_of(ADD) > moved / (PIXEL4.memory_gb_per_s * 1e6)
    assert ms_of(replace(ADD, dtype="int8")) < ms_of(ADD)


def test_bytes_are_faster_where_the_core_has_dot_products() -> None:
    """A core with dot products gains much more from int8 than one without."""
    gains = {device: ms_of(CONV, device) / ms_of(replace(CONV, dtype="int8"), device) for device in ("pixel4", "rpi4")}
    assert gains["pixel4"] > 1.5 * gains["rpi4"]


@given(side=st.integers(1, 200), channels=st.integers(1, 2000), out=st.integers(1, 2000))
def test_more_work_never_takes_less_time(side: int, channels: int, out: int) -> None:
    """Every operator takes some time, and one more row and channel never less."""
    smaller = OpSpec("conv_2d", (TensorSpec((1, side, side, channels)),), "float32", out)
    larger = OpSpec("conv_2d", (TensorSpec((1, side + 1, side, channels + 1)),), "float32", out + 1)
    assert 0 < ms_of(smaller) <= ms_of(larger)


def test_what_is_folded_at_loading_has_no_row() -> None:
    """Weights that are unpacked once cost an inference nothing."""
    folded = OpSpec("dequantize", (TensorSpec((64, 1, 1, 32), constant=True, dtype="float16"),), "float16")
    assert simulate_rows(PIXEL4, [folded, ADD]).keys() == {ADD}


def test_a_simulated_table_never_answers_for_a_device(tmp_path: Path) -> None:
    """Key and rows of a simulated table say so, in a file that reads back as it was written."""
    key = simulated_key(PIXEL4)
    assert key.device == "simulated-pixel4"
    assert key.engine == key.runtime == SIMULATED
    file = TableFile(tmp_path / "table.jsonl", key)
    row = simulated_measurement(CONV, ms_of(CONV), "2026-01-01T00:00:00Z")
    file.add_row(row)
    file.sync()
    loaded = load_table(tmp_path / "table.jsonl")
    assert loaded.key == key
    assert loaded.rows[CONV.key] == row
    assert row.source == SIMULATED
    assert row.quiet_ms == pytest.approx(ms_of(CONV), rel=1e-3)


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=lambda p: p.device)
def test_every_processor_has_figures_and_their_sources(processor: Processor) -> None:
    """All numbers are above 0, and each value names where they are published."""
    fields = dataclasses.asdict(processor)
    assert fields["sources"]
    assert all(value > 0 for value in fields.values() if isinstance(value, int | float))
    assert fields["int8_macs"] > fields["float_macs"]
