"""What a lesson asks of student, teacher and recipe, and that the teacher stays what it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from mortals import equal, state
from torch import Tensor, nn

from edgekd.data.dataset import DataSet
from edgekd.distill.augment import Augmentation, mix_for, mixed
from edgekd.distill.lesson import Chance, Exercise, Lesson, classwork, probe_of
from edgekd.distill.loader import Order, batches, source_of
from edgekd.distill.mentors import Anchors, CachedLogits, LiveTeacher, Mentor, Setting
from edgekd.distill.methods import METHODS, bindable_method_named, method_named
from edgekd.distill.methods.base import LogitGuide
from edgekd.distill.recipe import Recipe, sgd_recipe
from edgekd.distill.taps import UnknownTap
from edgekd.distill.train import train
from edgekd.distill.views import samples_of
from edgekd.errors import UsageError
from edgekd.teachers import Teacher

pytestmark = pytest.mark.whole  # trainings

RECIPE = sgd_recipe(epochs=2, batch_size=8, learning_rate=0.01, seed=3)
CPU = torch.device("cpu")


def staged_network(seed: int = 1) -> nn.Module:
    """Make a student of two resolutions for grey 8x8 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip


def mentor_for(name: str, teacher: Teacher) -> Mentor:
    """Give the live teacher in the form that a method wants."""
    live = LiveTeacher.of(teacher)
    return Anchors((live, live)) if "rco" in name else live


def lesson_of(name: str, data: DataSet, mentor: Mentor | None, recipe: Recipe = RECIPE) -> Lesson:
    """Teach the tiny data."""
    return Lesson(source_of(data, data.train, recipe.augmentation), bindable_method_named(name), mentor)


@pytest.mark.parametrize("name", [*(name for name in METHODS if name != "none"), "dist+at", "kd+sp"])
def test_every_method_teaches_and_leaves_the_teacher_as_it_was(
    name: str, tiny_data: DataSet, tiny_teacher: Teacher
) -> None:
    """The student learns something, again the same; no weight, statistic, mode or gradient of the teacher changes."""
    before, results = state(tiny_teacher.module), []
    for _ in range(2):
        student = staged_network()
        train(student, lesson_of(name, tiny_data, mentor_for(name, tiny_teacher)), RECIPE)
        results.append(state(student))
    assert equal(state(tiny_teacher.module), before)
    assert not any(module.training for module in tiny_teacher.module.modules())
    assert all(p.grad is None and not p.requires_grad for p in tiny_teacher.module.parameters())
    assert equal(*results)
    assert not equal(results[0], state(staged_network()))


