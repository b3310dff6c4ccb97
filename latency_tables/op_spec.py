"""One operator as a runtime sees it: OpSpec, with a text form that is its key in every table.

Any operator of a .tflite or .onnx file can be spelled. Those that edgekd's own networks are made of have short forms
with fields of their own; all others name their operands, outputs and attributes in full. This module writes no models
and knows no milliseconds. Read next: `schema.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

from latency_tables.errors import OpSyntaxError

# float16: weights in float16 behind a folded DEQUANTIZE; dynamic_int8: weights in int8, activations in float32;
# int8 and uint8: weights and activations.
OP_DTYPES = ("float32", "float16", "dynamic_int8", "int8", "uint8")
DTYPES = ("float32", "int8")  # of whole networks, and so of calibrations
TENSOR_DTYPES = (
    *("float32", "float16", "float64", "int4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"),
    *("uint64", "bool"),
)
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")
_PADDINGS = ("same", "valid")
_MAX_DIMENSION = 1 << 24  # far above any real tensor; stops a damaged key from asking for terabytes
MAX_VALUES = 64  # of a constant that steers an operator; larger ones are weights, whose values do not matter
MAX_KEY = 500  # characters; a job's id on a device may have no more
_MAX_TEXT = 16 * MAX_KEY  # of what is read at all; a foreign table's operators are never measured here
_CACHED = 4096  # parts of keys; the keys of a table are made of a few hundred different ones
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_VALUE = r"-?[0-9]{1,10}"
_TENSOR = re.compile(
    rf"(?P<constant>c?)(?:(?P<dtype>[a-z]+[0-9]*):)?(?P<shape>scalar|[0-9x]+)(?:\((?P<values>{_VALUE}(?:_{_VALUE})*)\))?"
)
_ATTRIBUTE = re.compile(r"@[a-z][a-z0-9_]*")
_TEXT = re.compile(r"[A-Za-z0-9_.:+\-]+")
_DIMS = re.compile(r"[0-9]{1,8}(x[0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An operator's input: its shape (batch first, channels last) and whether its value is part of the model.

    Its text form is [c][dtype:]SHAPE[(values)], such as 1x28x28x8, c1x1x1x8 or cint32:2(1_2).
    """

    shape: tuple[int, ...]  # () is a scalar
    constant: bool = False
    dtype: str = ""  # where it is not that of the operator's activations; one of TENSOR_DTYPES
    values: tuple[int, ...] = ()  # of a small integer constant that steers the operator: axes, paddings, a new size

    def __str__(self) -> str:
        dtype = f"{self.dtype}:" if self.dtype else ""
        values = f"({'_'.join(map(str, self.values))})" if self.values else ""
        return ("c" if self.constant else "") + dtype + spell_shape(self.shape) + values


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One operator as the runtime sees it, with what the runtime fuses into it; weights and biases of the kinds in
    WEIGHTED_KINDS are implied.

    `key` and `parse` are inverse. Fields that a kind does not use keep their defaults and do not show in the key.
    """

    kind: str  # the TFLite builtin's name in lower case: conv_2d, mean ...; of .onnx files onnx_conv, onnx_relu ...
    inputs: tuple[TensorSpec, ...]
    dtype: str
    out_channels: int = 0
    kernel: tuple[int, int] = (1, 1)  # height, width
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "same"
    groups: int = 1
    act: str = "none"  # an attribute of the operator itself
    pad: tuple[int, ...] = ()  # top, bottom, left, right of a PAD operator before this one, measured with it
    then: str = "none"  # an activation operator after this one that nothing else reads around, measured with it
    out: tuple[tuple[int, ...], ...] = ()  # shapes of the outputs, where they do not follow from the rest
    attributes: tuple[tuple[str, str], ...] = ()  # all else that the file says of it, by name, sorted

    @property
    def key(self) -> str:
        """Spell the operator as `kind;dtype;in=…;name=value…;@attribute=value…`, in a fixed order, without defaults."""
        parts = [self.kind, self.dtype, "in=" + ",".join(map(str, self.inputs))]
        for name, value, default in _optional_fields(self):
            if value != default:
                parts.append(f"{name}={_spell(name, value)}")
        parts += [f"@{name}={value}" for name, value in self.attributes]
        return ";".join(parts)

    @property
    def is_folded(self) -> bool:
        """Tell whether the runtime computes it once, when the model is loaded, so that an inference pays nothing.

        Those are the two operators that unpack weights, DEQUANTIZE and DENSIFY, of constants.
        """
        return self.kind in FOLDED_KINDS and all(tensor.constant for tensor in self.inputs)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Give the implied weights' shape in TFLite's layout; an operator without such weights has the shape (0,)."""
        in_channels = self.inputs[0].shape[-1] if self.inputs and self.inputs[0].shape else 0
        if self.kind == "conv_2d":
            return (self.out_channels, *self.kernel, in_channels // self.groups)
        if self.kind == "transpose_conv":
            return (self.out_channels, *self.kernel, in_channels)
        if self.kind == "depthwise_conv_2d":
            return (1, *self.kernel, self.out_channels)
        if self.kind == "fully_connected":
            return (self.out_channels, math.prod(self.inputs[0].shape[1:]))
        return (0,)

    @property
    def weight_bytes(self) -> int:
        """Give the size of all constants that an inference reads: the implied weights and the constant inputs."""
        if self.is_folded:
            return 0
        constants = sum(math.prod(t.shape) * _bytes_of(t.dtype or self.dtype) for t in self.inputs if t.constant)
        return math.prod(self.weight_shape) * _bytes_of(self.dtype) + constants

    @staticmethod
    def parse(key: str) -> OpSpec:
        """Read what `key` wrote.

        Raises:
            OpSyntaxError: the text is not a key in its one canonical form.

        """
        parts = key.split(";") if len(key) <= _MAX_TEXT else []
        if len(parts) < 3 or not _KIND.fullmatch(parts[0]) or not parts[2].startswith("in="):
            raise OpSyntaxError(key, "expected kind;dtype;in=shape[,shape];name=value…")
        try:
            fields = [_parse_field(part)[1:] for part in parts[3:]]
            inputs = tuple(_parse_tensor(text) for text in parts[2][3:].split(","))
        except _Reason as reason:
            raise OpSyntaxError(key, str(reason)) from reason
        attributes = tuple((name[1:], value) for name, value in fields if name[0] == "@")
        if [name for name, _ in attributes] != sorted({name for name, _ in attributes}):
            raise OpSyntaxError(key, "its attributes are not in the order of the alphabet")
        named = {name: value for name, value in fields if name[0] != "@"}
        spec = OpSpec(parts[0], inputs, parts[1], **named, attributes=attributes)
        if spec.dtype not in OP_DTYPES:
            raise OpSyntaxError(key, f"dtype {spec.dtype!r} is not one of {', '.join(OP_DTYPES)}")
        if spec.key != key:
            raise OpSyntaxError(key, f"not in canonical form, which would be {spec.key!r}")
        return spec


WEIGHTED_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected", "transpose_conv")
FOLDED_KINDS = ("dequantize", "densify")
_PAIRS = ("kernel", "stride", "dilation")
_CHOICES = {"padding": _PADDINGS, "act": ACTIVATIONS, "then": ACTIVATIONS}


def spell_shape(shape: tuple[int, ...]) -> str:
    """Spell a shape: 1x28x28x8, or scalar for ()."""
    return "x".join(map(str, shape)) if shape else "scalar"


def _bytes_of(dtype: str) -> int:
    # XNNPACK widens float16 weights when the model is loaded; an inference reads them as float32.
    if dtype in ("float32", "float16", "int32", "uint32"):
        return 4
    return 8 if dtype.endswith("64") else 2 if dtype.endswith("16") else 1


_OPTIONAL = tuple(
    (field.name, field.default)
    for field in dataclasses.fields(OpSpec)
    if field.default is not dataclasses.MISSING and field.name != "attributes"
)


# by name: what sorts it among the fields of a key, before every @; and its default
_PLACES = {name: (f"{number:02}", default) for number, (name, default) in enumerate(_OPTIONAL)}


def _optional_fields(op: OpSpec) -> list[tuple[str, object, object]]:
    return [(name, getattr(op, name), default) for name, default in _OPTIONAL]


def _spell(name: str, value: Any) -> str:
    if name == "out":
        return ",".join(map(spell_shape, value))
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_key(key: str) -> None:
    """See that a text is a key, in a tenth of the time of reading it: most parts were met in other keys.

    Raises:
        OpSyntaxError: see `OpSpec.parse`.

    """
    parts = key.split(";")
    if len(key) <= _MAX_TEXT and len(parts) > 2 and _is_input(parts[2]) and parts[1] in OP_DTYPES:
        try:
            places = ["", *[_parse_field(part)[0] for part in parts[3:]]]
        except _Reason:
            places = []
        rising = all(before < after for before, after in itertools.pairwise(places))
        if places and rising and _KIND.fullmatch(parts[0]):
            return
    OpSpec.parse(key)


class _Reason(ValueError):
    """Why a part of a key cannot be read; `OpSpec.parse` adds the key."""


def _parse_dims(text: str, least: int = 1) -> tuple[int, ...]:
    if not _DIMS.fullmatch(text):
        raise _Reason(f"{text!r} is not a shape such as 1x28x28x8")
    dims = tuple(int(part) for part in text.split("x"))
    if max(dims) > _MAX_DIMENSION or min(dims) < least:
        raise _Reason(f"a dimension of {text!r} is not from {least} to {_MAX_DIMENSION}")
    return dims


def _parse_shape(text: str) -> tuple[int, ...]:
    return () if text == "scalar" else _parse_dims(text)


@functools.lru_cache(maxsize=_CACHED)
def _parse_tensor(text: str) -> TensorSpec:
    found = _TENSOR.fullmatch(text)
    if not found:
        raise _Reason(f"{text!r} is not a tensor such as 1x28x28x8 or cint32:2(1_2)")
    dtype = found["dtype"] or ""
    if dtype and dtype not in TENSOR_DTYPES:
        raise _Reason(f"tensor dtype {dtype!r} is not one of {', '.join(TENSOR_DTYPES)}")
    shape = _parse_shape(found["shape"])
    values = tuple(int(part) for part in found["values"].split("_")) if found["values"] else ()
    if values and (len(values) != math.prod(shape) or not found["constant"]):
        raise _Reason(f"{text!r} has {len(values)} values, which no constant of that shape has")
    return TensorSpec(shape, bool(found["constant"]), dtype, values)


@functools.lru_cache(maxsize=_CACHED)
def _parse_field(part: str) -> tuple[str, str, Any]:
    """Read `name=value`; give its place in the order of a key, "" where no key holds it so; the name of an attribute
    keeps its @.
    """
    name, equals, text = part.partition("=")
    if not equals or not text:
        raise _Reason(f"{part!r} is not name=value")
    if _ATTRIBUTE.fullmatch(name) and _TEXT.fullmatch(text):
        return name, name, text
    value = text if text in _CHOICES.get(name, ()) else _parse_numbers(name, text)
    place, default = _PLACES[name]
    return place if value != default and _spell(name, value) == text else "", name, value


@functools.lru_cache(maxsize=_CACHED)
def _is_input(part: str) -> bool:
    try:
        return part[:3] == "in=" and all(str(_parse_tensor(text)) == text for text in part[3:].split(","))
    except _Reason:
        return False


def _parse_numbers(name: str, text: str) -> Any:
    if name == "out":
        return tuple(_parse_shape(part) for part in text.split(","))
    if name in ("out_channels", "groups", *_PAIRS, "pad"):
        dims = _parse_dims(text, 0 if name == "pad" else 1)
        wanted = {"pad": 4, "out_channels": 1, "groups": 1}.get(name, 2)
        if len(dims) != wanted:
            raise _Reason(f"{name}={text} must have {wanted} numbers")
        return dims[0] if wanted == 1 else dims
    raise _Reason(f"unknown field {name}={text}")
