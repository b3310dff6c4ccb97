"""Micro-models for onnxruntime: one group of operators alone in an .onnx file, the inverse of `onnx_reader.py`.

Constants are random, never zero, and keep activations in a normal range; the same OpSpec gives the same bytes. The file
is of opset 18, or of the nearest in which the operator can be written as it is spelled.
Read next: `onnx_plan.py`, which takes the text apart.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekd.errors import DataError
from edgekd.graph.onnx_plan import Plan, Step
from edgekd.graph.onnx_spelling import onnx_package, parse_attributes
from latency_tables.op_spec import OpSpec, TensorSpec

_OPSETS = (18, *range(17, 6, -1), *range(19, 24))  # the nearest to 18 first: most devices' onnxruntime reads that
_MAX_BYTES = 1 << 30  # of constants; an .onnx file ends at twice as many
_MAX_ELEMENTS = 1 << 27  # of what goes in and comes out, as for .tflite files: 512 MB of floats
_SCALE = 0.02  # of quantized values: ±2.5 in eight bits
_ZERO_POINTS = {"uint8": 128}  # of others 0
_SHAPED = ("Reshape", "Expand")  # whose second operand says what comes out


def onnx_micro_model(op: OpSpec) -> bytes:
    """Write the .onnx file that holds one operator of `read_onnx_ops`.

    Raises:
        DataError: no such file can be written; the message names the operator.
        MissingExtra: the onnx package is not installed.

    """
    plan = Plan.of(op)
    _see_size(op)
    first_reason = ""
    for opset in (plan.opset,) if plan.opset else _OPSETS:
        try:
            return _Writer(op, plan, opset).model()
        except DataError as error:
            first_reason = first_reason or str(error)
    raise DataError(f"no model can be made of {op.key}: {first_reason}")


def _see_size(op: OpSpec) -> None:
    """See that the file can be made and run. Raises DataError."""
    constants = [tensor for tensor in op.inputs if tensor.constant]
    if sum(_size_bytes(tensor.dtype or op.dtype) * math.prod(tensor.shape) for tensor in constants) > _MAX_BYTES:
        raise DataError(f"no model can be made of {op.key}: its constants are too large")
    elements = sum(math.prod(tensor.shape) for tensor in op.inputs if not tensor.constant) + sum(map(math.prod, op.out))
    if elements > _MAX_ELEMENTS:
        reason = f"its inputs and outputs have {elements} elements, and at most {_MAX_ELEMENTS} are possible"
        raise DataError(f"no model can be made of {op.key}: {reason}")


def _size_bytes(dtype: str) -> int:
    """Give the bytes of one element; what numpy does not know has eight at most, and is refused when it is written."""
    try:
        return np.dtype(dtype).itemsize
    except TypeError:
        return 8


@dataclass
class _Writer:
    """Collects the parts of one file."""

    op: OpSpec
    plan: Plan
    opset: int
    nodes: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def model(self) -> bytes:
        """Write the file, and see that its shapes are those of the operator. Raises DataError."""
        onnx = onnx_package()
        self._rng = np.random.default_rng(np.frombuffer(hashlib.sha256(self.op.key.encode()).digest(), np.uint32))
        operands = [self._operand(at, tensor) for at, tensor in enumerate(self.op.inputs)]
        for number, step in enumerate(self.plan.steps):
            self._step(number, step, operands)
        outputs = [onnx.ValueInfoProto(name=name) for name in self.nodes[-1].output if name]
        graph = onnx.helper.make_graph(self.nodes, "operator", self.inputs, outputs, self.constants)
        imports = [onnx.helper.make_opsetid("", self.opset)]
        ir_version = onnx.helper.find_min_ir_version_for(imports)
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=max(8, ir_version))
        return self._checked(model)

    def _checked(self, model: Any) -> bytes:
        onnx = onnx_package()
        try:
            model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
            onnx.checker.check_model(model)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
            raise DataError(" ".join(str(error).split())[:200]) from error
        del model.graph.value_info[:]
        dims = [value.type.tensor_type.shape.dim for value in model.graph.output]
        found = tuple(tuple(int(dim.dim_value) for dim in shape) for shape in dims)
        if found != self.op.out:
            raise DataError(f"what comes out has the shapes {found}, not {self.op.out}")
        return bytes(model.SerializeToString(deterministic=True))

    def _step(self, number: int, step: Step, operands: list[str]) -> None:
        onnx = onnx_package()
        names = [self._name(place, operands) for place in step.operands]
        is_last = number == len(self.plan.steps) - 1
        absent = self.plan.absent_out if is_last else ()
        count = len(self.op.out) + len(absent) if is_last else 1
        outputs = ["" if at in absent else f"r{number}" + (f"_{at}" if at else "") for at in range(count)]
        attributes = parse_attributes(step.op_type, dict(step.attributes), self.opset)
        self.nodes.append(onnx.helper.make_node(step.op_type, names, outputs, **attributes))

    def _name(self, place: str, operands: list[str]) -> str:
        if place == "n":
            return ""
        return place if place[0] == "r" else operands[int(place[1:])]

    def _operand(self, at: int, tensor: TensorSpec) -> str:
        onnx = onnx_package()
        name, dtype = f"i{at}", tensor.dtype or self.op.dtype
        if tensor.constant:
            self._constant(name, self._content(at, tensor, dtype))
        else:
            self.inputs.append(onnx.helper.make_tensor_value_info(name, _number_of(dtype), tensor.shape))
        return self._dequantized(name, tensor, dtype, self.plan.through[at]) if at in self.plan.through else name

    def _dequantized(self, name: str, tensor: TensorSpec, dtype: str, axis: int | None) -> str:
        """Put a DequantizeLinear behind an operand."""
        if axis is not None and axis >= len(tensor.shape):
            raise DataError(f"operand {name} has no axis {axis} to have scales along")
        shape = () if axis is None else (tensor.shape[axis],)
        parts = [name, self._constant(f"{name}_scale", np.full(shape, _SCALE, np.float32))]
        if dtype != "int32":  # biases have their zero at zero
            zero = np.full(shape, _ZERO_POINTS.get(dtype, 0), dtype)
            parts.append(self._constant(f"{name}_zero", zero))
        attributes = {} if axis is None else {"axis": axis}
        self.nodes.append(onnx_package().helper.make_node("DequantizeLinear", parts, [f"{name}_real"], **attributes))
        return f"{name}_real"

    def _constant(self, name: str, values: Any) -> str:
        self.constants.append(onnx_package().numpy_helper.from_array(values, name))
        return name

    def _content(self, at: int, tensor: TensorSpec, dtype: str) -> Any:
        """Draw the values of a constant."""
        if at in self.plan.steering:
            return self._filled(self.plan.steering[at], tensor.shape, dtype)
        if tensor.values:
            return self._filled(tensor.values, tensor.shape, dtype)
        head = self.plan.steps[0]
        if head.op_type in _SHAPED and head.operands[1:2] == (f"i{at}",):
            return self._filled(self.op.out[0], tensor.shape, dtype)
        if dtype.startswith("float"):
            return self._floats(tensor.shape).astype(dtype)
        if dtype in ("int8", "uint8") and len(tensor.shape) < 2:
            return np.full(tensor.shape, _ZERO_POINTS.get(dtype, 0), dtype)
        if dtype in ("int8", "uint8"):
            limits = np.iinfo(dtype)
            return self._rng.integers(max(limits.min, -127), limits.max, tensor.shape, endpoint=True).astype(dtype)
        return np.ones(tensor.shape, dtype) if dtype == "bool" else np.zeros(tensor.shape, dtype)  # valid indices

    def _floats(self, shape: tuple[int, ...]) -> Any:
        """Draw weights of about unit gain, and positive numbers for vectors, which may be scales or variances."""
        if len(shape) < 2:
            return self._rng.uniform(0.1, 0.5, shape)
        fan_in = max(1, math.prod(shape) // max(shape[0], 1))
        return self._rng.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)

    def _filled(self, values: tuple[float, ...], shape: tuple[int, ...], dtype: str) -> Any:
        if len(values) != math.prod(shape):
            raise DataError(f"{len(values)} values do not fill a constant of shape {shape}")
        return np.array(values, dtype).reshape(shape)


def _number_of(dtype: str) -> int:
    onnx = onnx_package()
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
