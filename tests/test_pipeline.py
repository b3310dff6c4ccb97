"""Whole runs: killed in every stage and gone on with, they end as an undisturbed one; and what they ship is true."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from safetensors.numpy import load_file
from small_run import (
    all_end,
    descendants,
    edgekd,
    host_key,
    line_count,
    lines_of,
    names_in,
    wait_until,
    write_data,
    write_table,
    write_teacher,
)
from synthetic import NARROW

from edgekd.pipeline import is_exported
from edgekd.runs import load_run
from edgekd.search.latency import LatencyModel
from edgekd.sentinels import network_name
from latency_tables.op_spec import DTYPES
from latency_tables.schema import Measurement
from latency_tables.store import load_table

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
MISSING_ROWS = 150  # of the table before the killed run: a few blocks to measure, which takes seconds
EPOCHS = 3

CONFIG = """
data = "{folder}/data.npz"
teacher = "{folder}/teacher.safetensors"
[search]
budget = 12
batch = 4
target_ms = {target_ms}
[proxy]
images = 64
[distil]
epochs = {epochs}
batch_size = 64
[quantize]
images = 60
"""


@dataclass(frozen=True)
class Kill:
    """What a stage has done when its run is killed: a file with so many lines, or a file that is there."""

    stage: str
    file: str
    lines: int = 0

    def due(self, run: Path) -> Callable[[], bool]:
        """Give the question whether the time has come."""
        path = run / self.file
        return lambda: line_count(path) >= self.lines if self.lines else path.exists()


@dataclass(frozen=True)
class Runs:
    """Two finished runs of one config with equal tables, and what was there after each kill of the first."""

    killed: Path
    undisturbed: Path
    kept: list[dict[str, bytes]]  # by file name, whole lines only
    left_over: list[set[int]]  # processes that outlived a kill
    result: dict[str, Any]  # what the last `edgekd run --format json` printed


JOURNALS = ("table.jsonl", "search.jsonl", "distil.jsonl", "random.jsonl")


def whole_lines(path: Path) -> bytes:
    """Read a journal without what a kill may have left of a last line."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def kill_in(kill: Kill, run: Path) -> tuple[dict[str, bytes], set[int]]:
    """Start the run and kill its main process at a point; give what it left: whole lines, and processes."""
    process = edgekd("run", "edgekd.toml", "--out", run, folder=run.parent)
    wait_until(kill.due(run), process)
    below = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, kill.stage
    left_over = set() if all_end(below) else {pid for pid in below if Path(f"/proc/{pid}").exists()}
    return {name: whole_lines(run / name) for name in JOURNALS}, left_over


def finish(run: Path) -> dict[str, Any]:
    """Run to the end; give the JSON on stdout."""
    process = edgekd("run", "edgekd.toml", "--out", run, "--format", "json", folder=run.parent)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    result: dict[str, Any] = json.loads(stdout)
    return result


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Kill one run in every stage and go on to its end; then make it undisturbed with the table it ended with."""
    folder = tmp_path_factory.mktemp("runs")
    write_teacher(folder / "teacher.safetensors", write_data(folder / "data.npz"), epochs=3)
    table = write_table(folder / "table.jsonl", host_key(folder))
    target_ms = LatencyModel.of(NARROW, load_table(table)).predict(NARROW.reference(), "int8").total_ms
    (folder / "edgekd.toml").write_text(CONFIG.format(folder=folder, target_ms=target_ms, epochs=EPOCHS))
    killed, undisturbed = folder / "killed", folder / "undisturbed"
    killed.mkdir()
    known = without_some_rows(table.read_bytes())
    (killed / "table.jsonl").write_bytes(known)
    kills = (
        Kill("profile", "table.jsonl", known.count(b"\n") + 10),
        Kill("search", "search.jsonl", 1 + 5),
        Kill("distil", "distil.jsonl", 1 + 1),
        Kill("export", "artifacts/student-int8.tflite"),
        Kill("baseline", "random.jsonl", 1 + 3),
    )
    ends = [kill_in(kill, killed) for kill in kills]
    result = finish(killed)
    undisturbed.mkdir()
    shutil.copy(killed / "table.jsonl", undisturbed)
    finish(undisturbed)
    return Runs(killed, undisturbed, [kept for kept, _ in ends], [left_over for _, left_over in ends], result)


def without_some_rows(table: bytes) -> bytes:
    """Leave out the first operators' rows, and the calibrations, which are made last."""
    lines = table.splitlines(keepends=True)
    rows = [line for line in lines if line.startswith(b'{"type":"row"')][:MISSING_ROWS]
    return b"".join(line for line in lines if line not in rows and b'"type":"calibration"' not in line)


def test_no_process_outlives_a_killed_run(runs: Runs) -> None:
    """Neither the runner on the device nor a worker of the search; in no stage."""
    assert runs.left_over == [set()] * 5


