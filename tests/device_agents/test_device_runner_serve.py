"""The runner as a process: its lock, its requests, what it answers about one model, how it ends."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from device_agents.local import LocalProcess, LocalTransport
from device_agents.protocol import HOST_SILENT_EXIT, PROTOCOL_VERSION, MeasureSettings
from edgekd.graph.micro import micro_model
from latency_tables.op_spec import OpSpec

pytestmark = pytest.mark.slow  # real processes, one after the other

WAIT_S = 30.0
CONV = micro_model(OpSpec.parse("conv_2d;float32;in=1x12x12x3;out_channels=5;kernel=3x3"))
SUM = micro_model(OpSpec.parse("add;float32;in=1x4x4x2,1x4x4x2"))


class Served:
    """A runner that serves a folder of the test."""

    def __init__(self, transport: LocalTransport, argv: Sequence[str]) -> None:
        self.process: LocalProcess = transport.stream(argv)

    def line(self) -> dict[str, Any]:
        """Read the next line; an end of the stream is an empty one."""
        return dict(json.loads(self.process.read_line(WAIT_S) or b"{}"))

    def ask(self, **request: object) -> list[dict[str, Any]]:
        """Send a request and return the lines of its answer without the end."""
        self.process.write_line(json.dumps(request).encode(), WAIT_S)
        return list(iter(self.line, {"type": "end"}))


class Place:
    """A work folder, and runners that serve it."""

    def __init__(self, folder: Path, runner: ModuleType) -> None:
        self.folder = folder
        self.transport = LocalTransport()
        self.runner = Path(str(runner.__file__))
        (folder / "models").mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)

    def store(self, content: bytes, suffix: str = "tflite") -> str:
        """Put a file where a push would, and return its hash."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / "models" / f"{digest}.{suffix}").write_bytes(content)
        return digest

    def serve(self, wait_s: float = 0, owner: str = "tester@desk", python: Sequence[str] = ()) -> Served:
        """Start a runner, with further arguments for Python."""
        argv = [sys.executable, *python, "-B", str(self.runner), "serve", str(self.folder), owner, str(wait_s)]
        return Served(self.transport, [*argv, str(self.runner.with_name("edgekd_nodes.py"))])

    def plan(self, content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the two lines that ask for one row, of a model with this content."""
        job = {"type": "job", "job": "a", "sha256": self.store(content), "kind": "operator"}
        settings = asdict(MeasureSettings(rounds=1, patience=1, min_sample_us=1, warmup_min_ms=0.01))
        return {"type": "plan", "protocol": PROTOCOL_VERSION, "settings": settings, "sentinel": job, "jobs": 1}, job


@pytest.fixture
def place(tmp_path: Path, runner: ModuleType) -> Iterator[Place]:
    """A work folder that exists; nothing serves it after the test."""
    place = Place(tmp_path / "work", runner)
    yield place
    place.transport.close()


def ended_with(argv: Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a runner with its whole input given at once."""
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=WAIT_S, check=False)


@pytest.fixture
def serve_argv(runner: ModuleType, place: Place) -> list[str]:
    """The command of a runner that waits for no lock."""
    return [sys.executable, str(runner.__file__), "serve", str(place.folder), "tester@desk", "0"]


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_runtime")
def test_the_end_of_input_is_the_end_of_the_runner(serve_argv: list[str]) -> None:
    """A runner whose host says nothing and goes away ends in order."""
    assert ended_with(serve_argv, b"").returncode == 0


@pytest.mark.usefixtures("fake_runtime")
@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\n", b"[1]\n", b"\n", b"\xff\n"])
def test_a_request_that_is_no_object_ends_the_runner(serve_argv: list[str], said: bytes) -> None:
    """A host that speaks something else is not guessed at."""
    assert ended_with(serve_argv, said).returncode == 2


