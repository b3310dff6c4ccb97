"""What an .onnx file says of an inference: operators, fused groups, what is computed when the model is loaded."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import conv_relu, model, node, weights
from synthetic import random_archs, random_network, tiny_space

from edgekd.errors import DataError, MissingExtra
from edgekd.graph.onnx_micro import onnx_micro_model
from edgekd.graph.onnx_reader import read_onnx_ops
from edgekd.graph.onnx_spelling import kind_of, snake
from edgekd.spaces.layers import graph_of
from latency_tables.op_spec import MAX_KEY, OpSpec

C4 = {name: weights(4) for name in ("scale", "bias", "mean", "var")}
NORM = node("BatchNormalization", "y scale bias mean var", "n")
CONV = node("Conv", "x w", "y")
X = {"x": [1, 4, 6, 6]}
W = {"w": weights(4, 4, 1, 1)}


def keys(content: bytes) -> list[str]:
    """Read a file's operators as texts."""
    return [op.key for op in read_onnx_ops(content)]


def shapes_of(content: bytes) -> list[str]:
    """Read the kinds of a file's operators, each with those that are fused to it."""
    found = []
    for op in read_onnx_ops(content):
        fused = [value for name, value in op.attributes if re.fullmatch(r"fused_\d+", name)]
        found.append("+".join([op.kind.removeprefix("onnx_"), *fused]))
    return found


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("Conv", "conv"),
        ("QLinearConv", "q_linear_conv"),
        ("GlobalAveragePool", "global_average_pool"),
        ("LSTM", "lstm"),
        ("MatMul", "mat_mul"),
        ("transB", "trans_b"),
        ("kernel_shape", "kernel_shape"),
    ],
)
def test_names_are_spelled_in_snake_case(name: str, spelled: str) -> None:
    """As table keys spell everything."""
    assert snake(name) == spelled


def test_no_two_operators_share_a_kind() -> None:
    """The names of the standard stay apart in snake case."""
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert len({kind_of(name) for name in names}) == len(names)


def test_a_convolution_and_its_activation_are_one_operator() -> None:
    """The runtime fuses them, so they have one time."""
    assert keys(conv_relu()) == [
        "onnx_conv;float32;in=1x3x8x8,c4x3x3x3,c4;out=1x4x8x8;@fused_1=relu;@pads=1_1_1_1",
    ]


def test_a_free_batch_is_one() -> None:
    """A device runs one image at a time."""
    assert keys(conv_relu(batch="batch")) == keys(conv_relu())


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([CONV, NORM, node("Relu", "n", "z")], ["conv+batch_normalization+relu"]),
        ([CONV, node("HardSigmoid", "y", "g"), node("Mul", "y g", "z")], ["conv+hard_sigmoid+mul"]),
        ([node("Sigmoid", "x", "g"), node("Mul", "x g", "z")], ["sigmoid+mul"]),
        ([CONV, node("Add", "x y", "a"), node("Relu", "a", "z")], ["conv+add+relu"]),
        ([CONV, node("Softmax", "y", "z")], ["conv", "softmax"]),
        ([CONV, node("Relu", "y", "r"), node("Add", "r y", "z")], ["conv+relu+add"]),
        ([CONV, node("Conv", "y w", "c"), node("Add", "c y", "z")], ["conv", "conv+add"]),
        ([node("Conv", "x w", "c"), node("MaxPool", "x", "y", kernel_shape=[1, 1]), node("Add", "c y", "z")],
         ["conv", "max_pool", "add"]),
        ([node("GlobalAveragePool", "x", "y"), node("Relu", "y", "z")], ["global_average_pool", "relu"]),
        ([CONV, node("ReduceMean", "y", "z")], ["conv", "reduce_mean"]),
        ([CONV, node("Identity", "y", "i"), node("Dropout", "i", "d"), node("Relu", "d", "z")], ["conv+relu"]),
        ([CONV, node("Relu", "y", "z"), node("Tanh", "y", "unread")], ["conv+relu"]),
        ([node("Pad", "x pads", "p"), node("Conv", "p w", "y"), node("Relu", "y", "z")], ["pad+conv+relu"]),
        ([node("Pad", "x pads", "p"), node("Relu", "p", "z")], ["pad", "relu"]),
    ],
)  # fmt: skip
def test_groups_are_what_the_runtime_may_fuse(nodes: list[onnx.NodeProto], expected: list[str]) -> None:
    """A chain is one row while its values are read by itself alone; everything else is a row of its own."""
    pads = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    content = model(nodes, X, "z", {**W, **C4, **pads})
    assert shapes_of(content) == expected


