"""Small .onnx files for tests, written with the onnx package's own helpers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Sizes = Sequence[int | str]


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Write an operator; names are words, and - is a missing one."""
    names = [["" if word == "-" else word for word in words.split()] for words in (inputs, outputs)]
    return helper.make_node(op_type, *names, **attributes)


def weights(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Give a constant that is nowhere zero."""
    return np.linspace(0.5, 1.5, int(np.prod(shape))).reshape(shape).astype(dtype)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sizes],
    outputs: str,
    constants: Mapping[str, Any] | None = None,
    opset: int = 18,
    **changes: Any,
) -> bytes:
    """Write a file of these nodes; inputs are float32 unless `types` names another type."""
    types = changes.pop("types", {})
    entries = [
        helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape) for name, shape in inputs.items()
    ]
    ends = [onnx.ValueInfoProto(name=name) for name in outputs.split()]
    for end in ends:
        end.type.tensor_type.elem_type = types.get(end.name, TensorProto.FLOAT)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "test", entries, ends, tensors)
    imports = [helper.make_opsetid("", opset), *changes.pop("opset_imports", [])]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8, **changes)
    return bytes(made.SerializeToString())


def conv_relu(*, batch: int | str = 1) -> bytes:
    """Write a convolution with its activation."""
    nodes = [node("Conv", "x w b", "y", pads=[1, 1, 1, 1]), node("Relu", "y", "z")]
    return model(nodes, {"x": [batch, 3, 8, 8]}, "z", {"w": weights(4, 3, 3, 3), "b": weights(4)})


def sizes_computed() -> bytes:
    """Write a Reshape to a size that follows from the input's, as exporters of old do."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axis", "n1"),
        node("ConstantOfShape", "axis1", "rest", value=numpy_helper.from_array(np.array([12]))),
        node("Concat", "n1 rest", "size", axis=0),
        node("Cast", "size", "whole", to=TensorProto.INT64),
        node("Reshape", "x whole", "z", allowzero=0),
    ]
    numbers = {"zero": np.array(0), "axis": np.array([0]), "axis1": np.array([2])}  # of two more dimensions
    return model(nodes, {"x": ["batch", 3, 6, 8]}, "z", numbers)
