"""Artifacts and their manifest: write the files, judge each through its own runtime, measure them on the device.

Everything in the manifest was computed from the finished files. Training is distill/'s, drawing report/'s.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekd import teachers
from edgekd.bench import Bench, DeviceChoice, Model
from edgekd.data import dataset
from edgekd.distill.student import StudentPlan, load_student, tutors_of
from edgekd.distill.train import predict
from edgekd.distill.views import balanced_subset
from edgekd.errors import DataError, EdgekdError
from edgekd.export.onnx import onnx_bytes
from edgekd.export.quantize import calibrate_ranges
from edgekd.export.runtimes import run_onnx, run_tflite, share_right
from edgekd.files import make_folder, sha256_of, write_atomic
from edgekd.graph.ir import FloatArray, Graph, int8_graph
from edgekd.graph.tflite_writer import write_tflite
from edgekd.materials import data_and_teacher, teacher_sha256
from edgekd.progress import Progress
from edgekd.runs import Run, read_winner, versions
from edgekd.search.latency import LatencyModel
from edgekd.sentinels import known_to
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network, folded_parameters
from latency_tables.op_spec import DTYPES
from latency_tables.store import LatencyTable, load_table, table_sha256

_MAX_DIFFERENCE = 1e-3  # of the largest logit; float32 kernels that sum in another order stay far below
FILES = {"float32": "student-float32.tflite", "int8": "student-int8.tflite", "onnx": "student.onnx"}


class ParityLost(EdgekdError):
    """A finished float file does not compute what torch computed."""


@dataclass(frozen=True)
class Bundle:
    """The finished files of a student, in memory, and the data that judge them."""

    network: Network
    contents: dict[str, bytes]  # by name: float32, int8, onnx
    images: FloatArray  # the test split, preprocessed, (N, H, W, C)
    labels: dataset.Labels

    @property
    def graph(self) -> Graph:
        """Give the student's float32 graph."""
        return self.network.graph


def make_bundle(run: Run, progress: Progress) -> dict[str, Any]:
    """Write artifacts/ and manifest.json; give the manifest.

    Raises:
        DataError: a file of an earlier stage is missing or damaged.
        DeviceError, MeasuringFailed: the artifacts cannot be measured.

    """
    table = _searched_table(run)
    data, teacher = data_and_teacher(run.settings)
    student, tutors = run.folder / "student.safetensors", tutors_of(run.settings, data, teacher)
    network = load_student(StudentPlan(run.settings, str(read_winner(run).arch), student, data.sha256, tutors.sha256))
    torch.set_num_threads(run.settings.distil.threads)
    bundle = build(network, data, run.settings.quantize.images)
    make_folder(run.artifacts)
    for name, content in bundle.contents.items():
        write_atomic(run.artifacts / FILES[name], content)
    progress.step(1, 3, "files written")
    judged = judge(bundle, run.artifacts)
    progress.step(2, 3, "judged through their runtimes")
    manifest = _manifest(run, bundle, table, (data, teacher)) | judged
    if run.settings.search.measure == "never":
        progress.step(3, 3, "not measured: the settings say never")
    else:
        manifest |= _measured_on_device(run, bundle, table, progress)
        progress.step(3, 3, "measured on the device")
    run.write_json("manifest.json", manifest)
    return manifest


def _measured_on_device(run: Run, bundle: Bundle, table: LatencyTable, progress: Progress) -> dict[str, Any]:
    with Bench(DeviceChoice.of(run.settings).find(), progress.note) as bench:
        for difference in table.key.differences(bench.key):
            raise DataError(f"table {run.table_path} was measured under another key ({difference}); profile again")
        device = {name: getattr(bench.device, name) for name in ("name", "model", "soc", "os")}
        return measure(bench, bundle, table) | {"device": device}


def _searched_table(run: Run) -> LatencyTable:
    """Load the run's table, which must be the one that the search was told from."""
    table = load_table(run.table_path)
    if run.read_json("winner.json", "edgekd search").get("table_sha256") != table_sha256(table):
        raise DataError(f"table {run.table_path} has changed since the search; search again with another run folder")
    return table


