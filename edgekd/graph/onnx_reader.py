"""Reads an .onnx file into operators (OpSpec): what onnxruntime runs in an inference, in execution order.

    onnx_conv;float32;in=1x8x14x14,c24x8x1x1,c24,cscalar,cscalar;out=1x24x14x14;
        @const_3=0.0;@const_4=6.0;@fused_1=clip;@fused_1_in=r0_i3_i4

`in` lists all operands of a group: those of its first operator, then what its followers read besides. `fused_N` names a
follower, `fused_N_in` its operands unless that is the result before alone: rK the result of the K-th operator, iK the
K-th of `in`, xK the same where one before has read it already, n none. `const_N` holds floats that steer; `qdq` the
operands behind a DequantizeLinear, with :AXIS where that has a scale a channel; `absent` operands that are left out,
`absent_out` outputs; `opset` an old meaning. What onnxruntime computes when the model is loaded is not listed.
Read next: `onnx_micro.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from edgekd.errors import DataError
from edgekd.graph.onnx_file import OnnxGraph, OnnxNode, OnnxTensor, read_onnx
from edgekd.graph.onnx_groups import Grouping
from edgekd.graph.onnx_spelling import (
    CHANGED_IN,
    STEERING_FLOATS,
    kind_of,
    schema_of,
    snake,
    spell_attributes,
    spell_value,
)
from latency_tables.errors import OpSyntaxError
from latency_tables.op_spec import MAX_KEY, OpSpec, TensorSpec

_WITH_KERNEL = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv")
_QUANTIZED = ("int8", "uint8")


def read_onnx_ops(content: bytes) -> list[OpSpec]:
    """List the operators of an .onnx file in execution order; a free batch is 1.

    Raises:
        DataError: the file is damaged, hostile, or holds an operator that cannot be told or measured alone.
        MissingExtra: the onnx package is not installed.

    """
    graph = read_onnx(content)
    grouping = Grouping(graph)
    ops = []
    for group in grouping.groups():
        for length in group.lengths:
            op = _Speller(graph, grouping).spell(group.nodes[:length])
            if len(op.key) <= MAX_KEY:
                break
        else:
            raise DataError(
                f"operator {group.nodes[0].op_type} has too many operands or sizes to be told: {op.key[:80]}…"
            )
        grouping.take(group, length)
        ops.append(_as_read_again(op))
    if not ops:
        raise DataError("nothing is left to be computed in an inference of the .onnx file")
    return ops


def _as_read_again(op: OpSpec) -> OpSpec:
    """Raise DataError for a damaged number that makes an OpSpec whose key cannot be read again."""
    try:
        return OpSpec.parse(op.key)
    except OpSyntaxError as error:
        raise DataError(f"a damaged or unusual .onnx file: {error}") from error


@dataclass
class _Speller:
    """Collects the operands and attributes of one group."""

    graph: OnnxGraph
    grouping: Grouping
    operands: list[OnnxTensor] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)  # where a value of the group is found: rK or xK

    def spell(self, nodes: tuple[OnnxNode, ...]) -> OpSpec:
        """Spell a group as one operator."""
        head, last = nodes[0], nodes[-1]
        self._head(head)
        for number, node in enumerate(nodes[1:], start=1):
            self._follower(number, node)
        if any(not name for name in last.outputs):
            self.attributes["absent_out"] = "_".join(str(at) for at, name in enumerate(last.outputs) if not name)
        dtype = self._dtype(head)
        return OpSpec(
            kind=kind_of(head.op_type),
            inputs=tuple(_tensor_spec(tensor, dtype) for tensor in self.operands),
            dtype=dtype,
            out=tuple(self.graph.tensors[name].shape for name in last.outputs if name),
            attributes=tuple(sorted(self.attributes.items())),
        )

    def _dtype(self, head: OnnxNode) -> str:
        first, result = self.operands[0].dtype, self.graph.tensors[next(filter(None, head.outputs))].dtype
        return next((dtype for dtype in (first, result) if dtype in _QUANTIZED), "float32")

    def _head(self, node: OnnxNode) -> None:
        absent, qdq = [], []
        inputs = list(node.inputs)
        while inputs and self._is_absent(node, inputs[-1]):
            inputs.pop()
        for at, name in enumerate(inputs):
            if self._is_absent(node, name):
                absent.append(str(at))
                continue
            dequantize = self.grouping.dequantized(name)
            if dequantize is not None:
                qdq.append(str(len(self.operands)) + self._axis(dequantize))
                name = dequantize.inputs[0]  # noqa: PLW2901 - the operand is what lies before
            self._add(node, at, name, steering=dequantize is None)
        self.attributes |= {"absent": "_".join(absent)} if absent else {}
        self.attributes |= {"qdq": "_".join(qdq)} if qdq else {}
        self._spell_attributes(node, "")
        schema = schema_of(node.op_type, self.graph.opset)
        if self.graph.opset < CHANGED_IN.get(node.op_type, 0):
            self.attributes["opset"] = str(schema.since_version)
        self.places[node.outputs[0]] = "r0"

    def _follower(self, number: int, node: OnnxNode) -> None:
        self.attributes[f"fused_{number}"] = snake(node.op_type)
        tokens = []
        inputs = list(node.inputs)
        while inputs and not inputs[-1]:
            inputs.pop()
        for at, name in enumerate(inputs):
            if name and name not in self.places:
                self._add(node, at, name)
                tokens.append(f"i{len(self.operands) - 1}")
            else:
                tokens.append(self.places[name] if name else "n")
        if tokens != [f"r{number - 1}"]:
            self.attributes[f"fused_{number}_in"] = "_".join(tokens)
        self._spell_attributes(node, f"fused_{number}_")
        self.places[node.outputs[0]] = f"r{number}"

    def _is_absent(self, node: OnnxNode, name: str) -> bool:
        # exporters write the regions and scales that a Resize does not have as constants without elements
        return not name or (node.op_type == "Resize" and 0 in self.graph.tensors[name].shape)

    def _axis(self, dequantize: OnnxNode) -> str:
        """Spell the axis of a DequantizeLinear that has a scale for each channel."""
        shape = self.graph.tensors[dequantize.inputs[0]].shape
        if math.prod(self.graph.tensors[dequantize.inputs[1]].shape) == 1:
            return ""
        axis = dequantize.attributes.get("axis", 1)
        if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
            raise DataError(f"a DequantizeLinear has no axis {axis} in a tensor of {len(shape)} dimensions")
        return f":{axis + len(shape) if axis < 0 else axis}"

    def _add(self, node: OnnxNode, at: int, name: str, *, steering: bool = True) -> None:
        """Take an operand; its values count only where they steer the operator."""
        tensor = self.graph.tensors[name]
        number = len(self.operands)
        if tensor.floats and at in STEERING_FLOATS.get(node.op_type, ()):
            self.attributes[f"const_{number}"] = spell_value("a constant", list(tensor.floats))
        steers = steering and node.op_type not in _WITH_KERNEL  # whose integer constants are biases
        self.operands.append(tensor if steers else replace(tensor, values=()))
        if not tensor.constant:
            self.places.setdefault(name, f"x{number}")

    def _spell_attributes(self, node: OnnxNode, prefix: str) -> None:
        attributes = dict(node.attributes)
        if node.op_type in _WITH_KERNEL:
            weight = self.graph.tensors[node.inputs[3 if node.op_type == "QLinearConv" else 1]]
            _drop(attributes, "kernel_shape", list(weight.shape[2:]))
        if node.op_type == "Reshape" and 0 not in self.graph.tensors[node.inputs[1]].values:
            attributes.pop("allowzero", None)
        spelled = spell_attributes(node.op_type, attributes, self.graph.opset)
        self.attributes |= {prefix + name: text for name, text in spelled.items()}


def _drop(attributes: dict[str, Any], name: str, value: Any) -> None:
    if attributes.get(name) == value:
        del attributes[name]


def _tensor_spec(tensor: OnnxTensor, dtype: str) -> TensorSpec:
    return TensorSpec(tensor.shape, tensor.constant, "" if tensor.dtype == dtype else tensor.dtype, tensor.values)
