"""The classroom: what a candidate's accuracy depends on, what it does not, and that no candidate ends a search."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch

from edgekd.data.loading import load_data
from edgekd.distill.recipe import sgd_recipe
from edgekd.distill.views import VIEWS
from edgekd.errors import DataError, UsageError
from edgekd.search import proxy
from edgekd.search.proxy import Classroom, ProxyTask
from edgekd.search.rated import Hopeless, Rated

SPACE = synthetic.tiny_space()
ARCH = SPACE.arch(SPACE.lightest)
OTHER = SPACE.arch([size - 1 for size in SPACE.decision_sizes])
RECIPE = sgd_recipe(epochs=3, batch_size=8, learning_rate=0.05, seed=3)


pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("threads_restored")]


@pytest.fixture
def task(tmp_path: Path) -> ProxyTask:
    """Three classes of 15x15 grey images that differ in brightness, and a teacher who knows them."""
    data = synthetic.write_grey(tmp_path / "data.npz", (45, 30, 6), 15, synthetic.brighter)
    sure = np.eye(3, dtype=np.float32)[np.arange(45) % 3] * 4
    np.save(tmp_path / "logits.npy", np.repeat(sure[:, None, :], VIEWS, axis=1))
    return ProxyTask(SPACE, str(data), tmp_path / "logits.npy", "kd", 24, RECIPE)


def rated(task: ProxyTask, hopeless: Hopeless | None = None) -> Rated:
    """Rate one architecture, times and hosts aside."""
    return dataclasses.replace(Classroom.open(task).rate(ARCH, hopeless), seconds=0.0, host="")


def test_images_that_do_not_fit_into_memory_are_refused(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with their number and size; a defect stays one."""
    said = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate"

    def resized(samples: object, resolution: int) -> object:
        raise RuntimeError(said)

    monkeypatch.setattr(proxy, "resized", resized)
    large = dataclasses.replace(task, resolution=60)
    with pytest.raises(UsageError, match="24 training and 30 validation images of 60 pixels do not fit into memory"):
        Classroom.open(large)
    said = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        Classroom.open(large)


def test_a_candidate_is_rated_by_a_short_training(task: ProxyTask) -> None:
    """It says how accurate it became, in how many epochs, how long it took and where."""
    found = Classroom.open(task).rate(ARCH)
    assert 0 <= found.accuracy <= 1
    assert (found.epochs, found.failure, found.early_accuracy, found.measured_ms) == (3, "", None, None)
    assert found.seconds > 0
    assert found.host


def test_a_rating_depends_on_nothing_that_was_rated_before(task: ProxyTask) -> None:
    """So it is the same in any worker, and in any order."""
    room = Classroom.open(task)
    first = room.rate(ARCH)
    room.rate(OTHER)
    again = room.rate(ARCH)
    assert again.accuracy == first.accuracy
    assert rated(task) == dataclasses.replace(first, seconds=0.0, host="")


def test_the_threads_are_the_task_s_and_given_back(task: ProxyTask) -> None:
    """A number of threads that another part of the program has set changes nothing and is left as it was."""
    torch.set_num_threads(1)
    alone = rated(task)
    torch.set_num_threads(2)
    assert rated(task) == alone
    assert torch.get_num_threads() == 2


def test_a_task_can_be_sent_to_a_worker(task: ProxyTask) -> None:
    """It survives pickling, and rates the same there."""
    assert rated(pickle.loads(pickle.dumps(task))) == rated(task)  # noqa: S301 - our own bytes


def test_without_a_teacher_no_logits_are_read(task: ProxyTask, tmp_path: Path) -> None:
    """The method none takes no path, and does not look at one that is there."""
    alone = dataclasses.replace(task, method="none", logits_path=None)
    absent = dataclasses.replace(alone, logits_path=tmp_path / "nowhere.npy")
    assert rated(alone) == rated(absent)


@pytest.mark.slow  # two trainings of twenty epochs
def test_the_teacher_matters(task: ProxyTask, tmp_path: Path) -> None:
    """A teacher who is sure of the wrong class teaches it."""
    lies = np.load(task.logits_path or "")[..., [1, 2, 0]]
    np.save(tmp_path / "lies.npy", lies)
    long = dataclasses.replace(task, images=45, recipe=dataclasses.replace(RECIPE, epochs=20))
    lied_to = dataclasses.replace(long, logits_path=tmp_path / "lies.npy")
    assert rated(long).accuracy > 0.8
    assert rated(lied_to).accuracy < 0.3


@pytest.mark.parametrize(("images", "same_as"), [(0.5, 22), (1.0, 45), (1000, 45)])
def test_images_are_a_number_or_a_share(task: ProxyTask, images: float, same_as: int) -> None:
    """Half of 45 are 22; more than there are is all of them."""
    wanted, counted = (dataclasses.replace(task, images=n) for n in (images, same_as))
    assert rated(wanted) == rated(counted)


def test_another_resolution_changes_the_student_s_images_and_not_the_teacher_s_logits(task: ProxyTask) -> None:
    """The same file of logits serves; the space's own resolution is the same as none."""
    assert rated(dataclasses.replace(task, resolution=15)) == rated(task)
    room = Classroom.open(dataclasses.replace(task, resolution=9))
    assert room._validation.images.shape == (30, 1, 9, 9)
    assert room.rate(ARCH).failure == ""


