"""Reads the bytes of an .onnx file into plain values: nodes in execution order, and what is known of every tensor.

The file is distrusted: nothing beside it is read, and whatever is damaged, hostile or not for one fixed input size
ends in a DataError of one line. A free batch is taken as 1. Shapes are inferred anew by the onnx package; what the file
says of them itself is not believed. It knows no OpSpec. Read next: `onnx_groups.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgekd.errors import DataError
from edgekd.graph.onnx_bytes import checked_opset, one_line, parse_model, see_content
from edgekd.graph.onnx_fold import fold_small_constants
from edgekd.graph.onnx_spelling import MAX_STEERING_FLOATS, onnx_package
from latency_tables.op_spec import MAX_VALUES, TENSOR_DTYPES

_MOST = (1 << 31) - 1  # what a key's values can tell; "to the end" of a Slice is the largest integer there is
_BITS = {"bool": 8, "int4": 4}
_CONTENT = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_MAX_ELEMENTS = 1 << 31  # of an input


@dataclass(frozen=True, slots=True)
class OnnxTensor:
    """What is known of a tensor. values and floats hold the content of a small constant of integers or floats."""

    shape: tuple[int, ...]
    dtype: str
    constant: bool = False
    values: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """An operator; a missing operand or output is an empty name. attributes are numbers, lists and bytes."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What an inference computes: nodes whose result is used and not constant."""

    opset: int
    nodes: tuple[OnnxNode, ...]
    tensors: dict[str, OnnxTensor]
    outputs: frozenset[str]
    dequantized: dict[str, OnnxNode] = field(
        default_factory=dict
    )  # DequantizeLinear nodes of constants by their result


def read_onnx(content: bytes) -> OnnxGraph:
    """Read a file.

    Raises:
        DataError: it is damaged, hostile, or leaves sizes open.
        MissingExtra: the onnx package is not installed.

    """
    model = parse_model(content)
    opset = checked_opset(model)
    graph = model.graph
    _keep_constants(graph)
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    _fix_batch(inputs)
    _forget_content(model)
    fold_small_constants(model, opset, lambda model: {name: t.shape for name, t in _inferred(model).items()})
    constants |= {tensor.name: _constant(tensor) for tensor in graph.initializer if tensor.name not in constants}
    nodes = list(map(_node, graph.node))
    tensors = _inferred(model) | constants
    return _without_constants(opset, nodes, tensors, frozenset(value.name for value in graph.output))


def _fix_batch(inputs: Sequence[Any]) -> None:
    """Take a first dimension without a size as 1. Raises DataError for another one."""
    batches = {value.type.tensor_type.shape.dim[0].dim_param for value in inputs if value.type.tensor_type.shape.dim}
    for value in inputs:
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise DataError(f"input {value.name[:80]!r} of the .onnx file is no tensor of a known shape")
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            is_batch = not dim.HasField("dim_value") and (at == 0 or (dim.dim_param and dim.dim_param in batches))
            if is_batch:
                dim.dim_value = 1
            if dim.dim_value < 1:
                free = dim.dim_param or dim.dim_value
                raise DataError(
                    f"input {value.name[:80]!r} leaves dimension {at} ({str(free)[:80]}) free; only the batch may be: "
                    "export the network for one input size"
                )
        if math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim) > _MAX_ELEMENTS:
            raise DataError(f"input {value.name[:80]!r} of the .onnx file has more than {_MAX_ELEMENTS} elements")


