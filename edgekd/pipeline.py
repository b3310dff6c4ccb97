"""The main job, read top to bottom: profile → search → distil → export and verify → baseline → report.

Every stage reads what the one before wrote into the run folder and can be run alone, stopped, and resumed. What a
stage does is in its package; this file only joins them.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekd.bench import DeviceChoice
from edgekd.config import Settings
from edgekd.errors import UsageError
from edgekd.files import sha256_of, write_atomic
from edgekd.materials import data_and_teacher
from edgekd.predict import doubts, is_simulated, see_real
from edgekd.profile import Order, ProfileRequest, profile
from edgekd.progress import Progress, StepsAlone
from edgekd.runs import Run, read_winner, set_former_student_aside
from edgekd.search.engines import engine_named
from edgekd.search_job import STUDY_FILE, SearchJob, reward_of, warm_file
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.space import Space


def check_settings(settings: Settings, progress: Progress, *, measures: bool = True) -> None:
    """See, before a run folder is begun or anything measured, that all that the settings name exists and fits.

    What only searches, and measures nothing, takes a simulated device, too.

    Raises:
        UsageError: nothing can be measured on a simulated device, or a setting is out of range.
        DeviceError, UnknownName: there is no such device, space, engine, reward or method.
        DataError: the data or the teacher is missing or damaged, or does not fit the space.

    """
    from edgekd.distill.methods import method_named, weights_in
    from edgekd.distill.student import check_lesson, method_of, new_student, recipe_of, tutors_of
    from edgekd.search.workers import WorkerSettings

    search, proxy = settings.search, settings.proxy
    if measures or search.measure in ("top-k", "all"):
        see_real(settings.device)
    if not is_simulated(settings.device):
        DeviceChoice.of(settings).find()
    reward_of(settings)
    warm_file(search.warm_start)
    for engine in {search.engine, search.baseline} - {"none"}:
        engine_named(engine)
    WorkerSettings(search.workers, search.ray_address, search.cpus_per_worker, search.gpus_per_worker)
    method_named(proxy.method, weights_in(proxy.weights))
    method_of(settings.distil)
    recipe_of(settings.distil)
    data, teacher = data_and_teacher(settings, StepsAlone(progress))  # pictures are decoded here the first time
    tutors, space = tutors_of(settings, data, teacher), space_named(settings.space)
    check_lesson(settings, data, tutors, new_student(settings, space.reference()))  # as the winner will be
    _see_taps(settings, space)


def _see_taps(settings: Settings, space: Space) -> None:
    """See that whichever architecture wins has the modules that are to be tapped: the lightest of every operator do."""
    from edgekd.distill.student import new_student
    from edgekd.distill.taps import Taps, UnknownTap

    for number in range(max(len(block.conv_ops) for block in space.blocks)):
        lightest = ((min(number, len(block.conv_ops) - 1), *block.lightest[1:]) for block in space.blocks)
        arch = space.arch(tuple(choice for block in lightest for choice in block))
        try:
            Taps(new_student(settings, arch), settings.distil.student_taps)
        except UnknownTap as error:
            raise UsageError(
                f"not every architecture of {space.name} has what distil.student_taps name: {error}; "
                "leave them out, and the ends of stages are found"
            ) from error


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
    job = SearchJob.open(run, progress)
    for doubt in doubts(job.table, run.settings.search.target_dtype, dt.datetime.now(dt.UTC)):
        progress.note(f"{run.table_path}: {doubt}")
    record = job.search(job.study(run.settings.search.engine, STUDY_FILE, warm=True), progress)
    found = job.conclude(record, progress)
    chosen = found[0].winner()
    progress.note(f"winner: {chosen.arch}, proxy accuracy {100 * chosen.proxy_accuracy:.1f} %")
    set_former_student_aside(run, chosen.arch, progress)
    run.write_json("winner.json", job.winner_json(found))


def baseline_run(run: Run, progress: Progress) -> None:
    """Search once more with the baseline engine and the same budget, for the report."""
    baseline = run.settings.search.baseline
    if baseline == "none":
        return
    job = SearchJob.open(run, progress)
    job.search(job.study(baseline, f"{baseline}.jsonl", warm=False), progress)


def distil_run(run: Run, progress: Progress) -> None:
    """Train the winner with the teacher; every whole epoch is kept."""
    from edgekd.distil_job import job_of

    job_of(run, read_winner(run).arch, progress).do(progress)


def export_run(run: Run, progress: Progress) -> None:
    """Write the artifacts, check them with their runtimes and on the device, and write manifest.json."""
    from edgekd.export.bundle import make_bundle

    if run.settings.search.measure != "never":
        see_real(run.settings.device)
    make_bundle(run, progress)


def is_exported(run: Run) -> bool:
    """Tell whether manifest.json describes this run's winner and student, and the artifacts that lie there."""
    from edgekd.report.manifest import read_manifest

    if not (run.folder / "manifest.json").exists():
        return False
    described = read_manifest(run.folder / "manifest.json")
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
