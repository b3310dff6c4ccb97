"""The final training of a student: a plan that says whom it is, from whom it learns and how; and doing it.

A plan's recipe names everything that the weights depend on, so that a checkpoint of another plan is refused.
Where files lie and what is told meanwhile is edgekd/distil_job.py's; the loop is train.py's; a user's own network is
loaded by own_student.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.config import DistilSettings, Settings
from edgekd.data.dataset import DataSet, Split
from edgekd.distill import checkpoint
from edgekd.distill.lesson import Lesson, classwork, needs_live, probe_of
from edgekd.distill.loader import source_of
from edgekd.distill.logit_cache import read_logits
from edgekd.distill.mentors import Anchors, CachedLogits, LiveTeacher, Mentor, Setting
from edgekd.distill.methods import bindable_method_named, weights_in
from edgekd.distill.methods.base import FeatureMethod
from edgekd.distill.recipe import Recipe, plain, recipe_named
from edgekd.distill.recipe_changes import changed
from edgekd.distill.several import see_devices
from edgekd.distill.train import EpochResult, Machine, TrainingDiverged, new_network, train
from edgekd.errors import UsageError
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network
from edgekd.teachers import Teacher, load

Cached = Callable[[Teacher], Path]  # who gives the file of a teacher's logits, computed by then


@dataclass(frozen=True, slots=True)
class Tutors:
    """Who teaches: a teacher, or nobody; and for method rco the earlier moments of that teacher's own training."""

    teacher: Teacher | None = None
    anchors: tuple[Teacher, ...] = ()  # easy to hard

    @property
    def everyone(self) -> tuple[Teacher, ...]:
        """Give all who teach, in the order of their turns."""
        return self.anchors + ((self.teacher,) if self.teacher is not None else ())

    @property
    def sha256(self) -> str:
        """Give what identifies them in files; "" is nobody."""
        return "+".join(one.sha256 for one in self.everyone)


def tutors_of(settings: Settings, data: DataSet, teacher: Teacher | None) -> Tutors:
    """Load who teaches besides the teacher; nobody does where the method listens to none. Raises DataError."""
    if not method_of(settings.distil).needs:
        return Tutors()
    return Tutors(teacher, tuple(load(source, data) for source in settings.distil.anchors))


@dataclass(frozen=True, slots=True)
class StudentPlan:
    """Which student is trained by which settings on what, and where its checkpoint lies."""

    settings: Settings
    student: str  # an architecture's text form, or what tells a user's own network from all others; one word
    checkpoint_path: Path
    data_sha256: str
    teacher_sha256: str  # Tutors.sha256

    @property
    def recipe(self) -> Recipe:
        """Give the recipe, which names everything that the weights depend on."""
        distil = self.settings.distil
        about = f"{self.student} {distil.method} data {self.data_sha256} teacher {self.teacher_sha256}"
        for name in ("weights", "student_taps", "teacher_taps"):
            if given := getattr(distil, name):
                about += f" {name} {given if isinstance(given, str) else ','.join(given)}"
        if distil.gpus > 1:  # norms and losses among samples see their device's share of a batch
            about += f" gpus {distil.gpus}"
        return dataclasses.replace(recipe_of(distil), seed=self.settings.seed, about=about)

    @property
    def identity(self) -> dict[str, Any]:
        """Give the same as plain values of JSON: what must not change while this training goes on."""
        recipe = plain(self.recipe)
        del recipe["about"]
        distil = self.settings.distil
        how = {name: getattr(distil, name) for name in ("method", "weights", "student_taps", "teacher_taps")}
        if distil.gpus > 1:
            how["gpus"] = distil.gpus
        whom = {"student": self.student, "data_sha256": self.data_sha256, "teacher_sha256": self.teacher_sha256}
        identity: dict[str, Any] = json.loads(json.dumps({**how, **whom, "recipe": recipe}))
        return identity


def recipe_of(distil: DistilSettings) -> Recipe:
    """Give the recipe of the settings, without seed and subject. Raises UsageError or UnknownName."""
    preset = recipe_named(distil.recipe)
    optimizer = dataclasses.replace(preset.optimizer, learning_rate=distil.learning_rate)
    sized = dataclasses.replace(preset, epochs=distil.epochs, batch_size=distil.batch_size, optimizer=optimizer)
    return changed(sized, distil.changes)


def method_of(distil: DistilSettings) -> FeatureMethod:
    """Make the method of the settings. Raises UnknownName or MethodError."""
    return bindable_method_named(distil.method, weights_in(distil.weights))


