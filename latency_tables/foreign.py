"""Other tools' names of what they measured ↔ OpSpec: the blocks of ProxylessNAS and Once-for-All, FBNet's operators.

ProxylessNAS and Once-for-All name a block of their network, such as
`expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0` (a second form adds
`-se:0-hs:0`). It becomes an OpSpec of kind ofa_expanded_conv with those numbers as attributes and its shapes behind a
batch of 1; it never answers for one of our operators. FBNet's lookup tables hold Caffe2 operators: kind fbnet_…, with
their arguments as attributes. Both ways are inverse. Files are importers.py's and exporters.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from latency_tables.op_spec import OpSpec, TensorSpec, check_key, spell_shape

# --- ProxylessNAS and Once-for-All ------------------------------------------------------------------------------------

_OFA_KINDS = {
    "Conv": "ofa_conv",  # the first
    "Conv_1": "ofa_conv_1",  # before the pooling
    "Conv_2": "ofa_conv_2",  # after it, in MobileNetV3
    "AvgPool2D": "ofa_avg_pool_2d",
    "Logits": "ofa_logits",
    "expanded_conv": "ofa_expanded_conv",
}
_OFA_NAMES = {kind: name for name, kind in _OFA_KINDS.items()}
_OFA_NUMBERS = ("expand", "kernel", "stride", "idskip", "se", "hs")  # in the order in which a key has them
_OFA_FORMS = ((), _OFA_NUMBERS[:4], _OFA_NUMBERS)
_OFA_SHAPE = re.compile(r"[1-9][0-9]{0,7}(x[1-9][0-9]{0,7}){0,4}")
_OFA_NUMBER = re.compile(r"0|[1-9][0-9]{0,7}")


def ofa_op(text: str, dtype: str) -> OpSpec:
    """Read a block's name; one of our own operator keys is read as what it is.

    Raises:
        ValueError, OpSyntaxError: the text is neither.

    """
    if ";" in text:
        return OpSpec.parse(text)
    name, *parts = text.split("-")
    fields = [part.partition(":")[::2] for part in parts]
    names = tuple(field for field, _ in fields)
    if name not in _OFA_KINDS:
        raise ValueError(f"block {text[:200]!r} is none of {', '.join(_OFA_KINDS)}")
    if names[:2] != ("input", "output") or names[2:] not in _OFA_FORMS:
        raise ValueError(
            f"block {text[:200]!r} has not the fields input, output[, {', '.join(_OFA_NUMBERS)}], in order"
        )
    for field, value in fields:
        if not (_OFA_SHAPE if field in names[:2] else _OFA_NUMBER).fullmatch(value):
            raise ValueError(f"{field}:{value[:50]} in block {text[:200]!r} is no shape or number")
    shapes = [(1, *map(int, value.split("x"))) for _, value in fields[:2]]
    op = OpSpec(
        _OFA_KINDS[name], (TensorSpec(shapes[0]),), dtype, out=(shapes[1],), attributes=tuple(sorted(fields[2:]))
    )
    check_key(op.key)  # a size may be absurd
    return op


def ofa_name(op: OpSpec) -> str:
    """Spell a block as ProxylessNAS does; another operator keeps its key, so that nothing is lost."""
    if op.kind not in _OFA_NAMES:
        return op.key
    parts = [f"input:{spell_shape(op.inputs[0].shape[1:])}", f"output:{spell_shape(op.out[0][1:])}"]
    numbers = dict(op.attributes)
    return "-".join([_OFA_NAMES[op.kind], *parts, *(f"{n}:{numbers[n]}" for n in _OFA_NUMBERS if n in numbers)])


# --- FBNet ------------------------------------------------------------------------------------------------------------

# of caffe2.proto's TensorProto.DataType
_CAFFE2 = {"float32": 1, "int32": 2, "bool": 5, "uint8": 6, "int8": 7, "uint16": 8, "int16": 9, "int64": 10}
_CAFFE2 |= {"float16": 12, "float64": 13, "dynamic_int8": 1}  # whose activations are floats; none for the rest
_IGNORED = ("Y_scale", "Y_zero_point", "ws_nbytes_limit")  # FBNet's own reader matches operators without them
_OWN_KEY = "edgekd_key"  # an argument that holds the key of one of our operators
_ARGUMENT = re.compile(r'name: "([A-Za-z0-9_]+)"\n((?:(?:i|f|s|ints|floats): [^\n]+\n)+)')
_TEXT_VALUE = re.compile(r'"([A-Za-z0-9_.:+\-]+)"')
_KEY_VALUE = re.compile(r'name: "edgekd_key"\ns: "([^"\n]+)"\n')


def fbnet_op(record: Mapping[str, Any]) -> OpSpec:
    """Read an operator from a record's op_type, op_args, input_shapes and input_dtypes.

    Raises:
        ValueError, OpSyntaxError: they are not what FBNet's tools write.

    """
    op_type, arguments = record["op_type"], _list_of(record, "op_args", str)
    shapes, dtypes = record["input_shapes"], _list_of(record, "input_dtypes", int)
    if not isinstance(op_type, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,60}", op_type):
        raise ValueError(f"op_type {str(op_type)[:80]!r} is no operator's name")
    if not isinstance(shapes, list) or not shapes or len(shapes) != len(dtypes):
        raise ValueError("input_shapes and input_dtypes are not two lists of the same length")
    if len(arguments) == 1 and (own := _KEY_VALUE.fullmatch(arguments[0])):
        return _own_op(own[1], record)
    inputs = tuple(TensorSpec(_shape(shape)) for shape in shapes)
    attributes = {"op_type": op_type, "input_dtypes": "_".join(map(str, dtypes))}
    for argument in arguments:
        attributes |= _attribute(argument)
    dtype = "int8" if op_type.startswith("Int8") else "float32"
    op = OpSpec(f"fbnet_{op_type.lower()}", inputs, dtype, attributes=tuple(sorted(attributes.items())))
    check_key(op.key)
    return op


def fbnet_fields(op: OpSpec) -> dict[str, Any]:
    """Spell an operator as a record's first four fields; one of ours is named by its key in an argument."""
    shapes = [list(tensor.shape) for tensor in op.inputs]
    attributes = dict(op.attributes)
    if not op.kind.startswith("fbnet_"):
        codes = [_CAFFE2.get(tensor.dtype or op.dtype, 0) for tensor in op.inputs]
        arguments = [f'name: "{_OWN_KEY}"\ns: "{op.key}"\n']
        return {"op_type": op.kind, "op_args": arguments, "input_shapes": shapes, "input_dtypes": codes}
    arguments = [_argument(name[4:], text) for name, text in op.attributes if name.startswith("arg_")]
    codes = [int(code) for code in attributes["input_dtypes"].split("_")]
    return {"op_type": attributes["op_type"], "op_args": arguments, "input_shapes": shapes, "input_dtypes": codes}


