"""Writes one operator of any kind into a model: its constants, itself, and the pad and the activation measured with it.

Whose values the constants have is the caller's choice: trained ones (tflite_writer.py) or random ones (micro.py).
Source: TensorFlow Lite's 8-bit quantization specification; the layout of operands is that of the runtime's kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekd.graph.ir import (
    ACTIVATION_DTYPES,
    FloatArray,
    LayerWeights,
    output_dtype,
    output_shapes,
    padded_shape,
)
from edgekd.graph.quantization import QParams, activation_qparams, fixed_qparams, keeps_scale, quantize_weights, retyped
from edgekd.graph.tflite_model import Activation, Array, ModelBuilder
from edgekd.graph.tflite_options import custom_of, operator_code, options_of
from edgekd.graph.tflite_schema import NUMPY_TYPES, Options
from latency_tables.op_spec import WEIGHTED_KINDS, OpSpec, TensorSpec

_MAX_BIAS_CODE = 1 << 30  # half of int32, so that adding products cannot overflow either
_CHANNEL_AXIS = {"conv_2d": 0, "depthwise_conv_2d": 3, "transpose_conv": 0}  # fully connected: one scale a tensor
_QUANTIZED = ("int8", "uint8", "int16")


@dataclass(frozen=True, slots=True)
class Layer:
    """An operator to be written, and what fills it.

    `inputs` has a tensor for each of the operator's inputs, or None where it is a constant; `operand` gives the values
    of a float constant at a place; `qparams` belong to the outputs.
    """

    name: str
    op: OpSpec
    inputs: tuple[int | None, ...]
    weights: LayerWeights | None
    operand: Callable[[int], FloatArray]
    qparams: QParams | None = None


def add_layer(model: ModelBuilder, layer: Layer) -> list[int]:
    """Add an operator with all that is measured with it, and give its outputs.

    Raises:
        ValueError: no such operator can be written; the message says why.

    """
    op = layer.op
    inputs = [_operand(model, layer, place) if tensor is None else tensor for place, tensor in enumerate(layer.inputs)]
    if op.pad:
        inputs[0] = _add_pad(model, layer, inputs[0])
    inputs = _with_implied(model, layer, inputs)
    outputs = _outputs(model, layer, inputs)
    if op.kind == "custom":
        model.custom_operator(*custom_of(op), inputs, outputs)
    else:
        model.operator(operator_code(op), inputs, outputs, options_of(op))
    if op.then != "none":
        outputs = [_add_activation(model, layer, outputs)]
    return outputs


def _outputs(model: ModelBuilder, layer: Layer, inputs: Sequence[int]) -> list[int]:
    """Add the outputs of the operator itself, before the activation that may follow."""
    op = layer.op
    name = layer.name if op.then == "none" else f"{layer.name}.before"
    shapes = output_shapes(op)
    spelled = dict(op.attributes).get("outs")
    dtypes = spelled.split("_") if spelled else [output_dtype(op)] * len(shapes)
    return [
        model.activation(
            Activation(name if number == 0 else f"{name}:{number}", shape, dtype, _scale(model, layer, inputs, dtype))
        )
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    ]


def _scale(model: ModelBuilder, layer: Layer, inputs: Sequence[int], dtype: str) -> QParams | None:
    """Give the operator's own output scale: what its kind asks for, or the range that the activation then cuts."""
    if layer.qparams is None or dtype not in _QUANTIZED:
        return None
    alone = replace(layer.op, then="none")
    if alone == layer.op:
        return retyped(layer.qparams, dtype)
    sources = [model.qparams[tensor] for tensor in inputs if tensor in model.qparams]
    if keeps_scale(alone) and sources:
        return sources[0]
    high = float(layer.qparams.scale[0]) * (127 - layer.qparams.zero_point)
    return retyped(fixed_qparams(alone.kind) or activation_qparams(-high, high), dtype)


def _add_pad(model: ModelBuilder, layer: Layer, source: int) -> int:
    """Add a PAD of zeros around the picture."""
    top, bottom, left, right = layer.op.pad
    dtype = model.dtype_of(source)
    amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    paddings = model.constant(f"{layer.name}.paddings", amounts)
    output = model.activation(
        Activation(f"{layer.name}.padded", padded_shape(layer.op), dtype, model.qparams.get(source))
    )
    pad = OpSpec("pad", (TensorSpec(layer.op.inputs[0].shape),), dtype)
    model.operator(operator_code(pad), [source, paddings], [output], options_of(pad))
    return output


def _add_activation(model: ModelBuilder, layer: Layer, sources: Sequence[int]) -> int:
    if len(sources) != 1:
        raise ValueError(f"an activation after {len(sources)} outputs is none of a pair")
    shape, dtype = output_shapes(layer.op)[0], model.dtype_of(sources[0])
    act = OpSpec(layer.op.then, (TensorSpec(shape),), dtype)
    qparams = retyped(layer.qparams, dtype) if layer.qparams is not None and dtype in _QUANTIZED else None
    output = model.activation(Activation(layer.name, shape, dtype, qparams))
    model.operator(operator_code(act), sources, [output], options_of(act))
    return output


