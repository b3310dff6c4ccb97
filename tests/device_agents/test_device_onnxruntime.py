"""The engine onnxruntime: .onnx files through the same session, the same rows, the same questions."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from model_shelf import ModelShelf
from onnx import TensorProto, ValueInfoProto, helper

from device_agents import runner as runner_package
from device_agents.addresses import Address
from device_agents.checkup import engine_check
from device_agents.describe import Description, Target, examine
from device_agents.device import Device
from device_agents.engines import ENGINES, engine_named
from device_agents.errors import DeviceNotReady, SetupFailed
from device_agents.inventory import host_target
from device_agents.protocol import MeasureSettings
from device_agents.pythons import find_python, runtimes_of, site_of
from device_agents.questions import Layer
from device_agents.session import Session, SessionLimits
from device_agents.setup import SetupRequest, set_up
from device_agents.transport import Transport
from device_agents.user_devices import ENGINE_NAMES

pytestmark = pytest.mark.slow  # real processes, one after the other

Sizes = list[int | str]


def multiplication(shape: Sizes, *, steps: int = 1, dtype: int = TensorProto.FLOAT) -> bytes:
    """Write x · x · … as an .onnx file."""
    nodes = [helper.make_node("Mul", [f"v{at}" if at else "x", "x"], [f"v{at + 1}"]) for at in range(steps)]
    entry = helper.make_tensor_value_info("x", dtype, shape)
    end = ValueInfoProto(name=f"v{steps}")
    end.type.tensor_type.elem_type = dtype
    graph = helper.make_graph(nodes, "test", [entry], [end])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def onnx_host(host: Device) -> Device:
    """Give this machine with the engine."""
    return replace(host, engine="onnxruntime")


@pytest.fixture(scope="module")
def pushed() -> ModuleType:
    """The pushed file, imported here to look inside."""
    path = Path(next(iter(runner_package.__path__))) / "edgekd_onnx.py"
    spec = importlib.util.spec_from_file_location("edgekd_onnx_under_test", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_engine_has_a_name_that_a_file_may_give() -> None:
    """And each says which files it runs and what computes."""
    assert set(ENGINES) == set(ENGINE_NAMES)
    assert {engine.suffix for engine in ENGINES.values()} == {"tflite", "onnx"}
    assert engine_named("onnxruntime").delegate == "cpu"


# --- measuring --------------------------------------------------------------------------------------------------------


def test_onnx_models_are_measured(onnx_host: Device, transport: Transport, shelf: ModelShelf) -> None:
    """The rows are those of any engine: samples on the thread's own clock, more work taking longer."""
    settings = MeasureSettings(rounds=6, samples_per_round=2, min_sample_us=50, warmup_min_ms=0.2)
    jobs = [shelf.job("small", multiplication([1, 8])), shelf.job("large", multiplication([1, 400_000]))]
    with Session(onnx_host, transport) as session:
        hello = session.hello
        rows = {row.job_id: row for row in session.measure(jobs, shelf.models, settings)}
    assert (hello.engine, hello.runtime, hello.version) == ("onnxruntime", "onnxruntime", onnxruntime.__version__)
    assert hello.clock == "thread_cpu"
    small, large = rows["small"], rows["large"]
    assert small.ok
    assert large.ok
    assert small.clock == "thread_cpu"
    assert min(large.samples_ns) > 5 * min(small.samples_ns)
    assert small.sentinel_ns > 0
    assert "denormal" not in small.flags


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is no model", "InvalidProtobuf"),
        (
            multiplication([1, "height"]),
            r"ValueError: input x leaves dimension 1 \(height\) free; only the batch may be",
        ),
        (multiplication([1, 4], dtype=TensorProto.STRING), "NotImplemented|InvalidGraph|TypeError"),
    ],
)
def test_a_bad_model_fails_alone(
    content: bytes, reason: str, onnx_host: Device, transport: Transport, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """It has a failed row that says why, and the batch goes on."""
    jobs = [shelf.job("bad", content), shelf.job("good", multiplication([1, 8]))]
    with Session(onnx_host, transport) as session:
        rows = {row.job_id: row for row in session.measure(jobs, shelf.models, quick)}
    assert rows["bad"].status == "failed"
    assert re.search(reason, rows["bad"].error)
    assert rows["good"].ok


def test_a_free_batch_is_measured_as_one(
    onnx_host: Device, transport: Transport, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """As a device meets its images: one at a time."""
    with Session(onnx_host, transport) as session:
        (row,) = session.measure([shelf.job("free", multiplication(["batch", 8]))], shelf.models, quick)
    assert row.ok


def test_several_threads_are_read_on_the_wall(onnx_host: Device, transport: Transport, shelf: ModelShelf) -> None:
    """The thread's own clock would miss half of the work."""
    settings = MeasureSettings(threads=2, rounds=1, samples_per_round=2, min_sample_us=10)
    with Session(onnx_host, transport) as session:
        (row,) = session.measure([shelf.job("two", multiplication([1, 64]))], shelf.models, settings)
    assert row.clock == "wall"


def test_a_kept_onnx_file_is_not_pushed_again(
    onnx_host: Device, transport: Transport, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """What lies on the device is known by its hash, whatever its format."""
    jobs = [shelf.job("kept", multiplication([1, 8]))]
    pushed_bytes = []
    for _ in range(2):
        with Session(onnx_host, transport, SessionLimits(keep_bytes=1 << 24)) as session:
            assert all(row.ok for row in session.measure(jobs, shelf.models, quick))
        pushed_bytes.append(session.pushed_bytes)
    assert pushed_bytes[0] > 0
    assert pushed_bytes[1] == 0


# --- questions --------------------------------------------------------------------------------------------------------


def test_outputs_are_those_of_the_runtime(
    onnx_host: Device, transport: Transport, shelf: ModelShelf, tmp_path: Path
) -> None:
    """The parity check of a device works with this engine, too."""
    values = np.linspace(-2, 2, 6, dtype=np.float32).reshape(1, 6)
    blob = tmp_path / "inputs"
    blob.write_bytes(values.tobytes())
    job = shelf.job("cube", multiplication(["batch", 6], steps=2))
    with Session(onnx_host, transport) as session:
        inputs = (hashlib.sha256(values.tobytes()).hexdigest(), blob)
        (output,) = session.outputs(job, shelf.models[job.model_sha256], inputs, [Layer("x", (1, 6))])
    np.testing.assert_allclose(np.frombuffer(output, np.float32), (values**3).reshape(-1), rtol=1e-6)


def test_nodes_are_told_in_execution_order(onnx_host: Device, transport: Transport, shelf: ModelShelf) -> None:
    """As the runtime's own profiler names them, each with its mean over the runs that were asked for."""
    job = shelf.job("chain", multiplication([1, 5000], steps=3))
    with Session(onnx_host, transport) as session:
        nodes = session.nodes(job, shelf.models[job.model_sha256], 7)
    assert [node.name.split()[0] for node in nodes] == ["Mul", "Mul", "Mul"]
    assert {(node.kind, node.runs) for node in nodes} == {("builtin", 7)}


def test_a_node_is_the_mean_of_the_last_runs(pushed: ModuleType) -> None:
    """The first run warms up; events of other kinds are passed over."""
    events = [
        {"cat": "Session", "name": "model_run", "dur": 900},
        *({"cat": "Node", "name": "a_kernel_time", "dur": us, "args": {"op_name": "Conv"}} for us in (100, 4, 6)),
        {"cat": "Node", "name": "a_fence_before", "dur": 70, "args": {"op_name": "Conv"}},
    ]
    assert pushed.nodes_of(events, 2) == [{"name": "Conv a", "kind": "builtin", "mean_ns": 5000, "runs": 2}]


# --- the pushed file --------------------------------------------------------------------------------------------------


def test_one_thread_works_alone_and_waits_without_spinning(pushed: ModuleType) -> None:
    """Only then is the thread's own clock all there is."""
    options = pushed.make_session(multiplication([1, 8]), 1).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_result_of_unknown_size_is_learnt_from_a_run(pushed: ModuleType) -> None:
    """NonZero of random numbers gives as many columns as there are numbers."""
    node = helper.make_node("Reshape", ["x", "size"], ["y"])
    entries = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6]),
        helper.make_tensor_value_info("size", TensorProto.INT64, [2]),
    ]
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])
    model = helper.make_model(
        helper.make_graph([node], "test", entries, [end]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    interpreter = pushed.Interpreter(model.SerializeToString(), 1)
    interpreter.allocate_tensors()
    assert [tensor["shape"] for tensor in interpreter.get_output_details()] == [(1, 6)]


# --- where it is missing ----------------------------------------------------------------------------------------------


@pytest.fixture
def without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python that is started find no onnxruntime."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.usefixtures("without_onnxruntime")
def test_a_missing_runtime_is_named_with_how_to_install_it(onnx_host: Device, transport: Transport) -> None:
    """Before anything is measured: which Python lacks it, and the wheel or the extra that brings it."""
    pattern = r"onnxruntime is missing for .*python.*devices setup NAME --device-engine onnxruntime.*edgekd\[onnx\]"
    with pytest.raises(DeviceNotReady, match=pattern), Session(onnx_host, transport):
        pass


@pytest.fixture
def described(transport: Transport, host: Device) -> Description:
    """Describe this machine with the engine, and what its Python has of it."""
    return examine(replace(host_target(), engine="onnxruntime"), transport)


def test_a_check_tells_the_runtimes_version(described: Description) -> None:
    """As for the engine python."""
    check = engine_check(described)
    assert check.ok
    assert check.found == f"onnxruntime: onnxruntime {onnxruntime.__version__}"


def test_a_check_says_how_to_get_a_missing_runtime(described: Description) -> None:
    """The command names the engine, which the device's own may not be."""
    check = engine_check(replace(described, runtimes={}))
    assert not check.ok
    assert check.found.endswith("has no onnxruntime")
    assert check.advice == "edgekd devices setup host --device-engine onnxruntime"


def test_a_device_without_python_is_told_so(host: Device) -> None:
    """There is no other way to run the engine."""
    with pytest.raises(DeviceNotReady, match="no Python was found there, which the engine onnxruntime needs"):
        engine_named("onnxruntime").files(replace(host, python=""))


def test_the_host_is_set_up_with_the_extra(described: Description, transport: Transport) -> None:
    """Nothing is installed into a person's own Python behind their back."""
    bare = replace(described, runtimes={})
    with pytest.raises(SetupFailed, match=r"install the runtime here with: pip install 'edgekd\[onnx\]'"):
        set_up(host_target(), bare, transport, SetupRequest(), lambda text: None)


BOARD = Target(Address("ssh", user="pi", host="board"), "board", engine="onnxruntime")


def fake_wheel(folder: Path) -> Path:
    """Write a wheel that has nothing but the names that are looked for."""
    folder.mkdir()
    info = "onnxruntime-9.9.9.dist-info"
    with zipfile.ZipFile(folder / "onnxruntime-9.9.9-py3-none-any.whl", "w") as wheel:
        wheel.writestr("onnxruntime/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 9.9.9\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def test_a_board_gets_the_runtime_beside_litert(
    described: Description, transport: Transport, work_dir: str, tmp_path: Path
) -> None:
    """Its wheel goes into a folder of its own; what the engine python has stays."""
    work = Path(work_dir)
    (work / "site" / "ai_edge_litert").mkdir(parents=True)
    for folder in (work, work / "site"):
        folder.chmod(0o700)
    there = replace(described.device, name="board", address=BOARD.address, work_dir=work_dir)
    bare = replace(described, device=there, runtimes={})
    request = SetupRequest(wheels=fake_wheel(tmp_path / "wheels"))
    (done,) = set_up(BOARD, bare, transport, request, lambda text: None)
    assert done == f"onnxruntime: onnxruntime 9.9.9 in {work_dir}"
    assert (work / "site-onnxruntime" / "onnxruntime" / "__init__.py").is_file()
    assert (work / "site" / "ai_edge_litert").is_dir()
    assert not list(work.glob("*.new"))


def test_a_python_is_chosen_for_what_the_engine_needs(transport: Transport, tmp_path: Path) -> None:
    """One with onnxruntime serves this engine, and its packages lie apart from LiteRT's."""
    for engine, runtime in (("python", "ai_edge_litert"), ("onnxruntime", "onnxruntime")):
        found = find_python(transport, str(tmp_path), (sys.executable,), runtimes_of(engine))
        assert found is not None
        assert runtime in found.runtimes
    assert site_of("onnxruntime") != site_of("python")


def test_what_was_installed_for_the_engine_is_kept_by_a_clean(
    onnx_host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """As the packages of the engine python are."""
    kept = Path(work_dir) / site_of("onnxruntime") / "package"
    kept.mkdir(parents=True)
    for folder in (Path(work_dir), kept.parent):
        folder.chmod(0o700)
    with Session(onnx_host, transport) as session:
        assert all(row.ok for row in session.measure([shelf.job("a", multiplication([1, 8]))], shelf.models, quick))
    assert kept.is_dir()
    assert not (Path(work_dir) / "models").exists()
