"""A lesson: what is taught by which method and teacher; and the exercise, one batch's loss as a module.

The exercise holds the student and what the method itself learns, so that an optimizer, a checkpoint or several devices
take both. Looping is loop.py's, methods are methods/'s, teachers mentors.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distill.augment import mix_for, mixed
from edgekd.distill.loader import Batch, Order, Source, batches, on_device
from edgekd.distill.mentors import Anchors, Ask, LiveTeacher, Mentor, Setting, full, opened
from edgekd.distill.methods.base import Answers, FeatureMethod, Guide, LogitGuide, LogitMethod, Moment, Probe
from edgekd.distill.methods.parameters import parameters_of, with_parameters
from edgekd.distill.recipe import Recipe
from edgekd.distill.taps import Taps, stage_ends
from edgekd.errors import UsageError, suggest

_PROBED = 2  # images that shapes are learnt from; a norm needs two


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is taught: samples, the method, the teacher if it needs one, and on what the student is judged meanwhile."""

    samples: Source
    method: FeatureMethod
    teacher: Mentor | None = None
    validation: Source | None = None
    student_taps: tuple[str, ...] = ()  # module paths; () finds the ends of its stages

    def check(self, recipe: Recipe) -> None:
        """See that method, teacher and recipe go together.

        Raises:
            UsageError: they do not.

        """
        needs = self.method.needs
        _check_parameters(self.method, recipe)
        if needs and self.teacher is None:
            raise UsageError("the method needs a teacher; give one, or the method 'none'")
        _check_anchors(self.teacher, wanted="anchors" in needs)
        if needs and needs_live(self.method, recipe) and not _all_live(self.teacher):
            why = "compares features" if "features" in needs else "is to see augmented images"
            raise UsageError(f"the teacher {why}, and there are only its cached logits; give the teacher itself")
        if "features" in needs and recipe.compile:
            raise UsageError("compile hides the features that the method compares; leave one of the two out")
        if "indices" in needs and recipe.augmentation.mixes:
            raise UsageError("the method remembers single images, and mixup or cutmix mixes them; leave one out")
        if recipe.keep == "best" and self.validation is None:
            raise UsageError("keep 'best' chooses on validation samples, and there are none; give some, or keep 'last'")


def needs_live(method: FeatureMethod, recipe: Recipe) -> bool:
    """Tell whether the teacher must see every batch, because of features or of images that vary; else logits do."""
    return "features" in method.needs or bool(method.needs and recipe.augmentation.varies)


def _check_parameters(method: FeatureMethod, recipe: Recipe) -> None:
    known = parameters_of(method)
    for one in recipe.method:
        if one.must and one.name not in known:
            raise UsageError(f"method.{one.name} is no parameter of this method; {suggest(one.name, known)}")


def _check_anchors(teacher: Mentor | None, *, wanted: bool) -> None:
    if wanted and not isinstance(teacher, Anchors):
        raise UsageError("method rco needs several teachers, stored moments of one teacher's training, easy to hard")
    if isinstance(teacher, Anchors) and (not wanted or len(teacher.mentors) < 2):
        raise UsageError(f"there are {len(teacher.mentors)} anchors: two or more are for method rco, and for no other")


def _all_live(teacher: Mentor | None) -> bool:
    mentors = teacher.mentors if isinstance(teacher, Anchors) else (teacher,)
    return all(isinstance(mentor, LiveTeacher) for mentor in mentors)


# --- one batch's loss -------------------------------------------------------------------------------------------------

Taught = tuple[Tensor, tuple[Tensor, ...]]  # the teacher's logits and features
Targets = tuple[Tensor, Tensor, Tensor | None]  # labels, indices, and the labels of those mixed in
Numbers = tuple[float, float, int]  # progress, share of the own image, step


@dataclass(frozen=True, slots=True)
class Chance:
    """What a student's own draws depend on, besides the step."""

    seed: int = 0
    rank: int = 0  # of the process: each draws for its own share of a batch


class Exercise(nn.Module):
    """The loss of a batch by one forward: plain tensors in, so that engines can send them where they like."""

    def __init__(self, student: nn.Module, guide: Guide, taps: Taps | None, smoothing: float, chance: Chance) -> None:
        super().__init__()
        self.student, self.guide = student, guide
        self.smoothing, self.chance = smoothing, chance
        self._taps = taps
        self._run: Callable[[Tensor], Tensor] | None = None  # the student compiled

    def compile_student(self) -> None:
        """Let torch compile the student's forward pass."""
        self._run = torch.compile(self.student)

    def forward(self, images: Tensor, taught: Taught | None, targets: Targets, numbers: Numbers) -> Tensor:
        """Give the loss; shapes as in Answers and Moment."""
        (target, indices, partners), (progress, share, step) = targets, numbers
        with _drawing(self.chance, step, images.device):
            logits = full((self._run or self.student)(images))
        student = Answers(logits, tuple(full(one) for one in self._taps.take()) if self._taps else ())
        teacher = Answers(*taught) if taught is not None else _SILENT
        loss: Tensor = self.guide.loss(
            student, teacher, Moment(target, indices, progress, step, partners, share, self.smoothing)
        )
        return loss


