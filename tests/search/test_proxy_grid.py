"""From a run's settings to a calibration: what is tried, what the truth is, and what must be alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import synthetic

from edgekd.config import settings_from
from edgekd.data.dataset import DataSet, Split
from edgekd.distill.recipe import sgd_recipe
from edgekd.errors import ConfigError, UsageError
from edgekd.search.calibrate_proxy import CalibrationPlan, ProxySetting
from edgekd.search.proxy import ProxyTask
from edgekd.search.proxy_grid import CalibrationRequest, identity_of, plan_of, request_of, task_of
from edgekd.spaces.mnasnet import space_named

pytestmark = pytest.mark.whole  # loads torch

SPACE = synthetic.tiny_space()


def data_of(count: int = 1000) -> DataSet:
    """Make a set whose training split has so many images."""
    split = Split(np.zeros((count, 15, 15, 1), np.uint8), np.arange(count) % 3)
    return DataSet("made", "d" * 64, 3, (0.5,), (0.5,), split, split, split)


def plan(content: dict[str, Any] | None = None, *, space: Any = SPACE, **request: Any) -> CalibrationPlan:
    """Plan with settings as a config file gives them."""
    return plan_of(settings_from(content or {}, "here"), space, CalibrationRequest(**request), data_of())


def tried(made: CalibrationPlan) -> list[tuple[str, int, int, int]]:
    """List what is tried."""
    return [(one.method, one.epochs, one.images, one.resolution) for one in made.grid]


def test_the_grid_stands_around_the_run_s_own_proxy() -> None:
    """Once and thrice its epochs, a quarter and all of its images, with the teacher and without."""
    made = plan({"proxy": {"epochs": 2, "images": 400.0, "method": "dist"}})
    assert tried(made) == [
        (method, epochs, images, 0) for epochs in (2, 6) for images in (100, 400) for method in ("dist", "none")
    ]
    assert {(one.batch_size, one.learning_rate, one.seed) for one in made.grid} == {(16, 0.03, 0)}


def test_large_images_are_also_tried_at_half_the_resolution() -> None:
    """From 64 pixels on; the student's own network follows."""
    made = plan(space=space_named("mnasnet-96"))
    assert {one.resolution for one in made.grid} == {48, 0}
    assert {one.resolution for one in plan(space=space_named("mnasnet-28-narrow")).grid} == {0}


def test_the_truth_is_trained_as_the_winner_will_be() -> None:
    """By its method, batch and rate, on as many images as asked for, at the space's own resolution and another seed."""
    distil = {"method": "dist", "batch_size": 32, "learning_rate": 0.2}
    content = {"seed": 5, "distil": distil, "proxy": {"resolution": 9}}
    assert plan(content, epochs=7).truth == ProxySetting("dist", 7, 1000, 0, 32, 0.2, seed=6)
    assert plan(content, images=0.25).truth.images == 250
    assert {one.seed for one in plan(content).grid} == {5}


def test_without_a_teacher_nothing_is_guided() -> None:
    """Neither the truth nor what is tried, and nothing is tried twice."""
    made = plan({"teacher": "none"})
    assert made.truth.method == "none"
    assert tried(made) == [("none", 1, 200, 0), ("none", 1, 800, 0), ("none", 3, 200, 0), ("none", 3, 800, 0)]


def test_an_unguided_proxy_is_compared_with_the_final_training_s_method() -> None:
    """A teacher is there, so what he adds can be told."""
    assert {one.method for one in plan({"proxy": {"method": "none"}}).grid} == {"kd", "none"}


def test_weights_belong_to_the_guided_settings_alone() -> None:
    """They are the proxy's own, and no part of none."""
    made = plan({"proxy": {"method": "kd", "weights": "kd=0.5"}})
    assert {(one.method, one.weights) for one in made.grid} == {("kd", "kd=0.5"), ("none", "")}
    assert made.truth.weights == ""


