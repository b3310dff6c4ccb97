"""Files: what is written reads back as the operators it was made of, loads in the runtime, and is always the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from synthetic import NARROW, random_archs

from edgekd.graph.ir import Graph, graph_in
from edgekd.graph.micro import micro_model, random_model
from edgekd.graph.tflite_reader import read_ops
from edgekd.profile import all_ops
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from latency_tables.op_spec import DTYPES, OpSpec

pytestmark = pytest.mark.whole  # writes whole networks

OPS = all_ops(NARROW)
SAMPLE = OPS[:: len(OPS) // 60]

dtypes = pytest.mark.parametrize("dtype", DTYPES)


def network(dtype: str, seed: int = 0) -> Graph:
    """Make the graph of a random architecture in a dtype."""
    return graph_in(graph_of(NARROW, random_archs(NARROW, 1, seed)[0]), dtype)


def check_micro_model(op: OpSpec) -> None:
    """Load one operator's file, run it, and read it back."""
    content = micro_model(op)
    assert read_ops(content) == [op]
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()


@dtypes
@pytest.mark.parametrize("arch", [NARROW.reference(), *random_archs(NARROW, 7, 7)], ids=lambda arch: arch.arch_id)
def test_a_network_reads_back_as_its_operators(arch: Arch, dtype: str) -> None:
    """What the table is asked for is what the file holds, in the same order."""
    graph = graph_in(graph_of(NARROW, arch), dtype)
    assert read_ops(random_model(graph)) == graph.ops


@pytest.mark.slow
@dtypes
def test_many_networks_read_back_as_their_operators(dtype: str) -> None:
    """The same for a hundred random architectures."""
    for arch in random_archs(NARROW, 100, 8):
        graph = graph_in(graph_of(NARROW, arch), dtype)
        assert read_ops(random_model(graph)) == graph.ops


def test_micro_models_load_run_and_read_back() -> None:
    """A spread sample of what a profile measures; each is exactly its operator."""
    assert len(SAMPLE) >= 60
    assert {op.kind for op in SAMPLE} >= {"conv_2d", "depthwise_conv_2d", "average_pool_2d", "add", "mul"}
    for op in {*SAMPLE, OPS[-1], OPS[-2]}:
        check_micro_model(op)


@pytest.mark.slow
def test_every_micro_model_loads_runs_and_reads_back() -> None:
    """All operators that the space reaches, in both dtypes."""
    for op in OPS:
        check_micro_model(op)


@dtypes
def test_a_network_loads_with_its_signature(dtype: str) -> None:
    """`serving_default` takes an image and gives logits, float32 in either dtype."""
    interpreter = Interpreter(model_content=random_model(network(dtype)), num_threads=1)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    runner = interpreter.get_signature_runner("serving_default")
    (image,), (logits,) = runner.get_input_details().values(), runner.get_output_details().values()
    assert (image["shape"].tolist(), image["dtype"].__name__) == ([1, 28, 28, 1], "float32")
    assert (logits["shape"].tolist(), logits["dtype"].__name__) == ([1, 10], "float32")
    assert image["shape_signature"].tolist() == [-1, 28, 28, 1]


@dtypes
def test_weights_lie_on_16_byte_boundaries(dtype: str) -> None:
    """The runtime maps them in place, so an unaligned vector would be copied or refused."""
    content = random_model(network(dtype))
    model = schema.Model.GetRootAsModel(content, 0)
    starts = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            starts.append(buffer._tab.Vector(buffer._tab.Offset(4)))  # the data's place in the file
    assert len(starts) > 20
    assert [start % 16 for start in starts] == [0] * len(starts)
    assert model.Buffers(0).DataLength() == 0


@dtypes
def test_operators_are_listed_once_with_the_version_that_runtimes_ask_for(dtype: str) -> None:
    """An int8 operator with a float's version would be read wrongly by older runtimes; codes are not repeated."""
    graph = network(dtype)
    model = schema.ModelT.InitFromPackedBuf(random_model(graph), 0)
    codes = {code.builtinCode: code.version for code in model.operatorCodes}
    assert len(codes) == len(model.operatorCodes) == len({op.kind for op in graph.ops})
    assert all(code.builtinCode == code.deprecatedBuiltinCode for code in model.operatorCodes)
    assert codes[schema.BuiltinOperator.CONV_2D] == (3 if dtype == "int8" else 1)
    assert model.version == 3


@dtypes
def test_the_same_network_gives_the_same_bytes(dtype: str) -> None:
    """Hashes of artifacts can be compared; another network has another."""
    graph = network(dtype, seed=3)
    content = random_model(graph)
    assert random_model(graph) == content
    assert random_model(network(dtype, seed=4)) != content


_ELSEWHERE = """
import hashlib
from edgekd.graph.ir import int8_graph
from edgekd.graph.micro import random_model
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import SPACES
space = SPACES["mnasnet-28-narrow"]
print(hashlib.sha256(random_model(int8_graph(graph_of(space, space.reference())))).hexdigest())
"""


def test_another_process_gives_the_same_bytes() -> None:
    """The order of sets and the seed of hashes leave no trace in a file."""
    content = random_model(graph_in(graph_of(NARROW, NARROW.reference()), "int8"))
    command, environment = [sys.executable, "-c", _ELSEWHERE], {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == hashlib.sha256(content).hexdigest()


def test_files_hold_no_path_and_no_date() -> None:
    """The description and names are ours; nothing of the machine is in a file that ships."""
    content = random_model(network("int8"))
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    assert model.description == b"edgekd"
    assert str(Path.cwd()).encode() not in content
    assert not model.metadata
