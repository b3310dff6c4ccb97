"""Measuring .onnx files end to end: an exported form, its operators, and the key under which they are kept."""

from __future__ import annotations

import onnxruntime
import pytest

from device_agents.errors import InvalidRequest
from device_agents.inventory import find_device, open_transport
from edgekd.bench import Bench, DeviceChoice, Model
from edgekd.errors import UsageError
from edgekd.graph.micro import micro_model
from edgekd.graph.onnx_micro import onnx_micro_model
from edgekd.graph.onnx_reader import read_onnx_ops
from edgekd.outputs_check import outputs_check
from latency_tables.op_spec import OpSpec

pytestmark = pytest.mark.slow  # real processes

ONNX = DeviceChoice("host", engine="onnxruntime")
CONV = OpSpec.parse("onnx_conv;float32;in=1x8x14x14,c16x8x3x3,c16;out=1x16x12x12;@fused_1=relu")
LARGE = OpSpec.parse("onnx_conv;float32;in=1x64x56x56,c64x64x3x3,c64;out=1x64x54x54;@fused_1=relu")
TFLITE = micro_model(OpSpec.parse("add;float32;in=1x4x4x2,1x4x4x2"))


def ignore(text: str) -> None:
    """Warnings of a busy machine say nothing here."""


def test_operators_are_measured_under_a_key_of_their_own() -> None:
    """The rows of .onnx files can never answer for those of .tflite files: engine, runtime and delegate differ."""
    with Bench(ONNX.find(), ignore) as bench:
        rows = {
            row.subject: row for row in bench.measure([Model(op.key, onnx_micro_model(op)) for op in (CONV, LARGE)])
        }
        key = bench.key
    assert (key.engine, key.runtime, key.delegate) == ("onnxruntime", "onnxruntime", "cpu")
    assert key.runtime_version == onnxruntime.__version__
    assert rows[LARGE.key].quiet_ms > 5 * rows[CONV.key].quiet_ms > 0
    assert all(row.sentinel_ns > 0 for row in rows.values())


def test_a_file_of_the_other_format_is_refused_before_anything_is_measured() -> None:
    """The message names the engines that run it."""
    with Bench(ONNX.find(), ignore) as bench, pytest.raises(UsageError) as caught:
        list(bench.measure([Model("wrong", TFLITE)]))
    assert "wrong is a .tflite file; the engine onnxruntime runs .onnx files" in str(caught.value)
    assert "python, native, benchmark_model" in str(caught.value)
    with Bench(find_device("host"), ignore) as bench, pytest.raises(UsageError, match=r"engines for this one: onnxr"):
        list(bench.measure([Model("wrong", onnx_micro_model(CONV))]))


@pytest.mark.parametrize(
    ("content", "suffix"), [(TFLITE, "tflite"), (onnx_micro_model(CONV), "onnx"), (b"", ""), (b"garbage", "")]
)
def test_a_format_is_told_by_the_content(content: bytes, suffix: str) -> None:
    """Whatever the file was called."""
    assert Model("any", content).suffix == suffix


def test_a_device_is_found_for_the_engine_that_is_asked_for() -> None:
    """Its Python is chosen for that engine's runtime, so the choice comes before the look."""
    assert ONNX.find().engine == "onnxruntime"
    assert [device.engine for device in ONNX.find_all()] == ["onnxruntime"]
    with pytest.raises(InvalidRequest, match=r"unknown engine 'onnx'; known engines: .*onnxruntime"):
        DeviceChoice("host", engine="onnx").find()


def test_a_device_computes_what_this_machine_does() -> None:
    """The parity check works for .onnx files, too."""
    device = ONNX.find()
    transport = open_transport(device)
    try:
        check = outputs_check(device, transport)
    finally:
        transport.close()
    assert check.ok
    assert "within" in check.found


def test_a_whole_model_and_its_operators_are_of_one_kind() -> None:
    """What is read from a file can be measured as the file can."""
    whole = onnx_micro_model(CONV)
    with Bench(ONNX.find(), ignore) as bench:
        models = [
            Model("network", whole, "network"),
            *(Model(op.key, onnx_micro_model(op)) for op in read_onnx_ops(whole)),
        ]
        rows = list(bench.measure(models))
    assert {row.subject for row in rows} == {"network", CONV.key}
