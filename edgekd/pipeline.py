"""The main job, read top to bottom: profile → search → distil → export and verify → baseline → report.

Every stage reads what the one before wrote into the run folder and can be run alone, stopped, and resumed. What a
stage does is in its package; this file only joins them.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.bench import DeviceChoice
from edgekd.config import Settings
from edgekd.data import dataset
from edgekd.errors import DataError
from edgekd.files import sha256_of, write_atomic
from edgekd.predict import check_device, doubts, is_simulated, see_real
from edgekd.profile import Order, ProfileRequest, profile
from edgekd.progress import Progress
from edgekd.runs import Run, read_winner
from edgekd.search.engines import engine_named
from edgekd.search.latency import LatencyModel
from edgekd.search.reward import Reward
from edgekd.search.study import Sample, Study, StudySettings, winner
from edgekd.spaces.mnasnet import space_named
from latency_tables.journal import Journal
from latency_tables.store import LatencyTable, load_table, table_sha256

if TYPE_CHECKING:
    from edgekd.distill.train import EpochResult
    from edgekd.teachers import Teacher


def check_settings(settings: Settings, *, measures: bool = True) -> None:
    """See, before a run folder is begun or anything measured, that all that the settings name exists and fits.

    What only searches, and measures nothing, takes a simulated device, too.

    Raises:
        UsageError: nothing can be measured on a simulated device.
        DeviceError, UnknownName: there is no such device, space, engine, reward or method.
        DataError: the data or the teacher is missing or damaged, or does not fit the space.

    """
    from edgekd.distill.methods import method_named

    if measures:
        see_real(settings.device)
    if not is_simulated(settings.device):
        DeviceChoice.of(settings).find()
    Reward(settings.search.reward)
    for engine in {settings.search.engine, settings.search.baseline} - {"none"}:
        engine_named(engine)
    for method in (settings.proxy.method, settings.distil.method):
        method_named(method)
    _data_and_teacher(settings)


def run_all(run: Run, progress: Progress) -> None:
    """Do everything; what is finished already is not done again."""
    for name, stage in STAGES.items():
        if name == "export" and is_exported(run):
            continue  # the other stages find by themselves what they have done
        progress.stage(name)
        with _timed(run, name):
            stage(run, progress)


def profile_run(run: Run, progress: Progress) -> None:
    """Complete the run's latency table for its space and device."""
    request = ProfileRequest(DeviceChoice.of(run.settings), run.table_path)
    order = Order.for_space(space_named(run.settings.space))
    table = profile(request, order, progress.step, progress.note)
    for dtype, fit in table.calibrations.items():
        progress.note(
            f"{dtype} table: {len(table.rows)} rows in all, networks left out of the calibration are predicted within "
            f"{100 * fit.heldout_mean_error:.1f} % on average, {100 * fit.heldout_max_error:.1f} % at most"
        )


def search_run(run: Run, progress: Progress) -> None:
    """Search the space with the run's engine and write winner.json."""
    desk = _Desk.open(run, progress)
    for doubt in doubts(desk.table, run.settings.search.target_dtype, dt.datetime.now(dt.UTC)):
        progress.note(f"{run.table_path}: {doubt}")
    study = desk.study(run.settings.search.engine, "search.jsonl")
    samples = desk.search(study, progress)
    chosen = winner(samples, study.settings)
    progress.note(f"winner: {chosen.arch}, proxy accuracy {100 * chosen.proxy_accuracy:.1f} %")
    target = {"target_ms": study.settings.target_ms, "target_dtype": study.settings.target_dtype}
    told_by = {"table_sha256": table_sha256(desk.table), "unmeasured": desk.table.unmeasured}
    run.write_json("winner.json", chosen.as_json() | target | told_by)


def baseline_run(run: Run, progress: Progress) -> None:
    """Search once more with the baseline engine and the same budget, for the report."""
    if run.settings.search.baseline == "none":
        return
    desk = _Desk.open(run, progress)
    desk.search(desk.study(run.settings.search.baseline, f"{run.settings.search.baseline}.jsonl"), progress)


def distil_run(run: Run, progress: Progress) -> None:
    """Train the winner with the teacher; every whole epoch is kept."""
    from edgekd.distill.student import StudentPlan, train_student

    arch = read_winner(run).arch
    data, teacher = _data_and_teacher(run.settings)
    logits = _logits_path(run, data, teacher, progress)
    plan = StudentPlan(run.settings, arch, run.folder / "student.safetensors", data.sha256, teacher.sha256)
    lesson = {"arch": str(arch), "data_sha256": data.sha256, "teacher_sha256": teacher.sha256}
    history = Journal(run.folder / "distil.jsonl", {"format": "edgekd-distil", "version": 1, **lesson})

    def on_epoch(result: EpochResult) -> None:
        if len(history.entries) < result.epoch:
            history.append({"epoch": result.epoch, "loss": result.loss, "seconds": round(result.seconds, 3)})
        progress.step(result.epoch, result.epochs, f"loss {result.loss:.3f}")

    train_student(plan, data, logits, on_epoch)


def export_run(run: Run, progress: Progress) -> None:
    """Write the artifacts, check them with their runtimes and on the device, and write manifest.json."""
    from edgekd.export.bundle import make_bundle

    see_real(run.settings.device)
    make_bundle(run, progress)


def is_exported(run: Run) -> bool:
    """Tell whether manifest.json describes this run's winner and student, and the artifacts that lie there."""
    from edgekd.report.data import ReportData

    if not (run.folder / "manifest.json").exists():
        return False
    described = ReportData.load(run.folder).manifest
    student = run.read_json("manifest.json", "edgekd export").get("student_sha256")
    if described.arch_id != read_winner(run).arch.arch_id or student != sha256_of(run.folder / "student.safetensors"):
        return False
    files = {name: run.artifacts / Path(entry.path).name for name, entry in described.artifacts.items()}
    return bool(files) and all(f.is_file() and sha256_of(f) == described.artifacts[n].sha256 for n, f in files.items())