def test_a_value_that_is_also_an_output_is_not_fused_away() -> None:
    """The runtime has to give it, too."""
    assert shapes_of(model([CONV, node("Relu", "y", "z")], X, "y z", W)) == ["conv", "relu"]


def test_a_gelu_of_single_steps_is_one_operator() -> None:
    """Exporters of older opsets write x/√2, erf, +1, ·x, ·½."""
    steps = [
        node("Gemm", "x w", "g"),
        node("Div", "g root", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "a"),
        node("Mul", "g a", "m"),
        node("Mul", "m half", "z"),
    ]
    constants = {"w": weights(8, 8), "root": np.float32(1.4142135), "one": np.float32(1), "half": np.float32(0.5)}
    assert shapes_of(model(steps, {"x": [1, 8]}, "z", constants)) == ["gemm+div+erf+add+mul+mul"]


def test_a_layer_norm_of_single_steps_is_one_operator() -> None:
    """It reads its input twice and its difference twice; nobody else reads them."""
    steps = [
        node("ReduceMean", "x", "m", axes=[-1]),
        node("Sub", "x m", "d"),
        node("Pow", "d two", "p"),
        node("ReduceMean", "p", "v", axes=[-1]),
        node("Add", "v eps", "e"),
        node("Sqrt", "e", "s"),
        node("Div", "d s", "q"),
        node("Mul", "q w", "r"),
        node("Add", "r b", "z"),
    ]
    constants = {"two": np.float32(2), "eps": np.float32(1e-5), "w": weights(8), "b": weights(8)}
    content = model(steps, {"x": [1, 4, 8]}, "z", constants, opset=17)
    (op,) = read_onnx_ops(content)
    assert dict(op.attributes)["fused_8_in"] == "r7_i4"
    assert read_onnx_ops(onnx_micro_model(op)) == [op]


def test_a_group_whose_text_is_too_long_is_cut() -> None:
    """A key has room for so much; the rest of the chain is further operators."""
    shape = (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4)
    steps = [node("Mul", f"v{i} c", f"v{i + 1}") for i in range(10)]
    content = model(steps, {"v0": shape}, "v10", {"c": weights(*shape)})
    ops = read_onnx_ops(content)
    assert 1 < len(ops) < 10
    assert all(len(op.key) <= MAX_KEY for op in ops)
    assert sum(part.startswith("mul") for text in shapes_of(content) for part in text.split("+")) == 10


@pytest.mark.whole  # tries many files
def test_what_is_constant_is_no_operator() -> None:
    """The runtime computes it once, when the model is loaded: constants, and what follows from them and from sizes."""
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        node("Mul", "w two", "w2"),
        node("Conv", "x w2", "y"),
        node("Shape", "y", "s"),
        node("Gather", "s first", "n"),
        node("Unsqueeze", "n zero", "n1"),
        node("Concat", "n1 rest", "size", axis=0),
        node("Reshape", "y size", "z"),
    ]
    constants = {**W, "first": np.array(0), "zero": np.array([0]), "rest": np.array([-1])}
    assert keys(model(nodes, X, "z", constants)) == [
        "onnx_conv;float32;in=1x4x6x6,c4x4x1x1;out=1x4x6x6",
        "onnx_reshape;float32;in=1x4x6x6,cint64:2(1_-1);out=1x144",
    ]