def test_no_graph_of_the_teacher_is_kept(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """Its logits and features carry no gradients even where its weights would."""
    tiny_teacher.module.requires_grad_(requires_grad=True)
    lesson = lesson_of("dist+at", tiny_data, LiveTeacher.of(tiny_teacher))
    probe = probe_of(lesson, RECIPE, CPU)
    with classwork(lesson, staged_network(), RECIPE, Setting(CPU, listening=True, probe=probe)) as work:
        batch = next(batches(lesson.samples, Order(8, 3), 0))
        _, taught, _, _ = work.given(batch, 0, 3)
        assert taught is not None
        assert len(taught[1]) > 1
        assert not any(tensor.requires_grad or tensor.grad_fn for tensor in (taught[0], *taught[1]))


def test_a_live_teacher_teaches_as_its_cached_logits_do(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """Without augmentation that varies, both give the student the same weights but for rounding."""
    samples = samples_of(tiny_data, tiny_data.train)
    with torch.no_grad():
        logits = torch.stack([tiny_teacher.module(images) for images in (samples.images, samples.images.flip(3))], 1)
    live, cached = staged_network(), staged_network()
    train(live, lesson_of("kd", tiny_data, LiveTeacher.of(tiny_teacher)), RECIPE)
    train(cached, lesson_of("kd", tiny_data, CachedLogits(logits)), RECIPE)
    for name, tensor in state(live).items():
        assert torch.allclose(tensor, state(cached)[name], atol=1e-4)


class Recorder(nn.Module):
    """A teacher that notes what it sees, and a student that does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        logits: Tensor = self.network(images)
        return logits


@pytest.mark.parametrize(
    "how",
    [Augmentation(crop_padding=2, operators=1), Augmentation(mixup_alpha=1.0), Augmentation(cutmix_alpha=1.0)],
    ids=["varied", "mixup", "cutmix"],
)
def test_the_teacher_sees_the_very_images_that_the_student_sees(
    tiny_data: DataSet, tiny_teacher: Teacher, how: Augmentation
) -> None:
    """Cropped, operated and mixed alike; and they are not the plain ones."""
    recipe = dataclasses.replace(RECIPE, augmentation=how)
    teacher, student = Recorder(tiny_teacher.module).eval(), Recorder(staged_network())
    train(student, lesson_of("kd", tiny_data, LiveTeacher(teacher), recipe), recipe)
    assert len(student.seen) == len(teacher.seen) == 2 * 3
    assert all(torch.equal(a, b) for a, b in zip(student.seen, teacher.seen, strict=True))
    plain = Recorder(staged_network())
    train(plain, lesson_of("none", tiny_data, None), RECIPE)
    assert not torch.equal(plain.seen[0], student.seen[0])


def test_mixed_images_have_mixed_targets(tiny_data: DataSet) -> None:
    """The loss of a batch is the cross entropy against both labels by their shares, with smoothing on both."""
    how = Augmentation(mixup_alpha=1.0)
    recipe = dataclasses.replace(RECIPE, augmentation=how, label_smoothing=0.1)
    lesson, student = lesson_of("none", tiny_data, None, recipe), staged_network().eval()
    setting = Setting(CPU, listening=False, probe=probe_of(lesson, recipe, CPU))
    with classwork(lesson, student, recipe, setting) as work:
        batch = list(batches(lesson.samples, Order(8, 3), 1))[2]
        loss = work.exercise(*work.given(batch, 5, 3))
    mix = mix_for(how, (8, 8), 8, recipe.seed, 1, 2)
    assert mix is not None
    log = student(mixed(batch.images, mix)).log_softmax(1)
    spread = 0.1 * -log.mean(1)
    own, other = (-log[torch.arange(8), labels] for labels in (batch.labels, batch.labels[mix.partners]))
    expected = (mix.share * own + (1 - mix.share) * other) * 0.9 + spread
    assert loss.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_anchors_take_turns(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """Each teaches its share of the training, in their order."""
    first, second, third = (Recorder(tiny_teacher.module).eval() for _ in range(3))
    anchors = Anchors(tuple(LiveTeacher(module) for module in (first, second, third)))
    recipe = dataclasses.replace(RECIPE, epochs=3)
    student = Recorder(staged_network())
    train(student, lesson_of("rco", tiny_data, anchors, recipe), recipe)
    assert [len(module.seen) for module in (first, second, third)] == [3, 3, 3]
    told = [*first.seen, *second.seen, *third.seen]
    assert all(torch.equal(a, b) for a, b in zip(student.seen, told, strict=True))


def test_a_cooperating_teacher_moves_towards_the_student(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """Its adapter begins at nothing and learns, lightly; the teacher beneath it does not."""
    lesson = lesson_of("cooperative", tiny_data, LiveTeacher.of(tiny_teacher))
    setting = Setting(CPU, listening=False, probe=probe_of(lesson, RECIPE, CPU))
    with classwork(lesson, staged_network(), RECIPE, setting) as work:
        adapter = [p for _, p in work.exercise.guide.named_parameters()]
        assert not any(p.any() for p in adapter)
        batch = next(batches(lesson.samples, Order(8, 3), 0))
        work.exercise(*work.given(batch, 0, 3)).backward()
        assert all(p.grad is not None and p.grad.any() for p in adapter)
        assert 0 < work.exercise.guide.rate < 1


def test_probing_leaves_no_trace_in_the_student(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """Neither statistics nor modes, one by one, are changed by finding out shapes."""
    lesson, student = lesson_of("hint", tiny_data, LiveTeacher.of(tiny_teacher)), staged_network()
    student[1].eval()
    before, modes = state(student), [module.training for module in student.modules()]
    with classwork(lesson, student, RECIPE, Setting(CPU, listening=True, probe=probe_of(lesson, RECIPE, CPU))):
        assert equal(state(student), before)
        assert [module.training for module in student.modules()] == modes


VARIED = dataclasses.replace(RECIPE, augmentation=Augmentation(crop_padding=1))
MIXED = dataclasses.replace(RECIPE, augmentation=Augmentation(mixup_alpha=0.2))
LOGITS = CachedLogits(torch.zeros(31, 2, 3))


@pytest.mark.parametrize(
    ("name", "mentor", "recipe", "message"),
    [
        ("kd", None, RECIPE, "needs a teacher"),
        ("at", LOGITS, RECIPE, "compares features.*only its cached logits"),
        ("kd", LOGITS, VARIED, "augmented images.*only its cached logits"),
        ("rco", LOGITS, RECIPE, "rco needs several teachers"),
        ("rco", Anchors((LOGITS,)), RECIPE, "1 anchors: two or more"),
        ("kd", Anchors((LOGITS, LOGITS)), RECIPE, "for method rco, and for no other"),
        ("none", None, dataclasses.replace(RECIPE, keep="best"), "keep 'best' chooses on validation samples"),
        ("crd", "live", MIXED, "remembers single images"),
        ("at", "live", dataclasses.replace(RECIPE, compile=True), "compile hides the features"),
        ("at", "logits only", RECIPE, "gives logits alone"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(
    tiny_data: DataSet, tiny_teacher: Teacher, name: str, mentor: Any, recipe: Recipe, message: str
) -> None:
    """One line says which two, and the student is untouched."""
    live = LiveTeacher.of(tiny_teacher)
    given = {"live": live, "logits only": dataclasses.replace(live, gives_features=False)}
    mentor = given[mentor] if isinstance(mentor, str) else mentor
    student = staged_network()
    with pytest.raises(UsageError, match=message) as caught:
        train(student, lesson_of(name, tiny_data, mentor, recipe), recipe)
    assert "\n" not in str(caught.value)
    assert equal(state(student), state(staged_network()))


def test_a_teacher_in_train_mode_is_refused(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """Its norms would follow the student's batches; one module in that mode is enough."""
    next(m for m in tiny_teacher.module.modules() if isinstance(m, nn.BatchNorm2d)).train()
    with pytest.raises(UsageError, match="in train mode"):
        train(staged_network(), lesson_of("kd", tiny_data, LiveTeacher.of(tiny_teacher)), RECIPE)


def test_a_tap_that_does_not_exist_is_named_with_the_nearest(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """In the student and in the teacher; no hook is left behind."""
    student, method = staged_network(), bindable_method_named("at")
    samples = samples_of(tiny_data, tiny_data.train)
    with pytest.raises(UnknownTap, match="'nowhere'"):
        train(student, Lesson(samples, method, LiveTeacher.of(tiny_teacher, ("nowhere",))), RECIPE)
    with pytest.raises(UnknownTap, match="'22'"):
        train(student, Lesson(samples, method, LiveTeacher.of(tiny_teacher), student_taps=("22",)), RECIPE)
    hooks = [m._forward_hooks for net in (student, tiny_teacher.module) for m in net.modules()]
    assert not any(hooks)


def test_named_taps_are_those_that_are_compared(tiny_data: DataSet, tiny_teacher: Teacher) -> None:
    """Other stages teach other things."""
    samples, method = samples_of(tiny_data, tiny_data.train), bindable_method_named("at")
    results = []
    for taps in (("2",), ("5",)):
        student = staged_network()
        train(student, Lesson(samples, method, LiveTeacher.of(tiny_teacher), student_taps=taps), RECIPE)
        results.append(state(student))
    assert not equal(*results)


def test_what_a_student_draws_is_a_function_of_seed_step_and_rank() -> None:
    """Each device draws for its own share of a batch; the first one as where there is no other."""
    found = {}
    for seed, step, rank in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)):
        chance, before = Chance(seed, rank), torch.get_rng_state()
        exercise = Exercise(nn.Dropout(0.5), LogitGuide(method_named("none")), None, 0.0, chance).train()
        numbers = torch.arange(4) % 8, torch.arange(4), None
        loss = exercise(torch.ones(4, 8), None, numbers, (0.0, 1.0, step))
        assert found.setdefault((seed, step, rank), loss) == loss
        assert torch.equal(torch.get_rng_state(), before)
    assert len({float(loss) for loss in found.values()}) == 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([0, 0]).generate_state(1, np.uint64)[0]))
        alone = nn.functional.cross_entropy(nn.functional.dropout(torch.ones(4, 8), 0.5), torch.arange(4))
    assert torch.equal(found[0, 0, 0], alone)
