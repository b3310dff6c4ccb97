"""The search of a run: from its settings to a study, its outcomes and winner.json.

The search itself is search/'s: study.py asks and tells, workers/ rate, measuring.py measures. The stages around it are
pipeline.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.bench import DeviceChoice
from edgekd.config import Settings
from edgekd.data.dataset import DataSet
from edgekd.errors import DataError
from edgekd.materials import data_and_teacher, logits_path, teacher_sha256
from edgekd.predict import check_device, is_simulated
from edgekd.progress import Progress
from edgekd.runs import Run, load_run
from edgekd.search.latency import LatencyModel
from edgekd.search.outcome import Outcome, outcomes, top_under
from edgekd.search.rated import Evaluate, Hopeless, Rated
from edgekd.search.reward import Reward
from edgekd.search.study import Study
from edgekd.search.study_file import MEASURED, TABLE, StudyRecord, StudySettings
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import space_named
from edgekd.watching import ScalarBoard, StudyWatcher
from latency_tables.errors import FileDamaged
from latency_tables.journal import Journal
from latency_tables.simulate import SIMULATED
from latency_tables.store import LatencyTable, load_table, table_sha256

if TYPE_CHECKING:
    from edgekd.search.measuring import Measurer
    from edgekd.search.proxy import ProxyTask
    from edgekd.teachers import Teacher

STUDY_FILE, MEASURED_FILE = "search.jsonl", "measured.jsonl"


@dataclass(frozen=True)
class SearchJob:
    """What the searches of a run need at hand: the latency model, data, teacher and its logits."""

    run: Run
    latency: LatencyModel
    table: LatencyTable
    data: DataSet
    teacher: Teacher | None
    logits: Path | None

    @staticmethod
    def open(run: Run, progress: Progress) -> SearchJob:
        """Load the table, data and teacher; the teacher's logits are computed here if they are not there yet."""
        latency, table = latency_from_table(run.settings, run.table_path)
        data, teacher = data_and_teacher(run.settings, progress)
        return SearchJob(run, latency, table, data, teacher, logits_path(run, data, teacher, progress))

    def study(self, engine: str, file_name: str, *, warm: bool) -> Study:
        """Set up a study; its identity is everything that its samples depend on."""
        identity: dict[str, Any] = {
            "table_sha256": table_sha256(self.table),
            "data_sha256": self.data.sha256,
            "teacher_sha256": teacher_sha256(self.teacher),
            "proxy": self.run.settings.as_dict()["proxy"],
            "trained_on": "cuda" if self.run.settings.search.gpus_per_worker > 0 else "cpu",
        }
        settings = study_settings(self.run.settings, engine, self.latency)
        source = warm_file(self.run.settings.search.warm_start) if warm else None
        return Study(settings, self.latency, self.run.folder / file_name, identity, source)

    def search(self, study: Study, progress: Progress) -> StudyRecord:
        """Run a study with the workers and measurements that the settings ask for."""
        from edgekd.search.workers import WorkerSettings, open_workers

        search = self.run.settings.search
        workers = WorkerSettings(search.workers, search.ray_address, search.cpus_per_worker, search.gpus_per_worker)
        task = proxy_task(self.run.settings, self.data, self.logits)
        with ExitStack() as stack:
            watcher = StudyWatcher(study.settings, progress)
            if search.tensorboard:
                board = stack.enter_context(ScalarBoard(self.run.folder / "tensorboard" / study.path.stem))
                watcher = StudyWatcher(study.settings, progress, board.write)
            evaluate: Evaluate = stack.enter_context(open_workers(task, workers)).evaluate
            if search.measure == "all":
                measurer = stack.enter_context(self._measurer(progress))
                evaluate = measuring(evaluate, measurer.measure)
            return study.run(evaluate, watcher)

    def _measurer(self, progress: Progress) -> Measurer:
        """Give what measures on the run's device; it is held only while it is used."""
        from edgekd.search.measuring import MeasureOrder, Measurer
        from edgekd.search.workers import WorkerSettings

        search, table = self.run.settings.search, self.table
        order = MeasureOrder(
            device=DeviceChoice.of(self.run.settings),
            space=self.latency.space,
            dtype=search.target_dtype,
            key=table.key,
            speed=table.speed,
        )
        return Measurer(order, WorkerSettings(search.workers, search.ray_address), progress.note)

    def conclude(self, record: StudyRecord, progress: Progress) -> list[Outcome]:
        """Judge a study at each of its targets, and measure what the settings want measured for that.

        Raises:
            NoneUnderTarget: nothing is under the first target.

        """
        found = outcomes(record)
        if self.run.settings.search.measure == "top-k":
            found = self._measured_outcomes(record, found, progress)
        found[0].winner()
        return found

    def _measured_outcomes(self, record: StudyRecord, found: list[Outcome], progress: Progress) -> list[Outcome]:
        """Measure the best by the table until one of those measured is under each target, or all of them are measured.

        What was measured is kept in the run folder, so that a stopped search measures nothing twice.
        """
        known = MeasuredFile(self.run.folder / MEASURED_FILE, table_sha256(self.table), found[0].target_dtype)
        count, total = self.run.settings.search.measure_top, len(record.samples)
        with self._measurer(progress) as measurer:
            for outcome in found:
                asked = 0
                while asked < total:
                    batch = top_under(record, outcome, asked + count)[asked:]
                    asked += len(batch)
                    if not batch:
                        break
                    new = [sample.arch for sample in batch if sample.arch not in known.measured_ms]
                    known.add(new, measurer.measure([Arch.parse(arch) for arch in new]) if new else [])
                    if any(known.measured_ms[sample.arch] <= outcome.target_ms for sample in batch):
                        break
                progress.note(f"target {outcome.target_ms:.4g} ms: measured the best {asked} by the table")
        measured = {s.index: known.measured_ms[s.arch] for s in record.samples if s.arch in known.measured_ms}
        return outcomes(record, measured)

    def winner_json(self, found: list[Outcome]) -> dict[str, Any]:
        """Give the content of winner.json: the best under the first target, and what was found for each."""
        chosen, search = found[0].winner(), self.run.settings.search
        return {
            **chosen.as_json(),
            "target_ms": found[0].target_ms,
            "target_dtype": search.target_dtype,
            "table_sha256": table_sha256(self.table),
            "unmeasured": self.table.unmeasured,
            "outcomes": [outcome.as_json() for outcome in found],
        }