@pytest.mark.usefixtures("fake_runtime")
@pytest.mark.parametrize("request_", [{}, {"type": "files"}, {"type": "plan", "protocol": 1, "jobs": 0}])
def test_a_request_of_another_protocol_is_fatal(place: Place, request_: dict[str, object]) -> None:
    """The runner says which protocol it speaks and ends."""
    served = place.serve()
    assert served.line()["type"] == "hello"
    served.process.write_line(json.dumps(request_).encode(), WAIT_S)
    assert served.line() == {"type": "fatal", "reason": f"a request that protocol {PROTOCOL_VERSION} does not know"}
    assert served.process.wait(WAIT_S) == 1


def test_a_folder_that_others_can_write_to_is_refused(place: Place) -> None:
    """The runner itself trusts no folder in which its files could be swapped, and puts nothing there."""
    (place.folder / "models").rmdir()
    place.folder.chmod(0o777)
    served = place.serve()
    assert served.line()["type"] == "fatal"
    assert served.process.wait(WAIT_S) == 1
    assert list(place.folder.iterdir()) == []


def test_a_silent_host_and_a_closed_one_have_different_codes(runner: ModuleType) -> None:
    """The host tells a link that was cut without a word by the code, which both ends name alike."""
    assert runner.HOST_SILENT_EXIT == HOST_SILENT_EXIT
    assert HOST_SILENT_EXIT not in (0, 1, 2)


def test_the_runner_speaks_the_version_of_the_host(runner: ModuleType) -> None:
    """Both ends name one protocol; the file has no import to share it."""
    assert runner.PROTOCOL_VERSION == PROTOCOL_VERSION


# --- its lock ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_runtime")
def test_a_second_runner_is_told_who_holds_the_lock(place: Place) -> None:
    """It names the first one's owner and process and how long that has held the device, and ends."""
    first = place.serve(owner="alice@desk")
    hello = first.line()
    second = place.serve(owner="bob@desk")
    busy = second.line()
    assert busy["type"] == "busy"
    pattern = r"alice@desk has been measuring for \d+ s \(process (\d+) on the device\)"
    match = re.fullmatch(pattern, busy["reason"])
    assert match is not None
    assert int(match[1]) == hello["pid"]
    assert second.process.wait(WAIT_S) == 1


@pytest.mark.usefixtures("fake_runtime")
def test_a_runner_waits_for_the_lock(place: Place) -> None:
    """With time to wait it serves once the first one has ended, and the file names the new owner."""
    first = place.serve()
    assert first.line()["type"] == "hello"
    second = place.serve(wait_s=WAIT_S, owner="bob@desk")
    first.process.close_stdin()
    assert second.line()["type"] == "hello"
    assert json.loads((place.folder / "lock").read_text())["owner"] == "bob@desk"


@pytest.mark.usefixtures("fake_runtime")
def test_a_lock_of_a_dead_runner_is_no_lock(place: Place) -> None:
    """What a killed one wrote stays in the file and stops nobody."""
    first = place.serve(owner="alice@desk")
    assert first.line()["type"] == "hello"
    first.process.kill()
    assert "alice@desk" in (place.folder / "lock").read_text()
    assert place.serve().line()["type"] == "hello"


# --- its runtime ------------------------------------------------------------------------------------------------------


def make_package(folder: Path, runtime: str) -> None:
    """Install a runtime as pip would with --target: a package and what tells its version."""
    package = folder / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text(runtime)
    information = folder / "ai_edge_litert-9.8.7.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: 9.8.7\n")


def test_what_was_installed_in_the_work_folder_is_found(place: Place, fake_runtime_text: str) -> None:
    """A Python without any runtime measures with the one in WORK/site."""
    make_package(place.folder / "site", fake_runtime_text)
    hello = place.serve(python=["-S", "-E"]).line()
    assert (hello["engine"], hello["runtime"], hello["version"]) == ("python", "ai_edge_litert", "9.8.7")


def test_without_any_runtime_it_says_what_to_install(place: Place) -> None:
    """The refusal names the Python that was searched and the packages that would do."""
    served = place.serve(python=["-S", "-E"])
    refusal = served.line()
    assert refusal["type"] == "fatal"
    assert "ai_edge_litert, tflite_runtime, tensorflow" in refusal["reason"]