@contextmanager
def _drawing(chance: Chance, step: int, device: torch.device) -> Iterator[None]:
    """Let what a student draws by chance, as dropout does, be a function of (seed, step, rank), as all else is."""
    drawn = np.random.SeedSequence([chance.seed, step, chance.rank])  # of rank 0 as without it
    seed = int(drawn.generate_state(1, np.uint64)[0])
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:  # this device alone: no other's is put back
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


_SILENT = Answers(torch.zeros(0, 0))  # of no teacher; a method that needs none does not look at it


@dataclass(frozen=True, slots=True)
class Classwork:
    """An exercise and who is asked in it."""

    exercise: Exercise
    ask: Ask | None
    recipe: Recipe
    source: Source
    device: torch.device

    def given(self, batch: Batch, step: int, steps: int) -> tuple[Tensor, Taught | None, Targets, Numbers]:
        """Prepare the forward pass of a batch in main memory: on the device, mixed, with the teacher's answers.

        `step` counts from 0 over the whole training of `steps` each epoch.
        """
        recipe = self.recipe
        progress, epoch = step / (recipe.epochs * steps), step // steps
        batch, own = on_device(self.source, batch, self.device), 1.0
        indices, partners = batch.indices.to(self.device), None
        mix = mix_for(recipe.augmentation, _size(batch), len(batch.labels), recipe.seed, epoch, step % steps)
        if mix is not None:
            images = mixed(batch.images, mix).contiguous(memory_format=torch.channels_last)
            batch, own = replace(batch, images=images), mix.share
            partners = batch.labels[mix.partners.to(self.device)]
        taught = None
        if self.ask is not None:
            answers = self.ask(batch, progress)
            taught = answers.logits, answers.features
        return batch.images, taught, (batch.labels, indices, partners), (progress, own, step)


def _size(batch: Batch) -> tuple[int, int]:
    return batch.images.shape[2], batch.images.shape[3]


@contextmanager
def classwork(
    lesson: Lesson, student: nn.Module, recipe: Recipe, setting: Setting, rank: int = 0
) -> Iterator[Classwork]:
    """Bind a lesson's method to the student and its teacher, with taps open as long as the block lasts.

    Raises:
        UsageError: as in Lesson.check and mentors.opened.

    """
    with ExitStack() as stack:
        listening = setting.listening
        ask = opened(lesson.teacher, setting, stack) if lesson.teacher and lesson.method.needs else None
        paths = lesson.student_taps or (stage_ends(student, setting.probe) if listening else ())
        taps = stack.enter_context(Taps(student, paths)) if listening else None
        guide = _guide(lesson, recipe, _Pair(student, taps, ask, setting)).to(setting.device)
        exercise = Exercise(student, guide, taps, recipe.label_smoothing, Chance(recipe.seed, rank))
        if recipe.compile:
            exercise.compile_student()
        yield Classwork(exercise, ask, recipe, lesson.samples, setting.device)


def probe_of(lesson: Lesson, recipe: Recipe, device: torch.device) -> Tensor:
    """Give two training images (2, C, H, W) as a network sees them."""
    order = Order(_PROBED, recipe.seed, mirror=False)
    return on_device(lesson.samples, next(batches(lesson.samples, order, 0)), device).images


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both networks, ready to be asked."""

    student: nn.Module
    taps: Taps | None
    ask: Ask | None
    setting: Setting


def _guide(lesson: Lesson, recipe: Recipe, pair: _Pair) -> Guide:
    method = with_parameters(lesson.method, {one.name: one.value for one in recipe.method})
    if isinstance(method, LogitMethod):
        return LogitGuide(method)
    none = torch.zeros(len(pair.setting.probe), dtype=torch.int64)  # the first sample as it is, for shapes alone
    student = _answered(pair)
    teacher = pair.ask(Batch(pair.setting.probe, none, none, none), 0.0) if pair.ask else _SILENT
    return method.bind(Probe(student, teacher, len(lesson.samples), recipe.seed))


def _answered(pair: _Pair) -> Answers:
    """Ask the student without leaving a trace in its norms or modes."""
    modes = {module: module.training for module in pair.student.modules()}
    try:
        pair.student.eval()
        with torch.no_grad():
            logits = pair.student(pair.setting.probe)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Answers(logits, pair.taps.take() if pair.taps else ())
