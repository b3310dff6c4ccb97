"""Parses the bytes of an .onnx file and refuses what cannot be read, before anything is computed from it.

What it gives is the onnx package's own ModelProto. Read next: `onnx_file.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekd.errors import DataError
from edgekd.graph.onnx_spelling import FIRST_OPSET, onnx_package

_MAX_NODES = 1 << 16
_MAX_TENSORS = 1 << 18


def parse_model(content: bytes) -> Any:
    """Parse a file. Raises DataError for bytes that are none, MissingExtra without the onnx package."""
    onnx = onnx_package()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # it ships no types

    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"no .onnx file, or a damaged one: {one_line(error)}") from error
    if not model.graph.node:
        raise DataError("no .onnx file, or a damaged one: it holds no graph with operators")
    if not all(isinstance(name, str) for name in _names(model.graph)):
        raise DataError("a damaged .onnx file: one of its names is no text")
    return model


def _names(graph: Any) -> Iterator[Any]:
    """Give all names of a graph; the format does not see to it that they are texts."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in graph.initializer)


def checked_opset(model: Any) -> int:
    """See that the file is one of those that can be read, and return its opset. Raises DataError."""
    onnx, graph = onnx_package(), model.graph
    known = onnx.defs.onnx_opset_version()
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if not FIRST_OPSET <= opset <= known:
        raise DataError(f"the .onnx file is of opset {opset}; opsets {FIRST_OPSET} to {known} can be read")
    if len(graph.node) > _MAX_NODES or len(graph.initializer) > _MAX_TENSORS:
        raise DataError(f"the .onnx file has {len(graph.node)} operators, at most {_MAX_NODES} can be read")
    if model.functions:
        name = model.functions[0].name
        raise DataError(f"the .onnx file has functions of its own ({name[:80]!r}); inline them with onnx.inliner")
    if graph.sparse_initializer:
        raise DataError("the .onnx file has sparse constants, which cannot be read; store them densely")
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (attribute.t, attribute.sparse_tensor.values, *attribute.tensors):
                see_content(f"a constant of operator {node.op_type[:80]}", tensor)
        if node.domain not in ("", "ai.onnx"):
            raise DataError(f"operator {node.domain[:80]}.{node.op_type[:80]} is none of the ONNX standard")
    return int(opset)


def see_content(what: str, tensor: Any) -> None:
    """Raise DataError for a tensor whose content lies in another file, before anything would look for it."""
    if tensor.data_location == onnx_package().TensorProto.EXTERNAL or tensor.external_data:
        how = "save the model in one: onnx.save_model(…, save_as_external_data=False)"
        raise DataError(f"{what} lies in another file; {how}")


def one_line(error: Exception) -> str:
    """Word a foreign error in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
