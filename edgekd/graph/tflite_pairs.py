"""Joins operators that are measured as one: a PAD before a window, an activation after any operator.

Runtimes fuse some of these pairs; measured together, whatever they do is in the time. It changes no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgekd.graph.tflite_file import FileOperator
from latency_tables.op_spec import OpSpec

PADDED_KINDS = ("conv_2d", "depthwise_conv_2d", "average_pool_2d", "max_pool_2d")
ACTIVATION_KINDS = ("relu", "relu6", "relu_n1_to_1")
_ALONE = ("custom", "if", "while", "call", "call_once", "stablehlo_composite")  # these cannot be measured


@dataclass(frozen=True, slots=True)
class Placed:
    """An operator's spelling and where it stands in its file."""

    op: FileOperator
    spec: OpSpec


def joined(placed: Iterable[Placed], outputs: Iterable[int]) -> list[OpSpec]:
    """Join all pairs; the rest stays as it is, in its order. `outputs` are the graph's."""
    rest = list(placed)
    uses = Counter(index for one in rest for index in one.op.inputs) + Counter(outputs)
    single = {index for index, count in uses.items() if count == 1} - {*outputs}
    return [one.spec for one in _with_activations(_with_pads(rest, single), single)]


def _with_pads(placed: list[Placed], single: set[int]) -> list[Placed]:
    """Put a PAD of zeros around the picture into the window operator that alone reads it."""
    pads = {one.op.outputs[0]: number for number, one in enumerate(placed) if _is_picture_pad(one.spec)}
    gone, found = set(), list(placed)
    for number, one in enumerate(placed):
        source = pads.get(one.op.inputs[0]) if one.op.inputs else None
        fits = one.spec.kind in PADDED_KINDS and one.spec.padding == "valid"
        if source is not None and fits and one.op.inputs[0] in single:
            pad = placed[source].spec
            spec = replace(one.spec, inputs=(pad.inputs[0], *one.spec.inputs[1:]), pad=pad.inputs[1].values[2:6])
            found[number] = replace(one, spec=spec)
            gone.add(source)
    return [one for number, one in enumerate(found) if number not in gone]


def _is_picture_pad(spec: OpSpec) -> bool:
    if spec.kind != "pad" or len(spec.inputs) != 2 or len(spec.inputs[0].shape) != 4:
        return False
    values = spec.inputs[1].values
    return len(values) == 8 and min(values) >= 0 and not any((*values[:2], *values[6:]))


def _with_activations(placed: list[Placed], single: set[int]) -> list[Placed]:
    """Put an activation into the operator whose output it alone reads."""
    makers: dict[int, int] = {}
    gone, found = set(), list(placed)
    for number, one in enumerate(placed):
        source = makers.get(one.op.inputs[0]) if one.spec.kind in ACTIVATION_KINDS else None
        if source is not None and found[source].spec.then == "none" and one.op.inputs[0] in single:
            found[source] = replace(found[source], spec=replace(found[source].spec, then=one.spec.kind))
            gone.add(number)
        elif len(one.op.outputs) == 1 and one.spec.kind not in _ALONE and not one.spec.is_folded:
            makers[one.op.outputs[0]] = number
    return [one for number, one in enumerate(found) if number not in gone]
