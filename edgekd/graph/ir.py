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

from latency_tables import shapes
from latency_tables.op_spec import WEIGHTED_KINDS, OpSpec, TensorSpec

output_shapes, padded_shape = shapes.output_shapes, shapes.padded_shape  # a graph's shapes are those of its operators

INPUT = "input"
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph. `name` is a dotted path, such as block3.layer0.expand, unique in its graph.

    `inputs` name what stands at each place of the operator's inputs: INPUT, another node (its second output as NAME:1),
    or CONSTANT. `out_shape` is that of the first output.
    """

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


def macs_of(node: Node) -> int:
    """Count an operator's multiply-accumulates; operators without weights count none."""
    op = node.op
    if op.kind not in WEIGHTED_KINDS:
        return 0
    if op.kind == "transpose_conv":  # every input meets every weight of its channel
        return math.prod(op.inputs[0].shape[:-1]) * math.prod(op.weight_shape)
    a_output = math.prod(op.weight_shape[1:3]) if op.kind == "depthwise_conv_2d" else math.prod(op.weight_shape[1:])
    return math.prod(node.out_shape) * a_output


def out_shape_of(op: OpSpec) -> tuple[int, ...]:
    """Derive the shape of an operator's only, or first, output.

    Raises:
        ValueError: it follows neither from the operator's inputs nor from its key.

    """
    return output_shapes(op)[0]


# the type of an operator's activations, by its dtype
ACTIVATION_DTYPES = {
    "float32": "float32",
    "float16": "float32",
    "dynamic_int8": "float32",
    "int8": "int8",
    "uint8": "uint8",
}


def output_dtype(op: OpSpec) -> str:
    """Give the type that an operator's outputs have unless its key says otherwise: that of its first activation."""
    if op.kind == "dequantize":
        return "float32"
    activations = [tensor.dtype for tensor in op.inputs if not tensor.constant] or [op.inputs[0].dtype]
    own = ACTIVATION_DTYPES[op.dtype]
    return own if op.kind == "quantize" else activations[0] or own


def output_names(node: Node) -> list[str]:
    """Name an operator's outputs as other nodes' inputs do: the first as the node itself, then name:1, name:2."""
    return [node.name, *(f"{node.name}:{number}" for number in range(1, len(output_shapes(node.op))))]


CONSTANT = "constant"  # a node's input that is part of the model: its key's values, or else the layer's weights


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
