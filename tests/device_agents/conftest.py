"""Fixtures for devices: real one-operator models, a scripted fake runtime, and sessions in a folder of the test."""

from __future__ import annotations

import importlib.util
import os
import select
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from model_shelf import ModelShelf

from device_agents import runner as runner_package
from device_agents.device import Device
from device_agents.inventory import find_device, open_transport
from device_agents.protocol import MeasureSettings
from device_agents.transport import Transport

# Behaves as its model's text says: "burn 50" runs for about 50 additions, "kill 9" dies of that signal when it runs,
# "gate PATH" opens a FIFO, which tells the test that it runs, and never returns. "deaf gate PATH" ignores alarms too.
# "after 6 kill 9" does so in its seventh run, which is one that is measured, and nothing before. "once PATH" is a gate
# that removes its FIFO, so that it does nothing when it runs again.
_FAKE_RUNTIME = """
import os, signal, threading

class Interpreter:
    def __init__(self, model_content, num_threads):
        self.words = model_content.decode().split()
        self.patience = 0
        if self.words[0] == "after":
            self.patience, self.words = int(self.words[1]), self.words[2:]
        if self.words[0] not in ("burn", "kill", "exit", "gate", "deaf", "once"):
            raise ValueError("not a model")

    def allocate_tensors(self): print("noise that a library writes to stdout")
    def get_input_details(self): return []
    def get_output_details(self): return []

    def invoke(self):
        word, argument = self.words[0], self.words[-1]
        self.patience -= 1
        if self.patience >= 0:
            return
        if word == "once" and not os.path.exists(argument):
            return
        if word == "burn":
            sum(range(int(argument)))
        elif word == "kill":
            os.kill(os.getpid(), int(argument))
        elif word == "exit":
            raise SystemExit("exited in invoke")
        else:
            if word == "deaf":
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
            with open(argument, "w"):
                if word == "once":
                    os.unlink(argument)
            threading.Event().wait()
"""


@pytest.fixture(scope="session")
def described_host() -> Device:
    """Describe the machine that runs the tests."""
    return find_device("host")


@pytest.fixture
def host(described_host: Device, work_dir: str) -> Device:
    """Describe the machine that runs the tests, with a work folder of this test alone."""
    return replace(described_host, work_dir=work_dir)


@pytest.fixture
def transport(host: Device) -> Iterator[Transport]:
    """The way to this machine, closed at the end."""
    transport = open_transport(host)
    yield transport
    transport.close()


@pytest.fixture
def quick() -> MeasureSettings:
    """Settings for tests that do not look at how long anything takes."""
    return MeasureSettings(rounds=2, samples_per_round=2, min_sample_us=10, warmup_min_ms=0.01, block_size=1)


@pytest.fixture
def shelf(tmp_path: Path) -> ModelShelf:
    """An empty shelf of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return ModelShelf(folder)


@pytest.fixture
def work_dir(tmp_path: Path) -> str:
    """A work folder of this test alone, which does not exist yet."""
    return str(tmp_path / "edgekd-work")


@pytest.fixture
def fake_runtime_text() -> str:
    """The source of that module, for a test that installs it elsewhere."""
    return _FAKE_RUNTIME


@pytest.fixture
def fake_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runner find a scripted module where it looks for the runtime."""
    package = tmp_path / "site" / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text(_FAKE_RUNTIME)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


@pytest.fixture
def add_model() -> Callable[[int], bytes]:
    """Build a real .tflite model of one ADD over `count` float32 numbers."""
    return _add_model


def _add_model(count: int) -> bytes:
    model, graph, operator, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode, code.version = schema.BuiltinOperator.ADD, 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.tensors = [_tensor(name, count) for name in ("left", "right", "sum")]
    graph.inputs, graph.outputs, graph.operators = [0, 1], [2], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, count: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, count], schema.TensorType.FLOAT32, 0
    return tensor


@pytest.fixture(scope="session")
def runner() -> ModuleType:
    """The runner's file, imported here as a module to look inside."""
    path = Path(next(iter(runner_package.__path__))) / "edgekd_runner.py"
    spec = importlib.util.spec_from_file_location("edgekd_runner_under_test", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ends_within() -> Callable[[int, float], bool]:
    """Wait for the end of any process, child or not: True when it came in time."""

    def wait(pid: int, seconds: float) -> bool:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], seconds)[0])
        finally:
            os.close(handle)

    return wait


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Make a FIFO for one meeting of a test with a model that never returns."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture
def meet() -> Callable[[Path], None]:
    """Wait until the runner has opened the FIFO, which a "gate" model does while it runs."""

    def wait(gate: Path) -> None:
        gate.read_bytes()  # to its end: what the model does with the gate is done by then

    return wait
