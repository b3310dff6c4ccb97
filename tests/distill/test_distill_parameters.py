"""Numbers of a method itself, asked for by a recipe: who has them, what they change, and who is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from edgekd.distill import losses
from edgekd.distill.lesson import Lesson, classwork
from edgekd.distill.mentors import CachedLogits, Setting
from edgekd.distill.methods import METHODS, MethodError, bindable_method_named
from edgekd.distill.methods.base import Answers, Moment, Probe
from edgekd.distill.methods.parameters import known_parameters, parameters_of, with_parameters
from edgekd.distill.recipe import RECIPES, Optimizer, Parameter, Recipe, plain, recipe_named
from edgekd.distill.recipe_changes import changed, keys_of
from edgekd.distill.train import train
from edgekd.distill.views import Samples
from edgekd.errors import UsageError

pytestmark = pytest.mark.whole  # loads torch

STUDENT, TEACHER = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0])
MOMENT = Moment(LABELS, torch.arange(4), progress=1.0, step=0)


def loss_of(name: str, **given: float) -> torch.Tensor:
    """Give the loss of a method with other numbers."""
    method = with_parameters(bindable_method_named(name), given)
    guide = method.bind(Probe(Answers(STUDENT), Answers(TEACHER), samples=4))
    return guide.loss(Answers(STUDENT), Answers(TEACHER), MOMENT)


def test_a_number_reaches_every_part_that_has_it() -> None:
    """Alone, beside others, and where the parts bring features too; weights of parts stay."""
    hard = losses.cross_entropy(STUDENT, LABELS)
    dist = losses.dist(STUDENT, TEACHER, 2.0, 2.0, 1.0)
    assert torch.equal(loss_of("dist", tau=1.0), hard + dist)
    soft = 0.9 * losses.kd(STUDENT, TEACHER, 2.0)
    assert loss_of("kd+dist", tau=1.0, temperature=2.0) == pytest.approx(float(0.1 * hard + soft + dist), rel=1e-6)
    assert torch.equal(loss_of("kd", tau=1.0), loss_of("kd"))
    combined: Any = with_parameters(bindable_method_named("kd+at", {"at": 0.5}), {"p": 3.0, "temperature": 2.0})
    assert [part.factor for part in combined.parts] == [1.0, 0.5]
    assert (combined.parts[0].method.temperature, combined.parts[1].method.p) == (2.0, 3.0)
    inner: Any = with_parameters(bindable_method_named("fitnet"), {"temperature": 3.0})
    assert (inner.kd.temperature, inner.hint_share) == (3.0, 1 / 8)


@pytest.mark.parametrize("name", METHODS)
def test_the_numbers_that_are_there_change_nothing(name: str) -> None:
    """Every one of every method can be spelled out, in the words of a recipe's change."""
    method = bindable_method_named(name)
    words = [f"method.{key}={value}" for key, value in parameters_of(method).items()]
    recipe = changed(Recipe(1), words)
    assert with_parameters(method, {one.name: one.value for one in recipe.method}) == method
    assert parameters_of(method).keys() <= known_parameters().keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("method.tua=1", "did you mean 'method.tau'"),
        ("method.tau=0", "it must be a finite number above 0"),
        ("method.temperature=-1", "above 0"),
        ("method.weight=-1", "at least 0"),
        ("method.negatives=0", "at least 1"),
        ("method.negatives=1.5", "not a whole number"),
        ("method.tau=much", "not a finite number"),
        ("method.standardize=true", "there is no 'method.standardize'"),
        ("method.needs=x", "there is no 'method.needs'"),
    ],
)
def test_a_number_that_cannot_be_is_refused(change: str, words: str) -> None:
    """In one line, with what would be right."""
    with pytest.raises(UsageError, match=words):
        changed(Recipe(3), [change])
    assert issubclass(MethodError, UsageError)


def test_the_last_of_several_changes_counts() -> None:
    """A preset's own number gives way, too."""
    recipe = changed(recipe_named("imagenet-dist-b1"), ["method.tau=2", "method.tau=3"])
    assert recipe.method == (Parameter("tau", 3.0),)