def report_run(run: Run, progress: Progress) -> None:  # noqa: ARG001 - every stage has the same form
    """Write report.html from the files of the run."""
    from edgekd.report.data import ReportData
    from edgekd.report.html import render

    write_atomic(run.folder / "report.html", render(ReportData.load(run.folder)))


STAGES: dict[str, Callable[[Run, Progress], None]] = {
    "profile": profile_run,
    "search": search_run,
    "distil": distil_run,
    "export": export_run,
    "baseline": baseline_run,
    "report": report_run,
}


@dataclass(frozen=True)
class _Desk:
    """What a search needs at hand: the latency model, data, teacher and its logits."""

    run: Run
    latency: LatencyModel
    table: LatencyTable
    data: dataset.DataSet
    teacher: Teacher
    logits: Path

    @staticmethod
    def open(run: Run, progress: Progress) -> _Desk:
        """Load the table, data and teacher; the teacher's logits are computed here if they are not there yet."""
        latency, table = latency_from_table(run.settings, run.table_path)
        data, teacher = _data_and_teacher(run.settings)
        return _Desk(run, latency, table, data, teacher, _logits_path(run, data, teacher, progress))

    def study(self, engine: str, file_name: str) -> Study:
        """Set up a study; its identity is everything that its samples depend on."""
        search = self.run.settings.search
        settings = StudySettings(
            engine=engine,
            budget=search.budget,
            batch=search.batch,
            seed=self.run.settings.seed,
            target_ms=resolve_target(self.run.settings, self.latency),
            target_dtype=search.target_dtype,
            reward=Reward(search.reward),
        )
        identity: dict[str, Any] = {
            "table_sha256": table_sha256(self.table),
            "data_sha256": self.data.sha256,
            "teacher_sha256": self.teacher.sha256,
            "proxy": self.run.settings.as_dict()["proxy"],
        }
        return Study(settings, self.latency, self.run.folder / file_name, identity)

    def search(self, study: Study, progress: Progress) -> list[Sample]:
        """Run a study with candidates rated in worker processes."""
        from edgekd.distill.train import Recipe
        from edgekd.search.proxy import ProxyPool, ProxyTask

        proxy, seed = self.run.settings.proxy, self.run.settings.seed
        recipe = Recipe(proxy.epochs, proxy.batch_size, proxy.learning_rate, seed=seed)
        task = ProxyTask(
            self.run.settings.space, self.run.settings.data, self.logits, proxy.method, proxy.images, recipe
        )

        def on_sample(sample: Sample) -> None:
            latency_ms = sample.predicted_ms[study.settings.target_dtype]
            text = f"{latency_ms:.3f} ms, accuracy {100 * sample.proxy_accuracy:.1f} %, reward {sample.reward:.3f}"
            progress.step(sample.index + 1, study.settings.budget, text)

        with ProxyPool(task, self.run.settings.search.workers) as pool:
            return study.run(pool.evaluate, on_sample)


def latency_from_table(settings: Settings, table_path: Path) -> tuple[LatencyModel, LatencyTable]:
    """Load the table of a search and give its latency model and itself.

    Raises:
        DataError: there is no table.
        OtherKey: it was measured on another device or system, or by another engine or runtime.
        InfeasibleTarget: no architecture of the space meets the target.

    """
    if not table_path.exists():
        raise DataError(
            f"table {table_path} does not exist; measure it first with: "
            f"edgekd profile --device {settings.device} --space {settings.space}"
        )
    table = load_table(table_path)
    check_device(table, table_path, DeviceChoice.of(settings), ask=True)
    latency = LatencyModel.of(space_named(settings.space), table)
    latency.check_target(resolve_target(settings, latency), settings.search.target_dtype)
    return latency, table


def resolve_target(settings: Settings, latency: LatencyModel) -> float:
    """Give the target in ms; "auto" is half of the reference architecture's predicted latency, rounded to 1 µs."""
    search = settings.search
    if isinstance(search.target_ms, float):
        return search.target_ms
    reference = latency.predict(latency.space.reference(), search.target_dtype)
    return round(reference.total_ms / 2, 3)


def _data_and_teacher(settings: Settings) -> tuple[dataset.DataSet, Teacher]:
    from edgekd import teachers

    space = space_named(settings.space)
    data = dataset.load(settings.data)
    shape = data.train.images.shape[1:]
    if shape != space.input_shape[1:] or data.classes != space.classes:
        raise DataError(
            f"space {space.name} takes images {space.input_shape[1:]} of {space.classes} classes, "
            f"the data {data.name} has {shape} of {data.classes}; choose another space or data set"
        )
    return data, teachers.load(settings.teacher, data)


def _logits_path(run: Run, data: dataset.DataSet, teacher: Teacher, progress: Progress) -> Path:
    import torch

    from edgekd.distill.logit_cache import cache_logits

    torch.set_num_threads(run.settings.distil.threads)
    return cache_logits(run.folder, teacher, data, lambda done, total: progress.step(done, total, "teacher's logits"))


@contextmanager
def _timed(run: Run, stage: str) -> Iterator[None]:
    """Add the stage's seconds to seconds.json, also when it is stopped."""
    began = time.perf_counter()
    try:
        yield
    finally:
        path = run.folder / "seconds.json"
        seconds = run.read_json(path.name, "edgekd run") if path.exists() else {}
        before = seconds.get(stage)
        total = (before if isinstance(before, int | float) else 0.0) + time.perf_counter() - began
        run.write_json(path.name, seconds | {stage: round(total, 3)})
