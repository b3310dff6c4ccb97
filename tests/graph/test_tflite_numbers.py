"""Numbers: a file computes what its network was trained to compute, in float32 and, to its step, in int8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from single import graph_of_op
from synthetic import NARROW, random_archs, random_network

from edgekd.export.quantize import calibrate_ranges
from edgekd.graph.ir import LayerWeights, int8_graph, out_shape_of
from edgekd.graph.micro import random_parameters
from edgekd.graph.quantization import activation_qparams, quantize_weights, tensor_qparams
from edgekd.graph.tflite_writer import write_tflite
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.network import folded_parameters
from edgekd.spaces.space import Space
from latency_tables.op_spec import OpSpec

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("one_thread")]

Run = Callable[..., np.ndarray]


def whole(space: Space, block: str) -> Arch:
    """Make an architecture of seven equal blocks."""
    return Arch.parse(f"{space.name}:" + "/".join([block] * 7))


ODD = [replace(NARROW, name=f"odd-{size}", resolution=size) for size in (27, 29, 30)]  # strides at odd and even sizes
CASES = [
    *((NARROW, arch) for arch in random_archs(NARROW, 4, 11)),
    (NARROW, NARROW.reference()),
    pytest.param(NARROW, whole(NARROW, "mb6_k5_se0.25_pool_l2_f1"), marks=pytest.mark.whole),  # the largest network
    *((space, whole(space, "dsconv_k5_se0.25_pool_l2_f0.75")) for space in ODD),
    *((space, whole(space, "conv_k3_se0_pool_l1_f1.25")) for space in ODD),
    *((space, whole(space, "mb3_k3_se0_identity_l2_f1")) for space in ODD),
]


def images_for(space: Space, count: int, seed: int = 0) -> np.ndarray:
    """Draw smooth random images (N, H, W, C): quantisation of pure noise would test little."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, *space.input_shape[1:])).cumsum(1).cumsum(2)
    return (noise / noise.std()).astype(np.float32)


