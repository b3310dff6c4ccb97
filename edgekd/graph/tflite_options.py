"""The options and the version with which an operator is written; both follow from its OpSpec.

A version too low makes runtimes read an operator wrongly, one too high makes old runtimes refuse it.
Source: the TFLite schema and TensorFlow Lite's table of operator versions.
"""

from __future__ import annotations

from typing import Any

from edgekd.graph.tflite_schema import (
    ACTIVATION_NUMBERS,
    BUILTINS,
    CUSTOM,
    PADDING_NUMBERS,
    Options,
    default_options,
    snake,
)
from latency_tables.op_spec import OpSpec

# attributes that are no option: how operands are stored, which are missing, and what could not be spelled
NOTES = ("absent", "variable", "outs", "weights", "code", "options", "digest")

HEX = "hex:"  # before a custom operator's options, where the key holds them whole

_VERSIONS: dict[str, dict[str, int]] = {
    "conv_2d": {"int8": 3, "dynamic_int8": 5, "int16": 4},
    "depthwise_conv_2d": {"int8": 3, "dynamic_int8": 6, "int16": 5},
    "fully_connected": {"int8": 4, "dynamic_int8": 3, "int16": 7},
    "transpose_conv": {"float32": 3, "float16": 3, "dynamic_int8": 3, "int8": 3, "uint8": 3, "int16": 3},
    "quantize": {"int8": 1, "int16": 2},
    "relu": {"uint8": 2},
    "relu6": {"uint8": 2},
}
# kinds whose first version already takes int8
_ALWAYS_FIRST = ("hard_swish", "prelu", "leaky_relu", "relu_n1_to_1", "elu", "div", "reshape", "squeeze", "expand_dims")
_GROUPED_CONV, _DILATED_DEPTHWISE, _TRANSPOSED_WITH_ACT, _HALF_PIXELS, _FLOAT16 = 6, 2, 4, 3, 3


def operator_code(op: OpSpec) -> tuple[int, int]:
    """Give the number and the version of an operator's builtin.

    Raises:
        ValueError: the kind is no builtin of the schema.

    """
    if op.kind == "custom":
        return CUSTOM, 1
    if op.kind not in BUILTINS:
        raise ValueError(f"{op.kind} is not a builtin operator of .tflite files")
    return BUILTINS[op.kind], _special_version(op) or _usual_version(op)


def _usual_version(op: OpSpec) -> int:
    dtype = "int16" if any(tensor.dtype == "int16" for tensor in op.inputs) else op.dtype
    usual = {"int8": 2, "int16": 3}.get(dtype, 1) if op.kind not in _ALWAYS_FIRST else 1
    return _VERSIONS.get(op.kind, {}).get(dtype, usual)


def _special_version(op: OpSpec) -> int:
    """Give the version that a feature asks for, whatever the dtype; 0 where none does."""
    attributes = dict(op.attributes)
    if op.kind == "conv_2d" and op.groups > 1:
        return _GROUPED_CONV
    if op.kind == "depthwise_conv_2d" and op.dilation != (1, 1) and op.dtype not in ("int8", "dynamic_int8"):
        return _DILATED_DEPTHWISE
    if op.kind == "transpose_conv" and op.act != "none":
        return _TRANSPOSED_WITH_ACT
    if op.kind.startswith("resize_") and "half_pixel_centers" in attributes:
        return _HALF_PIXELS
    if op.kind == "dequantize" and op.inputs[0].dtype == "float16":
        return _FLOAT16
    return 0


def options_of(op: OpSpec) -> Options:
    """Give the options object of a builtin operator.

    Raises:
        ValueError: the key holds an attribute that the kind does not have.

    """
    options = default_options(op.kind)
    fields = {snake(name): name for name in vars(options.value or ())} if options.value is not None else {}
    wanted = _field_options(op) | {name: text for name, text in op.attributes if name not in NOTES}
    for name, value in wanted.items():
        if name in fields:
            setattr(options.value, fields[name], _as_type(getattr(options.value, fields[name]), name, value))
        elif name in dict(op.attributes):
            raise ValueError(f"the kind {op.kind} has no attribute {name}")
    if op.act != "none":
        if "fused_activation_function" not in fields:
            raise ValueError(f"the kind {op.kind} has no activation of its own")
        options.value.fusedActivationFunction = ACTIVATION_NUMBERS[op.act]
    return options


def custom_of(op: OpSpec) -> tuple[str, bytes]:
    """Give the name and the options of a custom operator.

    Raises:
        ValueError: the key does not hold them.

    """
    attributes = dict(op.attributes)
    options = attributes.get("options", HEX)
    name = attributes.get("code", "")
    if not options.startswith(HEX) or not name or ":" in name:
        raise ValueError("its key holds a hash of its name or options instead of themselves")
    return name, bytes.fromhex(options.removeprefix(HEX))


def _field_options(op: OpSpec) -> dict[str, Any]:
    """Give the options that an operator of a short form has in fields of its own; a kind takes those that it knows."""
    found: dict[str, Any] = {"keep_dims": True} if op.kind == "mean" and not op.out else {}
    if op.kind == "reshape" and len(op.inputs) == 1:  # an old form without a second operand
        found["new_shape"] = list(op.out[0])
    if op.kind.endswith("pool_2d") and not op.out:
        found |= {"filter_height": op.kernel[0], "filter_width": op.kernel[1]}
    if op.kind.endswith("pool_2d") or "conv" in op.kind:
        found |= {"stride_h": op.stride[0], "stride_w": op.stride[1], "padding": PADDING_NUMBERS[op.padding]}
        found |= {"dilation_h_factor": op.dilation[0], "dilation_w_factor": op.dilation[1]}
    if op.kind == "depthwise_conv_2d":
        found["depth_multiplier"] = op.out_channels // op.inputs[0].shape[3]
    return found


def _as_type(default: Any, name: str, value: Any) -> Any:
    """Read an attribute's text as the type that its default has."""
    if not isinstance(value, str):
        return value
    if isinstance(default, bool):
        return bool(int(value))
    if isinstance(default, float):
        return float(value)
    if isinstance(default, int):
        return int(value)
    if name == "quant_spec" or not value.replace("_", "").replace("-", "").isdigit():
        raise ValueError(f"{name}={value} stands for something that the key does not hold")
    return [int(part) for part in value.split("_")]