def _own_op(key: str, record: Mapping[str, Any]) -> OpSpec:
    op = OpSpec.parse(key)
    if any(record[name] != value for name, value in fbnet_fields(op).items()):
        raise ValueError(f"the record is not that of its {_OWN_KEY} {key[:200]!r}")
    return op


def _list_of(record: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    values = record[name]
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise ValueError(f"{name} is not a list of {'texts' if kind is str else 'integers'}")
    return values


def _shape(values: object) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or any(type(value) is not int for value in values):
        raise ValueError("input_shapes holds something else than lists of integers")
    return tuple(values)


def _attribute(text: str) -> dict[str, str]:
    """Turn an argument in protobuf's text form, of name and values, into one attribute, such as arg_stride=i:2."""
    found = _ARGUMENT.fullmatch(text if text.endswith("\n") else text + "\n")
    if not found:
        raise ValueError(f'argument {text[:80]!r} is not of the form name: "…" i: …')
    name, values = found[1], [line.split(": ", 1) for line in found[2].splitlines()]
    if name in _IGNORED:
        return {}
    kinds = {kind for kind, _ in values}
    kind = kinds.pop()
    texts = [_TEXT_VALUE.sub(r"\1", value) if kind == "s" else value for _, value in values]
    if kinds or (len(texts) > 1 and kind in ("i", "f", "s")):
        raise ValueError(f"argument {text[:80]!r} holds several values")
    return {f"arg_{name}": f"{kind}:{'_'.join(texts)}"}


def _argument(name: str, text: str) -> str:
    kind, _, values = text.partition(":")
    texts = [f'"{values}"'] if kind == "s" else values.split("_")
    return f'name: "{name}"\n' + "".join(f"{kind}: {value}\n" for value in texts)
