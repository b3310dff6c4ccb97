"""Affine int8 quantisation as TFLite defines it: scales and zero points from value ranges.

Does not find the ranges (export/quantize.py calibrates) and does not write files (tflite_writer.py).
Source: Jacob et al., arXiv 1712.05877, and TensorFlow Lite's 8-bit quantization specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.graph.ir import FloatArray, Graph

_MIN_RANGE = 1e-6  # a tensor that is constant on the calibration images still needs a positive scale

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
    scale = max(high - low, _MIN_RANGE) / 255.0
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


def tensor_qparams(graph: Graph, ranges: Ranges) -> dict[str, QParams]:
    """Choose the parameters of every int8 tensor of a graph made by int8_graph, or of one int8 operator.

    Average pooling, QUANTIZE of the input and DEQUANTIZE keep their neighbour's parameters; LOGISTIC has the fixed
    ones (1/256, −128) that the specification asks for.
    """
    chosen: dict[str, QParams] = {"input": activation_qparams(*ranges["input"])}
    for node in graph.nodes:
        if node.op.kind in ("quantize", "average_pool_2d", "dequantize"):
            chosen[node.name] = chosen[node.inputs[0]]
        elif node.op.kind == "logistic":
            chosen[node.name] = QParams(np.array([1 / 256], np.float32), -128)
        else:
            chosen[node.name] = activation_qparams(*ranges[node.name])
    return chosen