def test_a_number_that_no_part_has_is_refused_before_a_training_unless_it_is_a_preset_s() -> None:
    """A user's would be lost in silence; imagenet-dist-b1 also teaches by kd."""
    samples, teacher = Samples(torch.zeros(4, 1, 4, 4), LABELS), CachedLogits(torch.zeros(4, 2, 3))
    lesson = Lesson(samples, bindable_method_named("kd"), teacher)
    with pytest.raises(UsageError, match=r"method\.tau is no parameter of this method; .*known: .*temperature"):
        lesson.check(changed(Recipe(1), ["method.tau=1"]))
    lesson.check(dataclasses.replace(recipe_named("embedded-quick"), method=(Parameter("tau", 1.0, must=False),)))
    lesson.check(changed(Recipe(1), ["method.temperature=1"]))


def test_imagenet_s_preset_takes_dist_s_own_temperature() -> None:
    """The paper's 1, and 4 in every other recipe."""
    samples, teacher = Samples(torch.zeros(4, 1, 4, 4), LABELS), CachedLogits(torch.zeros(4, 2, 3))
    lesson = Lesson(samples, bindable_method_named("dist"), teacher)
    setting = Setting(torch.device("cpu"), listening=False, probe=torch.zeros(2, 1, 4, 4))
    found = {}
    for name in RECIPES:
        with classwork(lesson, torch.nn.Linear(1, 1), recipe_named(name), setting) as work:
            guide: Any = work.exercise.guide
            found[name] = guide.method.tau
    assert found == {name: 1.0 if name == "imagenet-dist-b1" else 4.0 for name in RECIPES}


def test_a_training_follows_the_recipe_s_numbers() -> None:
    """Others make another student; the published ones, spelled out, the same bits."""
    rng = torch.Generator().manual_seed(3)
    samples = Samples(torch.randn(8, 1, 4, 4, generator=rng), torch.arange(8) % 3)
    lesson = Lesson(samples, bindable_method_named("dist"), CachedLogits(torch.randn(8, 2, 3, generator=rng)))
    found = []
    for changes in ([], ["method.tau=4"], ["method.tau=1"]):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        torch.nn.init.constant_(network[1].weight, 0.1)  # type: ignore[arg-type]  # a tensor
        torch.nn.init.zeros_(network[1].bias)  # type: ignore[arg-type]  # as above
        train(network, lesson, changed(Recipe(2, 4, Optimizer(learning_rate=0.01)), changes))
        found.append(network[1].weight.detach().clone())  # type: ignore[operator]  # as above
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_recipe_without_numbers_is_spelled_as_it_was() -> None:
    """Older checkpoints and histories know none; with some, all of it is JSON."""
    assert "method" not in plain(Recipe(1))
    told = json.loads(json.dumps(plain(recipe_named("imagenet-dist-b1"))))
    assert told["method"] == [{"name": "tau", "value": 1.0, "must": False}]


# --- changes of every recipe ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_key_of_every_recipe_can_be_changed(name: str) -> None:
    """By the kind of the field, whatever stands there now: a warm-up of nothing, too, can become 0.05."""
    recipe: Any = recipe_named(name)
    for key in keys_of(recipe):
        value: Any = recipe
        for part in key.split("."):
            value = getattr(value, part)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert changed(recipe, [f"{key}={text}"]) == recipe
    assert changed(recipe, ["schedule.warmup_share=0.05"]).schedule.warmup_share == 0.05
    assert changed(recipe, ["clip_norm=1"]).clip_norm == 1.0
    assert isinstance(changed(recipe, ["clip_norm=1"]).clip_norm, float)


def test_a_whole_number_where_a_share_belongs_is_read_as_a_share() -> None:
    """A recipe made by hand may hold 0 where 0.0 is meant."""
    recipe = Recipe(1, label_smoothing=0)
    assert changed(recipe, ["label_smoothing=0.1"]).label_smoothing == 0.1
