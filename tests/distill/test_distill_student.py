"""What a final training is: its plan, who teaches it, the recipe in words, and a user's own network."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from edgekd.config import Settings, settings_from
from edgekd.data.dataset import DataSet, Split
from edgekd.distill.methods import METHODS
from edgekd.distill.methods.catalogue import catalogue
from edgekd.distill.own_student import own_student, write_weights
from edgekd.distill.recipe import RECIPES, Recipe, recipe_named, sgd_recipe
from edgekd.distill.recipe_changes import changed, keys_of
from edgekd.distill.student import (
    StudentPlan,
    Tutors,
    check_lesson,
    lesson_of,
    load_student,
    new_student,
    recipe_of,
    train_student,
    tutors_of,
)
from edgekd.distill.taps import UnknownTap
from edgekd.distill.train import EpochResult
from edgekd.errors import DataError, UnknownName, UsageError
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import space_named
from edgekd.teachers import Teacher

pytestmark = pytest.mark.whole  # loads torch

TINY = space_named("tiny-28")


@pytest.fixture
def data() -> DataSet:
    """Forty noisy images of ten classes, of the tiny space's shape."""
    rng = np.random.default_rng(2)
    split = Split(rng.integers(0, 255, (40, 28, 28, 1), dtype=np.uint8), np.arange(40) % 10)
    return DataSet("noise", "d" * 64, 10, (0.5,), (0.3,), split, split, split)


def settings_of(**content: Any) -> Settings:
    """Ask for two short epochs of the tiny space's reference network."""
    distil = {"epochs": 2, "batch_size": 16, "threads": 1, **content.pop("distil", {})}
    return settings_from({"space": "tiny-28", "distil": distil, **content}, "here")


def plan(folder: Path, settings: Settings, teacher_sha256: str = "") -> StudentPlan:
    """Plan it."""
    reference = str(TINY.reference())
    return StudentPlan(settings, reference, folder / "student.safetensors", "d" * 64, teacher_sha256)


def small_teacher(seed: int, gives: frozenset[str] = frozenset({"logits", "features"})) -> Teacher:
    """Make a frozen teacher of two stages."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages = nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1)
        module = nn.Sequential(*stages, nn.Flatten(), nn.Linear(8, 10))
    module.eval().requires_grad_(requires_grad=False)
    return Teacher(f"small{seed}", str(seed) * 64, module, {}, gives)


def never(teacher: Teacher) -> Path:
    """Stand for a cache that must not be asked."""
    raise AssertionError(f"the logits of {teacher.name} were asked for")


def trained(folder: Path, settings: Settings, data: DataSet, tutors: Tutors) -> nn.Module:
    """Train in a folder with whatever teacher the method needs; logits are computed there."""
    from edgekd.distill.logit_cache import cache_logits

    folder.mkdir(exist_ok=True)
    made = plan(folder, settings, tutors.sha256)
    network = new_student(settings, Arch.parse(made.student))
    lesson = lesson_of(made, data, tutors, lambda teacher: cache_logits(folder, teacher, data))
    train_student(made, network, lesson, lambda result: None)
    return network


def weights_of(network: nn.Module) -> torch.Tensor:
    """Join all weights."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.slow  # a real training
