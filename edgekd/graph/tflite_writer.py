"""Writes a Graph with its weights as a .tflite file, directly as a flatbuffer; float32 or full int8.

The same writer makes the micro-models that are measured and the student that ships, so what is in the table is what
runs. Does not choose value ranges (export/quantize.py) and does not read files (tflite_reader.py).
Source: the TFLite schema (version 3) and TensorFlow Lite's 8-bit quantization specification.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgekd.graph.ir import CONSTANT, INPUT, WEIGHTED_KINDS, FloatArray, Graph, Node, Parameters
from edgekd.graph.quantization import QParams, Ranges, quantize_weights, tensor_qparams

_ALIGNMENT = 16  # bytes; the runtime maps weights in place
_MAX_BIAS_CODE = 1 << 30  # half of int32, so that adding products cannot overflow either
_INPUT_NAME, _OUTPUT_NAME = "image", "logits"

# builtin code and operator version by dtype; a version too low makes older runtimes read the file wrongly
_BUILTIN: dict[str, tuple[int, dict[str, int]]] = {
    "conv_2d": (schema.BuiltinOperator.CONV_2D, {"float32": 1, "int8": 3}),
    "depthwise_conv_2d": (schema.BuiltinOperator.DEPTHWISE_CONV_2D, {"float32": 1, "int8": 3}),
    "fully_connected": (schema.BuiltinOperator.FULLY_CONNECTED, {"float32": 1, "int8": 4}),
    "average_pool_2d": (schema.BuiltinOperator.AVERAGE_POOL_2D, {"float32": 1, "int8": 2}),
    "mean": (schema.BuiltinOperator.MEAN, {"float32": 1, "int8": 2}),
    "add": (schema.BuiltinOperator.ADD, {"float32": 1, "int8": 2}),
    "mul": (schema.BuiltinOperator.MUL, {"float32": 1, "int8": 2}),
    "logistic": (schema.BuiltinOperator.LOGISTIC, {"float32": 1, "int8": 2}),
    "quantize": (schema.BuiltinOperator.QUANTIZE, {"int8": 1}),
    "dequantize": (schema.BuiltinOperator.DEQUANTIZE, {"int8": 2}),
}
_ACTIVATION = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_PADDING = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
_TENSOR_TYPE = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}

Array = npt.NDArray[Any]


def write_tflite(graph: Graph, parameters: Parameters, ranges: Ranges | None = None) -> bytes:
    """Write one file. `ranges` are needed where the graph holds int8 operators.

    The file has one signature, serving_default, from `image` to `logits`.
    """
    qparams = tensor_qparams(graph, ranges) if ranges is not None else {}
    model = _Model()
    first_dtype = _input_dtype(graph)
    input_qparams = qparams.get(INPUT) if first_dtype == np.int8 else None
    model.activation(INPUT, _INPUT_NAME, graph.input_shape, first_dtype, input_qparams)
    for node in graph.nodes:
        _add_node(model, node, parameters, qparams)
    return model.finish(graph.nodes[-1].name)


def _input_dtype(graph: Graph) -> np.dtype[Any]:
    first = graph.nodes[0].op
    return np.dtype(np.int8) if first.dtype == "int8" and first.kind != "quantize" else np.dtype(np.float32)


def _add_node(model: _Model, node: Node, parameters: Parameters, qparams: dict[str, QParams]) -> None:
    op = node.op
    is_int8 = op.dtype == "int8" and op.kind != "dequantize"
    inputs = [
        model.tensors[name] if name != CONSTANT else _constant_operand(model, node, parameters, qparams)
        for name in node.inputs
    ]
    if op.kind in WEIGHTED_KINDS:
        inputs += _weights(model, node, parameters, qparams)
    if op.kind == "mean":
        inputs.append(model.constant(f"{node.name}.axes", np.array([1, 2], np.int32)))
    dtype = np.dtype(np.int8) if is_int8 else np.dtype(np.float32)
    output = model.activation(node.name, node.name, node.out_shape, dtype, qparams[node.name] if is_int8 else None)
    model.operator(op.kind, op.dtype, inputs, output, _options(node))


def _weights(model: _Model, node: Node, parameters: Parameters, qparams: dict[str, QParams]) -> list[int]:
    """Add weight and bias; int8 weights per channel (fully connected: per tensor, which every runtime reads right)."""
    layer = parameters[node.name]
    weight_name, bias_name = f"{node.name}.weight", f"{node.name}.bias"
    if node.op.dtype == "float32":
        return [model.constant(weight_name, layer.weight), model.constant(bias_name, layer.bias)]
    axis = {"conv_2d": 0, "depthwise_conv_2d": 3}.get(node.op.kind)
    input_scale = qparams[node.inputs[0]].scale
    min_scale = (np.abs(layer.bias) / input_scale / _MAX_BIAS_CODE).astype(np.float32)
    codes, weight_q = quantize_weights(layer.weight, axis, min_scale if axis is not None else float(min_scale.max()))
    bias_scale = (input_scale * weight_q.scale).astype(np.float32)
    bias = np.round(layer.bias / bias_scale).astype(np.int32)
    return [model.constant(weight_name, codes, weight_q), model.constant(bias_name, bias, QParams(bias_scale, 0))]


def _constant_operand(model: _Model, node: Node, parameters: Parameters, qparams: dict[str, QParams]) -> int:
    """Add the constant second operand of a measured ADD or MUL, with its input's quantisation in int8."""
    values: FloatArray = parameters[node.name].weight
    if node.op.dtype == "float32":
        return model.constant(f"{node.name}.operand", values)
    q = qparams[INPUT]
    codes = np.clip(np.round(values / q.scale[0]) + q.zero_point, -128, 127).astype(np.int8)
    return model.constant(f"{node.name}.operand", codes, q)


