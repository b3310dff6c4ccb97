"""Micro-models: each operator, of any kind and dtype, becomes a file that holds it, runs, and reads back as itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from examples import KEYS
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import DataError
from edgekd.graph.ir import output_shapes
from edgekd.graph.micro import micro_model
from edgekd.graph.tflite_reader import read_ops
from latency_tables.op_spec import ACTIVATIONS, OP_DTYPES, OpSpec, TensorSpec

_POSITIVE = ("rsqrt", "sqrt", "pow", "div")  # what these make of a negative number or of 0 is not finite


def read_back(content: bytes) -> list[OpSpec]:
    """List a file's operators without those that unpack weights."""
    return [op for op in read_ops(content) if not op.is_folded]


def filled(shape: list[int], dtype: np.dtype, low: float) -> np.ndarray:
    """Draw an input as a device's runner does."""
    rng = np.random.default_rng(1)
    if dtype.kind == "f":
        return rng.uniform(low, 1.0, shape).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    return rng.integers(0, 1, shape, endpoint=True).astype(dtype)


def check_run(op: OpSpec, content: bytes) -> None:
    """Run a file on random inputs; what comes out is finite and of the shapes that the key says."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        values = filled(tensor["shape"], np.dtype(tensor["dtype"]), 0.1 if op.kind in _POSITIVE else -1.0)
        interpreter.set_tensor(tensor["index"], values)
    interpreter.invoke()
    outputs = [interpreter.get_tensor(tensor["index"]) for tensor in interpreter.get_output_details()]
    assert tuple(output.shape for output in outputs) == output_shapes(op)
    assert all(np.isfinite(output.astype(np.float64)).all() for output in outputs)


@pytest.mark.parametrize("key", KEYS)
def test_an_operator_becomes_a_file_that_runs_and_reads_back(key: str) -> None:
    """The real runtime takes the file, pads, activations and all dtypes included."""
    op = OpSpec.parse(key)
    content = micro_model(op)
    assert read_back(content) == [op]
    check_run(op, content)


small = st.integers(1, 9)
sides = st.integers(4, 9)
channels = st.sampled_from([1, 2, 3, 4, 8])
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
dtypes = st.sampled_from(OP_DTYPES)
acts = st.sampled_from(ACTIVATIONS)
pads = st.tuples(*[st.integers(0, 2)] * 4)


@st.composite
def windows(draw: st.DrawFn) -> OpSpec:
    """Draw a convolution or a pool, maybe padded, grouped or dilated, maybe with an activation after it."""
    kind = draw(st.sampled_from(["conv_2d", "depthwise_conv_2d", "transpose_conv", "average_pool_2d", "max_pool_2d"]))
    width, groups, dilation, out_channels = draw(channels), 1, (1, 1), 0
    padding = draw(st.sampled_from(["same", "valid"]))
    if kind == "conv_2d":
        groups = draw(st.sampled_from([n for n in (1, 2, 4) if width % n == 0]))
        out_channels, dilation = groups * draw(channels), draw(pairs) if padding == "same" else (1, 1)
    elif kind == "depthwise_conv_2d":
        out_channels = width * draw(st.integers(1, 2))
    elif kind == "transpose_conv":
        out_channels = draw(channels)
    pooled = kind.endswith("pool_2d")
    return OpSpec(
        kind,
        (TensorSpec((draw(small), draw(sides), draw(sides), width)),),
        draw(st.sampled_from(["float32", "int8", "uint8"])) if pooled else draw(dtypes),
        out_channels,
        draw(st.sampled_from([(2, 2), (3, 2)]) if pooled else pairs),  # XNNPACK takes no pool of one pixel
        draw(pairs),
        dilation,
        padding,
        groups,
        draw(acts),
        draw(st.just(()) | pads) if padding == "valid" and kind != "transpose_conv" else (),
        draw(acts),
    )


@st.composite
def others(draw: st.DrawFn) -> OpSpec:
    """Draw an operator on one or two feature maps, or a classifier."""
    dtype = draw(st.sampled_from(["float32", "int8", "uint8"]))
    shape = (draw(small), draw(sides), draw(sides), draw(channels))
    one, then = TensorSpec(shape), draw(acts)
    second = draw(
        st.sampled_from([TensorSpec(shape), TensorSpec(shape, constant=True), TensorSpec((1, 1, 1, shape[3]))])
    )
    both = (*shape[:3], 2 * shape[3])
    return draw(
        st.sampled_from(
            [
                OpSpec("add", (one, second), dtype, act=draw(acts), then=then),
                OpSpec("mul", (one, second), dtype, act=draw(acts), then=then),
                OpSpec("sub", (one, second), dtype, act=draw(acts), then=then, out=(shape,)),
                OpSpec("hard_swish", (one,), dtype, then=then, out=(shape,)),
                OpSpec("logistic", (one,), dtype, then=then),
                OpSpec("mean", (one,), dtype, then=then),
                OpSpec("fully_connected", (one,), dtype, draw(small), act=draw(acts), then=then),
                OpSpec(
                    "concatenation",
                    (one, TensorSpec(shape)),
                    dtype,
                    out=(both,),
                    attributes=(("axis", "3"),),
                ),
                OpSpec("prelu", (one, TensorSpec((1, 1, shape[3]), constant=True)), dtype, then=then, out=(shape,)),
            ]
        )
    )


@pytest.mark.whole  # writes and reads 150 models
@settings(max_examples=150)
@given(windows() | others())
def test_every_operator_reads_back_as_itself(op: OpSpec) -> None:
    """read_ops is the inverse of micro_model, and the key of what is read is the key that was asked for."""
    assert [found.key for found in read_back(micro_model(op))] == [op.key]


@pytest.mark.whole  # runs forty models
@settings(max_examples=40, deadline=None)
@given(windows())
def test_every_window_runs(op: OpSpec) -> None:
    """Odd sizes, strides, pads and dilations are what a runtime accepts, as long as the window fits the picture."""
    if min(map(min, output_shapes(op))) > 0:
        check_run(op, micro_model(op))


_names = st.sampled_from([*sorted({key.partition(";")[0] for key in KEYS}), "no_such_kind", "while", "custom"])
_shapes = st.lists(st.integers(1, 5), max_size=5).map(tuple)
_tensors = st.builds(TensorSpec, _shapes, st.booleans(), st.sampled_from(["", "float16", "int4", "int32", "bool"]))
strange = st.builds(
    OpSpec,
    kind=_names,
    inputs=st.lists(_tensors, min_size=1, max_size=4).map(tuple),
    dtype=dtypes,
    out_channels=st.integers(0, 4),
    kernel=pairs,
    groups=st.integers(1, 3),
    act=acts,
    pad=st.just(()) | pads,
    then=acts,
    out=st.lists(_shapes, max_size=2).map(tuple),
    attributes=st.sampled_from(
        [(), (("axis", "x"),), (("outs", "int4"),), (("absent", "9"),), (("new_shape", "sha256:1"),)]
    ),
)


def test_a_custom_operator_that_the_runtime_knows_is_measured_like_any_other() -> None:
    """Its name and its options, a struct of three numbers here, are in the key, and so in the file."""
    key = (
        "custom;float16;in=1x9x9x8,c1x2x2x8,c1;out=1x18x18x1;@code=Convolution2DTransposeBias;"
        "@options=hex:010000000200000002000000"
    )
    content = micro_model(OpSpec.parse(key))
    assert [op.key for op in read_ops(content) if not op.is_folded] == [key]
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], np.ones(source["shape"], np.float32))
    interpreter.invoke()
    assert np.isfinite(interpreter.get_tensor(output["index"])).all()


@pytest.mark.slow  # 300 files are made
@settings(max_examples=300)
@given(strange)
def test_any_key_becomes_a_file_or_is_refused(op: OpSpec) -> None:
    """A key that nothing real stands behind ends in DataError, which names it, or in a file."""
    message = ""
    try:
        content = micro_model(op)
    except DataError as error:
        content, message = b"....TFL3", str(error)
    assert content[4:8] == b"TFL3"
    assert not message or (op.key in message and "\n" not in message)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("dequantize;float32;in=cfloat16:3x3", "once, when the model is loaded"),
        ("densify;float32;in=cfloat16:3x3;out=3x3", "once, when the model is loaded"),
        ("custom;float32;in=1x8;out=1x8;@code=sha256:0123456789abcdef", "a hash of its name"),
        ("custom;float32;in=1x8;out=1x8;@code=Mine;@options=0123456789abcdef", "a hash of its name"),
        ("concatenation;float32;in=1x8;out=1x8;@digest=0123456789abcdef", "too long"),
        ("while;float32;in=1x8;out=1x8;@body_subgraph_index=1;@cond_subgraph_index=2", "other graphs"),
        ("conv_2d;float32;in=1x9x9x8388608;out_channels=8388608", "elements, and at most 134217728"),
        (
            "conv_2d;float32;in=1x9x9x1;out_channels=1;stride=9999999x9999999;padding=valid;pad=9999999x0x9999999x0",
            "at most",
        ),
        ("builtin_999;float32;in=1x8;out=1x8", "not a builtin operator"),
        ("softmax;float32;in=1x8", "does not say what comes out of it"),
        ("softmax;float32;in=1x8;out=1x8;@gamma=1", "no attribute gamma"),
        ("softmax;float32;in=1x8;act=relu;out=1x8", "no activation of its own"),
        ("bucketize;float32;in=1x8;out=1x8;@boundaries=sha256:01", "does not hold"),
        ("fully_connected;dynamic_int8;in=1x8;out_channels=2;@weights=int4", "weights of int4"),
        ("split;float32;in=cint32:scalar(1),1x8;then=relu;out=1x4,1x4;@num_splits=2", "after 2 outputs"),
    ],
)
def test_an_operator_that_cannot_be_measured_says_why(key: str, reason: str) -> None:
    """The message holds the key and the reason, in one line."""
    with pytest.raises(DataError, match=reason) as caught:
        micro_model(OpSpec.parse(key))
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("key", "types"),
    [
        ("conv_2d;float32;in=1x9x9x8;out_channels=12;kernel=3x3", {"FLOAT32"}),
        ("conv_2d;float16;in=1x9x9x8;out_channels=12;kernel=3x3", {"FLOAT16"}),
        ("conv_2d;dynamic_int8;in=1x9x9x8;out_channels=12;kernel=3x3", {"INT8", "FLOAT32"}),
        ("conv_2d;int8;in=1x9x9x8;out_channels=12;kernel=3x3", {"INT8", "INT32"}),
        ("conv_2d;uint8;in=1x9x9x8;out_channels=12;kernel=3x3", {"UINT8", "INT32"}),
        ("prelu;float16;in=1x7x7x8,c1x1x8;out=1x7x7x8", {"FLOAT16"}),
    ],
)
def test_constants_are_stored_as_the_dtype_says(key: str, types: set[str]) -> None:
    """Packed as in the files that it speaks of; floats are neither zero nor denormal, integers not all alike."""
    model = schema.ModelT.InitFromPackedBuf(micro_model(OpSpec.parse(key)), 0)
    names = {number: name for name, number in vars(schema.TensorType).items()}
    found = set()
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is None:
            continue
        name = names[tensor.type]
        found.add(name)
        values = np.frombuffer(bytes(data), {"FLOAT32": "f4", "FLOAT16": "f2"}.get(name, name.lower()))
        assert values.size == math.prod(tensor.shape)
        assert len(np.unique(values)) > 1
        if name.startswith("FLOAT"):
            assert np.abs(values).min() >= np.finfo(values.dtype).tiny
    assert found == types


@pytest.mark.parametrize(
    ("key", "version"),
    [
        ("conv_2d;float32;in=1x9x9x8;out_channels=12", 1),
        ("conv_2d;int8;in=1x9x9x8;out_channels=12", 3),
        ("conv_2d;int8;in=1x9x9x8;out_channels=12;groups=4", 6),
        ("depthwise_conv_2d;float32;in=1x9x9x8;out_channels=8;kernel=3x3;dilation=2x2", 2),
        ("fully_connected;int8;in=1x8;out_channels=8", 4),
        ("hard_swish;int8;in=1x7x7x8;out=1x7x7x8", 1),
        ("softmax;int8;in=1x10;out=1x10;@beta=1.0", 2),
        ("resize_bilinear;float32;in=1x7x7x8,cint32:2(14_14);out=1x14x14x8;@half_pixel_centers=1", 3),
        ("relu;uint8;in=1x7x7x8;out=1x7x7x8", 2),
    ],
)
def test_operators_bear_the_lowest_version_that_knows_them(key: str, version: int) -> None:
    """An older runtime on a phone refuses a version above its own."""
    model = schema.ModelT.InitFromPackedBuf(micro_model(OpSpec.parse(key)), 0)
    assert [code.version for code in model.operatorCodes] == [version]


def test_operands_that_are_no_constants_are_inputs_of_their_own() -> None:
    """An addition of two feature maps reads both from memory, as in a network; a constant gate is in the file."""
    sizes = []
    for key in ("add;float32;in=1x7x7x4,1x7x7x4", "mul;float32;in=1x7x7x4,1x1x1x4", "mul;float32;in=1x7x7x4,c1x1x1x4"):
        interpreter = Interpreter(model_content=micro_model(OpSpec.parse(key)), num_threads=1)
        signature = interpreter.get_signature_list()["serving_default"]
        sizes.append(len(interpreter.get_input_details()))
        assert len(signature["inputs"]) == sizes[-1]
    assert sizes == [2, 2, 1]


def test_the_same_operator_gives_the_same_bytes() -> None:
    """Files are pushed by their hash, so they must not change from run to run."""
    op = OpSpec.parse("conv_2d;dynamic_int8;in=1x9x9x8;out_channels=12;kernel=3x3;then=relu")
    assert micro_model(op) == micro_model(op)