def test_what_was_finished_before_a_kill_is_kept_byte_for_byte(runs: Runs) -> None:
    """Rows, samples and epochs that a killed run had written are the beginning of what the finished run holds."""
    for kept in runs.kept:
        for name in JOURNALS:
            assert (runs.killed / name).read_bytes().startswith(kept[name]), name
    after_profile, after_search, after_distil, after_export, after_baseline = runs.kept
    assert not after_profile["search.jsonl"]
    assert 6 <= after_search["search.jsonl"].count(b"\n") < 13
    assert after_search["table.jsonl"] == after_baseline["table.jsonl"]
    assert 2 <= after_distil["distil.jsonl"].count(b"\n") <= 1 + EPOCHS
    assert after_export["search.jsonl"].count(b"\n") == 13
    assert 4 <= after_baseline["random.jsonl"].count(b"\n") < 13


def test_nothing_is_measured_or_rated_twice(runs: Runs) -> None:
    """Each subject's attempts follow each other, each sample and each epoch is there once and in order."""
    attempts: dict[str, int] = {}
    for line in lines_of(runs.killed / "table.jsonl"):
        row = line.get("measurement", line)
        if "subject" in row:
            assert row["attempt"] == attempts.get(row["subject"], 0) + 1
            attempts[row["subject"]] = row["attempt"]
    for name in ("search.jsonl", "random.jsonl"):
        assert [line["index"] for line in lines_of(runs.killed / name)[1:]] == list(range(12))
    assert [line["epoch"] for line in lines_of(runs.killed / "distil.jsonl")[1:]] == list(range(1, EPOCHS + 1))


def test_a_killed_run_chooses_the_same_winner(runs: Runs) -> None:
    """Every sample of both searches is the undisturbed run's but for its seconds, and so is the winner."""

    def without_seconds(entry: Any) -> Any:
        if isinstance(entry, list):
            return [without_seconds(item) for item in entry]
        if not isinstance(entry, dict):
            return entry
        kept = {name: value for name, value in entry.items() if name not in ("seconds", "crc")}
        return {name: without_seconds(value) for name, value in kept.items()}

    for name in ("search.jsonl", "random.jsonl"):
        killed, undisturbed = (lines_of(run / name) for run in (runs.killed, runs.undisturbed))
        assert list(map(without_seconds, killed)) == list(map(without_seconds, undisturbed))
    winners = [json.loads((run / "winner.json").read_text()) for run in (runs.killed, runs.undisturbed)]
    assert without_seconds(winners[0]) == without_seconds(winners[1])


