"""Works out the small constants of an .onnx file that exporters leave to be computed: sizes, paddings, axes.

onnxruntime computes them when the model is loaded. Only a few harmless operators on small operands are run, by the onnx
package's own reference; whatever else is constant stays as it is. Read next: `onnx_file.py`, which calls this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgekd.errors import DataError
from edgekd.graph.onnx_spelling import onnx_package
from latency_tables.op_spec import MAX_VALUES

Shapes = Mapping[str, tuple[int, ...]]

_ROUNDS = 16  # each finds the sizes that follow from those of the round before
# Their results are about as small as their operands; ConstantOfShape is looked at before.
_HARMLESS = frozenset(
    {"Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Floor", "Gather", "Identity", "Mul", "Neg", "Reshape"}
    | {"Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}
)
# Operands, by position, whose number of elements is a rank.
_SIZE_OPERANDS = {
    **dict.fromkeys(("Expand", "Reshape", "Tile", "CenterCropPad", "AffineGrid"), (1,)),
    "ConstantOfShape": (0,),
    "Resize": (2, 3),
    "Upsample": (1,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "Pad": (1,),
    "MaxUnpool": (2,),
}
_GROWING = ("ConstantOfShape", "Expand", "Tile")
_MAX_MADE = 1 << 28  # elements of a constant that is made of small ones
_MAX_RANK = 1 << 16  # the same of one dimension, which may be taken for a rank
_NUMBERS = ("FLOAT", "INT32", "INT64", "BOOL")
_DTYPES = ("float32", "int32", "int64", "bool")  # the same, as numpy names them
# What onnx's reference operators raise on operands that make no sense; such a node stays, and is named later.
_FAILURES = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError)


def fold_small_constants(model: Any, opset: int, shapes_of: Callable[[Any], Shapes]) -> None:
    """Replace operators on small constants, and the sizes of tensors of known shape, by constants.

    `shapes_of` infers the shapes of a model. No constant of the model may lie outside of it.

    Raises:
        DataError: what a shape follows from is not known before an inference.

    """
    entries = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    _fold(model.graph, opset, {name: tuple(int(dim.dim_value) for dim in dims) for name, dims in entries.items()})
    _see_sizes(model.graph)
    for _ in range(_ROUNDS):
        asks_sizes = any(node.op_type in ("Shape", "Size") for node in model.graph.node)
        folded = _fold(model.graph, opset, shapes_of(model) if asks_sizes else {})
        if not folded or not asks_sizes:
            break


def _see_sizes(graph: Any) -> None:
    """See that what sets a rank follows from constants and shapes by steps that make nothing large of them.

    The inference of shapes believes in a rank of millions where such an operand seems to have millions of elements.
    """
    doubtful = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        sizes = {name for at in _SIZE_OPERANDS.get(node.op_type, ()) for name in node.input[at : at + 1]}
        if sizes & doubtful:
            name = sorted(sizes & doubtful)[0]
            raise DataError(
                f"operator {node.op_type[:80]} takes a size from {name[:80]!r}, which is not known before an inference"
            )
        known = node.op_type in ("Shape", "Size")
        if not known and (node.op_type not in _HARMLESS - {"ConstantOfShape"} or doubtful & set(node.input)):
            doubtful.update(node.output)


def _fold(graph: Any, opset: int, shapes: Shapes) -> bool:
    onnx = onnx_package()
    numbers = [getattr(onnx.TensorProto, name) for name in _NUMBERS]
    small = [t for t in graph.initializer if math.prod(t.dims) <= MAX_VALUES and t.data_type in numbers]
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in small}
    kept = []
    for node in graph.node:
        _see_growth(node, known)
        value = _value(node, known, shapes, opset) if len(node.output) == 1 else None
        if value is None or value.size > MAX_VALUES or value.dtype.name not in _DTYPES:
            kept.append(node)
        else:
            known[node.output[0]] = value
            graph.initializer.append(onnx.numpy_helper.from_array(value, node.output[0]))
    folded = len(kept) < len(graph.node)
    if folded:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
    return folded


def _see_growth(node: Any, known: Mapping[str, Any]) -> None:
    """Raise DataError for an operator that makes an absurdly large tensor of small constants."""
    operands = [known[name] for name in node.input if name in known]
    if not operands or len(operands) < len(node.input):
        return
    limit = _MAX_MADE if operands[-1].size > 1 else _MAX_RANK
    if node.op_type in _GROWING:
        count = math.prod(map(int, operands[-1].reshape(-1))) * (operands[0].size if node.op_type == "Tile" else 1)
    elif node.op_type == "Range" and len(operands) == 3 and all(o.size == 1 for o in operands) and operands[2].item():
        start, end, delta = (operand.item() for operand in operands)
        count = int(min((end - start) / delta, float(2 * limit)))
    else:
        return
    if count > limit:
        raise DataError(f"operator {node.op_type} makes a constant of {count} elements, more than {limit}")


def _value(node: Any, known: Mapping[str, Any], shapes: Shapes, opset: int) -> Any:
    """Compute an operator's result, or None where it is not small, harmless and constant."""
    if node.op_type in ("Shape", "Size") and node.input and node.input[0] in shapes:
        return _size(node, shapes[node.input[0]])
    if node.op_type not in _HARMLESS or not all(name in known for name in node.input if name) or not any(node.input):
        return None
    if node.op_type == "ConstantOfShape" and math.prod(map(int, known[node.input[0]].reshape(-1))) > MAX_VALUES:
        return None
    return _computed(node, known, opset)


def _size(node: Any, shape: tuple[int, ...]) -> Any:
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(shape[limits.get("start", 0) : limits.get("end", len(shape))], np.int64)


def _computed(node: Any, known: Mapping[str, Any], opset: int) -> Any:
    onnx = onnx_package()
    from onnx.reference import ReferenceEvaluator

    feeds = {name: known[name] for name in node.input if name}
    entries = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    graph = onnx.helper.make_graph([node], "fold", entries, [onnx.ValueInfoProto(name=node.output[0])])
    alone = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            return np.asarray(ReferenceEvaluator(alone).run(None, feeds)[0])
    except (*_FAILURES, onnx.checker.ValidationError):
        return None  # a damaged operator, which the inference of shapes will name
