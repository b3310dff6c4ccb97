"""Micro-models: one operator alone in a .tflite file, with random weights, to be measured on a device.

An operator that is measured together with a pad or an activation stands beside them. The values do not matter to the
time, but they are never zero and activations stay in a normal range. The inverse of tflite_reader.read_ops.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable

import numpy as np

from edgekd.errors import DataError
from edgekd.graph.ir import (
    ACTIVATION_DTYPES,
    CONSTANT,
    INPUT,
    FloatArray,
    Graph,
    LayerWeights,
    Parameters,
    output_shapes,
    padded_shape,
)
from edgekd.graph.quantization import QParams, Ranges, activation_qparams, fixed_qparams, keeps_scale, retyped
from edgekd.graph.tflite_model import Activation, ModelBuilder
from edgekd.graph.tflite_ops import Layer, add_layer
from edgekd.graph.tflite_writer import write_tflite
from latency_tables.op_spec import WEIGHTED_KINDS, OpSpec

_MAX_ELEMENTS = 1 << 27  # of all tensors together, 512 MB of floats; the largest layer of a known CNN has 10^8
_QUANTIZED = ("int8", "uint8", "int16")
_INPUT_RANGE = (-1.0, 1.0)
_POSITIVE = ("rsqrt", "sqrt", "log")  # kinds whose int8 kernels refuse negative inputs


def micro_model(op: OpSpec) -> bytes:
    """Write the .tflite file that holds one operator.

    Raises:
        DataError: the operator cannot be measured alone; the message names it and the reason.

    """
    try:
        _check(op)
        return _single(op)
    except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, struct.error) as error:
        raise DataError(f"operator {op.key} cannot be made into a model of its own: {error}") from error


def _check(op: OpSpec) -> None:
    """See that there is something to measure, of a size that can be made."""
    if op.is_folded:
        raise ValueError("the runtime computes it once, when the model is loaded, so it takes no time of its own")
    if "digest" in dict(op.attributes):
        raise ValueError("its key was too long, so that it does not hold the whole operator")
    if any("subgraph" in name for name, _ in op.attributes):
        raise ValueError("it runs other graphs of its file")
    elements = math.prod(op.weight_shape) + sum(math.prod(tensor.shape) for tensor in op.inputs)
    elements += sum(map(math.prod, output_shapes(op))) + math.prod(padded_shape(op))
    if elements > _MAX_ELEMENTS:
        raise ValueError(f"its tensors have {elements} elements, and at most {_MAX_ELEMENTS} are possible")


def _single(op: OpSpec) -> bytes:
    """Write the operator with an input for each operand that is not constant."""
    model, rng = ModelBuilder(), _generator(op.key)
    variable = dict(op.attributes).get("variable", "").split("_")
    tensors: list[int | None] = []
    for place, tensor in enumerate(op.inputs):
        if tensor.constant:
            tensors.append(None)
            continue
        dtype = tensor.dtype or ("float32" if op.kind == "quantize" else ACTIVATION_DTYPES[op.dtype])
        made = Activation(f"input{place}", tensor.shape, dtype, _input_qparams(op, dtype))
        tensors.append(model.activation(made, is_variable=str(place) in variable))
    weights = _random_layer(op, rng) if op.kind in WEIGHTED_KINDS else None
    layer = Layer("op", op, tuple(tensors), weights, _random_operand(op, rng), _output_qparams(op))
    outputs = add_layer(model, layer)
    inputs = [tensor for place, tensor in enumerate(tensors) if tensor is not None and str(place) not in variable]
    names = {f"input{place}": tensor for place, tensor in enumerate(inputs)}
    return model.finish(names, {f"output{number}": tensor for number, tensor in enumerate(outputs)})


def _input_qparams(op: OpSpec, dtype: str) -> QParams | None:
    if dtype not in _QUANTIZED:
        return None
    return retyped(activation_qparams(0.0 if op.kind in _POSITIVE else _INPUT_RANGE[0], _INPUT_RANGE[1]), dtype)


def _output_qparams(op: OpSpec) -> QParams:
    """Give plausible parameters for the output, as those of int8."""
    is_rescaled = op.kind == "quantize" and op.inputs[0].dtype == op.dtype
    if keeps_scale(op) and not is_rescaled:
        return activation_qparams(*_INPUT_RANGE)
    fixed = fixed_qparams(op.kind) if op.then == "none" else None
    return fixed or activation_qparams(*_plausible_range(op))


def _random_operand(op: OpSpec, rng: np.random.Generator) -> Callable[[int], FloatArray]:
    def values(place: int) -> FloatArray:
        return rng.uniform(0.2, 1, op.inputs[place].shape).astype(np.float32)

    return values


def random_model(graph: Graph) -> bytes:
    """Write a graph with random weights and, in int8, with plausible ranges; the same graph gives the same bytes."""
    ranges = plausible_ranges(graph) if graph.nodes[0].op.dtype == "int8" else None
    return write_tflite(graph, random_parameters(graph), ranges)


def random_parameters(graph: Graph) -> Parameters:
    """Draw weights of about unit gain for every operator that has some."""
    rng = _generator("/".join(op.key for op in graph.ops))
    parameters = {}
    for node in graph.nodes:
        if node.op.kind in WEIGHTED_KINDS:
            parameters[node.name] = _random_layer(node.op, rng)
            continue
        for place, name in enumerate(node.inputs):
            if name == CONSTANT and not node.op.inputs[place].values:
                values = _random_operand(node.op, rng)(place)
                parameters[node.name] = LayerWeights(values, np.zeros(0, np.float32))
    return parameters


def _random_layer(op: OpSpec, rng: np.random.Generator) -> LayerWeights:
    fan_in = max(1, math.prod(op.weight_shape[1:]))
    weight = rng.standard_normal(op.weight_shape, np.float32) * np.float32(fan_in**-0.5)
    return LayerWeights(weight, rng.uniform(0.1, 0.5, op.out_channels).astype(np.float32))


def _generator(seed: str) -> np.random.Generator:
    return np.random.default_rng(np.frombuffer(hashlib.sha256(seed.encode()).digest(), np.uint32))


def plausible_ranges(graph: Graph) -> Ranges:
    """Give every tensor the range that its activation suggests; used where only time is measured."""
    return {INPUT: _INPUT_RANGE} | {node.name: _plausible_range(node.op) for node in graph.nodes}


def _plausible_range(op: OpSpec) -> tuple[float, float]:
    act = op.act if op.then == "none" else op.then
    return {"relu6": (0.0, 6.0), "relu": (0.0, 6.0)}.get(act, (-3.0, 3.0))
