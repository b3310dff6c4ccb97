"""What an operator's time depends on: its family, its sizes, and the work that a kernel does for it.

A family is everything but sizes: two operators of one family run the same kernels on more or less data. Sizes and work
are numbers. Nothing here knows a millisecond; fitting times to them is estimate.py's and simulate.py's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from latency_tables import shapes
from latency_tables.op_spec import WEIGHTED_KINDS, OpSpec, TensorSpec

# Operators whose integer constants say what they do along which axes; those of others are sizes, which shapes show too.
_AXES_KINDS = ("arg_max", "arg_min", "gather", "mean", "reduce_", "sum", "transpose", "onnx_reduce", "onnx_transpose")
_WINDOWS = (*WEIGHTED_KINDS[:2], "average_pool_2d", "max_pool_2d")
_PRODUCTS = ("conv", "gemm", "matmul", "mat_mul", "fully_connected")  # in the names of generic kinds
_MOST = 1 << 62  # elements; a damaged key may ask for more than a float can count
_CHANNELS_FIRST = "onnx_"  # the kinds whose tensors are (batch, channels, height, width)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much data an operator handles; `positions` are output elements a channel, such as batch · height · width."""

    positions: int
    in_channels: int
    out_channels: int
    in_elements: int  # of all inputs that are not constants
    out_elements: int
    weight_bytes: int
    taps: int  # inputs of one channel that an output element is made of: the kernel's area
    group_channels: int  # input channels that an output element is made of; 0 where nothing is multiplied and summed
    element_bytes: int

    @property
    def macs(self) -> int:
        """Count the multiply-accumulates."""
        return self.out_elements * self.taps * self.group_channels


Family = tuple[Hashable, ...]


def family_of(op: OpSpec) -> Family:
    """Give what an operator shares with all that differ from it in sizes alone."""
    windows = (op.kernel, op.stride, op.dilation, op.padding)
    return (*kin_of(op), windows, op.act, op.then, any(op.pad), op.attributes)


def kin_of(op: OpSpec) -> Family:
    """Give what it shares with its kin, which run kernels of one sort with other windows or activations."""
    tensors = tuple(
        (len(t.shape), t.constant, t.dtype, t.values if op.kind.startswith(_AXES_KINDS) else ()) for t in op.inputs
    )
    return (*kind_of(op), tensors, math.prod(op.kernel) > 1, _groups(op), _is_vector(op), _broadcasts(op))


def kind_of(op: OpSpec) -> Family:
    """Give its kind and dtype. Custom operators have nothing in common but a code."""
    return (op.kind, op.dtype, *(value for name, value in op.attributes if name == "code"))


def sizes_of(op: OpSpec) -> Sizes:
    """Measure an operator. Output shapes that its key does not tell, as those of an unknown kind, are its input's."""
    outputs = output_shapes(op)
    data = [t for t in op.inputs if not t.constant] or op.inputs or (TensorSpec(()),)
    out_elements = sum(map(_count, outputs))
    out_channels = op.out_channels or _channels(op, outputs[0])
    group_channels, taps = _reads(op, outputs[0])
    return Sizes(
        positions=max(1, out_elements // max(1, out_channels)),
        in_channels=_channels(op, data[0].shape),
        out_channels=out_channels,
        in_elements=sum(_count(t.shape) for t in data),
        out_elements=out_elements,
        weight_bytes=min(op.weight_bytes, _MOST),
        taps=taps,
        group_channels=group_channels,
        element_bytes=1 if op.dtype in ("int8", "uint8") else 4,
    )


def output_shapes(op: OpSpec) -> tuple[tuple[int, ...], ...]:
    """Give an operator's output shapes as shapes.py derives them, and those of its largest input where it cannot.

    For sizes to fit times to, where a guess serves; no size is below 1 unless the key says so.
    """
    if op.out:
        return op.out
    try:
        found = shapes.output_shapes(op)
    except ValueError:
        return (max((t.shape for t in op.inputs), key=math.prod, default=()),)
    return tuple(tuple(max(1, size) for size in shape) for shape in found)


def _reads(op: OpSpec, out_shape: tuple[int, ...]) -> tuple[int, int]:
    """Give the input channels and the kernel taps that one output element is made of."""
    area = math.prod(op.kernel)
    if op.kind in WEIGHTED_KINDS:
        weights = op.weight_shape
        if op.kind == "transpose_conv":  # each input element is spread over the taps, so an output has fewer
            return max(1, weights[-1]), max(1, round(area / math.prod(op.stride)))
        return (1 if op.kind == "depthwise_conv_2d" else max(1, min(weights[-1], _MOST))), area
    if op.kind in _WINDOWS:
        return 1, area
    if any(word in op.kind for word in _PRODUCTS):
        return _generic_reads(op, out_shape), 1
    return 0, 1


def _generic_reads(op: OpSpec, out_shape: tuple[int, ...]) -> int:
    """Give how many products an output element is the sum of, from the largest constant or else the first operand."""
    weights = max((t.shape for t in op.inputs if t.constant and len(t.shape) > 1), key=math.prod, default=())
    if not weights:
        return (op.inputs[0].shape or (1,))[-1]
    return max(1, _count(weights) // _channels(op, out_shape))


def _channels(op: OpSpec, shape: tuple[int, ...]) -> int:
    if op.kind.startswith(_CHANNELS_FIRST) and len(shape) > 2:
        return max(1, shape[1])
    return max(1, shape[-1]) if shape else 1


def _count(shape: tuple[int, ...]) -> int:
    return min(math.prod(shape), _MOST)


def _groups(op: OpSpec) -> str:
    if op.groups == 1:
        return "dense"
    return "depthwise" if op.inputs[0].shape and op.groups == op.inputs[0].shape[-1] else "grouped"


def _is_vector(op: OpSpec) -> bool:
    """Tell whether a product has a single row, for which libraries keep kernels of their own."""
    return op.kind in WEIGHTED_KINDS and math.prod(output_shapes(op)[0][:-1]) == 1


def _broadcasts(op: OpSpec) -> bool:
    return len({t.shape for t in op.inputs if t.shape}) > 1 and op.kind not in WEIGHTED_KINDS
