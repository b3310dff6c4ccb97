"""Block types: the one class of each gives a graph, operators, a torch module and files that agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from synthetic import random_network

from edgekd.export.onnx import onnx_bytes
from edgekd.export.quantize import calibrate_ranges
from edgekd.graph.ir import Graph, int8_graph, out_shape_of
from edgekd.graph.micro import micro_model
from edgekd.graph.tflite_reader import read_ops
from edgekd.graph.tflite_writer import write_tflite
from edgekd.spaces.arch import CONV_OPS, Arch, Block
from edgekd.spaces.blocks import BLOCKS
from edgekd.spaces.blocks.base import Layer
from edgekd.spaces.layers import graph_of, reachable_ops
from edgekd.spaces.network import Network, folded_parameters
from edgekd.spaces.space import BlockOptions, Space

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("one_thread")]

Run = Callable[..., np.ndarray]

every_kind = pytest.mark.parametrize("name", BLOCKS)

START = (1, 9, 9, 8)

# as the literature draws them: a layer of stride 1 that keeps its width, with a squeeze and an identity skip
SQUEEZE = ["se.squeeze", "se.reduce", "se.expand", "se.gate", "se.scale"]
NODES = {
    "conv": ["conv", *SQUEEZE, "skip"],
    "dsconv": ["depthwise", *SQUEEZE, "project", "skip"],
    "mb3": ["expand", "depthwise", *SQUEEZE, "project", "skip"],
    "mb6": ["expand", "depthwise", *SQUEEZE, "project", "skip"],
    "fused3": ["expand", *SQUEEZE, "project", "skip"],
    "fused6": ["expand", *SQUEEZE, "project", "skip"],
    "basic": ["first", "second", *SQUEEZE, "skip"],
}


def layer_of(**changes: object) -> Layer:
    """Make a layer that keeps the width of START, with changes."""
    plain = Layer("layer", out_channels=START[3], kernel=3, se_ratio=0.25, skip_op="identity")
    return replace(plain, **changes)  # type: ignore[arg-type]  # the caller names fields of Layer


def space_of(conv_op: str, resolution: int = 13) -> Space:
    """Make a space of one block type: a block that keeps its size, and one of stride 2 with a pooling skip."""
    blocks = (
        BlockOptions(8, 1, (1, 2), 2, (conv_op,), (3,), (0.25,), ("identity",), (1.0,)),
        BlockOptions(8, 2, (1, 2), 2, (conv_op,), (5,), (0.0,), ("pool",), (1.0,)),
    )
    return Space("pair", resolution, 1, 5, 8, 1, blocks, channel_multiple=4)


def images_for(graph: Graph, count: int) -> np.ndarray:
    """Draw smooth random images (N, H, W, C)."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((count, *graph.input_shape[1:])).cumsum(1).cumsum(2)
    return (noise / noise.std()).astype(np.float32)


def test_the_registry_names_block_types_as_architectures_do() -> None:
    """One entry a type under its own name, all of which can stand in an architecture's text."""
    assert CONV_OPS == tuple(BLOCKS) == tuple(NODES)
    assert [kind.name for kind in BLOCKS.values()] == list(BLOCKS)
    for name in BLOCKS:
        arch = Arch("s", (Block(name, 3, 0.25, "pool", 2, 1.25),))
        assert Arch.parse(str(arch)) == arch


@every_kind
def test_a_layer_is_made_as_the_literature_draws_it(name: str) -> None:
    """The operators in order; the stride in the first one that has a kernel, the width in the last convolution."""
    graph = BLOCKS[name].graph(START, layer_of())
    assert [node.name.removeprefix("layer.") for node in graph.nodes] == NODES[name]
    strided = BLOCKS[name].graph(START, layer_of(kernel=5, stride=2, out_channels=12, se_ratio=0.0))
    assert strided.nodes[-1].out_shape == (1, 5, 5, 12)
    assert next(node.op.stride for node in strided.nodes if node.op.kernel == (5, 5)) == (2, 2)
    assert sum(node.op.stride == (2, 2) for node in strided.nodes) == 1