def test_paddings_that_an_exporter_leaves_to_be_computed_are_told() -> None:
    """Zeros for the axes before, turned round and cut: all of it follows from constants."""
    nodes = [
        node("ConstantOfShape", "four", "zeros", value=numpy_helper.from_array(np.array([0]))),
        node("Concat", "given zeros", "all", axis=0),
        node("Reshape", "all pairs", "table"),
        node("Slice", "table last first axis back", "turned"),
        node("Transpose", "turned", "sides"),
        node("Reshape", "sides flat", "pads"),
        node("Pad", "x pads", "z"),
    ]
    numbers = {"four": [4], "given": [1, 2, 3, 4], "pairs": [-1, 2], "flat": [-1]}
    limits = {"last": [-1], "first": [-9], "axis": [0], "back": [-1]}
    constants = {name: np.array(value) for name, value in (numbers | limits).items()}
    assert keys(model(nodes, X, "z", constants)) == [
        "onnx_pad;float32;in=1x4x6x6,cint64:8(0_0_3_1_0_0_4_2);out=1x4x13x9",
    ]


def test_a_size_of_a_tensor_that_is_computed_is_followed() -> None:
    """A size may follow from a tensor whose own size had to be computed first."""
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s zero one", "n"),
        node("Concat", "n rest", "size", axis=0),
        node("Reshape", "x size", "y"),
        node("Shape", "y", "t"),
        node("Reshape", "x t", "z"),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([12, 12])}
    assert keys(model(nodes, X, "z", constants)) == ["onnx_reshape;float32;in=1x4x6x6,cint64:3(1_12_12);out=1x12x12"]


def test_a_constant_of_terabytes_is_not_made() -> None:
    """What a hostile file asks to be computed is looked at first."""
    nodes = [node("ConstantOfShape", "size", "c"), node("Reshape", "c flat", "f"), node("Add", "x f", "z")]
    constants = {"size": np.array([1 << 20, 1 << 20]), "flat": np.array([-1])}
    with pytest.raises(DataError):
        read_onnx_ops(model(nodes, X, "z", constants))


def ranks_of_an_input() -> bytes:
    """Write a Reshape to as many dimensions as an input has elements."""
    return model([node("Reshape", "x n", "z")], {**X, "n": [1 << 30]}, "z", types={"n": TensorProto.INT64})


def a_rank_of_trillions() -> bytes:
    """Write a Reshape to as many dimensions as a constant has that is left to be made."""
    nodes = [
        node("ConstantOfShape", "many", "n", value=numpy_helper.from_array(np.array([1]))),
        node("Reshape", "x n", "z"),
    ]
    return model(nodes, X, "z", {"many": np.array([1 << 43])})


def a_constant_without_content() -> bytes:
    """Write a constant of 2^40 sizes, of which none is there."""
    made = onnx.ModelProto.FromString(model([node("Reshape", "x n", "z")], X, "z", {"n": np.array([1, 144])}))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[0] = 1 << 40
    return bytes(made.SerializeToString())


def test_a_size_that_is_computed_in_an_odd_way_is_taken_from_the_result() -> None:
    """A Reshape whose constant is not told is measured with the size that comes out."""
    (read,) = read_onnx_ops(onnx_micro_model(OpSpec.parse("onnx_reshape;float32;in=1x12,cint64:2;out=3x4")))
    assert read.key == "onnx_reshape;float32;in=1x12,cint64:2(3_4);out=3x4"


def test_defaults_and_what_the_weights_tell_are_left_out() -> None:
    """However much an exporter writes down, one operator has one key."""
    chatty = node("Conv", "x w", "y", kernel_shape=[1, 1], strides=[1, 1], dilations=[1, 1], group=1, auto_pad="NOTSET")
    assert keys(model([chatty], X, "y", W)) == keys(model([CONV], X, "y", W))


def test_the_end_of_everything_is_the_largest_number_that_a_key_tells() -> None:
    """Exporters write 2^63 - 1 for "to the end"."""
    constants = {"from": np.array([1]), "to": np.array([2**63 - 1]), "axes": np.array([1])}
    (key,) = keys(model([node("Slice", "x from to axes", "z")], X, "z", constants))
    assert "cint64:1(2147483647)" in key
    assert "out=1x3x6x6" in key