def test_without_a_teacher_the_student_learns_from_labels(data: DataSet, tmp_path: Path) -> None:
    """Every epoch is told with its accuracy, and the finished student can be loaded, in eval mode."""
    told: list[EpochResult] = []
    settings = settings_of(teacher="none")
    alone = plan(tmp_path, settings)
    network = new_student(settings, Arch.parse(alone.student))
    train_student(alone, network, lesson_of(alone, data, Tutors(), never), told.append)
    assert [result.epoch for result in told] == [1, 2]
    assert all(result.accuracy is not None for result in told)
    loaded = load_student(alone)
    assert not loaded.training
    assert not network.training
    pairs = zip(network.state_dict().values(), loaded.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.slow  # real trainings
def test_the_teacher_s_logits_are_used(data: DataSet, tmp_path: Path) -> None:
    """Another teacher makes another student; the same one the same."""
    weights = [
        weights_of(trained(tmp_path / str(number), settings_of(), data, Tutors(small_teacher(seed))))
        for number, seed in enumerate((1, 1, 2))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.slow  # real trainings
@pytest.mark.parametrize("method", ["dist+at", "hint", "rco", "cooperative+sp"])
def test_every_kind_of_method_trains_a_student(data: DataSet, tmp_path: Path, method: str) -> None:
    """Those of features and those of several teachers as well, with nothing but the method's name changed."""
    anchors = (small_teacher(3),) if method == "rco" else ()
    settings = settings_of(distil={"method": method, "learning_rate": 0.01, "epochs": 1})
    network = trained(tmp_path / "a", settings, data, Tutors(small_teacher(1), anchors))
    fresh = new_student(settings, TINY.reference())
    assert not torch.equal(weights_of(network), weights_of(fresh))


def test_an_older_plan_is_spelled_as_it_was(tmp_path: Path) -> None:
    """Checkpoints that were made before there were recipes and taps can still be gone on with."""
    made = plan(tmp_path, settings_of(seed=3), "t" * 64)
    about = f"{made.student} kd data {'d' * 64} teacher {'t' * 64}"
    assert made.recipe == sgd_recipe(2, 16, 0.1, seed=3, about=about)


OTHERS: dict[str, dict[str, Any]] = {
    "method": {"distil": {"method": "dist"}},
    "weights": {"distil": {"weights": "kd=2"}},
    "recipe": {"distil": {"recipe": "cifar-240"}},
    "epochs": {"distil": {"epochs": 3}},
    "change": {"distil": {"changes": ["ema_decay=0.9"]}},
    "student taps": {"distil": {"student_taps": ["block1"]}},
    "teacher taps": {"distil": {"teacher_taps": ["0"]}},
    "seed": {"seed": 5},
    "devices": {"distil": {"gpus": 2}},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_plan_is_another_by_all_that_its_weights_depend_on(tmp_path: Path, other: dict[str, Any]) -> None:
    """Then its recipe, by which checkpoints are told apart, and its identity differ; both are plain values."""
    first, second = plan(tmp_path, settings_of()), plan(tmp_path, settings_of(**json.loads(json.dumps(other))))
    assert first.recipe != second.recipe
    assert first.identity != second.identity
    assert json.loads(json.dumps(second.identity)) == second.identity


@pytest.mark.parametrize("machine", [{"threads": 3}, {"readers": 2}, {"save_every_s": 1}])
def test_a_plan_is_the_same_on_another_machine(tmp_path: Path, machine: dict[str, Any]) -> None:
    """Threads and readers are no part of what is trained."""
    first, second = plan(tmp_path, settings_of()), plan(tmp_path, settings_of(distil=machine))
    assert (first.recipe, first.identity) == (second.recipe, second.identity)


# --- what is seen before ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distil", "tutors", "words"),
    [
        ({"method": "dist"}, Tutors(), "needs a teacher"),
        ({"method": "rco"}, Tutors(small_teacher(1)), "with --anchor"),
        ({"method": "kd"}, Tutors(small_teacher(1), (small_teacher(2),)), "for method rco, and for no other"),
        ({"method": "kd+at"}, Tutors(small_teacher(1, frozenset({"logits"}))), "small1 gives logits alone"),
        ({"method": "kd", "student_taps": ["block1"]}, Tutors(small_teacher(1)), "compares no features"),
        ({"method": "at", "changes": ["compile=true"]}, Tutors(small_teacher(1)), "leave one of the two out"),
        ({"method": "kd", "train_on": "abacus"}, Tutors(small_teacher(1)), "'abacus' here"),
        ({"method": "kd", "train_on": "meta"}, Tutors(small_teacher(1)), "'meta' here"),
        ({"method": "kd", "gpus": 3}, Tutors(small_teacher(1)), "cannot be shared evenly among 3 devices"),
        ({"method": "crd", "gpus": 2}, Tutors(small_teacher(1)), "bank of all images"),
        ({"method": "kd", "changes": ["precision=float16"]}, Tutors(small_teacher(1)), "needs a GPU"),
        ({"method": "none", "anchors": ["a"]}, Tutors(), "anchors are for method rco"),
        ({"method": "kd", "train_on": "meta:x"}, Tutors(small_teacher(1)), "'meta:x' here"),
    ],
)
def test_what_does_not_go_together_is_refused_at_once(
    data: DataSet, distil: dict[str, Any], tutors: Tutors, words: str
) -> None:
    """Before anything is trained, in one line."""
    with pytest.raises(UsageError, match=words) as caught:
        check_lesson(settings_of(distil=distil), data, tutors, new_student(settings_of(), TINY.reference()))
    assert "\n" not in str(caught.value)


def test_who_is_not_listened_to_does_not_teach(data: DataSet) -> None:
    """A teacher is no part of a training by labels alone."""
    teacher = small_teacher(1)
    assert tutors_of(settings_of(distil={"method": "none"}), data, teacher) == Tutors()
    assert tutors_of(settings_of(), data, teacher) == Tutors(teacher)


def test_seeing_leaves_no_trace_in_the_student(data: DataSet) -> None:
    """Its norms, modes and weights are as they were, and so is torch's generator."""
    network = new_student(settings_of(), TINY.reference())
    before, chance = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    check_lesson(settings_of(distil={"method": "crd+reviewkd"}), data, Tutors(small_teacher(1)), network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize("which", ["student_taps", "teacher_taps"])
def test_a_tap_that_does_not_exist_is_refused_at_once(data: DataSet, which: str) -> None:
    """The nearest paths are named."""
    network = new_student(settings_of(), TINY.reference())
    wrong = {"student_taps": "blokc1", "teacher_taps": "22"}[which]
    with pytest.raises(UnknownTap, match="the nearest are"):
        check_lesson(settings_of(distil={"method": "at", which: [wrong]}), data, Tutors(small_teacher(1)), network)


# --- recipes in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_brings_its_own_numbers(name: str) -> None:
    """Where none are given; those that are given count."""
    preset = recipe_named(name)
    assert recipe_of(settings_from({"distil": {"recipe": name}}, "here").distil) == preset
    told = settings_from({"distil": {"recipe": name, "epochs": 7}}, "here").distil
    assert recipe_of(told) == dataclasses.replace(preset, epochs=7)
    assert settings_from(json.loads(json.dumps({"distil": dataclasses.asdict(told)})), "here").distil == told


def test_changes_reach_every_part_of_a_recipe() -> None:
    """Texts, numbers, truths and lists."""
    words = ["optimizer.name=adamw", "label_smoothing = 0.1", "augmentation.operators=2", "mirror=false", "keep=best"]
    found = changed(Recipe(3), [*words, "schedule.falls=0.5, 0.75", "schedule.name=step"])
    assert (found.optimizer.name, found.label_smoothing, found.augmentation.operators) == ("adamw", 0.1, 2)
    assert (found.mirror, found.keep, found.schedule.falls) == (False, "best", (0.5, 0.75))
    assert (found.epochs, found.optimizer.learning_rate) == (3, 0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("label_smoothing", "says no value; write label_smoothing=VALUE"),
        ("label_smothing=0.1", "did you mean 'label_smoothing'"),
        ("optimizer=adamw", "there is no 'optimizer' in a recipe"),
        ("epochs=3", "there is no 'epochs' in a recipe"),
        ("seed=3", "there is no 'seed' in a recipe"),
        ("about=x", "there is no 'about' in a recipe"),
        ("label_smoothing=much", "not a finite number"),
        ("ema_decay=nan", "not a finite number"),
        ("mirror=perhaps", "not true or false"),
        ("augmentation.operators=1.5", "not a whole number"),
        ("schedule.falls=a,b", "not numbers with commas"),
        ("label_smoothing=2", "at most 1"),
        ("optimizer.name=adm", "did you mean 'adamw'"),
        ("precision=int8", "known: bfloat16"),
    ],
)
def test_a_change_that_says_nothing_is_refused(change: str, words: str) -> None:
    """In one line, with what would be right."""
    with pytest.raises(UsageError, match=words):
        changed(Recipe(3), [change])


@given(st.sampled_from(keys_of(Recipe(1))))
def test_a_change_to_what_is_there_changes_nothing(key: str) -> None:
    """Every key can be spelled out."""
    recipe: Any = Recipe(2)
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    assert changed(recipe, [f"{key}={text}"]) == recipe


def test_an_unknown_recipe_names_the_nearest() -> None:
    """Where settings are read, too."""
    with pytest.raises(UnknownName, match="did you mean 'cifar-240'"):
        settings_from({"distil": {"recipe": "cifar240"}}, "here")


def test_every_method_is_described() -> None:
    """With what it needs as it says itself; all but none have a source."""
    listed = catalogue()
    assert [one.name for one in listed] == list(METHODS)
    for one in listed:
        assert set(one.needs) == METHODS[one.name]().needs
        assert one.loss
        assert bool(one.source) == (one.name != "none")


# --- a network of the user's own --------------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn

def good():
    return nn.Sequential(nn.Conv2d(1, 4, 28), nn.Dropout(0.5), nn.ReLU(), nn.Flatten(), nn.Linear(4, 10))

def with_a_function():
    network = good()
    network.extra_repr = lambda: str(object())
    return network

def seven_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 7))

