"""Takes an OpSpec of an .onnx file apart: its operators one by one, with operands and attributes still as text.

The text is that of `onnx_reader.py`. It writes nothing. Read next: `onnx_micro.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.errors import DataError
from edgekd.graph.onnx_spelling import PREFIX, op_type_of
from latency_tables.op_spec import OpSpec

_FUSED = re.compile(r"fused_([0-9]{1,2})(?:_([a-z][a-z_]*))?")
_CONST = re.compile(r"const_([0-9]{1,2})")
_PLACE = re.compile(r"n|[rix][0-9]{1,3}")
_OURS = ("absent", "absent_out", "qdq", "opset")  # all other attributes are the first operator's


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: its operands as places (see `onnx_reader.py`), its attributes as text by name in snake case."""

    op_type: str
    operands: tuple[str, ...]
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """The operators of a micro-model.

    through are the operands behind a DequantizeLinear, each with the axis of its scales or None for one scale; steering
    the floats of constants that are told; absent_out the outputs left out; opset 0 where any will do.
    """

    steps: tuple[Step, ...]
    through: Mapping[int, int | None]
    steering: Mapping[int, tuple[float, ...]]
    absent_out: tuple[int, ...]
    opset: int

    @staticmethod
    def of(op: OpSpec) -> Plan:
        """Take an operator apart. Raises DataError for a text that `read_onnx_ops` never gives."""
        given = dict(op.attributes)
        try:
            plan = _plan(op, given)
            _see_places(plan.steps, len(op.inputs))
        except ValueError as error:
            raise DataError(f"no model can be made of {op.key}: {error}") from error
        return plan


def _plan(op: OpSpec, given: Mapping[str, str]) -> Plan:
    if not op.kind.startswith(PREFIX) or not op.out:
        raise ValueError("it is no operator of an .onnx file with its output")
    followers = _followers(given)
    new = [int(place[1:]) for step in followers for place in step.operands if place[0] == "i"]
    own = min(new, default=len(op.inputs))
    if new != list(range(own, len(op.inputs))):
        raise ValueError("its fused operators do not read the operands that are left in their order")
    operands = [f"i{at}" for at in range(own)]
    for at in _integers(given.get("absent", "")):
        operands[at:at] = ["n"]
    steering = {
        int(match[1]): tuple(map(float, text.split("_"))) for n, text in given.items() if (match := _CONST.fullmatch(n))
    }
    ours = {name for name in given if name in _OURS or _CONST.fullmatch(name) or _FUSED.fullmatch(name)}
    attributes = {name: text for name, text in given.items() if name not in ours}
    head = Step(op_type_of(op.kind.removeprefix(PREFIX)), tuple(operands), attributes)
    through = dict(_through(part, own) for part in given.get("qdq", "").split("_") if part)
    absent_out = _integers(given.get("absent_out", ""))
    return Plan((head, *followers), through, steering, absent_out, int(given.get("opset", "0")))


def _followers(given: Mapping[str, str]) -> tuple[Step, ...]:
    parts: dict[int, dict[str, str]] = {}
    for name, text in given.items():
        if match := _FUSED.fullmatch(name):
            parts.setdefault(int(match[1]), {})[match[2] or ""] = text
    if sorted(parts) != list(range(1, len(parts) + 1)) or not all("" in part for part in parts.values()):
        raise ValueError("its fused operators are not numbered from 1")
    return tuple(
        Step(
            op_type_of(parts[number][""]),
            tuple(parts[number].get("in", f"r{number - 1}").split("_")),
            {name: text for name, text in parts[number].items() if name not in ("", "in")},
        )
        for number in sorted(parts)
    )


def _through(part: str, own: int) -> tuple[int, int | None]:
    at, colon, axis = part.partition(":")
    if int(at) >= own:
        raise ValueError(f"operand {at} is none of the first operator's")
    return int(at), int(axis) if colon else None


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("_")) if text else ()


def _see_places(steps: tuple[Step, ...], count: int) -> None:
    for number, step in enumerate(steps):
        for place in step.operands:
            if not _PLACE.fullmatch(place):
                raise ValueError(f"{place!r} is no operand")
            if place != "n" and int(place[1:]) >= (number if place[0] == "r" else count):
                raise ValueError(f"operand {place} does not exist where it is read")