def test_the_devices_own_runtime_comes_first(place: Place, fake_runtime_text: str) -> None:
    """What the owner of the device has installed is not hidden by ours."""
    make_package(place.folder / "site", fake_runtime_text)
    assert place.serve().line()["version"] != "9.8.7"


def test_probe_is_one_json_line(runner: ModuleType, place: Place, fake_runtime_text: str) -> None:
    """What the device has is told without importing any of it, what lies in WORK/site included."""
    make_package(place.folder / "site", "raise ImportError")
    argv = [sys.executable, "-S", "-E", str(runner.__file__), "probe", str(place.folder)]
    facts = json.loads(ended_with(argv, b"").stdout)
    assert facts["runtimes"] == {"ai_edge_litert": "9.8.7"}
    assert facts["cpus"] == sorted(os.sched_getaffinity(0))


def test_a_wrong_call_prints_the_usage(runner: ModuleType) -> None:
    """Who starts the file by hand learns its modes."""
    for argv in (["dance"], ["serve", "folder"], []):
        done = ended_with([sys.executable, str(runner.__file__), *argv], b"")
        assert done.returncode == 2
        assert b"probe" in done.stderr


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_runtime")
def test_libraries_cannot_write_between_the_lines(place: Place) -> None:
    """What a library prints to stdout goes to stderr, so that each line of stdout is JSON."""
    plan, job = place.plan(b"burn 10")
    served = place.serve()
    served.process.write_line(json.dumps(plan).encode(), WAIT_S)
    kinds = [served.line()["type"], *(line["type"] for line in served.ask(**job))]
    assert kinds == ["hello", *["start"] * 4, "row"]
    served.process.close_stdin()
    assert served.process.wait(WAIT_S) == 0
    assert "noise that a library writes to stdout" in served.process.stderr_tail()


@pytest.mark.usefixtures("fake_runtime")
def test_a_word_that_the_host_is_there_has_no_answer(place: Place) -> None:
    """It may come at any time, between the lines of a plan too."""
    plan, job = place.plan(b"burn 10")
    served = place.serve()
    for said in ({"type": "alive"}, plan, {"type": "alive"}):
        served.process.write_line(json.dumps(said).encode(), WAIT_S)
    answers = served.ask(**job)
    assert [line["type"] for line in answers if line["type"] != "start"] == ["hello", "row"]


# --- outputs ----------------------------------------------------------------------------------------------------------


