"""Micro-models for onnxruntime: one for each kind, run by the runtime, and read back as what was asked for."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import DataError
from edgekd.graph import onnx_micro
from edgekd.graph.onnx_micro import onnx_micro_model
from edgekd.graph.onnx_reader import read_onnx_ops
from latency_tables.op_spec import OpSpec

Q8 = "cfloat32:scalar,cscalar"  # a scale and a zero point
EXAMPLES = [
    "onnx_conv;float32;in=1x8x14x14,c24x8x1x1,c24;out=1x24x14x14",
    "onnx_conv;float32;in=1x8x14x14,c8x2x3x3;out=1x8x7x7;@group=4;@pads=1_1_1_1;@strides=2_2",
    "onnx_conv;float32;in=1x8x14x14,c8x1x3x3,c8;out=1x8x10x10;@dilations=2_2;@group=8",
    "onnx_conv;float32;in=1x3x9x9,c4x3x3x3;out=1x4x5x5;@auto_pad=SAME_UPPER;@strides=2_2",
    "onnx_conv;float32;in=1x8x14x14,c8x8x1x1,c8;out=1x8x14x14;@fused_1=relu",
    "onnx_conv;float32;in=1x8x14x14,c8x8x1x1,c8,cscalar,cscalar;out=1x8x14x14"
    ";@const_3=0.0;@const_4=6.0;@fused_1=clip;@fused_1_in=r0_i3_i4",
    "onnx_conv;float32;in=1x8x14x14,c8x8x1x1,c8,c8,c8,c8;out=1x8x14x14"
    ";@fused_1=batch_normalization;@fused_1_in=r0_i2_i3_i4_i5;@fused_2=relu",
    "onnx_conv;float32;in=1x8x14x14,c8x8x1x1,c8;out=1x8x14x14"
    ";@fused_1=hard_sigmoid;@fused_1_alpha=0.16666667;@fused_2=mul;@fused_2_in=r0_r1",
    "onnx_conv;float32;in=1x8x6x6,c8x8x1x1,c8,1x8x6x6;out=1x8x6x6;@fused_1=add;@fused_1_in=r0_i3;@fused_2=relu",
    "onnx_conv_transpose;float32;in=1x8x7x7,c8x4x2x2,c4;out=1x4x14x14;@strides=2_2",
    "onnx_gemm;float32;in=1x64,c10x64,c10;out=1x10;@trans_b=1",
    "onnx_gemm;float32;in=1x64,c64x16,c16;out=1x16;@fused_1=relu",
    "onnx_mat_mul;float32;in=1x12x64,c64x32,c32;out=1x12x32;@fused_1=add;@fused_1_in=r0_i2",
    "onnx_mat_mul;float32;in=1x4x12x8,1x4x8x12;out=1x4x12x12",
    "onnx_relu;float32;in=1x8x14x14;out=1x8x14x14",
    "onnx_clip;float32;in=1x8x14x14,cscalar,cscalar;out=1x8x14x14;@const_1=-1.0;@const_2=1.0",
    "onnx_clip;float32;in=1x8x14x14,cscalar;out=1x8x14x14;@absent=1;@const_1=1.0",
    "onnx_sigmoid;float32;in=1x8x1x1;out=1x8x1x1",
    "onnx_sigmoid;float32;in=1x8x5x5;out=1x8x5x5;@fused_1=mul;@fused_1_in=x0_r0",
    "onnx_hard_sigmoid;float32;in=1x8x1x1;out=1x8x1x1;@alpha=0.16666667",
    "onnx_hard_swish;float32;in=1x8x5x5;out=1x8x5x5",
    "onnx_gelu;float32;in=1x12x64;out=1x12x64",
    "onnx_gelu;float32;in=1x12x64;out=1x12x64;@approximate=tanh",
    "onnx_softmax;float32;in=1x10;out=1x10",
    "onnx_softmax;float32;in=1x4x5x5;out=1x4x5x5;@axis=1",
    "onnx_softmax;float32;in=1x4x5x5;out=1x4x5x5;@opset=11",
    "onnx_add;float32;in=1x8x14x14,1x8x14x14;out=1x8x14x14",
    "onnx_add;float32;in=1x8x14x14,c1x8x1x1;out=1x8x14x14",
    "onnx_mul;float32;in=1x8x14x14,1x8x1x1;out=1x8x14x14",
    "onnx_sub;float32;in=1x8x4x4,1x8x4x4;out=1x8x4x4",
    "onnx_div;float32;in=1x8x4x4,cscalar;out=1x8x4x4",
    "onnx_pow;float32;in=1x8x4x4,cscalar;out=1x8x4x4;@const_1=2.0",
    "onnx_concat;float32;in=1x8x7x7,1x4x7x7,1x4x7x7;out=1x16x7x7;@axis=1",
    "onnx_split;float32;in=1x8x7x7,cint64:2(3_5);out=1x3x7x7,1x5x7x7;@axis=1",
    "onnx_split;float32;in=1x8x7x7;out=1x4x7x7,1x4x7x7;@axis=1;@num_outputs=2",
    "onnx_max_pool;float32;in=1x8x14x14;out=1x8x7x7;@kernel_shape=3_3;@pads=1_1_1_1;@strides=2_2",
    "onnx_average_pool;float32;in=1x8x14x14;out=1x8x14x14;@kernel_shape=3_3;@pads=1_1_1_1",
    "onnx_global_average_pool;float32;in=1x8x14x14;out=1x8x1x1",
    "onnx_reduce_mean;float32;in=1x8x7x7,cint64:2(2_3);out=1x8x1x1",
    "onnx_reduce_mean;float32;in=1x8x7x7;out=1x8;@axes=2_3;@keepdims=0",  # as opset 17 spells it
    "onnx_resize;float32;in=1x4x7x7,c4;out=1x4x14x14;@absent=1;@const_1=1.0_1.0_2.0_2.0",
    "onnx_resize;float32;in=1x4x7x7,cint64:4(1_4_20_20);out=1x4x20x20;@absent=1_2;@mode=linear",
    "onnx_resize;float32;in=1x4x7x7,c4;out=1x4x14x14;@const_1=1.0_1.0_2.0_2.0;@opset=10",
    "onnx_pad;float32;in=1x4x7x7,cint64:8(0_0_1_1_0_0_1_1);out=1x4x9x9",
    "onnx_pad;float32;in=1x4x7x7,cint64:8(0_0_1_1_0_0_2_2);out=1x4x10x10;@mode=reflect",
    "onnx_pad;float32;in=1x4x7x7,cint64:8(0_0_1_1_0_0_1_1),c8x4x3x3;out=1x8x7x7"
    ";@fused_1=conv;@fused_1_in=r0_i2;@fused_2=relu",
    "onnx_reshape;float32;in=1x8x4x4,cint64:2(1_-1);out=1x128",
    "onnx_transpose;float32;in=1x28x28x3;out=1x3x28x28;@perm=0_3_1_2",
    "onnx_slice;float32;in=1x8x7x7,cint64:1(1),cint64:1(2147483647),cint64:1(2),cint64:1(2);out=1x8x3x7",
    "onnx_flatten;float32;in=1x8x4x4;out=1x128",
    "onnx_batch_normalization;float32;in=1x8x7x7,c8,c8,c8,c8;out=1x8x7x7;@fused_1=relu",
    "onnx_layer_normalization;float32;in=1x12x64,c64,c64;out=1x12x64",
    "onnx_quantize_linear;int8;in=float32:1x8x7x7,cfloat32:scalar,cscalar;out=1x8x7x7",
    "onnx_dequantize_linear;uint8;in=1x8x7x7,cfloat32:scalar,cscalar;out=1x8x7x7",
    f"onnx_q_linear_conv;uint8;in=1x8x7x7,{Q8},cint8:8x8x3x3,cfloat32:8,cint8:8,{Q8},cint32:8;out=1x8x5x5",
    f"onnx_q_linear_mat_mul;int8;in=1x8,{Q8},c8x4,{Q8},{Q8};out=1x4",
    f"onnx_conv;int8;in=1x8x7x7,c8x8x1x1,cint32:8,{Q8};out=1x8x7x7"
    ";@fused_1=quantize_linear;@fused_1_in=r0_i3_i4;@qdq=0_1:0_2:0",
    f"onnx_gemm;uint8;in=1x64,cint8:10x64,{Q8};out=1x10;@fused_1=quantize_linear;@fused_1_in=r0_i2_i3;@qdq=0_1;@trans_b=1",
    f"onnx_add;int8;in=1x8x7x7,1x8x7x7,{Q8};out=1x8x7x7;@fused_1=quantize_linear;@fused_1_in=r0_i2_i3;@qdq=0_1",
    f"onnx_average_pool;int8;in=1x8x8x8,{Q8};out=1x8x4x4"
    ";@fused_1=quantize_linear;@fused_1_in=r0_i1_i2;@kernel_shape=2_2;@qdq=0;@strides=2_2",
    "onnx_einsum;float32;in=1x4x6,1x6x5;out=1x4x5;@equation=bij+2cbjk-+3ebik",
    "onnx_lstm;float32;in=5x1x8,c1x64x8,c1x64x16,c1x128;out=5x1x1x16;@hidden_size=16",
    "onnx_cast;float32;in=1x8x4x4;out=1x8x4x4;@to=10",
    "onnx_gather;float32;in=1x8x4x4,int64:3;out=1x3x4x4;@axis=1",
    "onnx_top_k;float32;in=1x64,cint64:1(5);out=1x5,1x5",
]


def run(content: bytes) -> list[np.ndarray]:
    """Run a file as a device would, with inputs of a normal range."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    values = np.random.default_rng(0)
    ranges: dict[str, tuple[str, int, int]] = {
        "tensor(float)": ("float32", -1, 1),
        "tensor(int8)": ("int8", -127, 127),
        "tensor(uint8)": ("uint8", 0, 255),
        "tensor(int64)": ("int64", 0, 3),  # an index
    }
    feeds = {}
    for entry in session.get_inputs():
        dtype, low, high = ranges[entry.type]
        feeds[entry.name] = values.uniform(low, high, entry.shape).astype(dtype)
    return [np.asarray(output) for output in session.run(None, feeds)]


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_micro_model_runs_and_is_read_back(key: str) -> None:
    """Its outputs have the shapes that the key tells, are finite and not all zero; reading it gives the operator."""
    op = OpSpec.parse(key)
    content = onnx_micro_model(op)
    outputs = run(content)
    assert tuple(output.shape for output in outputs) == op.out
    assert all(np.isfinite(output.astype(np.float64)).all() for output in outputs)
    assert any(output.any() for output in outputs)
    assert read_onnx_ops(content) == [op]