@pytest.mark.parametrize(("name", "expansion"), [("mb3", 3), ("mb6", 6), ("fused3", 3), ("fused6", 6)])
def test_an_expansion_is_what_the_name_says(name: str, expansion: int) -> None:
    """So many times the input's channels, whatever the output has."""
    graph = BLOCKS[name].graph(START, layer_of(out_channels=12))
    assert graph.nodes[0].out_shape[3] == expansion * START[3]


def test_a_basic_block_ends_in_one_activation() -> None:
    """After the sum where there is a skip, else after the second convolution."""
    joined = BLOCKS["basic"].graph(START, layer_of(se_ratio=0.0))
    assert [node.op.act for node in joined.nodes] == ["relu6", "none", "relu6"]
    alone = BLOCKS["basic"].graph(START, layer_of(se_ratio=0.0, skip_op="none"))
    assert [node.op.act for node in alone.nodes] == ["relu6", "relu6"]


@every_kind
@pytest.mark.parametrize("resolution", [12, 13])
def test_the_float_file_computes_what_the_module_does(name: str, resolution: int, run_file: Run) -> None:
    """Squeezes, skips, strides at odd and even sizes, and the activation after a sum, to 1e-4."""
    space = space_of(name, resolution)
    graph = graph_of(space, space.reference())
    network = random_network(graph, seed=4)
    images = images_for(graph, 3)
    with torch.no_grad():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    found = run_file(write_tflite(graph, folded_parameters(network)), images)
    assert np.ptp(logits, axis=0).max() > 1e-3 * np.abs(logits).max()
    assert np.abs(found - logits).max() <= 1e-4 * max(1.0, float(np.abs(logits).max()))


@every_kind
def test_the_int8_file_runs_and_stays_close(name: str, run_file: Run) -> None:
    """Quantised on the same images, the error is a part of the signal."""
    space = space_of(name)
    graph = graph_of(space, space.reference())
    parameters = folded_parameters(random_network(graph, seed=4))
    plain, images = write_tflite(graph, parameters), images_for(graph, 40)
    ranges = calibrate_ranges(plain, graph, images)
    content = write_tflite(int8_graph(graph), parameters, {**ranges, "quantize": ranges["input"]})
    exact, close = run_file(plain, images), run_file(content, images)
    signal = np.sqrt(np.mean((exact - exact.mean(0)) ** 2))
    assert np.sqrt(np.mean((close - exact) ** 2)) < 0.4 * signal


@every_kind
def test_every_parameter_learns(name: str) -> None:
    """A backward pass reaches all of a layer's weights and norms."""
    space = space_of(name)
    network = Network(graph_of(space, space.reference()))
    network(torch.randn(4, 1, 13, 13)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@every_kind
def test_every_operator_can_be_measured_alone(name: str) -> None:
    """Its file holds that one operator, read back as the same key, and runs, in both dtypes."""
    for op in reachable_ops(space_of(name)):
        for typed in (op, replace(op, dtype="int8")):
            content = micro_model(typed)
            assert [read.key for read in read_ops(content)] == [typed.key]
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
            interpreter.invoke()
            output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
            assert output.shape == out_shape_of(op)


@pytest.mark.slow  # torch's exporter takes seconds
def test_the_onnx_file_computes_what_the_module_does() -> None:
    """All block types one after the other, with the activations after their sums."""
    skips = ("identity", "pool")
    blocks = tuple(
        BlockOptions(8, 1, (2,), 2, (name,), (3,), (0.25 * (number % 2),), (skips[number % 2],), (1.0,))
        for number, name in enumerate(BLOCKS)
    )
    space = Space("all", 9, 1, 5, 8, 1, blocks)
    graph = graph_of(space, space.reference())
    assert [node.op.act for node in graph.nodes if node.name == "block7.layer1.skip"] == ["relu6"]
    network = random_network(graph, seed=4)
    images = images_for(graph, 3)
    with torch.no_grad():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    session = onnxruntime.InferenceSession(onnx_bytes(network), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": images})[0]
    assert np.abs(found - logits).max() <= 1e-4 * max(1.0, float(np.abs(logits).max()))
