"""The training loop: its schedule, its failures, and resuming bit for bit."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekd.data.dataset import DataSet
from edgekd.distill import checkpoint, losses
from edgekd.distill.augment import Augmentation
from edgekd.distill.lesson import Lesson
from edgekd.distill.loader import source_of
from edgekd.distill.mentors import CachedLogits
from edgekd.distill.methods import method_named
from edgekd.distill.methods.base import LogitGuide
from edgekd.distill.optimizing import optimizer_for
from edgekd.distill.recipe import Optimizer, Parameter, Recipe, Schedule, learning_rate_at, plain, sgd_recipe
from edgekd.distill.train import EpochResult, Machine, TrainingDiverged, accuracy, predict, train
from edgekd.distill.views import Samples, samples_of
from edgekd.errors import DataError

pytestmark = pytest.mark.whole  # trainings

RECIPE = sgd_recipe(epochs=4, batch_size=8, learning_rate=0.05, seed=3)


def tiny_network(seed: int = 1) -> nn.Module:
    """Make a small network with everything that training touches: convolution, norm, bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        )


@pytest.fixture
def lesson(tiny_data: DataSet) -> Lesson:
    """Teach the tiny data by kd with made-up teacher logits."""
    guide = torch.randn(len(tiny_data.train), 2, 3, generator=torch.Generator().manual_seed(0))
    return Lesson(samples_of(tiny_data, tiny_data.train), method_named("kd"), CachedLogits(guide))


class Killed(Exception):
    """Stands for the end of the process after an epoch."""


def kill_after(epochs: int) -> Callable[[EpochResult], None]:
    """Give an on_epoch that ends the training when so many epochs are kept, at the last moment of the next one."""

    def on_epoch(result: EpochResult) -> None:
        if result.epoch == epochs + 1:
            raise Killed

    return on_epoch