class MeasuredFile:
    """The latencies of whole architectures that a search measured, in a file beside the study."""

    def __init__(self, path: Path, table: str, dtype: str) -> None:
        """Open or begin it. Raises FileDamaged, OtherSettings or FileNotWritable."""
        header = {"format": "edgekd-measured", "version": 1, "table_sha256": table, "dtype": dtype}
        self._journal = Journal(path, header, sealed=True)
        self.measured_ms: dict[str, float] = {}
        for number, entry in enumerate(self._journal.entries, 2):
            arch, ms = entry.get("arch"), entry.get("measured_ms")
            if not isinstance(arch, str) or not isinstance(ms, float) or not 0 < ms < math.inf:
                raise FileDamaged(path, number, f"{ms!r} ms of {arch!r:.80} is no measurement")
            self.measured_ms[arch] = ms

    def add(self, archs: Sequence[str], measured_ms: Sequence[float]) -> None:
        """Keep new measurements."""
        for arch, ms in zip(archs, measured_ms, strict=True):
            self._journal.append({"arch": arch, "measured_ms": ms})
            self.measured_ms[arch] = ms
        self._journal.sync()


def measuring(evaluate: Evaluate, measure: Callable[[Sequence[Arch]], Sequence[float]]) -> Evaluate:
    """Give an evaluation that measures a batch on the device before it is trained, while the machine is quiet."""

    def measured(archs: Sequence[Arch], hopeless: Hopeless | None) -> Iterator[Rated]:
        times_ms = measure(archs)
        for ms, rated in zip(times_ms, evaluate(archs, hopeless), strict=True):
            yield replace(rated, measured_ms=ms)

    return measured


