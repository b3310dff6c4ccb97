"""Collects tensors, buffers and operators of one .tflite file and packs them as a flatbuffer.

It knows nothing of what an operator means (tflite_ops.py) or of networks (tflite_writer.py).
Source: the TFLite schema, version 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgekd.graph.quantization import QParams
from edgekd.graph.tflite_schema import CUSTOM, NUMPY_TYPES, TENSOR_TYPES, TYPE_NAMES, Options

_ALIGNMENT = 16  # bytes; the runtime maps weights in place
_NAMES_BY_TYPE = {dtype: name for name, dtype in NUMPY_TYPES.items()}

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor without data."""

    label: str
    shape: tuple[int, ...]
    dtype: str
    qparams: QParams | None = None


@dataclass
class ModelBuilder:
    """Collects what a file holds; tensors are known by their index."""

    is_batch_free: bool = False  # the first dimension of activations may be resized
    qparams: dict[int, QParams] = field(default_factory=dict)  # of quantised tensors
    _tensors: list[Any] = field(default_factory=list)
    # the schema wants buffer 0 empty
    _buffers: list[_AlignedBuffer] = field(default_factory=lambda: [_AlignedBuffer(b"")])
    _codes: dict[tuple[int, int, str], int] = field(default_factory=dict)  # number, version, a custom one's name
    _operators: list[Any] = field(default_factory=list)

    def activation(self, tensor: Activation, *, is_variable: bool = False) -> int:
        """Add a tensor without data; a variable one keeps its values from one inference to the next."""
        index = self._tensor(tensor)
        self._tensors[index].isVariable = is_variable
        if self.is_batch_free and tensor.shape:
            self._tensors[index].shapeSignature = [-1, *tensor.shape[1:]]
        return index

    def constant(self, label: str, values: Array, qparams: QParams | None = None) -> int:
        """Add a tensor with data."""
        index = self._tensor(Activation(label, values.shape, _NAMES_BY_TYPE[values.dtype], qparams))
        self._tensors[index].buffer = len(self._buffers)
        self._buffers.append(_AlignedBuffer(np.ascontiguousarray(values).tobytes()))
        return index

    def dtype_of(self, index: int) -> str:
        """Name a tensor's type."""
        return TYPE_NAMES[self._tensors[index].type]

    def operator(self, code: tuple[int, int], inputs: Sequence[int], outputs: Sequence[int], options: Options) -> None:
        """Add an operator in execution order; its code is the builtin's number and version. An input of -1 is none."""
        operator = self._operator((*code, ""), inputs, outputs)
        if options.is_second_union:
            operator.builtinOptions2Type, operator.builtinOptions2 = options.number, options.value
        else:
            operator.builtinOptionsType, operator.builtinOptions = options.number, options.value

    def custom_operator(self, name: str, options: bytes, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Add an operator that is no builtin; whether the runtime knows its name shows when the model is loaded."""
        operator = self._operator((CUSTOM, 1, name), inputs, outputs)
        operator.customOptions = np.frombuffer(options, np.uint8)

    def _operator(self, code: tuple[int, int, str], inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        self._operators.append(operator)
        return operator

    def finish(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """Pack everything into the file's bytes; the same content gives the same bytes.

        The file has one signature, serving_default, whose inputs and outputs bear these names.
        """
        model = schema.ModelT()
        model.version = 3
        model.description = "edgekd"
        model.operatorCodes = [_operator_code(*code) for code in self._codes]
        model.subgraphs = [self._subgraph(list(inputs.values()), list(outputs.values()))]
        model.buffers = self._buffers
        model.signatureDefs = [_signature(inputs, outputs)]
        builder = flatbuffers.Builder(1024 + sum(len(buffer.data) for buffer in self._buffers))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, tensor: Activation) -> int:
        packed = schema.TensorT()
        packed.name, packed.shape, packed.type = tensor.label, list(tensor.shape), TENSOR_TYPES[tensor.dtype]
        packed.buffer = 0
        if tensor.qparams is not None:
            packed.quantization = _quantization(tensor.qparams)
            self.qparams[len(self._tensors)] = tensor.qparams
        self._tensors.append(packed)
        return len(self._tensors) - 1

    def _subgraph(self, inputs: list[int], outputs: list[int]) -> Any:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = inputs, outputs
        graph.name = "main"
        return graph


def _operator_code(number: int, version: int, name: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = number
    code.deprecatedBuiltinCode = min(number, 127)  # readers from before the field was widened look here
    code.version = version
    code.customCode = name or None
    return code


def _quantization(qparams: QParams) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = qparams.scale.astype(np.float32)
    quantization.zeroPoint = np.full(len(qparams.scale), qparams.zero_point, np.int64)
    quantization.quantizedDimension = qparams.axis
    return quantization


def _signature(inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.inputs = [_tensor_map(name, index) for name, index in inputs.items()]
    signature.outputs = [_tensor_map(name, index) for name, index in outputs.items()]
    signature.subgraphIndex = 0
    return signature


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