def state(network: nn.Module) -> dict[str, Tensor]:
    """Copy a network's weights and statistics."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Compare bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    """It rises linearly from nearly 0 to its peak at the end of the warm-up, then falls along a half cosine."""
    recipe = Recipe(1, optimizer=Optimizer(learning_rate=0.4), schedule=Schedule(warmup_share=0.2))
    assert learning_rate_at(0.0, recipe) == pytest.approx(0.4 * 0.01 / 1.01)
    assert learning_rate_at(0.1, recipe) == pytest.approx(0.4 * 0.51 / 1.01)
    assert learning_rate_at(0.2, recipe) == pytest.approx(0.4)
    assert learning_rate_at(0.6, recipe) == pytest.approx(0.2)
    assert learning_rate_at(1.0, recipe) == pytest.approx(0.0, abs=1e-12)
    rates = [learning_rate_at(i / 100, recipe) for i in range(101)]
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_without_warm_up_training_begins_at_the_peak() -> None:
    """A share of 0 divides by nothing."""
    assert Schedule(warmup_share=0.0).rate_at(0.0) == pytest.approx(1.0)


@pytest.mark.slow  # a real training
def test_training_learns_what_can_be_learnt(tiny_data: DataSet) -> None:
    """Classes that differ in brightness are told apart after a few epochs, and the loss falls."""
    results: list[EpochResult] = []
    samples = samples_of(tiny_data, tiny_data.train)
    network = tiny_network()
    train(network, Lesson(samples, method_named("none")), sgd_recipe(20, 8, 0.1), on_epoch=results.append)
    assert accuracy(network, samples_of(tiny_data, tiny_data.test)) == 1.0
    assert statistics.median(result.loss for result in results[-5:]) < results[0].loss / 2  # tiny batches vary
    assert [(result.epoch, result.epochs) for result in results] == [(i, 20) for i in range(1, 21)]


@pytest.mark.slow  # three trainings
@pytest.mark.parametrize(("killed_after", "threads"), [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_a_resumed_training_equals_an_undisturbed_one(
    lesson: Lesson, tmp_path: Path, killed_after: int, threads: int
) -> None:
    """Killed after any epoch and begun again with other initial weights, it ends with the very same bits."""
    torch.set_num_threads(threads)
    undisturbed, killed, resumed = tiny_network(), tiny_network(), tiny_network(seed=77)
    losses: list[float] = []
    train(undisturbed, lesson, RECIPE, tmp_path / "whole", lambda result: losses.append(result.loss))
    with pytest.raises(Killed):
        train(killed, lesson, RECIPE, tmp_path / "part", kill_after(killed_after))
    later: list[float] = []
    train(resumed, lesson, RECIPE, tmp_path / "part", lambda result: later.append(result.loss))
    assert equal(state(resumed), state(undisturbed))
    assert later == losses[killed_after:]
    assert equal(load_file(tmp_path / "part"), load_file(tmp_path / "whole"))


def test_a_finished_training_is_not_trained_again(lesson: Lesson, tmp_path: Path) -> None:
    """Begun once more, it gives the same weights without an epoch."""
    first, again = tiny_network(), tiny_network(seed=77)
    train(first, lesson, RECIPE, tmp_path / "checkpoint")
    train(again, lesson, RECIPE, tmp_path / "checkpoint", lambda result: pytest.fail("it trained"))
    assert equal(state(again), state(first))


def test_a_training_can_be_stopped_after_an_epoch(lesson: Lesson, tmp_path: Path) -> None:
    """Up to there it is the training that would have gone on, and its checkpoint goes on."""
    stopped, whole = tiny_network(), tiny_network()
    asked: list[int] = []

    def stop(result: EpochResult) -> bool:
        asked.append(result.epoch)
        return result.epoch == 2

    train(stopped, lesson, RECIPE, tmp_path / "stopped", stop=stop)
    assert asked == [1, 2]
    train(whole, lesson, RECIPE)
    train(stopped, lesson, RECIPE, tmp_path / "stopped")
    assert equal(state(stopped), state(whole))


def test_some_samples_are_taught_by_their_own_rows_of_the_logits(lesson: Lesson) -> None:
    """As if the other rows had been left out."""
    chosen = torch.tensor([3, 30, 7, 12, 0, 21, 5, 9, 11])
    assert isinstance(lesson.samples, Samples)
    assert isinstance(lesson.teacher, CachedLogits)
    assert lesson.teacher.exact is not None
    samples, logits = lesson.samples.subset(chosen), lesson.teacher.exact
    picked, copied = tiny_network(), tiny_network()
    train(picked, Lesson(samples, lesson.method, CachedLogits(logits, rows=chosen)), RECIPE)
    train(copied, Lesson(samples, lesson.method, CachedLogits(logits[chosen])), RECIPE)
    assert equal(state(picked), state(copied))


def test_an_epoch_is_told_before_it_is_kept(lesson: Lesson, tmp_path: Path) -> None:
    """So a history may hold an epoch that is trained again after a kill, but never lacks one."""
    kept: list[bool] = []
    train(tiny_network(), lesson, RECIPE, tmp_path / "file", lambda result: kept.append((tmp_path / "file").exists()))
    assert kept == [False, True, True, True]


def test_a_checkpoint_changes_nothing_in_the_training(lesson: Lesson, tmp_path: Path) -> None:
    """With and without one, the weights are the same."""
    kept, free = tiny_network(), tiny_network()
    train(kept, lesson, RECIPE, tmp_path / "checkpoint")
    train(free, lesson, RECIPE)
    assert equal(state(kept), state(free))


def refused(path: Path, lesson: Lesson, recipe: Recipe, network: nn.Module | None = None) -> str:
    """See that a checkpoint is refused in one line and left as it was; give the message."""
    before = path.read_bytes()
    with pytest.raises(DataError) as caught:
        train(network or tiny_network(), lesson, recipe, path)
    assert path.read_bytes() == before
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "remove it" in message
    return message


@pytest.fixture
def half_done(lesson: Lesson, tmp_path: Path) -> Path:
    """A checkpoint after two of four epochs."""
    path = tmp_path / "half"
    with pytest.raises(Killed):
        train(tiny_network(), lesson, RECIPE, path, kill_after(2))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 5},
        {"batch_size": 4},
        {"optimizer": Optimizer(learning_rate=0.06)},
        {"schedule": Schedule(warmup_share=0.2)},
        {"augmentation": Augmentation(mixup_alpha=0.0, magnitude=3)},
        {"label_smoothing": 0.1},
        {"ema_decay": 0.9},
        {"clip_norm": 1.0},
        {"mirror": False},
        {"seed": 4},
        {"method": (Parameter("temperature", 2.0),)},
        {"about": "another student"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_checkpoint_of_another_recipe_is_refused(half_done: Path, lesson: Lesson, change: dict[str, Any]) -> None:
    """Every field of the recipe counts; the message shows both recipes."""
    other = dataclasses.replace(RECIPE, **change)
    assert json.dumps(plain(other)) in refused(half_done, lesson, other)


def test_another_thread_count_than_the_checkpoints_is_said(half_done: Path, lesson: Lesson) -> None:
    """It sums in another order, so it may not go on bit for bit; the first result says so, and the training goes on."""
    notes: list[str] = []
    torch.set_num_threads(2)
    train(tiny_network(), lesson, RECIPE, half_done, lambda result: notes.append(result.note))
    assert "trained with 1 threads and goes on with 2" in notes[0]
    assert notes[1:] == [""]


def test_a_checkpoint_of_another_network_is_refused(half_done: Path, lesson: Lesson) -> None:
    """Weights of other shapes or names are not half loaded."""
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert "another network" in refused(half_done, lesson, RECIPE, other)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(half_done: Path, lesson: Lesson, share: float) -> None:
    """However little is left of it."""
    content = half_done.read_bytes()
    half_done.write_bytes(content[: int(len(content) * share)])
    refused(half_done, lesson, RECIPE)


def test_a_checkpoint_with_a_damaged_header_is_refused(half_done: Path, lesson: Lesson) -> None:
    """Every one of the header's first bytes matters."""
    content = half_done.read_bytes()
    for position in (0, 7, 8, 9, 20):
        half_done.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        refused(half_done, lesson, RECIPE)