def test_an_old_meaning_is_told_by_its_opset() -> None:
    """A Softmax of opset 11 works on all axes from the first; from opset 13 on it works on one."""
    softmax = [node("Softmax", "x", "z")]
    assert keys(model(softmax, X, "z", opset=11)) == ["onnx_softmax;float32;in=1x4x6x6;out=1x4x6x6;@opset=11"]
    assert keys(model(softmax, X, "z", opset=13)) == keys(model(softmax, X, "z", opset=18))


def test_an_empty_region_is_an_absent_one() -> None:
    """Exporters write a constant without elements where Resize has no region."""
    resize = [node("Resize", "x roi scales", "z")]
    constants = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    assert keys(model(resize, X, "z", constants)) == [
        "onnx_resize;float32;in=1x4x6x6,c4;out=1x4x12x12;@absent=1;@const_1=1.0_1.0_2.0_2.0",
    ]


# --- quantized networks -----------------------------------------------------------------------------------------------


def quantized(*middle: onnx.NodeProto) -> bytes:
    """Write a network between a QuantizeLinear and a DequantizeLinear, with weights in int8 a channel."""
    constants = {
        "s": np.float32(0.02),
        "z": np.int8(0),
        "wq": np.full((4, 4, 1, 1), 3, np.int8),
        "ws": np.full(4, 0.01, np.float32),
        "wz": np.zeros(4, np.int8),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "wq ws wz", "w", axis=0),
        *middle,
        node("QuantizeLinear", "y s z", "yq"),
        node("DequantizeLinear", "yq s z", "out"),
    ]
    return model(nodes, X, "out", constants)


def test_an_operator_between_its_quantizations_is_one() -> None:
    """The runtime makes one int8 kernel of it; the edges of the network are operators of their own."""
    assert keys(quantized(node("Conv", "d w", "y"))) == [
        "onnx_quantize_linear;int8;in=float32:1x4x6x6,cfloat32:scalar,cscalar;out=1x4x6x6",
        "onnx_conv;int8;in=1x4x6x6,c4x4x1x1,cfloat32:scalar,cscalar;out=1x4x6x6"
        ";@fused_1=quantize_linear;@fused_1_in=r0_i2_i3;@qdq=0_1:0",
        "onnx_dequantize_linear;int8;in=1x4x6x6,cfloat32:scalar,cscalar;out=1x4x6x6",
    ]


def test_a_dequantization_that_two_read_belongs_to_both() -> None:
    """The runtime gives each reader its own copy."""
    branches = (node("Conv", "d w", "c"), node("Softmax", "d", "a"), node("Mul", "c a", "y"))
    assert shapes_of(quantized(*branches)) == [
        "quantize_linear", "conv", "softmax", "mul+quantize_linear", "dequantize_linear",
    ]  # fmt: skip


# --- what edgekd exports ----------------------------------------------------------------------------------------------


@pytest.mark.slow  # torch's exporter takes seconds
def test_an_exported_network_is_read_and_every_operator_can_be_measured() -> None:
    """Each operator of a student's .onnx file gives a micro-model that says the same."""
    from edgekd.export.onnx import onnx_bytes

    space = tiny_space()
    graph = graph_of(space, random_archs(space, 1, seed=4)[0])
    ops = read_onnx_ops(onnx_bytes(random_network(graph, seed=4)))
    convolutions = [node for node in graph.nodes if node.op.kind in ("conv_2d", "depthwise_conv_2d")]
    assert sum(op.kind == "onnx_conv" for op in ops) == len(convolutions)
    assert all(read_onnx_ops(onnx_micro_model(op)) == [op] for op in set(ops))


# --- refusals ---------------------------------------------------------------------------------------------------------


def external() -> bytes:
    """Write a file whose weights lie beside it."""
    made = onnx.ModelProto.FromString(conv_relu())
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return bytes(made.SerializeToString())


def external_value() -> bytes:
    """Write a file with an operator whose own constant lies beside it."""
    value = numpy_helper.from_array(np.array([0]))
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/passwd")
    nodes = [node("ConstantOfShape", "n", "c", value=value), node("Add", "x c", "z")]
    return model(nodes, X, "z", {"n": np.array([1])})


