"""Graphs as values: shapes follow from operators, work is counted, int8 wraps float32."""

from __future__ import annotations

import pytest
from synthetic import NARROW, random_archs

from edgekd.graph.ir import CONSTANT, INPUT, Node, graph_of_op, int8_graph, macs_of, out_shape_of
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
    ],
)
def test_output_shapes_follow_from_the_operator(key: str, shape: tuple[int, ...]) -> None:
    """SAME rounds up, VALID counts whole windows, MEAN keeps its dimensions, MUL broadcasts."""
    assert out_shape_of(OpSpec.parse(key)) == shape


def test_an_operator_that_cannot_be_written_is_named() -> None:
    """The message lists what can be."""
    with pytest.raises(ValueError, match="operator softmax cannot be written; known: conv_2d, "):
        out_shape_of(OpSpec.parse("softmax;float32;in=1x10"))


@pytest.mark.parametrize(
    ("key", "macs"),
    [
        ("conv_2d;float32;in=1x28x28x2;out_channels=8;kernel=3x3;stride=2x2", 14 * 14 * 8 * 9 * 2),
        ("depthwise_conv_2d;float32;in=1x7x7x4;out_channels=4;kernel=5x5", 7 * 7 * 4 * 25),
        ("fully_connected;float32;in=1x1x1x80;out_channels=10", 800),
        ("add;float32;in=1x7x7x4,1x7x7x4", 0),
    ],
)
def test_work_is_counted_in_multiply_accumulates(key: str, macs: int) -> None:
    """By hand: outputs times what each sums up."""
    node = graph_of_op(OpSpec.parse(key)).nodes[0]
    assert macs_of(node) == macs
    assert graph_of_op(OpSpec.parse(key)).macs == macs


def test_a_micro_model_reads_equal_inputs_twice_and_a_smaller_one_as_a_constant() -> None:
    """An ADD of two feature maps has one input; the gate of a squeeze is part of the file."""
    same = graph_of_op(OpSpec.parse("add;float32;in=1x7x7x4,1x7x7x4"))
    assert same.nodes[0].inputs == (INPUT, INPUT)
    gate = graph_of_op(OpSpec.parse("mul;float32;in=1x1x1x4,1x7x7x4"))
    assert gate.nodes[0].inputs == (CONSTANT, INPUT)
    assert gate.input_shape == (1, 7, 7, 4)


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
