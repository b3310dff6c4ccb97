"""The names that a .tflite file's numbers stand for: operators, tensor types, activations, and each kind's options.

Shared by the writer and the reader, so that they cannot disagree. It reads and writes no file. Read next:
tflite_model.py (collects what is to be written) or tflite_file.py (reads).
Source: the TFLite schema, version 3, through the classes generated from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from latency_tables.op_spec import TENSOR_DTYPES


def _numbers(enum: type) -> dict[str, int]:
    return {name.lower(): number for name, number in vars(enum).items() if isinstance(number, int)}


BUILTINS = {kind: number for kind, number in _numbers(schema.BuiltinOperator).items() if kind != "custom"}
KIND_NAMES = {number: kind for kind, number in BUILTINS.items()}
CUSTOM = schema.BuiltinOperator.CUSTOM
_ALL_TYPES = _numbers(schema.TensorType)
TENSOR_TYPES = {name: _ALL_TYPES[name] for name in TENSOR_DTYPES}
TYPE_NAMES = {number: name for name, number in _ALL_TYPES.items()}
NUMPY_TYPES = {name: np.dtype(name) for name in TENSOR_DTYPES if name != "int4"}  # numpy has no half bytes
ACTIVATION_NUMBERS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
    "relu_n1_to_1": schema.ActivationFunctionType.RELU_N1_TO_1,
}
ACTIVATION_NAMES = {number: name for name, number in ACTIVATION_NUMBERS.items()}
PADDING_NUMBERS = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
PADDING_NAMES = {number: name for name, number in PADDING_NUMBERS.items()}

# kinds whose options do not bear their name
_OPTIONS_OF = {
    "average_pool_2d": "Pool2DOptions",
    "max_pool_2d": "Pool2DOptions",
    "l2_pool_2d": "Pool2DOptions",
    "mean": "ReducerOptions",
    "sum": "ReducerOptions",
    "reduce_prod": "ReducerOptions",
    "reduce_max": "ReducerOptions",
    "reduce_min": "ReducerOptions",
    "reduce_any": "ReducerOptions",
    "reduce_all": "ReducerOptions",
    "maximum": "MaximumMinimumOptions",
    "minimum": "MaximumMinimumOptions",
    "l2_normalization": "L2NormOptions",
    "unidirectional_sequence_rnn": "SequenceRNNOptions",
    "conv_3d_transpose": "Conv3DOptions",
    "random_uniform": "RandomOptions",
    "random_standard_normal": "RandomOptions",
    "multinomial": "RandomOptions",
}


@dataclass(frozen=True)
class Options:
    """An operator's options as the schema wants them: the number of their class, the object, and which union."""

    number: int = 0
    value: Any = None
    is_second_union: bool = False


def _flat(name: str) -> str:
    return name.replace("_", "").lower().removesuffix("options")


_FIRST, _SECOND = (
    {_flat(name): (name, number) for name, number in vars(union).items() if isinstance(number, int)}
    for union in (schema.BuiltinOptions, schema.BuiltinOptions2)
)


def default_options(kind: str) -> Options:
    """Make the options of a kind with the schema's defaults; without an object where the kind has none to choose."""
    name = _flat(_OPTIONS_OF.get(kind, kind))
    for union, is_second in ((_FIRST, False), (_SECOND, True)):
        if name in union and name != "none":
            class_name, number = union[name]
            value = getattr(schema, f"{class_name}T")()
            return Options(number, value, is_second) if vars(value) else Options()
    return Options()


def snake(name: str) -> str:
    """Spell a field's name as attributes do: halfPixelCenters is half_pixel_centers."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
