"""Reads any .tflite file into operators (OpSpec), as a latency table knows them.

Kinds with fields of their own have short forms (_SHORT); all others are spelled in full from the schema's option
classes, so a new operator needs no code here. Weights and value ranges are not read. The file is distrusted.
Read next: tflite_file.py (the file's parts), tflite_pairs.py (what is measured as one), micro.py (the inverse).
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekd.errors import DataError
from edgekd.graph.ir import ACTIVATION_DTYPES, output_dtype, output_shapes
from edgekd.graph.tflite_file import FileGraph, FileOperator, read_graph
from edgekd.graph.tflite_options import HEX
from edgekd.graph.tflite_pairs import Placed, joined
from edgekd.graph.tflite_schema import ACTIVATION_NAMES, PADDING_NAMES
from latency_tables.errors import OpSyntaxError
from latency_tables.op_spec import FOLDED_KINDS, MAX_KEY, MAX_VALUES, OpSpec, TensorSpec

_STEERING = ("int32", "int64")  # types of constants whose values decide what is computed
_MAX_VALUE = (1 << 31) - 1  # slices to the end are written with larger ones, which mean the same
_MAX_TEXT = 60  # characters of a name that the file gives
_MAX_HASHED = 1 << 12  # elements of a long option that are looked at, beside its length
_QUANTIZED = ("int8", "uint8")
_MAX_CUSTOM_BYTES = 64  # of a custom operator's options that its key holds; a struct of a few numbers
_WEIGHT_DTYPES = ACTIVATION_DTYPES | {"dynamic_int8": "int8"}  # of implied weights, as the operator sees them
# options that change nothing an inference pays for: shapes say it already, or it is about another type
_SILENT: dict[str, tuple[str, ...]] = {"reshape": ("new_shape",), "fully_connected": ("keep_num_dims",)}


def read_ops(content: bytes) -> list[OpSpec]:
    """List the operators of a .tflite file in execution order, those that are computed at loading included.

    Raises:
        DataError: the bytes are no .tflite file, are damaged, or hold tensors of a type that edgekd does not know.

    """
    if content[4:8] != b"TFL3":
        raise DataError("not a .tflite file: the identifier TFL3 is missing")
    try:
        graph = read_graph(content)
        unpacked = _unpacked(graph)
        placed = [Placed(op, _Speller(graph, unpacked, op).spec()) for op in graph.operators]
        # a damaged number may still make an OpSpec, but not one whose key can be read again
        return [OpSpec.parse(_shortened(spec).key) for spec in joined(placed, graph.outputs)]
    except (struct.error, LookupError, TypeError, AttributeError, ArithmeticError, ValueError, OpSyntaxError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"a .tflite file that is damaged or cut off, or has no fixed shapes ({reason})") from error


def network_dtype(ops: Iterable[OpSpec]) -> str:
    """Tell which calibration speaks for a network: int8 where most of its weights are int8 or uint8 and work on such
    activations, else float32. Where there are no weights, most of its operators decide.
    """
    weights, count = {"int8": 0, "float32": 0}, {"int8": 0, "float32": 0}
    for op in ops:
        dtype = "int8" if op.dtype in _QUANTIZED else "float32"
        if not op.is_folded:
            constants = sum(math.prod(tensor.shape) for tensor in op.inputs if tensor.constant)
            weights[dtype] += math.prod(op.weight_shape) + constants
            count[dtype] += 1
    votes = weights if any(weights.values()) else count
    return "int8" if votes["int8"] > votes["float32"] else "float32"


def _unpacked(graph: FileGraph) -> dict[int, str]:
    """Give the tensors that are computed at loading, from constants, each with the type that the file stores it in."""
    found: dict[int, str] = {}
    for op in graph.operators:
        first = op.inputs[0] if op.kind in FOLDED_KINDS and op.inputs else -1
        if first >= 0 and (first in found or graph.tensors[first].data is not None):
            found |= dict.fromkeys(op.outputs, found.get(first, graph.tensors[first].dtype))
    return found


@dataclass(frozen=True)
class _Speller:
    """Spells one operator of a graph."""

    graph: FileGraph
    unpacked: dict[int, str]
    op: FileOperator

    def spec(self) -> OpSpec:
        """Give the short form where the kind has one and this operator is of that form, else the generic one."""
        dtype = self.dtype()
        short = _SHORT.get(self.op.kind)
        fields = short(self, dtype) if short is not None else None
        if fields is None:
            fields = self.generic(dtype)
        attributes = dict(self.attributes(dtype, fields.pop("spelled", ()))) | dict(fields.pop("attributes", ()))
        act = attributes.pop("act", "none")
        spec = OpSpec(self.op.kind, dtype=dtype, act=act, attributes=tuple(sorted(attributes.items())), **fields)
        return _with_output_dtypes(spec, [self.graph.tensors[i].dtype for i in self.op.outputs])

    def generic(self, dtype: str) -> dict[str, Any]:
        """Name all operands and outputs in full."""
        tensors = [self.graph.tensors.get(index) for index in self.op.inputs]
        is_there = [tensor is not None and 0 not in tensor.shape for tensor in tensors]
        present = [index for index, there in zip(self.op.inputs, is_there, strict=True) if there]
        notes = {
            "absent": [place for place, there in enumerate(is_there) if not there],
            "variable": [place for place, index in enumerate(present) if self.graph.tensors[index].is_variable],
        }
        return {
            "inputs": tuple(self.operand(index, dtype, values=True) for index in present),
            "out": tuple(self.graph.tensors[index].shape for index in self.op.outputs),
            "attributes": tuple((name, "_".join(map(str, found))) for name, found in notes.items() if found),
        }

    def is_constant(self, index: int) -> bool:
        """Tell whether a tensor is part of the model, be it packed."""
        return index in self.unpacked or self.graph.tensors[index].data is not None

    def operand(self, index: int, dtype: str, *, values: bool = False) -> TensorSpec:
        """Spell a tensor that the operator reads."""
        tensor = self.graph.tensors[index]
        constant = self.is_constant(index)
        usual = "float32" if self.op.kind == "quantize" else ACTIVATION_DTYPES[dtype]
        named = "" if tensor.dtype == usual else tensor.dtype
        steers = values and constant and tensor.dtype in _STEERING and index not in self.unpacked
        found: tuple[int, ...] = ()
        if steers and math.prod(tensor.shape) <= MAX_VALUES:
            found = tuple(max(-_MAX_VALUE, min(_MAX_VALUE, value)) for value in tensor.integers())
        return TensorSpec(tensor.shape, constant, named, found)

    def dtype(self) -> str:
        """Tell the operator's dtype from what it works on and how its constants are stored."""
        kind, inputs = self.op.kind, [index for index in self.op.inputs if index >= 0]
        outputs = [self.graph.tensors[index].dtype for index in self.op.outputs]
        if kind == "dequantize":
            stored = self.graph.tensors[inputs[0]].dtype
            return stored if stored in _QUANTIZED else "float32"
        works_on = [self.graph.tensors[index].dtype for index in inputs if not self.is_constant(index)]
        works_on = outputs if kind == "quantize" else [*works_on, *outputs]
        found = next((name for name in works_on if name in ("float32", *_QUANTIZED)), None)
        if found is None:
            return "int8" if {"int16", "int4"} & {*works_on} else "float32"
        stored_as = {self.unpacked.get(i, self.graph.tensors[i].dtype) for i in inputs if self.is_constant(i)}
        return found if found != "float32" else _float_dtype(stored_as, {self.graph.tensors[i].dtype for i in inputs})

    def attributes(self, dtype: str, spelled: Sequence[str]) -> list[tuple[str, str]]:
        """Spell the options that no field holds, and the fused activation under `act` where OpSpec knows it."""
        options = {name: value for name, value in self.op.options.items() if name not in spelled}
        found = []
        if options.get("fused_activation_function") in ACTIVATION_NAMES:
            found.append(("act", ACTIVATION_NAMES[options.pop("fused_activation_function")]))
        for name in _SILENT.get(self.op.kind, ()):
            options.pop(name, None)
        if dtype != "dynamic_int8":
            options.pop("asymmetric_quantize_inputs", None)
        if all(tensor.dtype != "int16" for tensor in self.graph.inputs_of(self.op)):
            options.pop("pot_scale_int16", None)
        found += [(name, _text(value)) for name, value in options.items() if np.size(value)]
        if self.op.kind == "custom":
            found.append(("code", _text(self.op.code or b"unnamed")))
            found += [("options", _spelled_bytes(self.op.custom_options))] if self.op.custom_options else []
        return found