def test_a_micro_model_is_the_same_each_time() -> None:
    """The same operator gives the same bytes, so that a device keeps the file."""
    op = OpSpec.parse(EXAMPLES[0])
    assert onnx_micro_model(op) == onnx_micro_model(op)


def test_constants_are_nowhere_zero() -> None:
    """Zeros and denormal weights would let kernels take short cuts."""
    graph = onnx.ModelProto.FromString(onnx_micro_model(OpSpec.parse(EXAMPLES[0]))).graph
    for tensor in graph.initializer:
        assert np.abs(onnx.numpy_helper.to_array(tensor)).min() > 1e-10


@st.composite
def convolutions(draw: st.DrawFn) -> OpSpec:
    """Draw a convolution with any of its settings, and an activation behind it."""
    groups, per_group, out_per_group = (draw(st.integers(1, 4)) for _ in range(3))
    kernel, stride, pad, dilation = (draw(st.integers(1, 3)) for _ in range(4))
    size = draw(st.integers(dilation * (kernel - 1) + 1, 14))
    after = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    out = groups * out_per_group
    bias = f",c{out}" if draw(st.booleans()) else ""
    act = draw(st.sampled_from(["", "relu", "sigmoid", "hard_swish", "leaky_relu"]))
    attributes = {
        "dilations": f"{dilation}_{dilation}" if dilation > 1 else "",
        "fused_1": act,
        "group": str(groups) if groups > 1 else "",
        "pads": "_".join([str(pad)] * 4),
        "strides": f"{stride}_{stride}" if stride > 1 else "",
    }
    text = "".join(f";@{name}={value}" for name, value in attributes.items() if value)
    tensors = f"1x{groups * per_group}x{size}x{size},c{out}x{per_group}x{kernel}x{kernel}{bias}"
    return OpSpec.parse(f"onnx_conv;float32;in={tensors};out=1x{out}x{after}x{after}{text}")