def with_functions() -> bytes:
    """Write a file that defines an operator of its own."""
    made = onnx.ModelProto.FromString(conv_relu())
    made.functions.add(name="Mine", domain="mine")
    return bytes(made.SerializeToString())


def with_branches() -> bytes:
    """Write a file with an If."""
    branch = helper.make_graph([node("Relu", "x", "r")], "branch", [], [onnx.ValueInfoProto(name="r")])
    made = node("If", "c", "z", then_branch=branch, else_branch=branch)
    return model([made], {"c": [], **X}, "z", types={"c": TensorProto.BOOL})


def shorter_weights() -> bytes:
    """Write a file whose weights end early."""
    made = onnx.ModelProto.FromString(conv_relu())
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]
    return bytes(made.SerializeToString())


ALIEN = helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft")
INDICES = {"y": TensorProto.INT64}
MICROSOFT: dict[str, Any] = {"opset_imports": [helper.make_opsetid("com.microsoft", 1)]}


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (external, "constant 'w' lies in another file"),
        (external_value, "a constant of operator ConstantOfShape lies in another file"),
        (with_functions, "functions of its own .'Mine'."),
        (with_branches, "operator If holds a graph of its own"),
        (shorter_weights, "constant 'w' has 428 bytes, its shape needs 432"),
        (lambda: model([ALIEN], X, "y", W, **MICROSOFT), "operator com.microsoft.FusedConv is none of the ONNX"),
        (lambda: model([CONV], {"x": [1, 4, "height", 6]}, "y", W), "input 'x' leaves dimension 2 .height. free"),
        (lambda: model([CONV], {"x": [1, 4, 0, 6]}, "y", W), "input 'x' leaves dimension 2"),
        (lambda: model([node("MatMul", "x w", "y")], {"x": [1, 3]}, "y", W), "do not fit together"),
        (lambda: model([node("NonZero", "x", "y")], X, "y", types=INDICES), "NonZero: the shape of 'y' cannot be told"),
        (lambda: model([node("Relu", "x", "y")], X, "y", opset=5), "is of opset 5"),
        (lambda: model([node("Relu", "x", "y")], X, "y", opset=999), "is of opset 999"),
        (lambda: model([node("Relu", "y", "y")], X, "y"), "reads 'y' before it is computed"),
        (lambda: model([node("Relu", "x", "y"), node("Tanh", "x", "y")], X, "y"), "two operators .* the same tensor"),
        (lambda: model([node("Identity", "x", "y")], X, "y"), "nothing is left to be computed"),
        (lambda: model([node("RandomNormal", "", "y", shape=[2])], X, "y"), "RandomNormal has no first operand"),
        (ranks_of_an_input, "operator Reshape takes a size from 'n', which is not known before an inference"),
        (a_rank_of_trillions, "operator ConstantOfShape makes a constant of 8796093022208 elements"),
        (a_constant_without_content, "constant 'n' has 0 numbers, its shape needs 1099511627776"),
        (lambda: model([CONV], {"x": [1, 4, 1 << 20, 1 << 20]}, "y", W), "input 'x' .* more than 2147483648 elements"),
        (lambda: b"", "holds no graph"),
        (lambda: b"\x08\x08 not a model", "no .onnx file, or a damaged one"),
    ],
)
def test_a_file_that_cannot_be_measured_is_refused_by_name(write: Callable[[], bytes], reason: str) -> None:
    """One line says what is in the way; nothing beside the file is read."""
    with pytest.raises(DataError, match=reason) as caught:
        read_onnx_ops(write())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("call", [read_onnx_ops, lambda _: onnx_micro_model(read_onnx_ops(conv_relu())[0])])
def test_a_missing_package_is_named(call: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    content = conv_relu()
    op = read_onnx_ops(content)[0]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"onnx is not installed.*edgekd\[onnx\]"):
        read_onnx_ops(content) if call is read_onnx_ops else onnx_micro_model(op)
