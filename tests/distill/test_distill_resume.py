"""A killed training goes on as if it had not been killed, whatever it keeps; running means and best epochs too."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mortals import EVERY_STEP, LONG, Killed, Mortal, equal, lesson_for_child, state, tiny_network
from safetensors.torch import load_file
from torch import nn

from edgekd.data.dataset import DataSet
from edgekd.distill import checkpoint
from edgekd.distill.augment import Augmentation
from edgekd.distill.ema import RunningMean
from edgekd.distill.lesson import Lesson
from edgekd.distill.loader import source_of
from edgekd.distill.mentors import Anchors, LiveTeacher
from edgekd.distill.methods import bindable_method_named
from edgekd.distill.recipe import Optimizer, Recipe, Schedule, sgd_recipe
from edgekd.distill.train import EpochResult, accuracy, train
from edgekd.distill.views import samples_of
from edgekd.errors import DataError
from edgekd.teachers import Teacher

pytestmark = pytest.mark.whole  # trainings

PLAIN = sgd_recipe(epochs=3, batch_size=8, learning_rate=0.02, seed=3)
RICH = dataclasses.replace(
    PLAIN,
    optimizer=Optimizer("adamw", 1e-2, 0.9, 0.05),
    schedule=Schedule("step", 0.0, (0.5,)),
    augmentation=Augmentation(crop_padding=1, operators=1, mixup_alpha=0.5),
    label_smoothing=0.1,
    ema_decay=0.9,
    clip_norm=0.5,
    keep="best",
)


def lesson_of(name: str, data: DataSet, teacher: Teacher, recipe: Recipe) -> Lesson:
    """Teach by a method with the live teacher, judged on the validation split."""
    live = LiveTeacher.of(teacher)
    mentor = {"none": None, "rco": Anchors((live, live))}.get(name, live)
    train_split = source_of(data, data.train, recipe.augmentation)
    return Lesson(train_split, bindable_method_named(name), mentor, samples_of(data, data.validation))


STEPS = (1, 2, 3, 4, 8)  # of nine; in the middle of the second epoch everything has a state
LESSONS = {
    "none": PLAIN, "kd": RICH, "hint": RICH, "fitnet": PLAIN, "crd": PLAIN, "cooperative": PLAIN, "rco": PLAIN,
    "reviewkd": PLAIN, "dist+at": RICH,
}  # fmt: skip
FAST = (("none", 4), ("kd", 4), ("crd", 4))  # each is three trainings


@pytest.mark.parametrize(
    ("name", "step"),
    [
        (name, step) if (name, step) in FAST else pytest.param(name, step, marks=pytest.mark.slow)
        for name in LESSONS
        for step in STEPS
    ],
)
def test_a_training_killed_in_any_step_goes_on_bit_for_bit(
    tiny_data: DataSet, tiny_teacher: Teacher, tmp_path: Path, name: str, step: int
) -> None:
    """Student, optimizer, regressors, banks, running mean and best epoch: the last file is the undisturbed one's."""
    recipe = LESSONS[name]
    lesson = lesson_of(name, tiny_data, tiny_teacher, recipe)
    results: list[list[EpochResult]] = [[], []]
    undisturbed = Mortal(tiny_network(), 1000)
    train(undisturbed, lesson, recipe, tmp_path / "whole", results[0].append)
    with pytest.raises(Killed):
        train(Mortal(tiny_network(), step), lesson, recipe, tmp_path / "part", machine=EVERY_STEP)
    resumed = Mortal(tiny_network(seed=77), 1000)
    train(resumed, lesson, recipe, tmp_path / "part", results[1].append, machine=EVERY_STEP)
    assert equal(state(resumed), state(undisturbed))
    assert equal(load_file(tmp_path / "part"), load_file(tmp_path / "whole"))
    assert [(r.epoch, r.loss, r.accuracy) for r in results[1]] == [
        (r.epoch, r.loss, r.accuracy) for r in results[0][step // 3 :]
    ]


CHILD = """
import sys
from pathlib import Path
import torch
from edgekd.distill.train import train
from mortals import EVERY_STEP, lesson_for_child
torch.set_num_threads(1)
lesson, recipe, network = lesson_for_child()
train(network, lesson, recipe, Path(sys.argv[1]), machine=EVERY_STEP)
"""


@pytest.mark.slow  # a process of its own
def test_a_process_killed_in_the_middle_of_an_epoch_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL, no goodbye: what lies on the disk goes on to the same bits."""
    path, here = tmp_path / "checkpoint", Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], env=environment)
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)  # for a file that another process writes
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint._read(path).metadata["epochs_done"] != str(LONG.epochs)
    lesson, recipe, network = lesson_for_child()
    recipe_done: list[int] = []
    train(network, lesson, recipe, path, lambda result: recipe_done.append(result.epoch))
    undisturbed = tiny_network()
    train(undisturbed, lesson, recipe)
    assert recipe_done[-1] == recipe.epochs
    assert equal(state(network), state(undisturbed))


def test_the_running_mean_is_the_recurrence_written_out() -> None:
    """Mean ← decay · mean + (1 − decay) · weights, the decay rising from 1/10; counts of batches are copied."""
    network = nn.BatchNorm1d(1)
    mean, expected = RunningMean(network, 0.5), 1.0
    for step in range(20):
        with torch.no_grad():
            network.weight.fill_(float(step))
        network.state_dict()["num_batches_tracked"].add_(1)
        mean.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert mean.tensors["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert mean.tensors["num_batches_tracked"].item() == 20


def test_the_running_mean_is_what_is_judged_kept_and_given(
    tiny_data: DataSet, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    """Not the weights in training, which the file holds apart to go on from."""
    recipe = dataclasses.replace(PLAIN, ema_decay=0.99)
    lesson, results = lesson_of("none", tiny_data, tiny_teacher, recipe), list[EpochResult]()
    averaged, raw = tiny_network(), tiny_network()
    train(averaged, lesson, recipe, tmp_path / "file", results.append)
    train(raw, lesson, PLAIN)
    kept = checkpoint._read(tmp_path / "file")
    assert equal(kept.part("model"), state(averaged))
    assert equal(kept.part("raw"), state(raw))
    assert not equal(state(averaged), state(raw))
    assert lesson.validation is not None
    assert results[-1].accuracy == accuracy(averaged, lesson.validation)


def test_the_best_epoch_is_kept_if_that_is_wanted(tiny_data: DataSet, tiny_teacher: Teacher, tmp_path: Path) -> None:
    """The first of the best on the validation samples, with the weights that it had; export gets them."""
    recipe = dataclasses.replace(
        PLAIN, epochs=8, keep="best", optimizer=Optimizer(learning_rate=0.3), schedule=Schedule("step", 0.0)
    )
    lesson, snapshots, shares = lesson_of("none", tiny_data, tiny_teacher, recipe), [], []
    network, loaded = tiny_network(), tiny_network(seed=5)

    def note(result: EpochResult) -> None:
        shares.append(result.accuracy)
        snapshots.append(state(network))

    train(network, lesson, recipe, tmp_path / "file", note)
    best = shares.index(max(shares))
    assert best < len(shares) - 1  # or else this test would show nothing
    assert equal(state(network), snapshots[best])
    checkpoint.load_weights(tmp_path / "file", loaded, recipe)
    assert equal(state(loaded), snapshots[best])


def drop(names: Callable[[str], bool]) -> Callable[[Path], None]:
    """Give what removes tensors from a checkpoint."""

    def damage(path: Path) -> None:
        from safetensors.torch import save_file

        file = checkpoint._read(path)
        save_file({name: t for name, t in file.tensors.items() if not names(name)}, path, dict(file.metadata))

    return damage


def say(key: str, value: str) -> Callable[[Path], None]:
    """Give what changes what a checkpoint says."""

    def damage(path: Path) -> None:
        from safetensors.torch import save_file

        file = checkpoint._read(path)
        save_file(file.tensors, path, {**file.metadata, key: value})

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        drop(lambda name: name.startswith("ema.")),
        drop(lambda name: name.startswith("guide.")),
        drop(lambda name: name.endswith("exp_avg_sq")),
        drop(lambda name: name == "total"),
        say("steps_done", "-1"),
        say("steps_done", "0"),
        say("threads", "many"),
        say("optimizer", "[]"),
        say("optimizer", "{"),
        say("best", "{"),
        say("engine", "{"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused(
    tiny_data: DataSet, tiny_teacher: Teacher, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """In one line that names the file; half of a state is never gone on from."""
    lesson = lesson_of("hint", tiny_data, tiny_teacher, RICH)
    with pytest.raises(Killed):
        train(Mortal(tiny_network(), 5), lesson, RICH, tmp_path / "file", machine=EVERY_STEP)
    damage(tmp_path / "file")
    with pytest.raises(DataError, match="remove it") as caught:
        train(Mortal(tiny_network(), 100), lesson, RICH, tmp_path / "file")
    assert "\n" not in str(caught.value)