def test_lists_replace_the_grid() -> None:
    """Shares are counted, the space's own resolution has one name, and what is the same is tried once."""
    request = request_of(8, 2, 500, ["epochs=4", "images=0.1,100,50", "resolution=15,9,0"])
    made = plan_of(settings_from({"teacher": "none"}, "here"), SPACE, request, data_of())
    assert tried(made) == [("none", 4, images, size) for images in (100, 50) for size in (0, 9)]
    assert (len(made.archs), made.truth.epochs, made.truth.images) == (8, 2, 500)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (["epoch=1"], "did you mean 'epochs'"),
        (["epochs"], "'' is no number"),
        (["epochs="], "'' is no number"),
        (["epochs=1,x"], "'x' is no number"),
        (["epochs=0"], "whole number from 1 to"),
        (["epochs=1.5"], "whole number from 1 to"),
        (["epochs=nan"], "whole number from 1 to"),
        (["epochs=inf"], "whole number from 1 to"),
        (["epochs=1e12"], "whole number from 1 to"),
        (["resolution=-1"], "whole number from 0 to 4096"),
        (["resolution=100000"], "whole number from 0 to 4096"),
        (["epochs=1", "epochs=2"], "each once"),
    ],
    ids=str,
)
def test_a_grid_that_cannot_be_meant_is_refused(grid: list[str], words: str) -> None:
    """The message shows the item and what is known."""
    with pytest.raises(ConfigError) as caught:
        request_of(24, 5, 1.0, grid)
    assert words in str(caught.value)
    assert repr(grid[-1]) in str(caught.value)


@pytest.mark.parametrize("images", ["1.5", "nan", "-1", "0"])
def test_images_that_are_neither_a_number_nor_a_share_are_refused(images: str) -> None:
    """In the grid as anywhere."""
    request = request_of(24, 5, 1.0, [f"images={images}"])
    with pytest.raises(UsageError, match="whole number above 1, or a share"):
        plan_of(settings_from({}, "here"), SPACE, request, data_of())


def test_no_epoch_is_no_truth() -> None:
    """The message names the option."""
    with pytest.raises(ConfigError, match="calibrate-epochs is 0"):
        request_of(24, 0, 1.0, [])


def test_a_setting_changes_only_how_the_task_is_trained() -> None:
    """Space, files, threads and device stay; every field of the setting arrives."""
    kept: dict[str, Any] = {"threads": 2, "data_sha256": "d", "device": "cuda"}
    base = ProxyTask(SPACE, "data", None, "kd", 800, sgd_recipe(1), weights="kd=2", **kept)
    setting = ProxySetting("dist", 3, 50, 9, 8, 0.2, seed=4, weights="dist=2")
    made = task_of(base, setting)
    assert made.recipe == sgd_recipe(3, 8, 0.2, seed=4)
    assert (made.method, made.weights, made.images, made.resolution) == ("dist", "dist=2", 50, 9)
    same = dataclasses.replace(made, method="kd", weights="kd=2", images=800, resolution=0, recipe=base.recipe)
    assert same == base


def test_what_trainings_depend_on_is_the_calibration_s_identity() -> None:
    """Another space, other data, another teacher, another number of threads or kind of machine make another file."""
    settings = settings_from({}, "here")
    found = identity_of(settings, SPACE, data_of(), "t")
    others = [
        identity_of(settings, synthetic.tiny_space(blocks=1), data_of(), "t"),
        identity_of(settings, SPACE, dataclasses.replace(data_of(), sha256="e" * 64), "t"),
        identity_of(settings, SPACE, data_of(), "u"),
        identity_of(settings_from({"proxy": {"threads": 2}}, "here"), SPACE, data_of(), "t"),
        identity_of(settings_from({"search": {"gpus_per_worker": 0.5}}, "here"), SPACE, data_of(), "t"),
    ]
    assert all(other != found for other in others)
    assert identity_of(settings_from({"search": {"workers": 4}}, "here"), SPACE, data_of(), "t") == found