def _with_implied(model: ModelBuilder, layer: Layer, inputs: list[int]) -> list[int]:
    """Put operands that the key implies beside those that it names, in the kernels' order."""
    op = layer.op
    if op.kind in WEIGHTED_KINDS:
        weight, bias = _weights(model, layer, inputs)
        if op.kind == "transpose_conv":
            shape = model.constant(f"{layer.name}.shape", np.array(output_shapes(op)[0], np.int32))
            return [shape, weight, inputs[0], bias]
        return [inputs[0], weight, bias]
    if op.kind == "mean" and not op.out:
        return [*inputs, model.constant(f"{layer.name}.axes", np.array([1, 2], np.int32))]
    absent = dict(op.attributes).get("absent", "")
    for place in map(int, filter(None, absent.split("_"))):
        inputs.insert(place, -1)
    return inputs


def _weights(model: ModelBuilder, layer: Layer, inputs: list[int]) -> tuple[int, int]:
    """Add weight and bias; int8 weights per channel (fully connected: per tensor, which every runtime reads right)."""
    op, name, values = layer.op, layer.name, layer.weights
    if values is None:
        raise ValueError(f"the weights of {name} are missing")
    if "weights" in dict(op.attributes):
        raise ValueError(f"weights of {dict(op.attributes)['weights']} beside such activations cannot be made")
    if len(inputs) > 1:
        return inputs[1], _bias(model, layer, inputs[0], model.qparams.get(inputs[1]))
    if op.dtype in ("float32", "float16"):
        weight = _float(model, op.dtype, f"{name}.weight", values.weight)
        return weight, _float(model, op.dtype, f"{name}.bias", values.bias)
    axis = _CHANNEL_AXIS.get(op.kind) if op.dtype != "uint8" else None
    floor: Any = 0.0
    if op.dtype != "dynamic_int8":
        floor = (np.abs(values.bias) / model.qparams[inputs[0]].scale / _MAX_BIAS_CODE).astype(np.float32)
        floor = floor if axis is not None else float(floor.max())
    codes, weight_q = quantize_weights(values.weight, axis, floor)
    if op.dtype == "uint8":
        codes, weight_q = (codes.astype(np.int16) + 128).astype(np.uint8), retyped(weight_q, "uint8")
    weight = model.constant(f"{name}.weight", codes, weight_q)
    return weight, _bias(model, layer, inputs[0], weight_q)


def _bias(model: ModelBuilder, layer: Layer, data: int, weight_q: QParams | None) -> int:
    """Add the bias: float beside float activations, else whole numbers in the products' scale."""
    values = layer.weights
    if values is None or weight_q is None or data not in model.qparams:
        return model.constant(f"{layer.name}.bias", np.zeros(0, np.float32) if values is None else values.bias)
    scale = (model.qparams[data].scale * weight_q.scale).astype(np.float32)
    wide = np.int64 if model.dtype_of(data) == "int16" else np.int32
    codes = np.round(values.bias / scale).astype(wide)
    return model.constant(f"{layer.name}.bias", codes, QParams(scale, 0))


def _float(model: ModelBuilder, dtype: str, label: str, values: FloatArray) -> int:
    """Add a float constant; float16 ones lie behind a DEQUANTIZE, which the runtime computes at loading."""
    if dtype != "float16":
        return model.constant(label, values)
    stored = model.constant(f"{label}.stored", values.astype(np.float16))
    output = model.activation(Activation(label, values.shape, "float32"))
    unpack = OpSpec("dequantize", (TensorSpec(values.shape, constant=True, dtype="float16"),), "float32")
    model.operator(operator_code(unpack), [stored], [output], Options())
    return output


def _operand(model: ModelBuilder, layer: Layer, place: int) -> int:
    """Add a constant operand: what its key says, else the layer's values in the operand's type."""
    op, tensor = layer.op, layer.op.inputs[place]
    label, dtype = f"{layer.name}.operand{place}", tensor.dtype or ACTIVATION_DTYPES[op.dtype]
    if tensor.values:
        return model.constant(label, np.array(tensor.values, NUMPY_TYPES[dtype]).reshape(tensor.shape))
    if dtype == "float32":
        return _float(model, op.dtype, label, layer.operand(place))
    if dtype in ("float16", "float64"):
        return model.constant(label, layer.operand(place).astype(NUMPY_TYPES[dtype]))
    if dtype == "int8" and op.dtype == "dynamic_int8":
        codes, q = quantize_weights(layer.operand(place), None)
        return model.constant(label, codes, q)
    if dtype in _QUANTIZED:
        return _quantized_operand(model, layer, place, dtype)
    return model.constant(label, _indices(op, tensor).astype(NUMPY_TYPES[dtype]))


def _quantized_operand(model: ModelBuilder, layer: Layer, place: int, dtype: str) -> int:
    """Add a constant in the scale of the operator's first quantised input."""
    inputs = [tensor for tensor in layer.inputs if tensor is not None and model.dtype_of(tensor) == dtype]
    q = model.qparams[inputs[0]] if inputs else retyped(activation_qparams(-1.0, 1.0), dtype)
    limits = np.iinfo(dtype)
    codes = np.clip(np.round(layer.operand(place) / q.scale[0]) + q.zero_point, limits.min, limits.max)
    return model.constant(f"{layer.name}.operand{place}", codes.astype(NUMPY_TYPES[dtype]), q)


def _indices(op: OpSpec, tensor: TensorSpec) -> Array:
    """Make whole numbers that are valid positions along any dimension of the operator's other inputs."""
    others = [other.shape for other in op.inputs if other is not tensor and other.shape]
    limit = min((min(shape) for shape in others), default=1)
    return np.arange(math.prod(tensor.shape)).reshape(tensor.shape) % limit
