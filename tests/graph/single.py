"""Small graphs and files for tests of the writer and the reader."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekd.graph.ir import CONSTANT, INPUT, Graph, LayerWeights, Node, out_shape_of
from edgekd.graph.tflite_model import Activation, ModelBuilder
from edgekd.graph.tflite_ops import Layer, add_layer
from latency_tables.op_spec import OpSpec


def graph_of_op(op: OpSpec) -> Graph:
    """Make the graph of one operator; of two inputs of different sizes the smaller one is a constant."""
    largest = max((tensor.shape for tensor in op.inputs), key=math.prod)
    inputs = tuple(INPUT if tensor.shape == largest else CONSTANT for tensor in op.inputs)
    return Graph(largest, (Node("op", op, inputs, out_shape_of(op)),))


def file_of(*steps: tuple[str, str, str], outputs: str = "") -> bytes:
    """Write a float file of operators, each as (key, its inputs by name, its own name).

    Names that nobody makes are the file's inputs, `-` is a constant. `outputs` is the last operator unless named.
    """
    model, tensors, made = ModelBuilder(), {}, {}
    for key, names, name in steps:
        op = OpSpec.parse(key)
        for tensor, source in zip(op.inputs, names.split(), strict=True):
            if source != "-" and source not in tensors:
                made[source] = model.activation(Activation(source, tensor.shape, tensor.dtype or "float32"))
                tensors[source] = made[source]
        places = tuple(None if source == "-" else tensors[source] for source in names.split())
        rng = np.random.default_rng(0)
        weights = LayerWeights(*(rng.standard_normal(s, np.float32) for s in (op.weight_shape, op.out_channels)))
        layer = Layer(name, op, places, weights, lambda place, op=op: np.full(op.inputs[place].shape, 0.5, np.float32))
        found = add_layer(model, layer)
        tensors |= {name: found[0]} | {f"{name}:{number}": tensor for number, tensor in enumerate(found)}
    wanted = outputs.split() or [steps[-1][2]]
    return model.finish(made, {f"out{number}": tensors[name] for number, name in enumerate(wanted)})


def changed(content: bytes, change: Callable[[Any], None]) -> bytes:
    """Change a file by its object form."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