def build(network: Network, data: dataset.DataSet, calibration_images: int) -> Bundle:
    """Make the three files of a trained student."""
    parameters = folded_parameters(network)
    float_file = write_tflite(network.graph, parameters)
    chosen = balanced_subset(torch.from_numpy(data.train.labels), calibration_images).numpy()
    ranges = calibrate_ranges(float_file, network.graph, data.preprocess(data.train.images[chosen]))
    int8_file = write_tflite(int8_graph(network.graph), parameters, ranges)
    contents = {"float32": float_file, "int8": int8_file, "onnx": onnx_bytes(network)}
    return Bundle(network, contents, data.preprocess(data.test.images), data.test.labels)


def judge(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Run every file through its runtime: accuracy on the test split, and the largest difference to torch's logits."""
    reference = predict(bundle.network, torch.from_numpy(bundle.images).permute(0, 3, 1, 2)).numpy()
    logits = {name: run_tflite(bundle.contents[name], bundle.images) for name in DTYPES}
    logits["onnx"] = run_onnx(folder / FILES["onnx"], bundle.images)
    parity = {name: float(abs(rows - reference).max()) for name, rows in logits.items()}
    for name in ("float32", "onnx"):
        if not parity[name] <= _MAX_DIFFERENCE * max(1.0, float(abs(reference).max())):
            raise ParityLost(f"{FILES[name]} gives logits up to {parity[name]:.3g} off torch's; please report this")
    return {"accuracy": {name: share_right(rows, bundle.labels) for name, rows in logits.items()}, "parity": parity}


def measure(bench: Bench, bundle: Bundle, table: LatencyTable) -> dict[str, Any]:
    """Measure the .tflite files on the device, as of the speed that its table speaks of."""
    speed = table.speed
    models = [Model(name, bundle.contents[name], "network", known_to(speed, name)) for name in DTYPES]
    measured = bench.measure_settled(models, speed.usual_sentinel_ns)
    return {
        "measured_ms": {name: speed.settled_ms(measured[name]) for name in DTYPES},
        "measured_wall_ms": {name: measured[name].wall_median_ms for name in DTYPES},
        "measurements": {name: dataclasses.asdict(measured[name]) for name in DTYPES},
        "slowdown": {name: speed.slowdown(measured[name]) for name in DTYPES},
    }


def _manifest(
    run: Run, bundle: Bundle, table: LatencyTable, taught: tuple[dataset.DataSet, teachers.Teacher | None]
) -> dict[str, Any]:
    chosen = read_winner(run)
    space = space_named(run.settings.space)
    latency, arch = LatencyModel.of(space, table), chosen.arch
    predictions = {dtype: latency.predict(arch, dtype) for dtype in DTYPES}
    data, teacher = taught
    return {
        "format": "edgekd-manifest",
        "version": 1,
        "target_ms": chosen.target_ms,
        "target_dtype": chosen.target_dtype,
        **({"teacher_accuracy": _teacher_accuracy(teacher, bundle)} if teacher is not None else {}),
        "predicted_ms": {dtype: p.total_ms for dtype, p in predictions.items()},
        "predicted_low_ms": {dtype: p.low_ms for dtype, p in predictions.items()},
        "predicted_high_ms": {dtype: p.high_ms for dtype, p in predictions.items()},
        "artifacts": {name: _artifact(name, content) for name, content in bundle.contents.items()},
        "arch": str(arch),
        "arch_id": arch.arch_id,
        "space": space.name,
        "method": run.settings.distil.method,
        "reference": {"arch": str(space.reference()), "predicted_ms": latency.predicted_ms(space.reference())},
        "macs": bundle.graph.macs,
        "parameters": sum(p.numel() for p in bundle.network.parameters()),
        "seed": run.settings.seed,
        "student_sha256": sha256_of(run.folder / "student.safetensors"),
        "data_sha256": data.sha256,
        "teacher_sha256": teacher_sha256(teacher),
        "table": {"sha256": table_sha256(table), "rows": len(table.rows)},
        "versions": versions(),
        "seconds": run.read_json("seconds.json", "edgekd run") if (run.folder / "seconds.json").exists() else {},
    }


def _teacher_accuracy(teacher: teachers.Teacher, bundle: Bundle) -> float:
    logits = predict(teacher.module, torch.from_numpy(bundle.images).permute(0, 3, 1, 2)).numpy()
    return share_right(logits, bundle.labels)


def _artifact(name: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"path": f"artifacts/{FILES[name]}", "sha256": digest, "size_bytes": len(content)}
