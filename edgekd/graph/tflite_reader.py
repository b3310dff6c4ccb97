"""Reads a .tflite file back into operators (OpSpec), the inverse of the writer as far as a latency table cares.

It knows the operators that edgekd writes and refuses others by name; weights and value ranges are not read. The file
is distrusted: every index is checked.
"""

from __future__ import annotations

import struct
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgekd.errors import DataError
from edgekd.graph.ir import WEIGHTED_KINDS
from latency_tables.errors import OpSyntaxError
from latency_tables.op_spec import OpSpec, TensorSpec

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
_ACTIVATION = {
    schema.ActivationFunctionType.NONE: "none",
    schema.ActivationFunctionType.RELU: "relu",
    schema.ActivationFunctionType.RELU6: "relu6",
}
_PADDING = {schema.Padding.SAME: "same", schema.Padding.VALID: "valid"}
_KNOWN = (*WEIGHTED_KINDS, "average_pool_2d", "mean", "add", "mul", "logistic", "quantize", "dequantize")


def read_ops(content: bytes) -> list[OpSpec]:
    """List the operators of a .tflite file in execution order.

    Raises:
        DataError: the bytes are no .tflite file, are damaged, or hold an operator that edgekd does not know.

    """
    if content[4:8] != b"TFL3":
        raise DataError("not a .tflite file: the identifier TFL3 is missing")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0]
        # a damaged number may still make an OpSpec, but not one whose key can be read again
        return [OpSpec.parse(_op(model, graph, operator).key) for operator in graph.operators]
    except (struct.error, LookupError, TypeError, AttributeError, ArithmeticError, ValueError, OpSyntaxError) as error:
        raise DataError(f"a damaged .tflite file ({type(error).__name__}: {error})") from error


def _op(model: Any, graph: Any, operator: Any) -> OpSpec:
    kind = _kind(model, operator)
    options = operator.builtinOptions
    tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
    output = graph.tensors[_checked_index(operator.outputs[0])]
    inputs = tensors[:1] if kind in (*WEIGHTED_KINDS, "mean") else tensors
    fields: dict[str, Any] = {}
    if kind in WEIGHTED_KINDS:
        fields["out_channels"] = int(output.shape[-1])
    if kind in ("conv_2d", "depthwise_conv_2d"):
        fields |= _conv_fields(kind, tensors, options)
    if kind == "average_pool_2d":
        fields["kernel"] = (int(options.filterHeight), int(options.filterWidth))
    if kind in ("conv_2d", "depthwise_conv_2d", "average_pool_2d"):
        fields["stride"] = (int(options.strideH), int(options.strideW))
        fields["padding"] = _PADDING[options.padding]
    if hasattr(options, "fusedActivationFunction"):
        fields["act"] = _ACTIVATION[options.fusedActivationFunction]
    return OpSpec(kind, tuple(_tensor(model, t) for t in inputs), _dtype(kind, tensors, output), **fields)


def _checked_index(index: int) -> int:
    if index < 0:
        raise IndexError(f"tensor {index}")  # Python would count from the end
    return index


def _kind(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = str(_NAMES.get(number, number)).lower()
    if name not in _KNOWN:
        raise DataError(f"operator {name.upper()} is not one that edgekd knows; known: {', '.join(_KNOWN)}")
    return name


def _conv_fields(kind: str, tensors: list[Any], options: Any) -> dict[str, Any]:
    weight = [int(n) for n in tensors[1].shape]  # (out, h, w, in) or (1, h, w, out)
    groups = 1 if kind == "depthwise_conv_2d" else int(tensors[0].shape[3]) // weight[3]
    dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
    return {"kernel": (weight[1], weight[2]), "dilation": dilation, "groups": groups}


def _tensor(model: Any, tensor: Any) -> TensorSpec:
    data = model.buffers[tensor.buffer].data
    return TensorSpec(tuple(int(n) for n in tensor.shape), constant=data is not None and len(data) > 0)


def _dtype(kind: str, tensors: list[Any], output: Any) -> str:
    typed = output if kind == "quantize" else tensors[0]
    types = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT8: "int8"}
    if typed.type not in types:
        raise DataError(f"operator {kind} works on tensor type {typed.type}; edgekd knows float32 and int8")
    return types[typed.type]
