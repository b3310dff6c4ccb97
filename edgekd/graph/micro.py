"""Micro-models: one operator alone in a .tflite file, with random weights, to be measured on a device.

The weights' values do not matter to the time, but they are never zero and activations stay in a normal range.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgekd.graph.ir import (
    CONSTANT,
    INPUT,
    WEIGHTED_KINDS,
    Graph,
    LayerWeights,
    Parameters,
    graph_of_op,
)
from edgekd.graph.quantization import Ranges
from edgekd.graph.tflite_writer import write_tflite
from latency_tables.op_spec import OpSpec


def micro_model(op: OpSpec) -> bytes:
    """Write the .tflite file that holds one operator."""
    return random_model(graph_of_op(op))


def random_model(graph: Graph) -> bytes:
    """Write a graph with random weights and, in int8, with plausible ranges; the same graph gives the same bytes."""
    ranges = plausible_ranges(graph) if graph.nodes[0].op.dtype == "int8" else None
    return write_tflite(graph, random_parameters(graph), ranges)


def random_parameters(graph: Graph) -> Parameters:
    """Draw weights of about unit gain for every operator that has some."""
    seed = hashlib.sha256("/".join(op.key for op in graph.ops).encode()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    parameters = {}
    for node in graph.nodes:
        if node.op.kind in WEIGHTED_KINDS:
            shape = node.op.weight_shape
            fan_in = max(1, int(np.prod(shape[1:])))
            weight = rng.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)
            parameters[node.name] = LayerWeights(weight, rng.uniform(0.1, 0.5, node.op.out_channels).astype(np.float32))
        elif CONSTANT in node.inputs:
            operand = min((t.shape for t in node.op.inputs), key=lambda shape: int(np.prod(shape)))
            parameters[node.name] = LayerWeights(
                rng.uniform(0.2, 1, operand).astype(np.float32), np.zeros(0, np.float32)
            )
    return parameters


def plausible_ranges(graph: Graph) -> Ranges:
    """Give every tensor the range that its activation suggests; used where only time is measured."""
    ranges: dict[str, tuple[float, float]] = {INPUT: (-1.0, 1.0)}
    for node in graph.nodes:
        ranges[node.name] = {"relu6": (0.0, 6.0), "relu": (0.0, 6.0)}.get(node.op.act, (-3.0, 3.0))
    return ranges