@pytest.mark.whole  # tries many files
@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_reading_is_the_inverse_of_writing(op: OpSpec) -> None:
    """Whatever the sizes, strides, groups and dilations, the file says just what the key says."""
    assert read_onnx_ops(onnx_micro_model(op)) == [op]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("conv_2d;float32;in=1x8x8x3;out_channels=4", "no operator of an .onnx file"),
        ("onnx_relu;float32;in=1x8", "no operator of an .onnx file with its output"),
        ("onnx_frobnicate;float32;in=1x8;out=1x8", "onnx_frobnicate is none of the ONNX standard"),
        ("onnx_relu;float32;in=1x8;out=1x9", r"what comes out has the shapes \(\(1, 8\),\)"),
        ("onnx_relu;float32;in=1x8;out=1x8;@wings=2", r"has no \['wings'\]"),
        ("onnx_softmax;float32;in=1x8;out=1x8;@axis=soft", "'soft' is no attribute of type INT"),
        ("onnx_concat;float32;in=1x8,1x8;out=1x16", r"needs \['axis'\]"),
        ("onnx_relu;float32;in=1x8;out=1x8;@fused_2=relu", "not numbered from 1"),
        ("onnx_relu;float32;in=1x8;out=1x8;@fused_1=add;@fused_1_in=r0_r1", "operand r1 does not exist"),
        ("onnx_relu;float32;in=1x8;out=1x8;@fused_1=add;@fused_1_in=r0_i5", "do not read the operands"),
        ("onnx_relu;float32;in=1x8;out=1x8;@qdq=7", "operand 7 is none of the first operator's"),
        ("onnx_mat_mul;float32;in=1x8,c16777216x16777216;out=1x8", "its constants are too large"),
        ("onnx_relu;float32;in=1x16384x16384;out=1x16384x16384", "inputs and outputs have 536870912 elements"),
        ("onnx_conv;float32;in=1x8x4x4,c8x8x3x3;out=1x8x2x2;@opset=x", "invalid literal"),
        ("onnx_clip;float32;in=1x8,cscalar;out=1x8;@const_1=0.0_1.0", "2 values do not fill a constant of shape"),
    ],
)
def test_what_cannot_be_made_is_named(key: str, reason: str) -> None:
    """One line names the operator and what is wrong with it."""
    with pytest.raises(DataError, match=reason) as caught:
        onnx_micro_model(OpSpec.parse(key))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("dtype", "size_bytes"), [("", 4), ("float16:", 2), ("int8:", 1), ("int64:", 8), ("bool:", 1)])
def test_constants_are_counted_in_bytes_of_their_own_dtype(
    dtype: str, size_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quantised or half-precision layer may have as many more weights."""
    op = OpSpec.parse(f"onnx_cast;float32;in=c{dtype}16x8;out=16x8;@to=1")
    monkeypatch.setattr(onnx_micro, "_MAX_BYTES", 16 * 8 * size_bytes - 1)
    with pytest.raises(DataError, match="too large"):
        onnx_micro_model(op)
    monkeypatch.setattr(onnx_micro, "_MAX_BYTES", 16 * 8 * size_bytes)
    assert onnx_micro_model(op)