@pytest.mark.parametrize("epochs_done", ["0", "5", "-1", "two", "²", ""])
def test_a_checkpoint_of_impossible_progress_is_refused(half_done: Path, lesson: Lesson, epochs_done: str) -> None:
    """It must hold from 1 epoch to all of them."""
    metadata = dict(checkpoint._read(half_done).metadata)
    save_file(load_file(half_done), half_done, metadata | {"epochs_done": epochs_done})
    assert "epochs" in refused(half_done, lesson, RECIPE)


def test_a_checkpoint_of_another_format_is_refused(half_done: Path, lesson: Lesson) -> None:
    """A newer format, or a foreign safetensors file, is not guessed at."""
    tensors = load_file(half_done)
    for metadata in ({"format": "edgekd-checkpoint-3"}, {}):
        save_file(tensors, half_done, metadata)
        assert "format" in refused(half_done, lesson, RECIPE)


def test_a_checkpoint_without_optimiser_state_is_refused(half_done: Path, lesson: Lesson) -> None:
    """Weights alone would go on, but not as the undisturbed training."""
    file = checkpoint._read(half_done)
    left = {n: t for n, t in file.tensors.items() if n != "optim.model.5.weight.momentum_buffer"}
    assert len(left) == len(file.tensors) - 1
    save_file(left, half_done, dict(file.metadata))
    assert "optimiser state of 5.weight" in refused(half_done, lesson, RECIPE)


def test_weights_of_an_unfinished_training_are_not_shipped(half_done: Path) -> None:
    """Export asks for a finished student; two epochs of four are refused, and so are another lesson's."""
    with pytest.raises(DataError, match="was made with recipe"):
        checkpoint.load_weights(half_done, tiny_network(), dataclasses.replace(RECIPE, about="another student"))
    with pytest.raises(DataError, match="'2' epochs of 4; run edgekd distil"):
        checkpoint.load_weights(half_done, tiny_network(), RECIPE)
    with pytest.raises(DataError, match="does not exist; run edgekd distil"):
        checkpoint.load_weights(half_done.with_name("none"), tiny_network(), RECIPE)


def test_the_weights_of_a_finished_training_are_loaded(lesson: Lesson, tmp_path: Path) -> None:
    """All of them, the norms' statistics included."""
    taught, loaded = tiny_network(), tiny_network(seed=77)
    train(taught, lesson, RECIPE, tmp_path / "checkpoint")
    checkpoint.load_weights(tmp_path / "checkpoint", loaded, RECIPE)
    assert equal(state(loaded), state(taught))


def test_a_loss_that_is_not_finite_names_step_and_samples(lesson: Lesson, tmp_path: Path) -> None:
    """One image of NaN is found in the step that shows it, the message names it, and nothing is kept of the epoch."""
    assert isinstance(lesson.samples, Samples)
    lesson.samples.images[5] = math.nan
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step [1-7] \(samples [\d, ]+, …\).*learning rate") as caught:
        train(tiny_network(), lesson, dataclasses.replace(RECIPE, batch_size=4), tmp_path / "checkpoint")
    named = str(caught.value).split("samples ")[1].split(", …")[0].split(", ")
    assert "5" in named
    assert not (tmp_path / "checkpoint").exists()


def test_predicting_leaves_the_mode_as_it_was(tiny_data: DataSet) -> None:
    """Logits are those of eval mode whatever mode the network is in, in any batch size, and no graph is kept."""
    network, images = tiny_network(), samples_of(tiny_data, tiny_data.test).images
    network.train()
    logits = predict(network, images)
    assert network.training
    assert not logits.requires_grad
    network.eval()
    assert torch.equal(logits, network(images).detach())
    assert not network.training
    assert torch.allclose(predict(network, images, batch_size=4), logits, atol=1e-6)