def colours():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10))

def frozen():
    return good().requires_grad_(False)

def number():
    return 3

def fails():
    raise ValueError("no\\nluck")

class Two(nn.Linear):
    def forward(self, images):
        return images, images

def two():
    return Two(784, 10)

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = good()
    def forward(self, images):
        return self.inner(images)
    def get_extra_state(self):
        return "words"

odd = Odd
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of a user's, in the folder where they work."""
    (tmp_path / "my_students.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_students", None)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("seven_classes", r"gives logits \[2, 7\] for 2 images, and the data noise has 10 classes"),
        ("colours", r"does not take images \[1, 28, 28\]"),
        ("frozen", "none of its parameters asks for gradients"),
        ("number", "it gives int; return a torch.nn.Module"),
        ("fails", "the function failed"),
        ("two", "it gives tuple; return logits"),
        ("odd", "'inner.*_extra_state', which is no tensor|'_extra_state', which is no tensor"),
        ("nothing", "has no callable 'nothing'"),
    ],
)
def test_a_network_that_cannot_be_a_student_is_refused(data: DataSet, name: str, words: str) -> None:
    """Each in words that say what to change."""
    with pytest.raises(DataError, match=words):
        own_student(f"my_students:{name}", data, 0)


@pytest.mark.usefixtures("own")
def test_a_network_is_told_from_others_by_its_form_and_first_weights(data: DataSet) -> None:
    """Which the seed decides; torch's own generator is left alone, and the network in train mode as it came."""
    before = torch.get_rng_state()
    names = [own_student(f"my_students:{name}", data, seed).identity for name, seed in (("good", 1), ("good", 2))]
    again = own_student("my_students:good", data, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.identity == names[0] != names[1]
    assert again.module.training
    assert " " not in again.identity
    odd = [own_student("my_students:with_a_function", data, 1).identity for _ in range(2)]
    assert odd[0] == odd[1]


@pytest.mark.usefixtures("own")
def test_own_weights_are_written_under_their_own_names(data: DataSet, tmp_path: Path) -> None:
    """As load_state_dict takes them, tied ones too; what was said of them stands beside."""
    module = own_student("my_students:good", data, 1).module
    module.append(nn.Identity())
    module.twin = module[4]  # type: ignore[assignment]  # a tied layer, under another name
    write_weights(tmp_path / "w.safetensors", module, {"student": "my_students:good"})
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        assert file.metadata()["student"] == "my_students:good"
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
