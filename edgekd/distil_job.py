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
from edgekd.data.dataset import DataSet, Split
from edgekd.distill.judging import accuracy, predict
from edgekd.distill.loader import source_of
from edgekd.distill.logit_cache import cache_logits
from edgekd.distill.own_student import own_student, unlike, write_weights
from edgekd.distill.student import (
    StudentPlan,
    Tutors,
    device_of,
    lesson_of,
    method_of,
    new_student,
    train_student,
    tutors_of,
)
from edgekd.distill.views import samples_of
from edgekd.errors import EdgekdError, UsageError
from edgekd.materials import data_and_teacher, teacher_of
from edgekd.progress import Progress, duration
from edgekd.runs import Run, first_difference
from edgekd.spaces.arch import Arch
from latency_tables.journal import Journal, read_header, read_journal

if TYPE_CHECKING:
    from torch import nn

    from edgekd.distill.train import EpochResult

STUDENT, HISTORY, OWN_CHECKPOINT = "student.safetensors", "distil.jsonl", "training.safetensors"
_FORMAT, _FIRST_HISTORY = "edgekd-distil", "distil-version-1.jsonl"
_ASKED = 200  # images that a teacher is judged on before it teaches
_SHOWN, _MOST_SAID = 60, 300  # characters of a value, and of an error, in a message


class TrainingFailed(EdgekdError):
    """A network failed in the middle of a training."""

    def __init__(self, error: RuntimeError) -> None:
        reason = " ".join(str(error).split())[:_MOST_SAID]
        super().__init__(
            f"the training failed ({type(error).__name__}: {reason}); whole epochs are kept, the same command goes on"
        )


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
        """See that the folder is empty or holds this very training; one that has kept nothing holds none.

        Raises:
            UsageError: it holds another, and the message names the first difference; or another's weights.
            FileDamaged: its history cannot be read.

        """
        if not self._is_begun():
            if self._is_own and (self.folder / STUDENT).exists():
                raise UsageError(f"{self.folder / STUDENT} is of no training of ours; choose another --out")
            return
        found = read_header(self.folder / HISTORY)
        changed = None if found is None else _changed(found, self._header())
        if changed:
            name, before, now = changed
            why = unlike(str(before), str(now)) if name == "student" else ""
            raise UsageError(
                f"{self.folder} holds another training: its {name} is {before!r:.{_SHOWN}}, not {now!r:.{_SHOWN}}"
                f"{why}; choose another --out, or the options of that one"
            )

    @property
    def _is_own(self) -> bool:
        return self.plan.checkpoint_path.name == OWN_CHECKPOINT

    def _is_begun(self) -> bool:
        """Tell whether a training has kept anything here."""
        if self.plan.checkpoint_path.exists():
            return True
        header = read_header(self.folder / HISTORY)
        if header is None:
            return False
        return header.get("format") != _FORMAT or any(read_journal(self.folder / HISTORY).entries)

    def _history(self, progress: Progress) -> Journal:
        """Open the history, in place of one in which nothing stands, and beside one of the first version."""
        path = self.folder / HISTORY
        header = read_header(path)
        if header is not None and not self._is_begun():
            path.unlink()
        elif header is not None and header.get("version") == 1:
            path.rename(self.folder / _FIRST_HISTORY)
            progress.note(f"the epochs before were told by an earlier version of edgekd; they are in {_FIRST_HISTORY}")
        return Journal(path, self._header())

    def do(self, progress: Progress) -> None:
        """Train, or go on training; every whole epoch is told and kept.

        Raises:
            UsageError, DataError: as see_place; what is needed does not go together.
            TrainingDiverged: the loss is not finite; the epochs before are kept.
            TrainingFailed: a network failed, or the memory is full; the epochs before are kept.

        """
        self.see_place()
        lesson = lesson_of(self.plan, self.data, self.tutors, self._cached(progress))
        self._tell_teachers(progress)
        history = self._history(progress)
        told = {entry.get("epoch") for entry in history.entries}
        seconds: list[float] = []

        def on_epoch(result: EpochResult) -> None:
            if result.epoch not in told:
                history.append(_line_of(result))
            seconds.append(result.seconds)
            progress.step(result.epoch, result.epochs, _told(result, sum(seconds) / len(seconds)))
            if result.note:
                progress.note(result.note)

        try:
            train_student(self.plan, self.network, lesson, on_epoch)
        except RuntimeError as error:  # torch's word for full memory, too, and most that a user's own network raises
            raise TrainingFailed(error) from error

    def judged(self) -> dict[str, float]:
        """Give the share of images that the network classifies right, by the splits that never taught."""
        splits = ("validation", "test")
        self.network.to(device_of(self.plan.settings.distil))
        try:
            return {name: accuracy(self.network, source_of(self.data, self.data.split(name))) for name in splits}
        finally:
            self.network.to("cpu")

    def _tell_teachers(self, progress: Progress) -> None:
        """Note how good each teacher is: one that sees other pixels than it was trained on shows here first."""
        validation = self.data.validation
        some = samples_of(self.data, Split(validation.images[:_ASKED], validation.labels[:_ASKED]))
        for teacher in self.tutors.everyone:
            right = (predict(teacher.module, some.images).argmax(1) == some.labels).double().mean()
            progress.note(f"teacher {teacher.name}: {100 * right:.1f} % of {len(some.labels)} validation images right")

    def _cached(self, progress: Progress) -> Callable[[teachers.Teacher], Path]:
        def step(done: int, total: int) -> None:
            progress.step(done, total, "teacher's logits")

        device = device_of(self.plan.settings.distil)
        return lambda teacher: cache_logits(self.logits_folder, teacher, self.data, step, device)

    def _header(self) -> dict[str, Any]:
        return {"format": _FORMAT, "version": 2, **self.plan.identity}


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
    student = own_student(text, data, settings.seed)  # first: a teacher may be a download
    teacher = teacher_of(settings, data) if method_of(settings.distil).needs else None
    tutors = tutors_of(settings, data, teacher)
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


def _changed(found: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, object, object] | None:
    """Give the first difference between the training that a history is of, and the one that is wanted."""
    if found.get("version") != 1:
        return first_difference({"gpus": 1} | found, {"gpus": 1} | wanted)
    # the first version said no more than whose training it is; the checkpoint says all of it, and is compared as well
    whom = {"student": found.get("arch"), **{name: found.get(name) for name in ("data_sha256", "teacher_sha256")}}
    return first_difference(whom, {name: wanted[name] for name in whom})
