"""Affine int8: zero is exact, ranges are covered, scales are positive, and the fixed parameters are fixed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from synthetic import NARROW

from edgekd.graph.ir import INPUT, int8_graph
from edgekd.graph.micro import plausible_ranges, random_parameters
from edgekd.graph.quantization import activation_qparams, quantize_weights, tensor_qparams
from edgekd.graph.tflite_writer import write_tflite
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of

bounds = st.floats(-1e6, 1e6)
weights = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-1000, 1000, width=32),
)


def test_a_tensor_that_is_dead_on_the_calibration_images_still_runs() -> None:
    """A squeeze whose activations were all zero: its scale is not so fine that the runtime refuses the model."""
    from ai_edge_litert.interpreter import Interpreter

    squeezed = graph_of(NARROW, Arch(NARROW.name, tuple(replace(b, se_ratio=0.25) for b in NARROW.reference().blocks)))
    graph = int8_graph(squeezed)
    ranges = dict(plausible_ranges(graph))
    dead = [node.name for node in graph.nodes if node.name.endswith("se.reduce")]
    ranges |= dict.fromkeys(dead, (0.0, 0.0))
    interpreter = Interpreter(model_content=write_tflite(graph, random_parameters(graph), ranges), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert dead


@given(bounds, bounds)
def test_zero_is_exact_and_the_range_is_covered(first: float, second: float) -> None:
    """0 has a code of its own, and both ends of the range lie within half a step of int8's ends."""
    low, high = sorted((first, second))
    q = activation_qparams(low, high)
    scale = float(q.scale[0])
    assert scale > 0
    assert -128 <= q.zero_point <= 127
    smallest, largest = scale * (-128 - q.zero_point), scale * (127 - q.zero_point)
    assert smallest <= 0 <= largest
    assert smallest - scale * 0.51 <= min(low, 0)
    assert largest + scale * 0.51 >= max(high, 0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1e-12, 1e-12), (-1e-12, 0.0)])
def test_a_constant_tensor_has_a_positive_scale(low: float, high: float) -> None:
    """A channel that is dead on the calibration images does not divide by zero."""
    assert float(activation_qparams(low, high).scale[0]) > 0


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [(0.0, 6.0, 6 / 255, -128), (-1.0, 1.0, 2 / 255, 0), (-6.0, 0.0, 6 / 255, 127), (2.0, 5.1, 0.02, -128)],
)
def test_known_ranges_have_known_parameters(low: float, high: float, scale: float, zero_point: int) -> None:
    """By hand; a range that does not hold 0 is widened to it. Halves round to even, so ±1 sits at code 0."""
    q = activation_qparams(low, high)
    assert float(q.scale[0]) == pytest.approx(scale, rel=1e-6)
    assert q.zero_point == zero_point


@given(weight=weights, data=st.data())
def test_weights_are_symmetric_and_off_by_half_a_step_at_most(weight: np.ndarray, data: st.DataObject) -> None:
    """Codes stay in [−127, 127], 0 stays 0, there is one positive scale a channel (or one in all)."""
    axis = data.draw(st.sampled_from([None, *range(weight.ndim)]))
    codes, q = quantize_weights(weight, axis)
    assert q.zero_point == 0
    assert len(q.scale) == (1 if axis is None else weight.shape[axis])
    assert (q.scale > 0).all()
    assert codes.min() >= -127
    assert (codes[weight == 0] == 0).all()
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    scale = q.scale.astype(np.float64).reshape(shape)
    assert (np.abs(codes * scale - weight) <= scale * 0.5001).all()


def test_the_largest_weight_of_each_channel_uses_the_full_range() -> None:
    """Per-channel scales do not waste codes on channels of small weights."""
    weight = np.array([[1.0, -2.0], [0.001, 0.0005]], np.float32)
    codes, q = quantize_weights(weight, 0)
    assert codes.tolist() == [[64, -127], [127, 64]]
    assert q.scale == pytest.approx([2 / 127, 0.001 / 127])
    assert quantize_weights(weight, None)[0].tolist() == [[64, -127], [0, 0]]


def test_every_tensor_of_a_network_has_the_parameters_its_kind_asks_for() -> None:
    """LOGISTIC is fixed at 1/256 and −128; pooling, QUANTIZE and DEQUANTIZE keep their neighbour's."""
    text = "/".join(["mb3_k5_se0.25_pool_l2_f1"] * 7)
    graph = int8_graph(graph_of(NARROW, Arch.parse(f"{NARROW.name}:{text}")))
    ranges = {node.name: (-1.0 - i, 2.0 + i) for i, node in enumerate(graph.nodes)} | {INPUT: (-0.5, 1.0)}
    q = tensor_qparams(graph, ranges)
    kinds = {node.op.kind for node in graph.nodes}
    assert {"logistic", "average_pool_2d", "quantize", "dequantize", "mul", "add", "mean"} <= kinds
    for node in graph.nodes:
        if node.op.kind == "logistic":
            assert (float(q[node.name].scale[0]), q[node.name].zero_point) == (1 / 256, -128)
        elif node.op.kind in ("average_pool_2d", "quantize", "dequantize"):
            assert q[node.name] is q[node.inputs[0]]
        else:
            assert q[node.name] == activation_qparams(*ranges[node.name])


def test_plausible_ranges_name_every_tensor() -> None:
    """Micro-models and calibration networks need no data."""
    graph = graph_of(NARROW, NARROW.reference())
    ranges = plausible_ranges(graph)
    assert set(ranges) == {INPUT, *(node.name for node in graph.nodes)}
    assert all(low < high for low, high in ranges.values())