def test_a_killed_run_ships_the_same_files(runs: Runs) -> None:
    """The student's weights and all three artifacts are equal byte for byte, and the manifests name their hashes."""
    weights = [load_file(run / "student.safetensors") for run in (runs.killed, runs.undisturbed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    manifests = [json.loads((run / "manifest.json").read_text()) for run in (runs.killed, runs.undisturbed)]
    assert manifests[0]["artifacts"] == manifests[1]["artifacts"]
    for run in (runs.killed, runs.undisturbed):
        for artifact in manifests[0]["artifacts"].values():
            content = (run / artifact["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == artifact["sha256"]
            assert len(content) == artifact["size_bytes"]
    for name in ("accuracy", "parity", "predicted_ms", "table", "macs", "parameters", "teacher_accuracy"):
        assert manifests[0][name] == manifests[1][name]


def contents_of(run: Path) -> dict[str, bytes]:
    """Read what a finished run must not change: all but the report and the seconds, which go on counting."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in ("report.html", "seconds.json")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_a_finished_run_is_left_as_it_is(runs: Runs) -> None:
    """The same command once more measures, trains and writes nothing, and prints the same result."""
    before = contents_of(runs.killed)
    assert finish(runs.killed) == runs.result
    assert contents_of(runs.killed) == before


def test_an_export_counts_while_its_files_are_whole(runs: Runs, tmp_path: Path) -> None:
    """A changed or missing artifact, another student, or no manifest: the export has to be made again."""
    run = load_run(shutil.copytree(runs.killed, tmp_path / "run"))
    assert is_exported(run)
    for name in ("artifacts/student.onnx", "artifacts/student-int8.tflite", "student.safetensors"):
        content = (run.folder / name).read_bytes()
        (run.folder / name).write_bytes(content[:-1] + b"?")
        assert not is_exported(run), name
        (run.folder / name).write_bytes(content)
    assert is_exported(run)
    (run.artifacts / "student.onnx").unlink()
    assert not is_exported(run)
    (run.folder / "manifest.json").unlink()
    assert not is_exported(run)


def test_no_temporary_file_is_left(runs: Runs) -> None:
    """An undisturbed run leaves what runs.py lists, the teacher's logits and its lock, and nothing else."""
    names = {path.name for path in runs.undisturbed.iterdir() if not path.name.startswith("teacher-logits-")}
    assert names == {
        ".lock", "artifacts", "distil.jsonl", "manifest.json", "random.jsonl", "report.html", "run.json",
        "search.jsonl", "seconds.json", "student.safetensors", "table.jsonl", "winner.json",
    }  # fmt: skip
    assert names_in(runs.undisturbed / "artifacts") == [
        "student-float32.tflite", "student-int8.tflite", "student.onnx",
    ]  # fmt: skip


def exported_test_split(runs: Runs, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ask `edgekd data export` for what the artifacts expect."""
    data = runs.killed.parent / "data.npz"
    process = edgekd("data", "export", data, folder / "test.npz", folder=folder)
    assert process.wait() == 0
    process.communicate()
    with np.load(folder / "test.npz") as file:
        return file["x"], file["y"]


def logits_of(path: Path, images: np.ndarray) -> np.ndarray:
    """Run an artifact as its user would, with nothing of edgekd."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found: np.ndarray = session.run(None, {"image": images})[0]
        return found
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    rows = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(rows)


def test_the_manifests_accuracies_are_true(runs: Runs, tmp_path: Path) -> None:
    """Counted again from the shipped files and exported data alone; the student learnt, and int8 hardly costs."""
    manifest = json.loads((runs.killed / "manifest.json").read_text())
    images, labels = exported_test_split(runs, tmp_path)
    for name, artifact in manifest["artifacts"].items():
        share = float((logits_of(runs.killed / artifact["path"], images).argmax(1) == labels).mean())
        assert manifest["accuracy"][name] == pytest.approx(share, abs=1e-9), name
    assert manifest["accuracy"]["float32"] == manifest["accuracy"]["onnx"] > 0.2
    assert abs(manifest["accuracy"]["int8"] - manifest["accuracy"]["float32"]) <= 0.1
    assert manifest["parity"]["float32"] < 1e-3
    assert manifest["parity"]["onnx"] < 1e-3


def test_the_manifests_latencies_are_what_they_say(runs: Runs) -> None:
    """Predictions are within their interval; measurements are what their samples say at the speed of the table."""
    manifest = json.loads((runs.killed / "manifest.json").read_text())
    speed = load_table(runs.killed / "table.jsonl").speed
    for dtype in DTYPES:
        assert manifest["predicted_low_ms"][dtype] <= manifest["predicted_ms"][dtype]
        assert manifest["predicted_ms"][dtype] <= manifest["predicted_high_ms"][dtype]
        measured = Measurement(**manifest["measurements"][dtype])
        assert measured.beside == network_name(dtype)
        assert manifest["measured_ms"][dtype] == speed.settled_ms(measured)
    assert manifest["predicted_ms"]["int8"] <= manifest["target_ms"]


def test_the_json_result_is_the_run(runs: Runs) -> None:
    """What stands on stdout --format json is one object, about the run that was made."""
    manifest = json.loads((runs.killed / "manifest.json").read_text())
    assert manifest["arch"] in json.dumps(runs.result)


def places_of_this_machine(*more: Path) -> set[bytes]:
    """List what must not be found in a shipped file."""
    places = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), Path.home(), Path(tempfile.gettempdir()), *more}
    host = {socket.gethostname().encode()} if len(socket.gethostname()) > 5 else set()  # a short one may be a word
    return {str(place).encode() for place in places} | host


def test_what_is_shipped_names_no_place_of_this_machine(runs: Runs) -> None:
    """Artifacts, manifest and report hold no path and no host name."""
    shipped = [*(runs.killed / "artifacts").iterdir(), runs.killed / "manifest.json", runs.killed / "report.html"]
    for path in shipped:
        content = path.read_bytes()
        found = {place for place in places_of_this_machine(runs.killed) if place in content}
        assert not found, path.name


def test_the_wheel_names_no_place_of_this_machine(tmp_path: Path) -> None:
    """Nothing in it, embedded data unpacked, tells where it was made; and it holds what a run needs."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("edgekd", "device_agents", "latency_tables"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "--wheel-dir", tmp_path, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(REPOSITORY / "edgekd" / "data" / "embedded.npz") as archive:
        contents |= {name: archive.read(name) for name in archive.namelist()}
    assert {"edgekd/data/embedded.npz", "edgekd/data/teacher.safetensors", "edgekd/data/embedded.LICENSE.txt"} <= set(
        contents
    )
    assert "device_agents/runner/edgekd_runner.py" in contents
    assert not any(name.startswith(("tests/", "tools/")) for name in contents)
    places = places_of_this_machine(tmp_path) - {b"/tmp"}  # which is a word of the system, not of this machine
    for name, content in contents.items():
        found = {place for place in places if place in content}
        assert not found, name