def _constant(tensor: Any) -> OnnxTensor:
    """Describe an initializer; the content of a small one is kept."""
    onnx = onnx_package()
    what = f"constant {tensor.name[:80]!r}"
    see_content(what, tensor)
    shape, dtype = tuple(tensor.dims), _dtype(what, tensor.data_type)
    if any(size < 0 for size in shape) or tensor.HasField("segment"):
        raise DataError(f"{what} has an impossible shape {list(shape)}"[:200])
    count, stored = math.prod(shape), len(tensor.raw_data)
    bits = _BITS.get(dtype) or np.dtype(dtype if dtype != "uint4" else "uint8").itemsize * 8
    if tensor.HasField("raw_data") and stored != math.ceil(count * bits / 8):
        raise DataError(f"{what} has {stored} bytes, its shape needs {math.ceil(count * bits / 8)}")
    numbers = sum(len(getattr(tensor, name)) for name in _CONTENT[1:])
    if not tensor.HasField("raw_data") and numbers != (math.ceil(count / 2) if bits == 4 else count):
        raise DataError(f"{what} has {numbers} numbers, its shape needs {count}")
    if count > MAX_VALUES or dtype in ("float16", "int4"):
        return OnnxTensor(shape, dtype, constant=True)
    try:
        values = onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} is damaged: {one_line(error)}") from error
    if dtype in ("int32", "int64"):
        return OnnxTensor(shape, dtype, constant=True, values=_clamped(values))
    floats = tuple(values) if dtype == "float32" and count <= MAX_STEERING_FLOATS else ()
    return OnnxTensor(shape, dtype, constant=True, floats=floats)


def _clamped(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(-_MOST, min(_MOST, int(value))) for value in values)


def _dtype(what: str, number: int) -> str:
    onnx = onnx_package()
    names = {value: name.lower() for name, value in onnx.TensorProto.DataType.items()}
    found = str(names.get(number, number))
    name = {"float": "float32", "double": "float64"}.get(found, found)
    if name not in TENSOR_DTYPES:
        raise DataError(f"{what} is of type {name}; known are {', '.join(TENSOR_DTYPES)}")
    return name


def _keep_constants(graph: Any) -> None:
    """Make the Constant nodes of a graph initializers, which is what they are."""
    onnx = onnx_package()
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            tensor = onnx.TensorProto.FromString(_tensor_of(node).SerializeToString())
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)


def _node(node: Any) -> OnnxNode:
    attributes = {attribute.name: _value(node, attribute) for attribute in node.attribute}
    outputs = tuple(node.output)
    while outputs and not outputs[-1]:
        outputs = outputs[:-1]
    return OnnxNode(node.op_type, tuple(node.input), outputs, attributes)


def _value(node: Any, attribute: Any) -> Any:
    types = type(attribute)
    if attribute.type in (types.GRAPH, types.GRAPHS):
        raise DataError(
            f"operator {node.op_type[:80]} holds a graph of its own; such branches and loops have no one time"
        )
    if attribute.ref_attr_name:
        raise DataError(f"operator {node.op_type[:80]} refers to an attribute outside of any function")
    one = {types.FLOAT: "f", types.INT: "i", types.STRING: "s"}.get(attribute.type)
    several = {types.FLOATS: "floats", types.INTS: "ints"}.get(attribute.type)
    if one:
        return getattr(attribute, one)
    return list(getattr(attribute, several)) if several else None  # which has no text, unless the node is folded away


def _tensor_of(node: Any) -> Any:
    """Give the tensor of a Constant node, whose value has many forms."""
    onnx = onnx_package()
    forms = {attribute.name: attribute for attribute in node.attribute}
    if "value" in forms:
        return forms["value"].t
    numbers = {"value_int": ("INT64", "i"), "value_float": ("FLOAT", "f")}
    lists = {"value_ints": ("INT64", "ints"), "value_floats": ("FLOAT", "floats")}
    for name, (dtype, attribute) in numbers.items():
        if name in forms:
            data = [getattr(forms[name], attribute)]
            return onnx.helper.make_tensor(node.output[0], getattr(onnx.TensorProto, dtype), (), data)
    for name, (dtype, attribute) in lists.items():
        if name in forms:
            data = list(getattr(forms[name], attribute))
            return onnx.helper.make_tensor(node.output[0], getattr(onnx.TensorProto, dtype), (len(data),), data)
    raise DataError(f"constant {node.output[0][:80]!r} has none of the forms that can be read")


