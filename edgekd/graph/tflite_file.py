"""Takes a .tflite file apart: its operators, their options and tensors, as plain values whose every index was checked.

The file is distrusted. Nothing is unpacked that no operator names, and every count is limited, so that a small file
cannot ask for much time or memory. It does not know what an operator means; read next: tflite_reader.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgekd.errors import DataError
from edgekd.graph.tflite_schema import CUSTOM, KIND_NAMES, NUMPY_TYPES, TENSOR_TYPES, TYPE_NAMES, snake

# Each is far above what a network for an edge device holds, and keeps a hostile file from taking long.
_MAX_OPERATORS = 1 << 14
_MAX_CODES = 1 << 10
_MAX_OPERANDS = 1 << 8
_MAX_TEXT = 1 << 14  # bytes of a name or of custom options; the rest is known by its length
_MAX_RANK = 8

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor: its shape and type, and its data where the file holds it."""

    shape: tuple[int, ...]
    dtype: str
    data: Bytes | None
    is_variable: bool

    def integers(self) -> tuple[int, ...]:
        """Give the values of an integer constant.

        Raises:
            ValueError: its data is not as long as its shape says.

        """
        dtype = NUMPY_TYPES[self.dtype]
        content = self.data if self.data is not None else np.zeros(0, np.uint8)
        if len(content) != math.prod(self.shape) * dtype.itemsize:
            raise ValueError(f"a constant of the shape {self.shape} has {len(content)} bytes")
        return tuple(int(value) for value in np.frombuffer(content.tobytes(), dtype.newbyteorder("<")))


@dataclass(frozen=True, slots=True)
class FileOperator:
    """An operator: its kind, the tensors that it reads (-1: none) and makes, and the options that are not default."""

    kind: str
    code: bytes  # of a custom operator
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]  # by their names in snake case
    custom_options: bytes


@dataclass(frozen=True, slots=True)
class FileGraph:
    """The main graph of a file: operators in execution order and the tensors that they name."""

    operators: tuple[FileOperator, ...]
    tensors: dict[int, FileTensor]
    outputs: frozenset[int]

    def inputs_of(self, operator: FileOperator) -> list[FileTensor]:
        """List the tensors that an operator reads, without those that are left out."""
        return [self.tensors[index] for index in operator.inputs if index >= 0]


def read_graph(content: bytes) -> FileGraph:
    """Read the main graph of a file.

    Raises:
        DataError: it holds a tensor of a type that edgekd does not know.
        struct.error, LookupError, TypeError, AttributeError, ArithmeticError, ValueError: the file is damaged.

    """
    model = schema.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() < 1:
        raise IndexError("it holds no graph")
    graph = model.Subgraphs(0)  # others are parts of its operators, or other entry points
    count = _limited(graph.OperatorsLength(), _MAX_OPERATORS, "operators")
    codes: dict[int, tuple[str, bytes]] = {}
    operators = tuple(_operator(model, graph.Operators(i), codes) for i in range(count))
    named = {index for op in operators for index in (*op.inputs, *op.outputs) if index >= 0}
    tensors = {index: _tensor(content, model, graph, index) for index in sorted(named)}
    return FileGraph(operators, tensors, frozenset(_list(graph.OutputsAsNumpy(), _MAX_OPERANDS, "outputs")))


def _operator(model: Any, operator: Any, codes: dict[int, tuple[str, bytes]]) -> FileOperator:
    number = operator.OpcodeIndex()
    if number not in codes:
        codes[number] = _code(model, number)
    kind, code = codes[number]
    inputs = _list(operator.InputsAsNumpy(), _MAX_OPERANDS, "inputs")
    outputs = _list(operator.OutputsAsNumpy(), _MAX_OPERANDS, "outputs")
    if min(inputs, default=0) < -1 or min(outputs, default=0) < 0:
        raise IndexError(f"an operator {kind} names a tensor below 0")  # Python would count from the end
    custom = operator.CustomOptionsAsNumpy() if kind == "custom" and not operator.CustomOptionsIsNone() else b""
    return FileOperator(kind, code, tuple(inputs), tuple(outputs), _options(operator), _clipped(custom))


def _code(model: Any, index: int) -> tuple[str, bytes]:
    if not 0 <= index < _limited(model.OperatorCodesLength(), _MAX_CODES, "operator codes"):
        raise IndexError(f"operator code {index}")
    code = model.OperatorCodes(index)
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files have the second alone
    if number == CUSTOM:
        return "custom", _clipped(code.CustomCode() or b"")
    return KIND_NAMES.get(number, f"builtin_{number}"), b""


def _clipped(content: Any) -> bytes:
    """Keep what tells two long texts apart at little cost: their beginning and their length."""
    return bytes(content) if len(content) <= _MAX_TEXT else bytes(content[:_MAX_TEXT]) + b"+%d" % len(content)


def _options(operator: Any) -> dict[str, Any]:
    """Give the options that differ from the schema's defaults, of whichever of the two unions they are in."""
    options = schema.BuiltinOptionsCreator(operator.BuiltinOptionsType(), operator.BuiltinOptions())
    if options is None:
        options = schema.BuiltinOptions2Creator(operator.BuiltinOptions2Type(), operator.BuiltinOptions2())
    if options is None:
        return {}
    default = vars(type(options)())
    return {snake(name): value for name, value in vars(options).items() if _differs(value, default[name])}


def _differs(value: Any, default: Any) -> bool:
    return value is not None if default is None else bool(value != default)


def _tensor(content: bytes, model: Any, graph: Any, index: int) -> FileTensor:
    if index >= graph.TensorsLength():
        raise IndexError(f"tensor {index}")
    tensor = graph.Tensors(index)
    dtype = TYPE_NAMES.get(tensor.Type(), str(tensor.Type()))
    if dtype not in TENSOR_TYPES:
        raise DataError(f"tensor {index} is of the type {dtype}; edgekd knows {', '.join(TENSOR_TYPES)}")
    shape = tuple(_list(tensor.ShapeAsNumpy(), _MAX_RANK, "dimensions"))
    return FileTensor(shape, dtype, _data(content, model, tensor.Buffer()), bool(tensor.IsVariable()))


def _data(content: bytes, model: Any, index: int) -> Bytes | None:
    """Give a buffer's bytes; a file above 2 GB keeps them behind the flatbuffer, at an offset."""
    if not 0 <= index < model.BuffersLength():
        raise IndexError(f"buffer {index}")
    buffer = model.Buffers(index)
    if buffer.DataLength() > 0:
        return np.asarray(buffer.DataAsNumpy(), np.uint8)
    if buffer.Offset() > 1:  # 0 and 1 stand for no such data
        return np.frombuffer(content, np.uint8, buffer.Size(), buffer.Offset())
    return None


def _list(values: Any, limit: int, what: str) -> list[int]:
    """Give a vector of the file as integers; the accessors give 0 for one that is not there."""
    found: Iterable[int] = () if isinstance(values, int) else values
    _limited(0 if isinstance(values, int) else len(values), limit, what)
    return [int(value) for value in found]


def _limited(count: int, limit: int, what: str) -> int:
    if count > limit:
        raise ValueError(f"{count} {what}; at most {limit} are possible")
    return count
