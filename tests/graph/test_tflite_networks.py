"""Networks of other families as graphs: grouped convolutions, splits, concatenations, gates; float32 and int8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekd.graph.ir import CONSTANT, INPUT, Graph, LayerWeights, Node, graph_in, output_shapes
from edgekd.graph.micro import plausible_ranges, random_model, random_parameters
from edgekd.graph.quantization import activation_qparams, tensor_qparams
from edgekd.graph.tflite_reader import network_dtype, read_ops
from edgekd.graph.tflite_writer import write_tflite
from latency_tables.op_spec import OpSpec

STEPS = [
    ("stem", "conv_2d;float32;in=1x16x16x3;out_channels=8;kernel=3x3;stride=2x2;padding=valid;pad=1x1x1x1", INPUT),
    ("pool", "max_pool_2d;float32;in=1x8x8x8;kernel=3x3;stride=2x2", "stem"),
    ("parts", "split;float32;in=cint32:scalar(3),1x4x4x8;out=1x4x4x4,1x4x4x4;@num_splits=2", f"{CONSTANT} pool"),
    ("group", "conv_2d;float32;in=1x4x4x4;out_channels=8;kernel=3x3;groups=2;then=relu", "parts:1"),
    ("swish", "hard_swish;float32;in=1x4x4x8;out=1x4x4x8", "group"),
    ("joined", "concatenation;float32;in=1x4x4x4,1x4x4x8;out=1x4x4x12;@axis=3", "parts swish"),
    ("wide", "reshape;float32;in=1x4x4x12,cint32:5(1_4_4_2_6);out=1x4x4x2x6", f"joined {CONSTANT}"),
    ("turned", "transpose;float32;in=1x4x4x2x6,cint32:5(0_1_2_4_3);out=1x4x4x6x2", f"wide {CONSTANT}"),
    ("shuffled", "reshape;float32;in=1x4x4x6x2,cint32:4(1_4_4_12);out=1x4x4x12", f"turned {CONSTANT}"),
    ("slope", "prelu;float32;in=1x4x4x12,c1x1x12;out=1x4x4x12", f"shuffled {CONSTANT}"),
    ("up", "resize_bilinear;float32;in=1x4x4x12,cint32:2(8_8);out=1x8x8x12;@half_pixel_centers=1", f"slope {CONSTANT}"),
    ("larger", "transpose_conv;float32;in=1x8x8x12;out_channels=6;kernel=2x2;stride=2x2", "up"),
    ("head", "mean;float32;in=1x16x16x6", "larger"),
    ("classes", "fully_connected;float32;in=1x1x1x6;out_channels=5", "head"),
    ("shares", "softmax;float32;in=1x5;out=1x5;@beta=1.0", "classes"),
]


def node(name: str, key: str, inputs: str) -> Node:
    """Make a node from a key and the names of its inputs."""
    op = OpSpec.parse(key)
    return Node(name, op, tuple(inputs.split()), output_shapes(op)[0])


GRAPH = Graph((1, 16, 16, 3), tuple(node(*step) for step in STEPS))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_network_of_many_kinds_runs_and_reads_back(dtype: str) -> None:
    """What is asked of the table is what the file holds; outputs differ and are finite."""
    graph = graph_in(GRAPH, dtype)
    content = random_model(graph)
    assert read_ops(content) == graph.ops
    assert network_dtype(graph.ops) == dtype
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    image = np.random.default_rng(0).uniform(-1, 1, GRAPH.input_shape).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    shares = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert shares.shape == (1, 5)
    assert shares.sum() == pytest.approx(1, abs=0.02)
    assert np.ptp(shares) > 0


def test_tensors_that_are_only_moved_share_the_scale_of_all_that_flows_in() -> None:
    """Parts, concatenation and what turns it have one; it holds the range of each of its sources."""
    graph = graph_in(GRAPH, "int8")
    ranges = {**plausible_ranges(graph), "stem": (-1.0, 2.0), "swish": (-0.4, 5.0)}
    q = tensor_qparams(graph, ranges)
    shared = [q[name] for name in ("stem", "pool", "parts", "parts:1", "swish", "joined", "wide", "turned", "shuffled")]
    assert all(found is shared[0] for found in shared)
    assert shared[0] == activation_qparams(-1.0, 5.0)
    assert q["group"] == activation_qparams(*ranges["group"])
    assert (float(q["shares"].scale[0]), q["shares"].zero_point) == (1 / 256, -128)


def test_a_constant_without_values_of_its_shape_is_refused() -> None:
    """A file must not be written with other numbers than the network has."""
    parameters = dict(random_parameters(GRAPH))
    assert parameters["slope"].weight.shape == (1, 1, 12)
    for wrong in ({"slope": LayerWeights(np.ones((1, 1, 3), np.float32), np.zeros(0, np.float32))}, {}):
        kept = {name: layer for name, layer in parameters.items() if name != "slope"}
        with pytest.raises(ValueError, match="operand 1 of slope has no values of its shape"):
            write_tflite(GRAPH, kept | wrong)
    without = {name: layer for name, layer in parameters.items() if name != "group"}
    with pytest.raises(ValueError, match="the weights of group are missing"):
        write_tflite(GRAPH, without)


def test_a_concatenated_gate_gives_all_its_fixed_scale() -> None:
    """Kernels take a concatenation only where all its parts have one scale."""
    steps = [
        ("gate", "logistic;float32;in=1x4x4x4", INPUT),
        ("pool", "average_pool_2d;float32;in=1x4x4x4;kernel=3x3", "gate"),
        ("both", "concatenation;float32;in=1x4x4x4,1x4x4x4;out=1x4x4x8;@axis=3", "gate pool"),
    ]
    graph = graph_in(Graph((1, 4, 4, 4), tuple(node(*step) for step in steps)), "int8")
    q = tensor_qparams(graph, plausible_ranges(graph))
    assert float(q["both"].scale[0]) == 1 / 256
    content = random_model(graph)
    Interpreter(model_content=content, num_threads=1).allocate_tensors()
    assert read_ops(content)[1:-1] == [replace(OpSpec.parse(key), dtype="int8") for _, key, _ in steps]