def study_settings(settings: Settings, engine: str, latency: LatencyModel) -> StudySettings:
    """Give the settings of a run's study by an engine."""
    search = settings.search
    return StudySettings(
        engine=engine,
        budget=search.budget,
        batch=search.batch,
        seed=settings.seed,
        targets_ms=resolve_targets(settings, latency),
        target_dtype=search.target_dtype,
        reward=reward_of(settings),
        budget_epochs=search.budget_epochs,
        epochs_each=settings.proxy.epochs,
        stop_share=settings.proxy.stop_share,
        latency=MEASURED if search.measure == "all" else TABLE,
    )


def reward_of(settings: Settings) -> Reward:
    """Give the reward that the settings name. Raises UnknownName or InvalidSetting."""
    form, weight = settings.search.reward, settings.search.reward_weight
    reward = Reward(form)
    if not weight:
        return reward
    if form == "absolute":
        return replace(reward, absolute_weight=weight)
    return replace(reward, hard_exponent=weight) if form == "hard" else replace(reward, soft_exponent=weight)


def proxy_task(settings: Settings, data: DataSet, logits: Path | None) -> ProxyTask:
    """Give what workers need to rate candidates."""
    from edgekd.distill.recipe import sgd_recipe
    from edgekd.search.proxy import ProxyTask

    proxy = settings.proxy
    return ProxyTask(
        space=space_named(settings.space),
        data=settings.data,
        logits_path=logits,
        method=proxy.method,
        weights=proxy.weights,
        images=proxy.images,
        recipe=sgd_recipe(proxy.epochs, proxy.batch_size, proxy.learning_rate, seed=settings.seed),
        resolution=proxy.resolution,
        threads=proxy.threads,
        data_sha256=data.sha256,
    )


def latency_from_table(settings: Settings, table_path: Path) -> tuple[LatencyModel, LatencyTable]:
    """Load the table of a search and give its latency model and itself.

    Raises:
        DataError: there is no table.
        OtherKey: it was measured on another device or system, or by another engine or runtime.
        InfeasibleTarget: no architecture of the space meets a target.

    """
    if not table_path.exists():
        name = settings.device.removeprefix(f"{SIMULATED}-")
        how = (
            f"work it out first with: edgekd table simulate {name} {table_path} --space {settings.space}"
            if is_simulated(settings.device)
            else f"measure it first with: edgekd profile --device {settings.device} --space {settings.space}"
        )
        raise DataError(f"table {table_path} does not exist; {how}")
    table = load_table(table_path)
    check_device(table, table_path, DeviceChoice.of(settings), ask=True)
    latency = LatencyModel.of(space_named(settings.space), table)
    latency.check_target(min(resolve_targets(settings, latency)), settings.search.target_dtype)
    return latency, table


def resolve_targets(settings: Settings, latency: LatencyModel) -> tuple[float, ...]:
    """Give the targets in ms; "auto" is half of the reference architecture's predicted latency, rounded to 1 µs."""
    target_ms = settings.search.target_ms
    if isinstance(target_ms, tuple):
        return target_ms
    if isinstance(target_ms, float):
        return (target_ms,)
    reference = latency.predict(latency.space.reference(), settings.search.target_dtype)
    return (round(reference.total_ms / 2, 3),)


def warm_file(folder: str) -> Path | None:
    """Find the study of a run to start from; "" is none. Raises DataError where the folder has no study."""
    if not folder:
        return None
    path = load_run(Path(folder)).folder / STUDY_FILE
    if not path.exists():
        raise DataError(f"run {folder} has no {STUDY_FILE} to start from; name the folder of an edgekd search")
    return path