def _options(node: Node) -> tuple[int, Any]:
    """Give the union type and the option object of a builtin operator."""
    op, kinds = node.op, schema.BuiltinOptions
    if op.kind in ("conv_2d", "depthwise_conv_2d", "average_pool_2d"):
        return _window_options(node)
    if op.kind == "mean":
        reducer = schema.ReducerOptionsT()
        reducer.keepDims = True
        return kinds.ReducerOptions, reducer
    plain = {
        "fully_connected": (kinds.FullyConnectedOptions, schema.FullyConnectedOptionsT),
        "add": (kinds.AddOptions, schema.AddOptionsT),
        "mul": (kinds.MulOptions, schema.MulOptionsT),
    }
    if op.kind in plain:
        kind, make = plain[op.kind]
        options = make()
        options.fusedActivationFunction = _ACTIVATION[op.act]
        return kind, options
    return kinds.NONE, None


def _window_options(node: Node) -> tuple[int, Any]:
    op, kinds = node.op, schema.BuiltinOptions
    options: Any
    if op.kind == "average_pool_2d":
        kind, options = kinds.Pool2DOptions, schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth = op.kernel
    else:
        is_conv = op.kind == "conv_2d"
        kind = kinds.Conv2DOptions if is_conv else kinds.DepthwiseConv2DOptions
        options = schema.Conv2DOptionsT() if is_conv else schema.DepthwiseConv2DOptionsT()
        options.dilationHFactor, options.dilationWFactor = op.dilation
        if not is_conv:
            options.depthMultiplier = op.out_channels // op.inputs[0].shape[3]
    options.padding = _PADDING[op.padding]
    options.strideH, options.strideW = op.stride
    options.fusedActivationFunction = _ACTIVATION[op.act]
    return kind, options


@dataclass
class _Model:
    """Collects tensors, buffers and operators, then packs them."""

    tensors: dict[str, int] = field(default_factory=dict)  # graph name → tensor index
    _packed: list[Any] = field(default_factory=list)
    _buffers: list[_AlignedBuffer] = field(
        default_factory=lambda: [_AlignedBuffer(b"")]
    )  # the schema wants buffer 0 empty
    _codes: dict[tuple[str, str], int] = field(default_factory=dict)
    _operators: list[Any] = field(default_factory=list)

    def activation(
        self, name: str, label: str, shape: tuple[int, ...], dtype: np.dtype[Any], qparams: QParams | None
    ) -> int:
        """Add a tensor without data; its batch may be resized."""
        self.tensors[name] = self._tensor(label, shape, dtype, qparams)
        self._packed[-1].shapeSignature = [-1, *shape[1:]]
        return self.tensors[name]

    def constant(self, label: str, values: Array, qparams: QParams | None = None) -> int:
        """Add a tensor with data."""
        index = self._tensor(label, values.shape, values.dtype, qparams)
        self._packed[-1].buffer = len(self._buffers)
        self._buffers.append(_AlignedBuffer(np.ascontiguousarray(values).tobytes()))
        return index

    def operator(self, kind: str, dtype: str, inputs: list[int], output: int, options: tuple[int, Any]) -> None:
        """Add an operator in execution order."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((kind, dtype), len(self._codes))
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = options
        self._operators.append(operator)

    def finish(self, output: str) -> bytes:
        """Pack everything into the file's bytes; the same graph and weights give the same bytes."""
        model = schema.ModelT()
        model.version = 3
        model.description = "edgekd"
        model.operatorCodes = [_operator_code(kind, dtype) for kind, dtype in self._codes]
        model.subgraphs = [self._subgraph(output)]
        model.buffers = self._buffers
        model.signatureDefs = [self._signature(output)]
        builder = flatbuffers.Builder(1024 + sum(len(buffer.data) for buffer in self._buffers))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, label: str, shape: tuple[int, ...], dtype: np.dtype[Any], qparams: QParams | None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = label, list(shape), _TENSOR_TYPE[dtype]
        tensor.buffer = 0
        if qparams is not None:
            tensor.quantization = _quantization(qparams)
        self._packed.append(tensor)
        return len(self._packed) - 1

    def _subgraph(self, output: str) -> Any:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._packed, self._operators
        graph.inputs, graph.outputs = [self.tensors[INPUT]], [self.tensors[output]]
        graph.name = "main"
        return graph

    def _signature(self, output: str) -> Any:
        signature = schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        signature.inputs = [_tensor_map(_INPUT_NAME, self.tensors[INPUT])]
        signature.outputs = [_tensor_map(_OUTPUT_NAME, self.tensors[output])]
        signature.subgraphIndex = 0
        return signature


def _operator_code(kind: str, dtype: str) -> Any:
    number, versions = _BUILTIN[kind]
    code = schema.OperatorCodeT()
    code.builtinCode = number
    code.deprecatedBuiltinCode = min(number, 127)  # readers from before the field was widened look here
    code.version = versions[dtype]
    return code


def _quantization(qparams: QParams) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = qparams.scale.astype(np.float32)
    quantization.zeroPoint = np.full(len(qparams.scale), qparams.zero_point, np.int64)
    quantization.quantizedDimension = qparams.axis
    return quantization


def _tensor_map(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


@dataclass(frozen=True)
class _AlignedBuffer:
    """A weight buffer. The generated code ignores the schema's force_align, so the vector is aligned here."""

    data: bytes

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - the generated ModelT.Pack calls it by this name
        """Write the table, with its data on a 16-byte boundary."""
        if not self.data:
            schema.BufferStart(builder)
            return int(schema.BufferEnd(builder))
        builder.StartVector(1, len(self.data), _ALIGNMENT)
        builder.head = int(builder.head) - len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))