def _spelled_bytes(options: bytes) -> str:
    """Spell a custom operator's options whole where they are short, else by their hash."""
    return f"{HEX}{options.hex()}" if len(options) <= _MAX_CUSTOM_BYTES else _digest(options)


def _float_dtype(stored_as: set[str], seen_as: set[str]) -> str:
    """Name how an operator on float activations has its weights."""
    if "float16" in stored_as and "float16" not in seen_as:
        return "float16"
    return "dynamic_int8" if seen_as & {"int8", "int4", "uint8"} else "float32"


def _window(speller: _Speller, dtype: str) -> dict[str, Any]:
    options = speller.op.options
    return {
        "inputs": (speller.operand(speller.op.inputs[0], dtype),),
        "kernel": (int(options.get("filter_height", 0)), int(options.get("filter_width", 0))),
        "stride": (int(options.get("stride_h", 0)), int(options.get("stride_w", 0))),
        "padding": PADDING_NAMES[options.get("padding", 0)],
        "spelled": ("filter_height", "filter_width", "stride_h", "stride_w", "padding"),
    }


_CONV_OPTIONS = (
    *("stride_h", "stride_w", "padding", "dilation_h_factor", "dilation_w_factor"),
    *("depth_multiplier", "quantized_bias_type"),  # the first follows from the shapes, the second from the dtype
)