# --- the loop against one written out ---------------------------------------------------------------------------------


def plain_training(network: nn.Module, lesson: Lesson, recipe: Recipe) -> list[float]:
    """Train by SGD, warm-up, cosine and kd with mirrored views in as few words as it takes; give each epoch's loss."""
    assert isinstance(lesson.samples, Samples)
    assert isinstance(lesson.teacher, CachedLogits)
    assert lesson.teacher.exact is not None
    images, labels, logits = lesson.samples.images, lesson.samples.labels, lesson.teacher.exact
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    decayed = {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 5e-4}
    others = {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0}
    optimizer = torch.optim.SGD([decayed, others], 0.1, 0.9, nesterov=True, fused=True)
    steps, found = len(labels) // recipe.batch_size, []
    for epoch in range(recipe.epochs):
        rng = np.random.default_rng([recipe.seed, epoch])
        order = torch.from_numpy(rng.permutation(len(labels)))
        views = torch.from_numpy(rng.integers(0, 2, len(labels)))
        total = torch.zeros(())
        for step in range(steps):
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            progress = (epoch * steps + step) / (recipe.epochs * steps)
            warm, left = (progress / 0.1 + 1e-2) / (1 + 1e-2), (progress - 0.1) / (1 - 0.1)
            rate = warm if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * left))
            for group in optimizer.param_groups:
                group["lr"] = recipe.optimizer.learning_rate * rate
            shown = torch.where(views[rows].view(-1, 1, 1, 1).bool(), images[rows].flip(3), images[rows])
            answers = network(shown.contiguous(memory_format=torch.channels_last))
            soft = losses.kd(answers, logits[rows, views[rows]], 4.0)
            loss = 0.1 * nn.functional.cross_entropy(answers, labels[rows]) + 0.9 * soft
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            optimizer.step()
            total += loss.detach()
        found.append(float(total) / steps)
    return found


def test_the_loop_is_the_plain_one_bit_for_bit(lesson: Lesson) -> None:
    """With mirroring alone nothing of all that it can do shows in the weights or in the losses."""
    ours, plain, told = tiny_network().train(), tiny_network().train(), []
    train(ours, lesson, RECIPE, on_epoch=lambda result: told.append(result.loss))
    assert told == plain_training(plain, lesson, RECIPE)
    assert equal(state(ours), state(plain))


def test_gradients_are_cut_to_a_norm(lesson: Lesson) -> None:
    """With a tiny norm and no momentum, a step is at most the learning rate times it; without, it is longer."""
    moved = []
    for norm in (1e-3, 0.0):
        network = tiny_network()
        before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
        optimizer = Optimizer(learning_rate=0.5, momentum=0.0, weight_decay=0.0)
        recipe = Recipe(1, 31, optimizer, Schedule(warmup_share=0.0), clip_norm=norm)
        train(network, lesson, recipe)
        moved.append(float((torch.cat([p.detach().flatten() for p in network.parameters()]) - before).norm()))
    assert moved[0] == pytest.approx(0.5 * 1e-3, rel=1e-3)
    assert moved[1] > 2 * moved[0]


@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_decay_only_if_wanted(name: Any, decay_all: bool) -> None:
    """Where nothing is learnt but decay, weights shrink, and the others as the recipe says."""
    network = tiny_network()
    recipe = Recipe(1, 8, Optimizer(name, 0.1, 0.0, 0.5, decay_all=decay_all))
    learnt = [p for p in network.parameters() if p.any()]  # a bias of 0 shows nothing
    made = optimizer_for(network, LogitGuide(method_named("none")), recipe)
    before = [p.detach().abs().sum().item() for p in learnt]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    shrunk = [p.detach().abs().sum().item() < b for p, b in zip(learnt, before, strict=True)]
    assert shrunk == [p.ndim > 1 or decay_all for p in learnt]


def test_workers_change_no_weight(tiny_data: DataSet) -> None:
    """Images varied by two processes teach the same bits as by none."""
    recipe = dataclasses.replace(RECIPE, epochs=2, augmentation=Augmentation(crop_padding=1, operators=2))
    found = []
    for workers in (0, 2):
        network = tiny_network()
        source = source_of(tiny_data, tiny_data.train, recipe.augmentation)
        train(network, Lesson(source, method_named("none")), recipe, machine=Machine(workers=workers))
        found.append(state(network))
    assert equal(*found)
