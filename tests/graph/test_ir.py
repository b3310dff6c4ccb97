"""Graphs as values: shapes follow from operators, work is counted, int8 wraps float32."""

from __future__ import annotations

import pytest
from single import graph_of_op
from synthetic import NARROW, random_archs

from edgekd.graph.ir import (
    INPUT,
    Node,
    int8_graph,
    macs_of,
    out_shape_of,
    output_dtype,
    output_names,
    output_shapes,
)
from edgekd.spaces.layers import graph_of
from latency_tables.op_spec import OpSpec


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("conv_2d;float32;in=1x28x28x1;out_channels=8;kernel=3x3;stride=2x2", (1, 14, 14, 8)),
        ("conv_2d;float32;in=1x15x14x1;out_channels=8;kernel=3x3;stride=2x2", (1, 8, 7, 8)),
        ("conv_2d;float32;in=1x15x14x1;out_channels=8;kernel=3x5;stride=2x1;padding=valid", (1, 7, 10, 8)),
        ("depthwise_conv_2d;float32;in=1x7x7x4;out_channels=8;kernel=5x5", (1, 7, 7, 8)),
        ("average_pool_2d;float32;in=1x7x7x4;kernel=3x3;stride=2x2", (1, 4, 4, 4)),
        ("mean;float32;in=1x7x7x4", (1, 1, 1, 4)),
        ("fully_connected;float32;in=1x1x1x80;out_channels=10", (1, 10)),
        ("add;float32;in=1x7x7x4,1x7x7x4", (1, 7, 7, 4)),
        ("mul;float32;in=1x1x1x4,1x7x7x4", (1, 7, 7, 4)),
        ("logistic;int8;in=1x1x1x4", (1, 1, 1, 4)),
        ("max_pool_2d;float32;in=1x9x9x4;kernel=2x2;stride=2x2;padding=valid", (1, 4, 4, 4)),
        ("max_pool_2d;float32;in=1x9x9x4;kernel=2x2;stride=2x2;padding=valid;pad=0x1x0x3", (1, 5, 6, 4)),
        ("conv_2d;float32;in=1x9x9x4;out_channels=8;kernel=3x3;dilation=2x2;padding=valid", (1, 5, 5, 8)),
        ("transpose_conv;float32;in=1x5x4x8;out_channels=3;kernel=3x3;stride=2x2", (1, 10, 8, 3)),
        ("transpose_conv;float32;in=1x5x4x8;out_channels=3;kernel=3x3;stride=2x2;padding=valid", (1, 11, 9, 3)),
        ("transpose_conv;float32;in=1x5x4x8;out_channels=3;stride=2x2;padding=valid", (1, 10, 8, 3)),
        ("softmax;float32;in=1x10;out=1x10", (1, 10)),
    ],
)
def test_output_shapes_follow_from_the_operator(key: str, shape: tuple[int, ...]) -> None:
    """SAME rounds up, VALID counts whole windows, MEAN keeps its dimensions, MUL broadcasts."""
    assert out_shape_of(OpSpec.parse(key)) == shape


def test_an_operator_whose_output_is_unknown_is_named() -> None:
    """A kind without a short form names its outputs itself."""
    with pytest.raises(ValueError, match="operator softmax does not say what comes out of it; its key must name out="):
        out_shape_of(OpSpec.parse("softmax;float32;in=1x10"))


@pytest.mark.parametrize(
    ("key", "macs"),
    [
        ("conv_2d;float32;in=1x28x28x2;out_channels=8;kernel=3x3;stride=2x2", 14 * 14 * 8 * 9 * 2),
        ("depthwise_conv_2d;float32;in=1x7x7x4;out_channels=4;kernel=5x5", 7 * 7 * 4 * 25),
        ("fully_connected;float32;in=1x1x1x80;out_channels=10", 800),
        ("conv_2d;float32;in=1x7x7x8;out_channels=8;kernel=3x3;groups=4", 7 * 7 * 8 * 9 * 2),
        ("transpose_conv;float32;in=1x5x4x8;out_channels=3;kernel=3x3;stride=2x2", 5 * 4 * 8 * 9 * 3),
        ("add;float32;in=1x7x7x4,1x7x7x4", 0),
    ],
)
def test_work_is_counted_in_multiply_accumulates(key: str, macs: int) -> None:
    """By hand: outputs times what each sums up."""
    node = graph_of_op(OpSpec.parse(key)).nodes[0]
    assert macs_of(node) == macs
    assert graph_of_op(OpSpec.parse(key)).macs == macs


@pytest.mark.parametrize(
    ("key", "dtype"),
    [
        ("conv_2d;float16;in=1x7x7x4;out_channels=4", "float32"),
        ("conv_2d;dynamic_int8;in=1x7x7x4;out_channels=4", "float32"),
        ("add;uint8;in=1x7x7x4,1x7x7x4", "uint8"),
        ("add;float32;in=int32:4,int32:4", "int32"),
        ("split;int8;in=cint32:scalar(3),1x7x7x8;out=1x7x7x4,1x7x7x4", "int8"),
        ("quantize;uint8;in=int8:1x10", "uint8"),
        ("dequantize;int8;in=1x10", "float32"),
    ],
)
def test_output_types_follow_from_the_first_activation(key: str, dtype: str) -> None:
    """Constants, packed weights among them, do not decide."""
    assert output_dtype(OpSpec.parse(key)) == dtype


def test_each_output_has_a_name() -> None:
    """The first bears the node's, as long as there is only one."""
    split = OpSpec.parse("split;float32;in=cint32:scalar(3),1x7x7x8;out=1x7x7x4,1x7x7x4;@num_splits=2")
    node = Node("parts", split, ("constant", INPUT), (1, 7, 7, 4))
    assert output_names(node) == ["parts", "parts:1"]
    assert output_shapes(split) == ((1, 7, 7, 4), (1, 7, 7, 4))


@pytest.mark.parametrize("arch", random_archs(NARROW, 3, seed=1), ids=lambda arch: arch.arch_id)
def test_the_int8_form_is_the_same_network_between_quantize_and_dequantize(arch: object) -> None:
    """Operators keep their order, names and shapes; the file still takes and gives float32."""
    plain = graph_of(NARROW, arch)  # type: ignore[arg-type]  # parametrize knows no types
    first, *inner, last = int8_graph(plain).nodes
    assert (first.op.key, first.inputs) == ("quantize;int8;in=1x28x28x1", (INPUT,))
    assert (last.op.key, last.inputs) == ("dequantize;int8;in=1x10", (inner[-1].name,))
    for node, original in zip(inner, plain.nodes, strict=True):
        assert (node.name, node.out_shape) == (original.name, original.out_shape)
        assert node.op.dtype == "int8"
        assert node.op.key.replace("int8", "float32") == original.op.key
        assert node.inputs == tuple("quantize" if name == INPUT else name for name in original.inputs)
    assert int8_graph(plain).macs == plain.macs


def test_a_node_is_a_frozen_value() -> None:
    """Equal nodes are equal, and none changes after it was made."""
    node: Node = graph_of_op(OpSpec.parse("mean;float32;in=1x7x7x4")).nodes[0]
    with pytest.raises(AttributeError):
        node.name = "other"  # type: ignore[misc]  # that it is refused is the point
