"""Writes a Graph with its weights as a .tflite file, directly as a flatbuffer; float32 or full int8.

The operators are written as those of the micro-models that are measured (tflite_ops.py), so what is in the table is
what runs. Does not choose value ranges (export/quantize.py) and does not read files (tflite_reader.py).
"""

from __future__ import annotations

from collections.abc import Callable

from edgekd.graph.ir import CONSTANT, INPUT, FloatArray, Graph, LayerWeights, Node, Parameters, output_names
from edgekd.graph.quantization import Ranges, tensor_qparams
from edgekd.graph.tflite_model import Activation, ModelBuilder
from edgekd.graph.tflite_ops import Layer, add_layer

_INPUT_NAME, _OUTPUT_NAME = "image", "logits"


def write_tflite(graph: Graph, parameters: Parameters, ranges: Ranges | None = None) -> bytes:
    """Write one file. `ranges` are needed where the graph holds int8 operators.

    The file has one signature, serving_default, from `image` to `logits`.
    """
    qparams = tensor_qparams(graph, ranges) if ranges is not None else {}
    model = ModelBuilder(is_batch_free=True)
    dtype = _input_dtype(graph)
    image = Activation(_INPUT_NAME, graph.input_shape, dtype, qparams.get(INPUT) if dtype == "int8" else None)
    tensors = {INPUT: model.activation(image)}
    for node in graph.nodes:
        inputs = tuple(None if name == CONSTANT else tensors[name] for name in node.inputs)
        weights = parameters.get(node.name)
        layer = Layer(node.name, node.op, inputs, weights, _operand_of(node, weights), qparams.get(node.name))
        tensors |= dict(zip(output_names(node), add_layer(model, layer), strict=True))
    return model.finish({_INPUT_NAME: tensors[INPUT]}, {_OUTPUT_NAME: tensors[graph.nodes[-1].name]})


def _input_dtype(graph: Graph) -> str:
    first = graph.nodes[0].op
    return "int8" if first.dtype == "int8" and first.kind != "quantize" else "float32"


def _operand_of(node: Node, weights: LayerWeights | None) -> Callable[[int], FloatArray]:
    """Give the values of a node's constant operand, which are kept as its weight."""

    def values(place: int) -> FloatArray:
        if weights is None or weights.weight.shape != node.op.inputs[place].shape:
            raise ValueError(f"the constant operand {place} of {node.name} has no values of its shape")
        return weights.weight

    return values