def test_a_candidate_below_the_floor_is_ended_and_keeps_its_accuracy(task: ProxyTask) -> None:
    """It trained fewer epochs and is no failure."""
    found = rated(task, Hopeless(after_epochs=1, floor=1.1))
    assert (found.epochs, found.failure) == (1, "")
    assert found.accuracy == found.early_accuracy is not None


def test_a_candidate_that_is_looked_at_and_not_ended_is_rated_as_if_nobody_had_looked(task: ProxyTask) -> None:
    """Looking changes nothing, and what was seen is told."""
    seen, unseen = rated(task, Hopeless(1, 0.0)), rated(task)
    assert seen.early_accuracy is not None
    assert dataclasses.replace(seen, early_accuracy=None) == unseen
    assert rated(task, Hopeless(1, seen.early_accuracy)) == seen  # at the floor is not below it


def test_a_training_that_diverges_is_an_answer(task: ProxyTask) -> None:
    """The failure says what happened, and the next candidate is rated as ever."""
    wild = dataclasses.replace(task, recipe=sgd_recipe(3, 8, learning_rate=1e30, seed=3))
    room = Classroom.open(wild)
    found = room.rate(ARCH)
    assert found.accuracy == 0.0
    assert found.failure.startswith("diverged")
    assert "\n" not in found.failure
    assert room.rate(ARCH).failure == found.failure


def test_logits_that_are_not_finite_after_the_last_step_are_a_failure(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss is looked at before a step; what the last step broke shows on the validation images."""
    monkeypatch.setattr(proxy, "predict", lambda network, images: torch.full((len(images), 3), torch.nan))
    found = rated(task)
    assert (found.accuracy, found.epochs) == (0.0, 3)
    assert found.failure.startswith("diverged by the end of epoch 3")


def raising(error: Exception) -> Any:
    """Give a network type that raises."""

    def network(graph: object) -> None:
        raise error

    return network


def allocating(graph: object) -> None:
    """Ask for more memory than any machine has."""
    torch.empty(1 << 58)


@pytest.mark.parametrize(
    "network",
    [allocating, raising(MemoryError("no room")), raising(torch.OutOfMemoryError("CUDA out of memory"))],
    ids=["allocator", "MemoryError", "accelerator"],
)
def test_want_of_memory_is_an_answer(task: ProxyTask, monkeypatch: pytest.MonkeyPatch, network: Any) -> None:
    """Whoever says it: the allocator of the main memory, Python, or an accelerator's."""
    monkeypatch.setattr(proxy, "Network", network)
    found = rated(task)
    assert (found.accuracy, found.epochs) == (0.0, 0)
    assert found.failure.startswith("out of memory: ")
    assert "\n" not in found.failure


def test_a_defect_is_not_taken_for_a_candidate_s_failure(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another error of torch ends the search and is seen."""
    monkeypatch.setattr(proxy, "Network", raising(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        rated(task)


def test_a_method_that_needs_a_teacher_is_refused_without_one(task: ProxyTask) -> None:
    """The message names the way out."""
    with pytest.raises(UsageError, match="'kd' needs a teacher; give one, or the method 'none'"):
        Classroom.open(dataclasses.replace(task, logits_path=None))


@pytest.mark.parametrize("pixels", [-1, 61])
def test_a_resolution_out_of_range_is_refused(task: ProxyTask, pixels: int) -> None:
    """0 is the space's own."""
    with pytest.raises(UsageError, match=f"resolution is {pixels}; it must be from 1 to 60"):
        Classroom.open(dataclasses.replace(task, resolution=pixels))


def test_other_data_than_the_study_s_is_refused(task: ProxyTask) -> None:
    """A worker on another machine may find another file under the same name."""
    right = load_data(task.data).sha256
    assert rated(dataclasses.replace(task, data_sha256=right)) == rated(task)
    with pytest.raises(DataError, match="is not the study's"):
        Classroom.open(dataclasses.replace(task, data_sha256="0" * 64))


@pytest.mark.parametrize("shape", [(44, VIEWS, 3), (45, 1, 3), (45, VIEWS, 4)], ids=["samples", "views", "classes"])
def test_logits_of_other_data_are_refused(task: ProxyTask, shape: tuple[int, ...]) -> None:
    """Each axis must fit."""
    assert task.logits_path is not None
    np.save(task.logits_path, np.zeros(shape, np.float32))
    with pytest.raises(DataError, match="remove the file"):
        Classroom.open(task)


def test_weights_change_what_is_learnt(task: ProxyTask) -> None:
    """A guidance of weight 0 leaves a tenth of the cross entropy, as kd weighs it; the published weight is 1."""
    assert rated(dataclasses.replace(task, weights=" kd = 1.0 ")) == rated(task)
    lighter = Classroom.open(dataclasses.replace(task, weights="kd=0"))
    assert lighter._lesson.method != Classroom.open(task)._lesson.method


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("kd", "'kd' is no weight"),
        ("kd=x", "is no weight"),
        ("kd=1,kd=2", "there twice"),
        ("dist=1", "no part"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(task: ProxyTask, weights: str, words: str) -> None:
    """The message shows them."""
    with pytest.raises(UsageError, match=words):
        Classroom.open(dataclasses.replace(task, weights=weights))


def test_a_method_that_compares_features_is_refused(task: ProxyTask) -> None:
    """The proxy has the teacher's logits and nothing else of it."""
    with pytest.raises(UsageError, match="'rkd' compares features"):
        Classroom.open(dataclasses.replace(task, method="rkd"))
