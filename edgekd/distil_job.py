"""The final training as a job: what it needs at hand, what it tells meanwhile, and what it leaves in its folder.

    distil.jsonl           whose training this is, and an epoch a line: loss, accuracy on the validation split, seconds
    student.safetensors    of an architecture of a space: the checkpoint, which export reads;
                           of a user's own network: its weights under its own names
    training.safetensors   the checkpoint of a user's own network

A folder holds one training; another's is refused before anything is changed. Which folder it is is students.py's, how
a student is trained distill/student.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import teachers
from edgekd.config import Settings
from edgekd.data.dataset import DataSet
from edgekd.distill.judging import accuracy
from edgekd.distill.loader import source_of
from edgekd.distill.logit_cache import cache_logits
from edgekd.distill.own_student import own_student, write_weights
from edgekd.distill.student import StudentPlan, Tutors, lesson_of, new_student, train_student, tutors_of
from edgekd.errors import UsageError
from edgekd.materials import data_and_teacher
from edgekd.progress import Progress, duration
from edgekd.runs import Run
from edgekd.spaces.arch import Arch
from latency_tables.journal import Journal, read_header

if TYPE_CHECKING:
    from torch import nn

    from edgekd.distill.train import EpochResult

STUDENT, HISTORY, OWN_CHECKPOINT = "student.safetensors", "distil.jsonl", "training.safetensors"
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class DistilJob:
    """One final training with all that it needs."""

    plan: StudentPlan
    network: nn.Module  # fresh, until the job is done
    data: DataSet
    tutors: Tutors
    logits_folder: Path  # where teachers' logits lie that others may have computed already

    @property
    def folder(self) -> Path:
        """Say where everything of the training lies."""
        return self.plan.checkpoint_path.parent

    def see_place(self) -> None:
        """See that the folder is empty or holds this very training.

        Raises:
            UsageError: it holds another; the message names the first difference.
            FileDamaged: its history cannot be read.

        """
        found = read_header(self.folder / HISTORY)
        difference = "" if found is None else _first_difference(found, self._header())
        if difference:
            raise UsageError(
                f"{self.folder} holds another training: {difference}; choose another --out, or the options of that one"
            )

    def do(self, progress: Progress) -> None:
        """Train, or go on training; every whole epoch is told and kept.

        Raises:
            UsageError, DataError: as see_place; what is needed does not go together.
            TrainingDiverged: the loss is not finite; the epochs before are kept.

        """
        self.see_place()
        lesson = lesson_of(self.plan, self.data, self.tutors, self._cached(progress))
        history = Journal(self.folder / HISTORY, self._header())
        seconds: list[float] = []

        def on_epoch(result: EpochResult) -> None:
            if len(history.entries) < result.epoch:
                history.append(_line_of(result))
            seconds.append(result.seconds)
            progress.step(result.epoch, result.epochs, _told(result, sum(seconds) / len(seconds)))
            if result.note:
                progress.note(result.note)

        train_student(self.plan, self.network, lesson, on_epoch)

    def judged(self) -> dict[str, float]:
        """Give the share of images that the network classifies right, by the splits that never taught."""
        splits = ("validation", "test")
        return {name: accuracy(self.network, source_of(self.data, self.data.split(name))) for name in splits}

    def _cached(self, progress: Progress) -> Callable[[teachers.Teacher], Path]:
        def step(done: int, total: int) -> None:
            progress.step(done, total, "teacher's logits")

        return lambda teacher: cache_logits(self.logits_folder, teacher, self.data, step)

    def _header(self) -> dict[str, Any]:
        return {"format": "edgekd-distil", "version": 2, **self.plan.identity}


def job_of(run: Run, arch: Arch, progress: Progress, logits_folder: Path | None = None) -> DistilJob:
    """Make the job of an architecture of a run's space; its settings are the run's.

    Raises:
        DataError: the data or a teacher is missing or damaged, or does not fit the other or the space.

    """
    data, teacher = data_and_teacher(run.settings, progress)
    tutors = tutors_of(run.settings, data, teacher)
    plan = StudentPlan(run.settings, str(arch), run.folder / STUDENT, data.sha256, tutors.sha256)
    return DistilJob(plan, new_student(run.settings, arch), data, tutors, logits_folder or run.folder)


def own_job(text: str, settings: Settings, data: DataSet, folder: Path) -> DistilJob:
    """Make the job of a user's own network, MODULE:CALLABLE.

    Raises:
        DataError: the network or a teacher is missing or damaged, or does not fit the data.

    """
    teacher = teachers.load(settings.teacher, data) if settings.has_teacher else None
    tutors = tutors_of(settings, data, teacher)
    student = own_student(text, data, settings.seed)
    plan = StudentPlan(settings, student.identity, folder / OWN_CHECKPOINT, data.sha256, tutors.sha256)
    return DistilJob(plan, student.module, data, tutors, folder)


def write_own(job: DistilJob, text: str, accuracies: dict[str, float]) -> Path:
    """Write the weights of a user's own network, when it is trained; give the file."""
    data, recipe = job.data, job.plan.recipe
    facts = {
        "student": text,
        "classes": data.classes,
        "input_shape": data.train.images.shape[1:],
        "mean": data.mean,
        "std": data.std,
        "method": job.plan.settings.distil.method,
        "teacher_sha256": job.plan.teacher_sha256,
        "data_sha256": data.sha256,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "accuracy": accuracies,
    }
    path = job.folder / STUDENT
    write_weights(path, job.network, {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()})
    return path


def _line_of(result: EpochResult) -> dict[str, Any]:
    accuracy_ = {} if result.accuracy is None else {"accuracy": result.accuracy}
    return {"epoch": result.epoch, "loss": result.loss, **accuracy_, "seconds": round(result.seconds, 3)}


def _told(result: EpochResult, epoch_seconds: float) -> str:
    """Word an epoch: its loss, how good the student is by now, and how long the rest will take."""
    said = [f"loss {result.loss:.3f}"]
    if result.accuracy is not None:
        said.append(f"{100 * result.accuracy:.1f} % of validation right")
    if result.epoch < result.epochs:
        said.append(f"{duration(epoch_seconds * (result.epochs - result.epoch))} left")
    return ", ".join(said)


def _first_difference(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    for name in dict.fromkeys([*wanted, *found]):
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            if inner := _first_difference(before, now, f"{prefix}{name}."):
                return inner
        elif before != now:
            return f"its {prefix}{name} is {before!r:.{_SHOWN}}, not {now!r:.{_SHOWN}}"
    return ""
