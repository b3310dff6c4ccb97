"""A model file as operators, whatever its format: what profile and predict share.

Which operators there are and how they are spelled is tflite_reader.py's and onnx_reader.py's. Nothing is measured here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import DataError, UsageError
from edgekd.graph.micro import micro_model
from latency_tables.op_spec import OpSpec

_ONNX_KIND = "onnx_"
_TFLITE_IDENTIFIER = b"TFL3"
_IR_VERSION = b"\x08"  # the first field of an .onnx file, which has no identifier: number 1, a variable-length integer
_MAX_BYTES = 1 << 31  # what a flatbuffer or a protocol buffer can hold


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One .tflite or .onnx file with its operators in execution order."""

    path: Path
    content: bytes
    ops: tuple[OpSpec, ...]

    @property
    def name(self) -> str:
        """Name it by its file and content: two files of one name in two folders are two models."""
        return f"{self.path.name}@{hashlib.sha256(self.content).hexdigest()[:12]}"

    @property
    def is_onnx(self) -> bool:
        """Tell whether it takes the onnxruntime engine."""
        return format_of(self.content) == "onnx"

    @property
    def dtype(self) -> str:
        """Say which calibration speaks for it: "int8" where most of its work is quantised, else "float32"."""
        from edgekd.graph.tflite_reader import network_dtype

        return network_dtype(self.ops)


def format_of(content: bytes) -> str:
    """Tell the format by the content, whatever the file is called: tflite, onnx, or nothing for what is neither."""
    if content[4:8] == _TFLITE_IDENTIFIER:
        return "tflite"
    return "onnx" if content[:1] == _IR_VERSION else ""


def read_model(path: Path) -> ModelFile:
    """Read a model file.

    Raises:
        UsageError: the file cannot be read.
        DataError: it is no model, damaged, or holds what edgekd cannot spell; the message names the file.

    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MAX_BYTES else b""
    except OSError as error:
        raise UsageError(f"model {path} cannot be read: {error.strerror or error}") from error
    if size > _MAX_BYTES:
        raise UsageError(f"model {path} has {size} bytes, a model has {_MAX_BYTES} at most")
    try:
        return ModelFile(path, content, tuple(_ops_in(content)))
    except DataError as error:
        raise DataError(f"model {path}: {error}") from error


def model_of_op(op: OpSpec) -> bytes:
    """Write the file that holds one operator alone, in the format that the operator is of.

    Raises:
        DataError: it cannot be measured by itself.

    """
    if op.kind.startswith(_ONNX_KIND):
        from edgekd.graph.onnx_micro import onnx_micro_model

        return onnx_micro_model(op)
    return micro_model(op)


def _ops_in(content: bytes) -> list[OpSpec]:
    form = format_of(content)
    if form == "tflite":
        from edgekd.graph.tflite_reader import read_ops

        return read_ops(content)
    if form == "onnx":
        from edgekd.graph.onnx_reader import read_onnx_ops

        return read_onnx_ops(content)
    raise DataError("it is neither .tflite nor .onnx: its first bytes are neither's")
