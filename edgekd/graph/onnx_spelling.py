"""How .onnx operators are spelled in OpSpec keys: names in snake case and attributes as text, in both directions.

    Conv                         onnx_conv
    kernel_shape=[3, 3]          kernel_shape=3_3          what is the schema's default is left out
    axis=-1                      axis=-1
    equation="ij,jk"             equation=ij+2cjk          characters that keys do not have are +HEX

The schemas are the onnx package's own, so no table of operators is kept here. It reads no files.
Read next: `onnx_reader.py` and its inverse, `onnx_micro.py`.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

from edgekd.errors import DataError, MissingExtra

PREFIX = "onnx_"
FIRST_OPSET = 7  # what onnxruntime still reads
# Where an operator means something else from this opset on than the same text before, the key tells the opset.
CHANGED_IN = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "Resize": 11}
# Constant operands of floating point whose values decide what is computed, by their position.
STEERING_FLOATS = {"Clip": (1, 2), "Resize": (1, 2), "Upsample": (1,), "Pad": (2,), "Pow": (1,)}
MAX_STEERING_FLOATS = 8
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PLAIN = re.compile(r"[A-Za-z0-9_.:\-]")
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_FILLED = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}  # left out where all numbers are this one


def onnx_package() -> Any:
    """Give the onnx package.

    Raises:
        MissingExtra: it is not installed.

    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("onnx", "onnx") from error
    return onnx


def snake(name: str) -> str:
    """Spell a name in snake case: QLinearConv is q_linear_conv, transB is trans_b."""
    return _WORD.sub("_", name).lower()


def kind_of(op_type: str) -> str:
    """Give the kind of an OpSpec."""
    return PREFIX + snake(op_type)


def op_type_of(snake_name: str) -> str:
    """Give the operator's name in the standard.

    Raises:
        DataError: there is no such operator.

    """
    found = _op_types().get(snake_name)
    if found is None:
        raise DataError(f"operator {PREFIX}{snake_name} is none of the ONNX standard that this onnx package knows")
    return found


@functools.cache
def _op_types() -> dict[str, str]:
    schemas = onnx_package().defs.get_all_schemas_with_history()
    return {snake(schema.name): str(schema.name) for schema in schemas if schema.domain == ""}


def schema_of(op_type: str, opset: int) -> Any:
    """Give the schema of an operator in an opset.

    Raises:
        DataError: that opset does not have it.

    """
    onnx = onnx_package()
    try:
        found = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError as error:
        raise DataError(f"operator {op_type[:80]!r} is none of ONNX opset {opset}") from error
    if found.deprecated:
        raise DataError(f"operator {op_type} is no longer part of ONNX opset {opset}")
    return found


def spell_attributes(op_type: str, attributes: dict[str, Any], opset: int) -> dict[str, str]:
    """Spell the attributes that are not the schema's default, by name in snake case.

    Raises:
        DataError: the schema has none of that name and type, or its value cannot be a text.

    """
    schema = schema_of(op_type, opset)
    spelled = {}
    for name, value in attributes.items():
        known = schema.attributes.get(name)
        if known is None:
            raise DataError(f"operator {op_type} has no attribute {name[:80]!r} in opset {opset}")
        if not _is_default(name, value, known.default_value):
            spelled[snake(name)] = spell_value(f"attribute {name} of operator {op_type}", value)
    return spelled


def _is_default(name: str, value: Any, default: Any) -> bool:
    if name in _FILLED and isinstance(value, list):
        return all(part == _FILLED[name] for part in value)
    attribute_types = type(default).DESCRIPTOR.enum_types_by_name["AttributeType"].values_by_name
    if default.type == attribute_types["UNDEFINED"].number:
        return False
    return bool(onnx_package().helper.get_attribute_value(default) == value)


def spell_value(what: str, value: Any) -> str:
    """Spell a number, a list of numbers or a string.

    Raises:
        DataError: it is something else, or holds nothing.

    """
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return "".join(char if _PLAIN.match(char) else _escaped(char) for char in text) or _refused(what)
    if isinstance(value, float):
        return str(np.float32(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list) and value and all(isinstance(part, (int, float)) for part in value):
        return "_".join(spell_value(what, part) for part in value)
    return _refused(what)


def _escaped(char: str) -> str:
    return "".join(f"+{byte:02x}" for byte in char.encode())


def _refused(what: str) -> str:
    raise DataError(
        f"{what} is a graph, a tensor or empty; operators with such attributes cannot be told apart by text"
    )


def parse_attributes(op_type: str, spelled: dict[str, str], opset: int) -> dict[str, Any]:
    """Read attributes back into the values that the schema asks for.

    Raises:
        DataError: the schema has none of that name, or the text is no value of its type.

    """
    schema = schema_of(op_type, opset)
    names = {snake(name): name for name in schema.attributes}
    missing = [
        snake(name) for name, known in schema.attributes.items() if known.required and snake(name) not in spelled
    ]
    unknown = [name for name in spelled if name not in names]
    if unknown or missing:
        raise DataError(f"operator {op_type} of opset {opset} has no {unknown} and needs {missing}")
    try:
        return {names[name]: _parse(text, schema.attributes[names[name]].type.name) for name, text in spelled.items()}
    except ValueError as error:
        raise DataError(f"operator {op_type}: {error}") from error


def _parse(text: str, kind: str) -> Any:
    if kind == "STRING":
        return bytes.fromhex(re.sub(r"\+([0-9a-f]{2})|(.)", _as_hex, text))
    if kind in ("FLOAT", "FLOATS"):
        floats = [float(np.float32(part)) for part in text.split("_")]
        return floats if kind == "FLOATS" else _only(floats, text)
    if kind in ("INT", "INTS") and all(_WHOLE.fullmatch(part) for part in text.split("_")):
        whole = [int(part) for part in text.split("_")]
        return whole if kind == "INTS" else _only(whole, text)
    raise ValueError(f"{text!r} is no attribute of type {kind}")


def _as_hex(match: re.Match[str]) -> str:
    return match[1] or f"{ord(match[2]):02x}"


def _only(values: list[Any], text: str) -> Any:
    if len(values) != 1:
        raise ValueError(f"{text!r} is more than one number")
    return values[0]