def check_lesson(settings: Settings, data: DataSet, tutors: Tutors, network: nn.Module) -> None:
    """See, before hours of other work, that method, recipe, teachers, taps and device go together; nothing is changed.

    `network` is a student like the one that will be taught; a method of features is bound to it here.

    Raises:
        UsageError: they do not, or one of them does not exist.
        MissingExtra: the precision or several devices need a library that is not installed.

    """
    distil = settings.distil
    method, recipe = method_of(distil), recipe_of(distil)
    if distil.anchors and not method.needs:
        raise UsageError(f"anchors are for method rco, and for no other; {distil.method!r} listens to nobody")
    if "anchors" in method.needs and not tutors.anchors:
        raise UsageError(
            f"method {distil.method!r} follows earlier moments of the teacher's own training: give them, easy to hard, "
            "with --anchor, or as distil.anchors"
        )
    few = source_of(data, Split(data.train.images[:2], data.train.labels[:2]))
    mentor = _mentor(tutors, lambda teacher: LiveTeacher.of(teacher, distil.teacher_taps))
    lesson = Lesson(few, method, mentor if method.needs else None, few, distil.student_taps)
    lesson.check(recipe)
    see_devices(method, recipe, len(data.train), device_of(distil), distil.gpus)
    if "features" in method.needs:
        cpu = torch.device("cpu")
        with classwork(lesson, network, recipe, Setting(cpu, listening=True, probe=probe_of(lesson, recipe, cpu))):
            pass  # what is bound has found its taps and its features
    elif distil.student_taps or distil.teacher_taps:
        raise UsageError(f"method {distil.method!r} compares no features, so taps are of no use to it; leave them out")


def lesson_of(plan: StudentPlan, data: DataSet, tutors: Tutors, cached: Cached) -> Lesson:
    """Make the lesson: with the teacher at hand where the method or the images ask for it, else with cached logits.

    Raises:
        UsageError, DataError: as check_lesson; the cache is damaged.

    """
    distil, recipe = plan.settings.distil, plan.recipe
    method = method_of(distil)
    torch.set_num_threads(distil.threads)  # also of what computes the logits

    def one(teacher: Teacher) -> CachedLogits | LiveTeacher:
        if needs_live(method, recipe):
            return LiveTeacher.of(teacher, distil.teacher_taps)
        return read_logits(cached(teacher))

    return Lesson(
        source_of(data, data.train, recipe.augmentation),
        method,
        _mentor(tutors, one) if method.needs else None,
        source_of(data, data.validation),
        distil.student_taps,
    )


def _mentor(tutors: Tutors, one: Callable[[Teacher], CachedLogits | LiveTeacher]) -> Mentor | None:
    mentors = tuple(map(one, tutors.everyone))
    if tutors.anchors:
        return Anchors(mentors)
    return mentors[0] if mentors else None


def device_of(distil: DistilSettings) -> torch.device:
    """Find the device that trains.

    Raises:
        UsageError: torch knows none of that name, or none is here.

    """
    name = distil.train_on
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # read back: meta takes numbers and keeps none
    except (RuntimeError, AssertionError) as error:  # as torch says that it has no such device, and of meta
        reason = str(error).splitlines()[0][:120] if str(error) else "no such device"
        raise UsageError(
            f"nothing can be trained on {name!r} here ({reason}); give cpu, or cuda where there is a GPU"
        ) from error
    return device


def train_student(
    plan: StudentPlan, network: nn.Module, lesson: Lesson, on_epoch: Callable[[EpochResult], None]
) -> None:
    """Train a fresh network in place, or go on with its training; it ends in main memory, in eval mode.

    Raises:
        TrainingDiverged: the loss is not finite.
        DataError: the checkpoint is damaged or of another training.
        UsageError: the method needs a teacher and there is none, or what else train() refuses.

    """
    distil = plan.settings.distil
    torch.set_num_threads(distil.threads)
    machine = Machine(distil.readers, distil.gpus, distil.save_every_s)
    network.to(device_of(distil))
    train(network, lesson, plan.recipe, plan.checkpoint_path, on_epoch, machine=machine)
    network.to("cpu").eval()
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise TrainingDiverged(
            "training diverged in its last step: the weights are not finite; lower the learning rate"
        )


def new_student(settings: Settings, arch: Arch) -> Network:
    """Make the fresh network of an architecture; its weights are a function of the seed."""
    graph = graph_of(space_named(settings.space), arch)
    return new_network(lambda: Network(graph), settings.seed)


def load_student(plan: StudentPlan) -> Network:
    """Load the trained student of an architecture in eval mode.

    Raises:
        DataError: there is no checkpoint, or it is damaged, unfinished or of another training.

    """
    network = new_student(plan.settings, Arch.parse(plan.student))
    checkpoint.load_weights(plan.checkpoint_path, network, plan.recipe)
    return network.eval()
