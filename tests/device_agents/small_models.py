"""Small .tflite models for tests of runtimes: one operator or a few, with what makes each of them special."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_OPERATOR = schema.BuiltinOperator
_OPTIONS = schema.BuiltinOptions


def subtraction(count: int, *, reversed_signature: bool = False) -> bytes:
    """Build left - right over float32; its signature may name the inputs the other way round."""
    graph = _graph([("left", count), ("right", count), ("difference", count)], [0, 1], [2])
    graph.operators = [_operator(0, [0, 1], [2], _OPTIONS.SubOptions, schema.SubOptionsT())]
    signatures = [_signature([("right", 1), ("left", 0)], [("difference", 2)])] if reversed_signature else []
    return _model(graph, [_OPERATOR.SUB], [schema.BufferT()], signatures)


def mixed_kernels(count: int) -> bytes:
    """Build (left + right) mod right + right: XNNPACK has no FLOOR_MOD, the runtime's own kernel has."""
    graph = _graph([(name, count) for name in ("left", "right", "sum", "rest", "end")], [0, 1], [4])
    add, modulo = schema.AddOptionsT(), schema.FloorModOptionsT()
    graph.operators = [
        _operator(0, [0, 1], [2], _OPTIONS.AddOptions, add),
        _operator(1, [2, 1], [3], _OPTIONS.FloorModOptions, modulo),
        _operator(0, [3, 1], [4], _OPTIONS.AddOptions, add),
    ]
    return _model(graph, [_OPERATOR.ADD, _OPERATOR.FLOOR_MOD], [schema.BufferT()])


def remainder(count: int, divisor: float) -> bytes:
    """Build input mod divisor over float32; a divisor of 1.5e-38 leaves denormal numbers.

    The runtime's own kernel does it: XNNPACK takes denormal numbers for zero.
    """
    graph = _graph([("input", count), ("divisor", count), ("output", count)], [0], [2])
    graph.tensors[1].buffer = 1
    graph.operators = [_operator(0, [0, 1], [2], _OPTIONS.FloorModOptions, schema.FloorModOptionsT())]
    constant = schema.BufferT()
    constant.data = np.full(count, divisor, np.float32).view(np.uint8)
    return _model(graph, [_OPERATOR.FLOOR_MOD], [schema.BufferT(), constant])


def _graph(tensors: list[tuple[str, int]], inputs: list[int], outputs: list[int]) -> schema.SubGraphT:
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(name, count) for name, count in tensors]
    graph.inputs, graph.outputs = inputs, outputs
    return graph


def _tensor(name: str, count: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, count], schema.TensorType.FLOAT32, 0
    return tensor


def _operator(code: int, inputs: list[int], outputs: list[int], kind: int, options: object) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    operator.builtinOptionsType, operator.builtinOptions = kind, options
    return operator


def _signature(inputs: list[tuple[str, int]], outputs: list[tuple[str, int]]) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_named(*pair) for pair in inputs], [_named(*pair) for pair in outputs]
    return signature


def _named(name: str, index: int) -> schema.TensorMapT:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, index
    return named


def _model(
    graph: schema.SubGraphT,
    operators: list[int],
    buffers: list[schema.BufferT],
    signatures: list[schema.SignatureDefT] | None = None,
) -> bytes:
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], buffers
    model.signatureDefs = signatures or None
    model.operatorCodes = [_code(operator) for operator in operators]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _code(operator: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, min(operator, 127), 1
    return code
