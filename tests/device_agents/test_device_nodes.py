"""The times of a network's nodes, read from the runtime's own profiler on this machine."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from device_agents import runner as runner_package
from edgekd.graph.ir import INPUT, Graph, Node, int8_graph, out_shape_of
from edgekd.graph.micro import random_model
from latency_tables.op_spec import OpSpec, TensorSpec
from tests.device_agents.conftest import _add_model

pytestmark = pytest.mark.slow  # real processes, one after the other

SHAPE = (1, 48, 48, 16)


@pytest.fixture(scope="module")
def nodes() -> ModuleType:
    """The file as the runner loads it."""
    path = Path(next(iter(runner_package.__path__))) / "edgekd_nodes.py"
    spec = importlib.util.spec_from_file_location("edgekd_nodes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def conv_net() -> Graph:
    """A network of three convolutions and one sum around the last, each long enough for a clock of whole µs."""
    image = (TensorSpec(SHAPE),)
    conv = OpSpec("conv_2d", image, "float32", out_channels=16, kernel=(3, 3))
    depthwise = OpSpec("depthwise_conv_2d", image, "float32", out_channels=16, kernel=(5, 5))
    add = OpSpec("add", image * 2, "float32")
    steps = [("a", conv, (INPUT,)), ("b", depthwise, ("a",)), ("c", conv, ("b",)), ("d", add, ("c", "b"))]
    return Graph(SHAPE, tuple(Node(name, op, inputs, out_shape_of(op)) for name, op, inputs in steps))


def network_ns(content: bytes, runs: int) -> float:
    """Time a network as a whole, without a profiler."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    interpreter.set_tensor(details["index"], np.ones(details["shape"], details["dtype"]))
    for _ in range(3):
        interpreter.invoke()
    began = time.perf_counter_ns()
    for _ in range(runs):
        interpreter.invoke()
    return (time.perf_counter_ns() - began) / runs


def test_the_nodes_are_the_operators_in_order(nodes: ModuleType) -> None:
    """Each operator of a small network is one node of XNNPACK, in the order in which they run."""
    found = nodes.profile_nodes(random_model(conv_net()), 5, 1)
    assert len(found) == len(conv_net().nodes)
    assert {(node["kind"], node["runs"]) for node in found} == {("xnnpack", 5)}
    names = [node["name"] for node in found]
    assert [name.split()[0] for name in names] == ["Convolution", "Convolution", "Convolution", "Add"]
    assert "DWConv" in names[1]


def test_the_nodes_sum_up_to_about_the_network(nodes: ModuleType) -> None:
    """Their means together are the network's own time, but for what the profiler and other processes take.

    Of several times the fastest count: the wall's clock goes on while others have the processor.
    """
    content = random_model(conv_net())
    profiles = [nodes.profile_nodes(content, 20, 1) for _ in range(5)]
    mean_ns = [min(node["mean_ns"] for node in same) for same in zip(*profiles, strict=True)]
    assert 1 / 4 < sum(mean_ns) / min(network_ns(content, 20) for _ in range(5)) < 4
    assert mean_ns[0] > mean_ns[3]  # 288 operations a number against one


def test_int8_networks_have_nodes_too(nodes: ModuleType) -> None:
    """The conversions at both ends are nodes of their own."""
    graph = int8_graph(conv_net())
    found = nodes.profile_nodes(random_model(graph), 3, 1)
    assert len(found) == len(graph.nodes)
    assert found[0]["name"].startswith("Convert")


