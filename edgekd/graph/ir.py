"""A network as a graph: operators (OpSpec) joined by names. One value from which module, table rows and file are made.

A Graph holds no weights (Parameters) and no value ranges (graph/quantization.py), and nothing here runs it. The next
file to read is tflite_writer.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latency_tables.op_spec import OpSpec, TensorSpec

INPUT = "input"
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph. `name` is a dotted path, such as block3.layer0.expand, unique in its graph."""

    name: str
    op: OpSpec
    inputs: tuple[str, ...]
    out_shape: tuple[int, ...]
    norm: bool = False  # batch normalisation follows while training; it is folded into the weights for export


@dataclass(frozen=True, slots=True)
class Graph:
    """Operators in execution order, one input, one output (the last node). Shapes are (1, H, W, C)."""

    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]

    @property
    def ops(self) -> list[OpSpec]:
        """List the operators in execution order, as a latency table knows them."""
        return [node.op for node in self.nodes]

    @property
    def macs(self) -> int:
        """Count the multiply-accumulate operations of one inference."""
        return sum(macs_of(node) for node in self.nodes)


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights in TFLite's layout: conv (out, h, w, in), depthwise (1, h, w, out), fully connected (out, in)."""

    weight: FloatArray
    bias: FloatArray  # (out,)


Parameters = Mapping[str, LayerWeights]

WEIGHTED_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected")


def macs_of(node: Node) -> int:
    """Count an operator's multiply-accumulates; operators without weights count none."""
    if node.op.kind not in WEIGHTED_KINDS:
        return 0
    shape = node.op.weight_shape
    a_output = math.prod(shape[1:3]) if node.op.kind == "depthwise_conv_2d" else math.prod(shape[1:])
    return math.prod(node.out_shape) * a_output


def out_shape_of(op: OpSpec) -> tuple[int, ...]:
    """Derive an operator's output shape from its inputs.

    Raises:
        ValueError: the kind is not one that edgekd writes.

    """
    first = op.inputs[0].shape
    if op.kind in ("conv_2d", "depthwise_conv_2d", "average_pool_2d"):
        spatial = (_windows(first[i + 1], op.kernel[i], op.stride[i], op.padding) for i in (0, 1))
        return (first[0], *spatial, op.out_channels or first[3])
    if op.kind == "mean":
        return (first[0], 1, 1, first[3])
    if op.kind == "fully_connected":
        return (first[0], op.out_channels)
    if op.kind in ("add", "mul"):
        return tuple(int(size) for size in np.broadcast_shapes(*(tensor.shape for tensor in op.inputs)))
    if op.kind in ("logistic", "quantize", "dequantize"):
        return first
    raise ValueError(f"operator {op.kind} cannot be written; known: {', '.join(WRITABLE_KINDS)}")


WRITABLE_KINDS = (
    *WEIGHTED_KINDS,
    "average_pool_2d",
    "mean",
    "add",
    "mul",
    "logistic",
    "quantize",
    "dequantize",
)


def _windows(size: int, kernel: int, stride: int, padding: str) -> int:
    return math.ceil(size / stride) if padding == "same" else (size - kernel) // stride + 1


def graph_of_op(op: OpSpec) -> Graph:
    """Make the graph that holds one operator alone, the micro-model by which it is measured.

    An operator of two equal inputs reads the graph's input twice; a broadcast one gets its smaller input, such as the
    gate of squeeze-and-excitation, as a constant.
    """
    largest = max((tensor.shape for tensor in op.inputs), key=math.prod)
    inputs = tuple(INPUT if tensor.shape == largest else CONSTANT for tensor in op.inputs)
    return Graph(largest, (Node("op", op, inputs, out_shape_of(op)),))


CONSTANT = "constant"  # a node's input that the writer fills with the layer's weights


def graph_in(graph: Graph, dtype: str) -> Graph:
    """Give the graph that a file of this dtype holds, from the float32 one."""
    return int8_graph(graph) if dtype == "int8" else graph


def int8_graph(graph: Graph) -> Graph:
    """Give the full-int8 form: the same operators in int8 between a QUANTIZE and a DEQUANTIZE, so that the
    file takes and gives float32 as the others do.
    """
    quantize = Node("quantize", _op("quantize", graph.input_shape), (INPUT,), graph.input_shape)
    rename = {INPUT: quantize.name}
    inner = tuple(
        replace(
            node,
            op=replace(node.op, dtype="int8"),
            inputs=tuple(rename.get(name, name) for name in node.inputs),
        )
        for node in graph.nodes
    )
    last = inner[-1]
    dequantize = Node("dequantize", _op("dequantize", last.out_shape), (last.name,), last.out_shape)
    return Graph(graph.input_shape, (quantize, *inner, dequantize))


def _op(kind: str, shape: tuple[int, ...]) -> OpSpec:
    return OpSpec(kind=kind, inputs=(TensorSpec(shape),), dtype="int8")