def _weighted(speller: _Speller, dtype: str, data: int, weights: int) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Give the fields about an operator's input and its implied weights, at these places, and the weights' shape.

    Weights that another operator computes are an input like any other.
    """
    data, weights = speller.op.inputs[data], speller.op.inputs[weights]
    if min(data, weights) < 0:
        raise IndexError(f"an operator {speller.op.kind} without input or weights")
    tensor = speller.graph.tensors[weights]
    operands = [speller.operand(data, dtype)]
    notes: tuple[tuple[str, str], ...] = ()
    if not speller.is_constant(weights):
        operands.append(speller.operand(weights, dtype))
    elif tensor.dtype != _WEIGHT_DTYPES[dtype]:
        notes = (("weights", tensor.dtype),)
    return {"inputs": tuple(operands), "attributes": notes}, tensor.shape


def _conv(speller: _Speller, dtype: str) -> dict[str, Any]:
    is_transposed = speller.op.kind == "transpose_conv"
    data, weights = (2, 1) if is_transposed else (0, 1)
    fields, shape = _weighted(speller, dtype, data, weights)
    options = speller.op.options
    fields |= {
        "out_channels": shape[3] if speller.op.kind == "depthwise_conv_2d" else shape[0],
        "kernel": (shape[1], shape[2]),
        "stride": (int(options.get("stride_h", 0)), int(options.get("stride_w", 0))),
        "dilation": (int(options.get("dilation_h_factor", 1)), int(options.get("dilation_w_factor", 1))),
        "padding": PADDING_NAMES[options.get("padding", 0)],
        "spelled": _CONV_OPTIONS,
    }
    if speller.op.kind == "conv_2d":
        fields["groups"] = fields["inputs"][0].shape[3] // shape[3]
    if is_transposed:
        out = (speller.graph.tensors[speller.op.outputs[0]].shape,)
        plain = OpSpec("transpose_conv", fields["inputs"], dtype, **{name: fields[name] for name in _TRANSPOSED_SHAPE})
        fields["out"] = () if out == output_shapes(plain) else out
    return fields


_TRANSPOSED_SHAPE = ("out_channels", "kernel", "stride", "padding")


def _fully_connected(speller: _Speller, dtype: str) -> dict[str, Any]:
    """Spell the input as the matrix that the runtime sees: rows of as many values as the weights take."""
    fields, shape = _weighted(speller, dtype, 0, 1)
    first, *others = fields["inputs"]
    if math.prod(first.shape[1:]) != shape[1]:
        first = replace(first, shape=(math.prod(first.shape) // shape[1], shape[1]))
    return fields | {"inputs": (first, *others), "out_channels": shape[0]}


def _mean(speller: _Speller, dtype: str) -> dict[str, Any] | None:
    """Give the short form of a mean over height and width that keeps its dimensions."""
    data, axes = speller.op.inputs
    first = speller.operand(data, dtype)
    over = {axis % 4 for axis in speller.operand(axes, dtype, values=True).values}
    is_short = over == {1, 2} and len(first.shape) == 4 and bool(speller.op.options.get("keep_dims"))
    return {"inputs": (first,), "spelled": ("keep_dims",)} if is_short else None


def _plain(speller: _Speller, dtype: str) -> dict[str, Any]:
    return {"inputs": tuple(speller.operand(index, dtype) for index in speller.op.inputs)}


_SHORT: dict[str, Callable[[_Speller, str], dict[str, Any] | None]] = {
    **dict.fromkeys(("conv_2d", "depthwise_conv_2d", "transpose_conv"), _conv),
    "fully_connected": _fully_connected,
    **dict.fromkeys(("average_pool_2d", "max_pool_2d"), _window),
    "mean": _mean,
    **dict.fromkeys(("add", "mul", "logistic", "quantize", "dequantize"), _plain),
}


def _with_output_dtypes(spec: OpSpec, found: list[str]) -> OpSpec:
    """Name the outputs' types where they do not follow from the operator."""
    if all(dtype == output_dtype(spec) for dtype in found):
        return spec
    attributes = {**dict(spec.attributes), "outs": "_".join(found)}
    return replace(spec, attributes=tuple(sorted(attributes.items())))


def _shortened(spec: OpSpec) -> OpSpec:
    """Keep a key within what a job's name may be: what did not fit is told apart by a hash, and cannot be measured."""
    if len(spec.key) <= MAX_KEY:
        return spec
    first = tuple(replace(tensor, values=()) for tensor in spec.inputs[:1])
    return replace(spec, inputs=first, out=spec.out[:1], attributes=(("digest", _digest(spec.key.encode())),))


def _text(value: Any) -> str:
    """Spell an option's value in the letters of an attribute."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float):
        return str(np.float32(value))
    if isinstance(value, bytes):
        text = value.decode("ascii", "replace")
        is_plain = re.fullmatch(rf"[A-Za-z0-9_.:+\-]{{1,{_MAX_TEXT}}}", text)
        return text if is_plain else f"sha256:{_digest(value)}"
    if isinstance(value, np.ndarray):
        text = "_".join(map(str, value.tolist())) if len(value) <= MAX_VALUES else ""
        return text or f"sha256:{_digest(value[:_MAX_HASHED].tobytes())}.{len(value)}"
    return str(value) if isinstance(value, int) else "1"  # an object of its own is only said to be there


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