def interpreted(content: bytes, inputs: Sequence[np.ndarray]) -> list[bytes]:
    """Run a model here and return the bytes of its outputs."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]).tobytes() for detail in interpreter.get_output_details()]


def outputs_of(place: Place, content: bytes, blob: bytes) -> list[dict[str, Any]]:
    """Ask a new runner for the outputs of a model, and return its answer after the greeting."""
    served = place.serve()
    assert served.line()["type"] == "hello"
    hashes = {"sha256": place.store(content), "inputs": place.store(blob, "bin")}
    return served.ask(type="outputs", job="one", **hashes, threads=1, layers=[])


def test_outputs_are_those_of_the_interpreter(place: Place) -> None:
    """The same runtime gives the same bytes on the same inputs."""
    values = np.random.default_rng(0).uniform(-1, 1, (1, 12, 12, 3)).astype(np.float32)
    start, answer = outputs_of(place, CONV, values.tobytes())
    assert start == {"type": "start", "job": "one", "phase": "load"}
    assert [base64.b64decode(text) for text in answer["outputs"]] == interpreted(CONV, [values])


def test_several_inputs_come_from_one_blob_in_order(place: Place, add_model: Callable[[int], bytes]) -> None:
    """The second input begins where the first one ends."""
    left, right = np.arange(6, dtype=np.float32)[None], np.full((1, 6), 100, np.float32)
    _, answer = outputs_of(place, add_model(6), left.tobytes() + right.tobytes())
    (found,) = (np.frombuffer(base64.b64decode(text), np.float32) for text in answer["outputs"])
    np.testing.assert_array_equal(found, (left + right)[0])


@pytest.mark.parametrize("size", [0, 4 * 12 * 12 * 3 - 1, 4 * 12 * 12 * 3 + 4])
def test_inputs_of_another_size_are_a_failure(place: Place, size: int) -> None:
    """Too little and too much is told with both sizes, and the runner goes on."""
    served = place.serve()
    assert served.line()["type"] == "hello"
    model, right = place.store(CONV), place.store(bytes(4 * 12 * 12 * 3), "bin")
    question = {"type": "outputs", "job": "one", "sha256": model, "threads": 1, "layers": []}
    _, failed = served.ask(**question, inputs=place.store(bytes(size), "bin"))
    assert failed["type"] == "failed"
    assert f"the inputs have {size} bytes, the model takes {4 * 12 * 12 * 3}" in failed["error"]
    assert served.ask(**question, inputs=right)[-1]["type"] == "outputs"


def test_outputs_that_no_line_can_carry_are_a_failure(place: Place, runner: ModuleType) -> None:
    """A model with megabytes of output is told as such, instead of a line that the host must refuse."""
    count = runner.MAX_OUTPUT_BYTES // 4 + 1
    content = micro_model(OpSpec.parse(f"add;float32;in=1x1x1x{count},1x1x1x{count}"))
    _, failed = outputs_of(place, content, bytes(8 * count))
    assert f"the outputs have {4 * count} bytes" in failed["error"]


@pytest.mark.parametrize("suffix", ["tflite", "bin"])
def test_a_file_that_changed_on_the_device_is_a_failure(place: Place, suffix: str) -> None:
    """A model or inputs that are not what their name says are not run."""
    blob = bytes(4 * 4 * 4 * 2)
    names = {"tflite": place.store(SUM), "bin": place.store(blob, "bin")}
    (place.folder / "models" / f"{names[suffix]}.{suffix}").write_bytes(CONV)
    served = place.serve()
    assert served.line()["type"] == "hello"
    hashes = {"sha256": names["tflite"], "inputs": names["bin"]}
    _, failed = served.ask(type="outputs", job="one", **hashes, threads=1, layers=[])
    assert failed["error"] == "ValueError: the file does not have the hash it is named after"


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_nodes_are_asked_for_between_other_requests(place: Place) -> None:
    """One runner tells outputs and nodes in turn, with the same libraries loaded."""
    served = place.serve()
    assert served.line()["type"] == "hello"
    model, blob = place.store(CONV), place.store(bytes(4 * 12 * 12 * 3), "bin")
    for _ in range(2):
        _, outputs = served.ask(type="outputs", job="one", sha256=model, inputs=blob, threads=1, layers=[])
        _, nodes = served.ask(type="nodes", job="one", sha256=model, runs=5, threads=1)
        assert len(outputs["outputs"]) == 1
        (node,) = nodes["nodes"]
        assert (node["kind"], node["runs"]) == ("xnnpack", 5)
        assert "Convolution" in node["name"]


def test_nodes_of_garbage_are_a_failure(place: Place) -> None:
    """A file that is no model is told as such, and the runner goes on."""
    served = place.serve()
    assert served.line()["type"] == "hello"
    _, failed = served.ask(type="nodes", job="one", sha256=place.store(b"garbage"), runs=5, threads=1)
    assert failed["error"].startswith("ValueError: LiteRtCreateModelFromBuffer")
    _, answer = served.ask(type="nodes", job="one", sha256=place.store(CONV), runs=5, threads=1)
    assert answer["type"] == "nodes"


@pytest.mark.usefixtures("fake_runtime")
def test_nodes_of_another_runtime_are_a_failure(place: Place) -> None:
    """A runtime without the library cannot tell the times of nodes, and says so."""
    served = place.serve()
    assert served.line()["type"] == "hello"
    _, failed = served.ask(type="nodes", job="one", sha256=place.store(CONV), runs=5, threads=1)
    assert "libLiteRt.so was not found" in failed["error"]