def float_pair(space: Space, arch: Arch, images: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Give the float32 file of a random network, and torch's logits."""
    graph = graph_of(space, arch)
    network = random_network(graph, seed=len(str(arch)))
    with torch.no_grad():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    return write_tflite(graph, folded_parameters(network)), logits


@pytest.mark.parametrize(("space", "arch"), CASES, ids=lambda value: getattr(value, "name", "arch"))
def test_the_float_file_agrees_with_torch(space: Space, arch: Arch, run_file: Run) -> None:
    """Squeeze-and-excitation, pooling with strides, odd sizes, kernels of 5, folded norms: to 1e-4 of the largest."""
    images = images_for(space, 4)
    content, logits = float_pair(space, arch, images)
    assert np.abs(logits).max() > 1e-3
    assert np.ptp(logits, axis=0).max() > 1e-3 * np.abs(logits).max()  # different images, different answers
    error = np.abs(run_file(content, images) - logits).max()
    assert error <= 1e-4 * max(1.0, float(np.abs(logits).max()))


@pytest.mark.parametrize("arch", [NARROW.reference(), *random_archs(NARROW, 2, 5)], ids=lambda arch: arch.arch_id)
def test_an_image_gives_the_same_alone_and_in_a_batch(arch: Arch, run_file: Run) -> None:
    """The batch of a file is free."""
    images = images_for(NARROW, 3)
    content, _ = float_pair(NARROW, arch, images)
    alone = np.concatenate([run_file(content, images[i : i + 1]) for i in range(3)])
    assert run_file(content, images) == pytest.approx(alone, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("block", ["conv_k3_se0_none_l1_f1", "conv_k5_se0.25_pool_l1_f1", "dsconv_k3_se0_none_l1_f1"])
def test_the_int8_file_stays_close_to_the_float_one(block: str, run_file: Run) -> None:
    """Calibrated on other images, the error is a small part of the signal.

    Shallow networks only: random weights amplify any rounding from layer to layer, as trained ones do not. What each
    operator does in int8 is held by the tests below.
    """
    graph = graph_of(NARROW, whole(NARROW, block))
    parameters = folded_parameters(random_network(graph, seed=2))
    plain = write_tflite(graph, parameters)
    ranges = calibrate_ranges(plain, graph, images_for(NARROW, 60, seed=1))
    content = write_tflite(int8_graph(graph), parameters, {**ranges, "quantize": ranges["input"]})
    images = images_for(NARROW, 20)
    exact, close = run_file(plain, images), run_file(content, images)
    signal = np.sqrt(np.mean((exact - exact.mean(0)) ** 2))
    assert np.sqrt(np.mean((close - exact) ** 2)) < 0.4 * signal
    assert len(content) < 0.7 * len(plain)  # small weights, so names and shapes weigh too


SINGLE = [
    "conv_2d;float32;in=1x9x8x5;out_channels=7;kernel=3x3;stride=2x2;act=relu6",
    "conv_2d;float32;in=1x6x6x16;out_channels=9",
    "depthwise_conv_2d;float32;in=1x9x8x6;out_channels=6;kernel=5x5;stride=2x2;act=relu6",
    "depthwise_conv_2d;float32;in=1x7x7x6;out_channels=6;kernel=3x3",
    "fully_connected;float32;in=1x1x1x40;out_channels=10",
    "average_pool_2d;float32;in=1x9x8x5;kernel=3x3;stride=2x2",
    "average_pool_2d;float32;in=1x7x7x5;kernel=3x3",
    "mean;float32;in=1x7x7x5",
    "add;float32;in=1x7x7x5,1x7x7x5",
    "mul;float32;in=1x7x7x5,1x1x1x5",
    "logistic;float32;in=1x1x1x40",
]


def as_stored(layer: LayerWeights, op: OpSpec) -> LayerWeights:
    """Give the weights that an int8 file holds, as floats."""
    axis = {"conv_2d": 0, "depthwise_conv_2d": 3}.get(op.kind)
    codes, q = quantize_weights(layer.weight, axis)
    shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
    return LayerWeights((codes * q.scale.reshape(shape)).astype(np.float32), layer.bias)


@pytest.mark.parametrize("key", SINGLE)
def test_each_operator_in_int8_is_its_float_self_to_a_step(key: str, run_file: Run) -> None:
    """On the same inputs and the same stored weights, every output is within 1.1 steps of the float operator's."""
    op = OpSpec.parse(key)
    graph = graph_of_op(op)
    layers = {name: as_stored(layer, op) for name, layer in random_parameters(graph).items()}
    source = activation_qparams(-1.5, 2.0)
    codes = np.random.default_rng(9).integers(-128, 128, graph.input_shape, np.int8)
    values = (codes.astype(np.float32) - source.zero_point) * source.scale[0]
    if op.kind == "mul":  # its constant is stored with the input's scale
        constant = np.round(layers["op"].weight / source.scale[0]) * source.scale[0]
        layers = {"op": replace(layers["op"], weight=constant.astype(np.float32))}
    exact = run_file(write_tflite(graph, layers), values)
    ranges = {"input": (-1.5, 2.0), "op": (float(exact.min()), float(exact.max()))}
    graph8 = replace(graph, nodes=(replace(graph.nodes[0], op=replace(op, dtype="int8")),))
    found = run_file(write_tflite(graph8, layers, ranges), codes)
    q = tensor_qparams(graph8, ranges)["op"]
    close = (found.astype(np.float64) - q.zero_point) * q.scale[0]
    assert np.ptp(found.astype(int)) > 100 or op.kind in ("mean", "average_pool_2d")
    assert np.abs(close - exact).max() <= 1.1 * q.scale[0]


CONVS = [
    OpSpec.parse("conv_2d;int8;in=1x9x8x5;out_channels=7;kernel=3x3;stride=2x2;act=relu6"),
    OpSpec.parse("conv_2d;int8;in=1x9x8x5;out_channels=7;kernel=5x5;act=relu"),
    OpSpec.parse("conv_2d;int8;in=1x6x6x16;out_channels=9"),
]


def same_padded(codes: np.ndarray, op: OpSpec, zero_point: int) -> np.ndarray:
    """Pad (H, W, C) with the code of 0 as SAME asks, the odd pixel behind."""
    pads = []
    for size, kernel, stride in zip(codes.shape[:2], op.kernel, op.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(codes, [*pads, (0, 0)], constant_values=zero_point)


def rescaled(accumulated: int, multiplier: float) -> int:
    """Multiply by a real number as the format's reference kernels do: a 31-bit mantissa, then a rounding shift.

    Two roundings, half up in the product and half away from zero in the shift, written here with whole numbers.
    """
    mantissa, exponent = np.frexp(multiplier)
    fixed = int(np.floor(mantissa * (1 << 31) + 0.5))
    if fixed == 1 << 31:
        fixed, exponent = fixed // 2, exponent + 1
    product = (accumulated << max(int(exponent), 0)) * fixed
    nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
    high = abs(product + nudge) >> 31
    high = high if product + nudge >= 0 else -high
    shift = max(-int(exponent), 0)
    rounded = (abs(high) + ((1 << shift) >> 1)) >> shift
    return rounded if high >= 0 else -rounded


def simulated(op: OpSpec, layer: LayerWeights, codes: np.ndarray, ranges: dict[str, tuple[float, float]]) -> np.ndarray:
    """Convolve int8 codes (H, W, C) in whole numbers, as the specification of int8 files says."""
    source, target = activation_qparams(*ranges["input"]), activation_qparams(*ranges["op"])
    weight, weight_q = quantize_weights(layer.weight, 0)
    bias = np.round(layer.bias / (source.scale * weight_q.scale).astype(np.float32)).astype(np.int64)
    padded = same_padded(codes.astype(np.int64), op, source.zero_point) - source.zero_point
    out = np.empty(out_shape_of(op)[1:], np.int64)
    lowest = target.zero_point if op.act != "none" else -128
    highest = 127
    if op.act == "relu6":
        highest = min(127, target.zero_point + round(6 / float(target.scale[0])))
    for y, x, c in np.ndindex(*out.shape):
        top, left = y * op.stride[0], x * op.stride[1]
        window = padded[top : top + op.kernel[0], left : left + op.kernel[1]]
        total = int((window * weight[c]).sum() + bias[c])
        multiplier = float(source.scale[0]) * float(weight_q.scale[c]) / float(target.scale[0])
        out[y, x, c] = np.clip(rescaled(total, multiplier) + target.zero_point, lowest, highest)
    return out.astype(np.int8)


@pytest.mark.parametrize("op", CONVS, ids=lambda op: op.key)
def test_an_int8_convolution_is_its_integer_simulation(op: OpSpec, run_file: Run) -> None:
    """Bit for bit with the runtime's reference kernels, and within one code with the kernels that a device runs.

    The fast kernels multiply by the scale in floating point and round once, where the reference rounds twice; so a
    code may differ by one there, on less than one value in twenty.
    """
    rng = np.random.default_rng(4)
    layer = LayerWeights(
        rng.standard_normal(op.weight_shape).astype(np.float32) * np.float32(0.3),
        rng.standard_normal(op.out_channels).astype(np.float32),
    )
    ranges = {"input": (-2.0, 3.0), "op": (-1.0, 7.0) if op.act == "none" else (0.0, 7.0)}
    content = write_tflite(graph_of_op(op), {"op": layer}, ranges)
    codes = rng.integers(-128, 128, op.inputs[0].shape, np.int8)
    expected = simulated(op, layer, codes[0], ranges)
    assert len(np.unique(expected)) > 20
    assert np.array_equal(run_file(content, codes, reference=True)[0], expected)
    difference = run_file(content, codes)[0].astype(int) - expected
    assert np.abs(difference).max() <= 1
    assert np.mean(difference != 0) < 0.05
