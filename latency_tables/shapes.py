"""What comes out of an operator: the shapes of its outputs, from its key alone.

Strict: what does not follow is an error, never a guess; guesses are features.py's. Nothing is built or run here, and
whether the shapes make sense (none may be 0) is for whoever builds. Read next: `op_spec.py`.
"""

from __future__ import annotations

import math

import numpy as np

from latency_tables.op_spec import OpSpec

_WINDOW_KINDS = ("conv_2d", "depthwise_conv_2d", "transpose_conv", "average_pool_2d", "max_pool_2d")
_MAP_RANK = 4  # batch, height, width, channels


def output_shapes(op: OpSpec) -> tuple[tuple[int, ...], ...]:
    """Give the shapes of all outputs: those that the operator names, or the one that follows from its inputs.

    Raises:
        ValueError: they follow from neither.

    """
    if op.out:
        return op.out
    first = op.inputs[0].shape if op.inputs else ()
    if op.kind in _WINDOW_KINDS and len(first) == _MAP_RANK:
        return ((first[0], *_window_sizes(op), op.out_channels or first[3]),)
    if op.kind == "mean" and len(first) == _MAP_RANK:
        return ((first[0], 1, 1, first[3]),)
    if op.kind == "fully_connected" and first:
        return ((first[0], op.out_channels),)
    if op.kind in ("add", "mul") and op.inputs:
        return (tuple(int(size) for size in np.broadcast_shapes(*(tensor.shape for tensor in op.inputs))),)
    if op.kind in ("logistic", "quantize", "dequantize") and op.inputs:
        return (first,)
    raise ValueError(f"operator {op.kind} does not say what comes out of it; its key must name out=SHAPE")


def padded_shape(op: OpSpec) -> tuple[int, ...]:
    """Give the shape of an operator's first input behind the pad that is measured with it."""
    if not op.pad:
        return op.inputs[0].shape
    batch, height, width, channels = op.inputs[0].shape
    top, bottom, left, right = op.pad
    return (batch, height + top + bottom, width + left + right, channels)


def _window_sizes(op: OpSpec) -> list[int]:
    """Give the output's height and width of an operator that slides a window."""
    sizes = []
    shape = padded_shape(op)
    for axis in (0, 1):
        size, stride = shape[axis + 1], op.stride[axis]
        kernel = (op.kernel[axis] - 1) * op.dilation[axis] + 1
        if op.kind == "transpose_conv":
            sizes.append(size * stride + (max(kernel - stride, 0) if op.padding == "valid" else 0))
        else:
            sizes.append(math.ceil(size / stride) if op.padding == "same" else (size - kernel) // stride + 1)
    return sizes
