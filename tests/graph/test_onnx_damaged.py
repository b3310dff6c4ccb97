"""Distrusted .onnx files: whatever bytes come in, the answer is operators or one DataError, and soon."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_files import conv_relu, sizes_computed
from test_tflite_damaged import watchdog

from edgekd.errors import DataError
from edgekd.graph.onnx_micro import onnx_micro_model
from edgekd.graph.onnx_reader import read_onnx_ops
from latency_tables.op_spec import OpSpec

KEYS = (
    "onnx_resize;float32;in=1x4x7x7,c4;out=1x4x14x14;@absent=1;@const_1=1.0_1.0_2.0_2.0",
    "onnx_slice;float32;in=1x8x7x7,cint64:1(1),cint64:1(5),cint64:1(2);out=1x8x4x7",
    "onnx_conv;int8;in=1x8x7x7,c8x8x1x1,cfloat32:scalar,cscalar;out=1x8x7x7"
    ";@fused_1=quantize_linear;@fused_1_in=r0_i2_i3;@qdq=0_1:0",
    "onnx_reshape;float32;in=1x8x4x4,cint64:2(1_-1);out=1x128",
)
FILES = [conv_relu(batch="batch"), sizes_computed(), *(onnx_micro_model(OpSpec.parse(key)) for key in KEYS)]


def check(content: bytes) -> None:
    """Read; only DataError may come out, or operators whose keys can be read again."""
    with watchdog():
        try:
            ops = read_onnx_ops(content)
        except DataError:
            return
    assert [OpSpec.parse(op.key) for op in ops] == ops


@given(st.binary(max_size=400))
def test_garbage_is_refused(content: bytes) -> None:
    """Bytes that hold no graph are no .onnx file."""
    check(content)
    check(FILES[0][:20] + content)


@pytest.mark.whole  # tries many files
@settings(max_examples=100, deadline=None)
@given(content=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(content: bytes, share: float) -> None:
    """Wherever a copy broke off."""
    with watchdog(), pytest.raises(DataError):
        read_onnx_ops(content[: int(share * len(content))])


@settings(max_examples=300, deadline=None)
@given(
    content=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
@pytest.mark.slow  # 300 files are read
def test_flipped_bytes_are_refused_or_read(content: bytes, changes: list[tuple[float, int]]) -> None:
    """A changed byte may still be a model; it is never another exception, and never a hang."""
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    check(bytes(damaged))
