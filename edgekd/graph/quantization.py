"""Affine int8 quantisation as TFLite defines it: scales and zero points from value ranges.

Does not find the ranges (export/quantize.py calibrates) and does not write files (tflite_writer.py).
Source: Jacob et al., arXiv 1712.05877, and TensorFlow Lite's 8-bit quantization specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.graph.ir import CONSTANT, INPUT, FloatArray, Graph, output_names
from latency_tables.op_spec import OpSpec

_MIN_RANGE = 1e-6  # weights that are all zero still need a positive scale
# A tensor that was as good as dead on the calibration images: XNNPACK refuses a model in which an output's scale is
# below 1/256 of the product of its input's and weights'.
_MIN_ACTIVATION_RANGE = 0.02

Ranges = Mapping[str, tuple[float, float]]  # node name (or "input") → smallest and largest value seen


@dataclass(frozen=True, slots=True)
class QParams:
    """real = scale · (code − zero_point). One scale a tensor, or one a channel along `axis`."""

    scale: FloatArray  # (1,) or (channels,)
    zero_point: int
    axis: int = 0


def activation_qparams(low: float, high: float) -> QParams:
    """Spread int8's 256 codes over [low, high], widened to hold 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, _MIN_ACTIVATION_RANGE) / 255.0
    zero_point = int(np.clip(round(-128 - low / scale), -128, 127))
    return QParams(np.array([scale], np.float32), zero_point)


def quantize_weights(
    weight: FloatArray, axis: int | None, min_scale: FloatArray | float = 0.0
) -> tuple[npt.NDArray[np.int8], QParams]:
    """Quantise symmetrically to [−127, 127], per channel along `axis`, or per tensor where it is None.

    `min_scale`, (channels,) or one number, keeps scales from becoming so fine that a bias in their units overflows.
    """
    other = tuple(i for i in range(weight.ndim) if i != axis) if axis is not None else tuple(range(weight.ndim))
    largest = np.abs(weight).max(axis=other, keepdims=True)
    floor = np.reshape(min_scale, [-1 if i == axis else 1 for i in range(weight.ndim)])
    scale = np.maximum(np.maximum(largest, _MIN_RANGE) / 127.0, floor).astype(np.float32)
    codes = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
    return codes, QParams(scale.reshape(-1), 0, axis or 0)


# kinds that move or choose values without scaling them: their inputs and outputs share one scale
_KEEPS_SCALE = (
    *("quantize", "dequantize", "average_pool_2d", "max_pool_2d", "resize_bilinear", "resize_nearest_neighbor"),
    *("concatenation", "split", "split_v", "pack", "unpack", "pad", "padv2", "mirror_pad", "tile", "broadcast_to"),
    *("reshape", "squeeze", "expand_dims", "transpose", "slice", "strided_slice", "gather", "gather_nd", "reverse_v2"),
    *("space_to_batch_nd", "batch_to_space_nd", "space_to_depth", "depth_to_space", "dynamic_update_slice"),
    *("maximum", "minimum", "reduce_max", "reduce_min", "select", "select_v2", "cumsum"),
)
# scales and zero points that the specification fixes, of int8 outputs
_FIXED = {
    "logistic": (1 / 256, -128),
    "softmax": (1 / 256, -128),
    "log_softmax": (16 / 256, 127),
    "tanh": (1 / 128, 0),
    "l2_normalization": (1 / 128, 0),
}


def keeps_scale(op: OpSpec) -> bool:
    """Tell whether an operator's output shares the scale of its inputs; an activation after it scales anew."""
    return op.kind in _KEEPS_SCALE and op.then == "none"


def fixed_qparams(kind: str) -> QParams | None:
    """Give an output's parameters where the specification fixes them for the kind."""
    if kind not in _FIXED:
        return None
    scale, zero_point = _FIXED[kind]
    return QParams(np.array([scale], np.float32), zero_point)


def retyped(qparams: QParams, dtype: str) -> QParams:
    """Give int8 parameters as those of another type that hold about the same range."""
    if dtype == "uint8":
        return QParams(qparams.scale, qparams.zero_point + 128, qparams.axis)
    if dtype == "int16":  # its zero point must be 0
        return QParams(qparams.scale / np.float32(128), 0, qparams.axis)
    return qparams


def tensor_qparams(graph: Graph, ranges: Ranges) -> dict[str, QParams]:
    """Choose the parameters of every int8 tensor of a graph made by int8_graph, or of one int8 operator.

    Tensors joined by kinds that keep the scale, such as average pooling or concatenation, share the parameters of all
    that flows into them; LOGISTIC and its like have the fixed ones that the specification asks for.
    """
    groups, members = _scale_groups(graph), _Members({}, {})
    members.add(groups[INPUT], ranges[INPUT], None)
    for node in graph.nodes:
        if not keeps_scale(node.op):
            fixed = fixed_qparams(node.op.kind) if node.op.then == "none" else None
            members.add(groups[node.name], ranges[node.name], fixed)
    chosen = {
        group: members.fixed.get(group) or activation_qparams(*range_) for group, range_ in members.ranges.items()
    }
    return {name: chosen[group] for name, group in groups.items()}


@dataclass(frozen=True, slots=True)
class _Members:
    """What is known of each group of tensors: the range of all that flows in, and fixed parameters."""

    ranges: dict[str, tuple[float, float]]
    fixed: dict[str, QParams]

    def add(self, group: str, range_: tuple[float, float], fixed: QParams | None) -> None:
        low, high = self.ranges.get(group, range_)
        self.ranges[group] = (min(low, range_[0]), max(high, range_[1]))
        if fixed is not None:
            self.fixed[group] = fixed


def _scale_groups(graph: Graph) -> dict[str, str]:
    """Name for every tensor the first one of those that share its scale."""
    groups = {INPUT: INPUT}
    for node in graph.nodes:
        names = output_names(node)
        inputs = [groups[name] for name in node.inputs if name != CONSTANT]
        if not keeps_scale(node.op) or not inputs:
            groups |= {name: name for name in names}
            continue
        groups |= dict.fromkeys(names, inputs[0])
        groups = {name: inputs[0] if group in inputs else group for name, group in groups.items()}
    return groups