def test_an_operator_of_the_runtime_itself_is_builtin(nodes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What XNNPACK does not take, here a sum of integers, is told by the builtin's name."""
    monkeypatch.setattr("tests.device_agents.conftest.schema.TensorType.FLOAT32", schema.TensorType.INT32)
    (node,) = nodes.profile_nodes(_add_model(1000), 3, 1)
    assert (node["name"], node["kind"]) == ("ADD", "builtin")


def test_several_threads_give_the_same_nodes(nodes: ModuleType) -> None:
    """The number of threads reaches the runtime and changes no node."""
    content = random_model(conv_net())
    names = [[node["name"] for node in nodes.profile_nodes(content, 2, threads)] for threads in (1, 2)]
    assert names[0] == names[1]


@pytest.mark.parametrize("content", [b"", b"x", b"garbage" * 100, b"TFL3" * 4], ids=repr)
def test_garbage_is_a_clear_error(nodes: ModuleType, content: bytes) -> None:
    """A file that is no model is refused by the runtime, and the error says by which call."""
    with pytest.raises(ValueError, match="LiteRtCreateModelFromBuffer of the runtime failed with status"):
        nodes.profile_nodes(content, 1, 1)


def test_half_a_model_is_a_clear_error(nodes: ModuleType) -> None:
    """So is a file whose end is missing."""
    content = random_model(conv_net())
    with pytest.raises(ValueError, match="of the runtime failed with status"):
        nodes.profile_nodes(content[: len(content) // 2], 1, 1)


@pytest.mark.parametrize(("runs", "threads"), [(0, 1), (-1, 1), (1, 0)])
def test_runs_and_threads_are_counts(nodes: ModuleType, runs: int, threads: int) -> None:
    """Nothing is loaded for a question that makes no sense."""
    with pytest.raises(ValueError, match="must be 1 or more"):
        nodes.profile_nodes(random_model(conv_net()), runs, threads)


@pytest.mark.parametrize("has_package", [False, True])
def test_without_the_library_it_says_what_is_needed(
    nodes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_package: bool
) -> None:
    """tflite_runtime and tensorflow have no such library: the error names the package that has."""
    spec = importlib.machinery.ModuleSpec("ai_edge_litert", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(nodes.importlib.util, "find_spec", lambda name: spec if has_package else None)
    with pytest.raises(ValueError, match=r"need the package ai-edge-litert, whose libLiteRt\.so was not found"):
        nodes.profile_nodes(random_model(conv_net()), 1, 1)


@pytest.mark.parametrize("version", ["2.1.5", "2.1.0", "1.4.0", "0"])
def test_a_version_with_other_signatures_is_refused(
    nodes: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """A library of other signatures would crash; the error names both versions."""
    monkeypatch.setattr(nodes, "installed_version", lambda: version)
    with pytest.raises(ValueError, match=rf"need ai-edge-litert 2\.1\.6 or newer, not {version}"):
        nodes.library_path()


@pytest.mark.parametrize("version", ["2.1.6", "2.2.0.dev20260101", "2.3.0", "3.0"])
def test_newer_versions_are_tried(nodes: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """A development version counts as the release it leads to."""
    monkeypatch.setattr(nodes, "installed_version", lambda: version)
    assert nodes.library_path().name == "libLiteRt.so"


def test_a_library_that_is_none_is_a_clear_error(nodes: ModuleType, tmp_path: Path) -> None:
    """A broken file where the library should be is told with its path."""
    path = tmp_path / "libLiteRt.so"
    path.write_bytes(b"no library")
    with pytest.raises(ValueError, match="cannot load"):
        nodes.Library(path)


def test_a_function_that_is_missing_is_a_clear_error(nodes: ModuleType) -> None:
    """A later version may drop a function; the error names it."""
    with pytest.raises(ValueError, match="has no function LiteRtDance"):
        nodes.Library(nodes.library_path()).call("LiteRtDance")


@given(tail=st.integers(0, 27), count=st.integers(1, 40))
def test_the_size_of_an_event_is_found(nodes: ModuleType, tail: int, count: int) -> None:
    """However much follows an event's head, and though the padding of the last one was not written."""
    size = nodes.EVENT_HEAD.size + 8 * tail
    untouched = bytes([nodes.UNTOUCHED]) * (count * (nodes.EVENT_BYTES - size))
    written = bytes(count * size - (4 if tail else 0)) + bytes([nodes.UNTOUCHED] * 4 if tail else b"") + untouched
    assert nodes.event_bytes(written, count) == size


@pytest.mark.parametrize("written", [b"", b"\1" * 8, b"\1" * 256], ids=len)
def test_an_event_of_odd_size_is_refused(nodes: ModuleType, written: bytes) -> None:
    """What is smaller than a head or fills all the memory is no layout that can be read."""
    with pytest.raises(ValueError, match="no layout we know"):
        nodes.event_bytes(written, 1)


def test_runs_that_differ_are_refused(nodes: ModuleType) -> None:
    """A mean over different nodes would say nothing."""
    one, two = [("ADD", "builtin", 3)], [("MUL", "builtin", 3)]
    assert nodes.mean_of([one, one])[0]["mean_ns"] == 3000
    for found in ([one, two], [one, one + two], [one + two, one], [[], []]):
        with pytest.raises(ValueError, match="same nodes in every run"):
            nodes.mean_of(found)


@pytest.mark.parametrize(
    ("name", "event", "kind"),
    [
        ("Add (ND)", 8, "xnnpack"),
        ("CONV_2D", 2, "builtin"),
        ("TfLiteGpuDelegate", 2, "other"),
        ("", 2, "other"),
    ],
)
def test_other_delegates_are_told_from_operators(nodes: ModuleType, name: str, event: int, kind: str) -> None:
    """A builtin has a name in capitals; a delegate that runs as one node has another."""
    assert nodes.kind_of(name, event) == kind


@pytest.mark.parametrize(("element", "form"), [(1, "f"), (11, "d")])
def test_inputs_are_numbers_of_a_real_range(nodes: ModuleType, element: int, form: str) -> None:
    """Real numbers lie between -1 and 1 and differ: zeros would let a kernel take short cuts."""
    size = 100 * struct.calcsize(form)
    values = struct.unpack(f"100{form}", nodes.filling(element, size, 0))
    assert len(set(values)) > 1
    assert all(math.isfinite(value) and abs(value) <= 1 for value in values)


@pytest.mark.parametrize("element", [1, 2, 3, 4, 6, 9, 11, 99])
@pytest.mark.parametrize("size", [0, 8, 4000])
def test_inputs_have_their_size(nodes: ModuleType, element: int, size: int) -> None:
    """Whatever the type, every byte of the buffer is written, and the same ones again."""
    assert len(nodes.filling(element, size, 1)) == size
    assert nodes.filling(element, size, 1) == nodes.filling(element, size, 1)


def test_everything_is_given_back(nodes: ModuleType, add_model: Callable[[int], bytes]) -> None:
    """Each object that was made is destroyed, the youngest first, though a run failed in between."""
    destroyed: list[str] = []

    class Watched(nodes.Library):  # type: ignore[name-defined, misc]  # the module has no import name
        def destroy(self, name: str, found: Any) -> None:
            destroyed.append(name.removeprefix("LiteRtDestroy"))
            super().destroy(name, found)

    with nodes.Network(Watched(nodes.library_path()), add_model(8), 1) as network:
        network.run()
    assert destroyed == [*["TensorBuffer"] * 3, "CompiledModel", "Options", "Model", "Environment"]
    destroyed.clear()
    with pytest.raises(ValueError, match="status"):
        nodes.Network(Watched(nodes.library_path()), b"garbage", 1)
    assert destroyed == ["Environment"]
