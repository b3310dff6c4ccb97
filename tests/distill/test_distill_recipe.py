"""Recipes as data: every value is checked, the named ones are whole, schedules go where they say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.distill.recipe import RECIPES, Optimizer, Recipe, Schedule, learning_rate_at, recipe_named, sgd_recipe
from edgekd.errors import UnknownName, UsageError

pytestmark = pytest.mark.whole  # loads torch


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_is_whole_and_says_where_it_comes_from(name: str) -> None:
    """It trains for some epochs, ends lower than it begins, and has a source."""
    recipe = recipe_named(name)
    assert recipe.epochs >= 1
    assert learning_rate_at(1.0, recipe) < 0.01 * recipe.optimizer.learning_rate + 1e-9
    assert RECIPES[name].source


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    """The name that was meant is offered."""
    with pytest.raises(UnknownName, match="did you mean 'cifar-240'"):
        recipe_named("cifar240")


def test_the_common_benchmark_falls_after_150_180_and_210_of_240_epochs() -> None:
    """By ten each time, from 0.05, without warm-up."""
    recipe = recipe_named("cifar-240")
    rates = [learning_rate_at(epoch / 240, recipe) for epoch in (0, 149, 150, 179, 180, 209, 210, 239)]
    assert rates == pytest.approx([0.05, 0.05, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5])


@given(
    progress=st.floats(0, 1),
    warmup=st.floats(0, 1),
    falls=st.lists(st.floats(0, 1), max_size=3),
    name=st.sampled_from(["cosine", "step"]),
)
def test_a_rate_is_never_above_its_peak_nor_below_nothing(
    progress: float, warmup: float, falls: list[float], name: Any
) -> None:
    """Wherever the training is, whatever the schedule."""
    assert 0 <= Schedule(name, warmup, tuple(falls)).rate_at(progress) <= 1 + 1e-12


def test_the_plain_recipe_is_the_general_one_with_defaults() -> None:
    """Short trainings say three numbers."""
    assert sgd_recipe(3, 16, 0.2, seed=4) == Recipe(3, 16, Optimizer(learning_rate=0.2), seed=4)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Optimizer, {"name": "lion"}),
        (Optimizer, {"learning_rate": 0.0}),
        (Optimizer, {"learning_rate": float("nan")}),
        (Optimizer, {"momentum": 1.5}),
        (Optimizer, {"weight_decay": -1e-4}),
        (Optimizer, {"weight_decay": float("inf")}),
        (Schedule, {"name": "linear"}),
        (Schedule, {"warmup_share": 1.1}),
        (Schedule, {"falls": (0.5, 2.0)}),
        (Recipe, {"epochs": 0}),
        (Recipe, {"epochs": 1, "batch_size": 0}),
        (Recipe, {"epochs": 1, "label_smoothing": 1.1}),
        (Recipe, {"epochs": 1, "ema_decay": -0.1}),
        (Recipe, {"epochs": 1, "clip_norm": -1.0}),
        (Recipe, {"epochs": 1, "precision": "int8"}),
        (Recipe, {"epochs": 1, "keep": "all"}),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else value.__name__,
)
def test_a_value_that_cannot_be_is_refused(kind: Any, values: dict[str, Any]) -> None:
    """In one line that names it."""
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert "\n" not in str(caught.value)