def _forget_content(model: Any) -> None:
    """Drop the content of large constants, and what the file says of shapes, before these are inferred."""
    graph = model.graph
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > MAX_VALUES:
            for name in _CONTENT:
                tensor.ClearField(name)
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _inferred(model: Any) -> dict[str, OnnxTensor]:
    """Infer the shapes of all tensors that an inference computes, of those that can be known."""
    onnx = onnx_package()
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, IndexError, TypeError, MemoryError) as error:
        raise DataError(f"the shapes of the .onnx file do not fit together: {one_line(error)}") from error
    tensors = {}
    graph = inferred.graph
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor_type = value.type.tensor_type
        dims = tensor_type.shape.dim
        if tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shape = tuple(int(dim.dim_value) for dim in dims)
            tensors[value.name] = OnnxTensor(shape, _dtype(f"tensor {value.name[:80]!r}", tensor_type.elem_type))
    return tensors


def _without_constants(
    opset: int, nodes: Sequence[OnnxNode], tensors: dict[str, OnnxTensor], outputs: frozenset[str]
) -> OnnxGraph:
    """Leave out what onnxruntime computes when the model is loaded, and what nobody reads.

    A DequantizeLinear of constants stays with who reads it: onnxruntime folds it only as part of that operator.
    """
    renamed: dict[str, str] = {}
    kept, dequantized = [], {}
    _see_order(nodes)
    for found in nodes:
        node = replace(found, inputs=tuple(renamed.get(name, name) for name in found.inputs))
        _see_inputs(node, tensors)
        constant = _is_constant(node, tensors)
        if node.op_type in ("Identity", "Dropout") and not set(node.outputs[1:]) & outputs and node.outputs:
            renamed[node.outputs[0]] = node.inputs[0]
        elif constant and node.op_type == "DequantizeLinear":
            dequantized[node.outputs[0]] = node
            _fold(node, tensors)
        elif constant:
            _fold(node, tensors)
        else:
            kept.append(node)
    final = frozenset(renamed.get(name, name) for name in outputs)
    return OnnxGraph(opset, tuple(_used(kept, final)), tensors, final, dequantized)


def _see_order(nodes: Sequence[OnnxNode]) -> None:
    """Raise DataError for a result that two operators make, or that one reads before it is made."""
    maker = {name: at for at, node in reversed(list(enumerate(nodes))) for name in node.outputs if name}
    if len(maker) != sum(1 for node in nodes for name in node.outputs if name):
        raise DataError("two operators of the .onnx file write the same tensor")
    for at, node in enumerate(nodes):
        late = [name for name in node.inputs if maker.get(name, -1) >= at]
        if late:
            raise DataError(f"operator {node.op_type[:80]} reads {late[0][:80]!r} before it is computed")


def _see_inputs(node: OnnxNode, tensors: dict[str, OnnxTensor]) -> None:
    for name in (*node.inputs, *node.outputs):
        if name and name not in tensors:
            raise DataError(
                f"operator {node.op_type[:80]}: the shape of {name[:80]!r} cannot be told from the file alone"
            )
    if not node.inputs or not node.inputs[0]:
        raise DataError(f"operator {node.op_type[:80]} has no first operand; what it takes cannot be measured alone")


def _is_constant(node: OnnxNode, tensors: dict[str, OnnxTensor]) -> bool:
    named = [tensors[name] for name in node.inputs if name]
    return node.op_type in ("Shape", "Size") or all(tensor.constant for tensor in named)


def _fold(node: OnnxNode, tensors: dict[str, OnnxTensor]) -> None:
    """Mark a node's results as constants; what is in them is not told."""
    for name in filter(None, node.outputs):
        tensors[name] = replace(tensors[name], constant=True)


def _used(nodes: Sequence[OnnxNode], outputs: frozenset[str]) -> Iterator[OnnxNode]:
    """Give the nodes whose results somebody reads, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    yield from reversed(kept)
