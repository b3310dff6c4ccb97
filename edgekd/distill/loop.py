"""The one training loop, as one process runs it: epochs, steps, what is told of them and what is kept.

Which engine makes the steps is chosen by train.py; what a step computes is lesson.py's. It never sees a test split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgekd.distill import checkpoint, losses
from edgekd.distill.checkpoint import Best, Done, State
from edgekd.distill.ema import RunningMean
from edgekd.distill.engine import Engine
from edgekd.distill.judging import accuracy
from edgekd.distill.lesson import Classwork, Lesson, classwork, probe_of
from edgekd.distill.loader import Batch, Order, batches
from edgekd.distill.mentors import Setting
from edgekd.distill.optimizing import optimizer_for, set_rate
from edgekd.distill.recipe import Recipe
from edgekd.errors import EdgekdError

Module = torch.nn.Module


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a training runs, which is no part of its recipe; the kind of device is where the network lies."""

    workers: int = 0  # processes that vary images
    devices: int = 1  # of one kind, each with its share of every batch; above 1 norms see their share alone
    save_every_s: float = 600.0  # within an epoch; whole epochs are always kept


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch brought."""

    epoch: int  # 1 is the first
    epochs: int
    loss: float  # mean over the epoch's batches
    seconds: float  # of this process
    accuracy: float | None = (
        None  # on the lesson's validation samples, if it has any, of the weights that would be kept
    )
    note: str = ""  # what else is to be told


class TrainingDiverged(EdgekdError):
    """The loss, or what a trained network gives, became NaN or infinite."""

    @classmethod
    def at(cls, epoch: int, step: int, batch: Batch) -> TrainingDiverged:
        """Name the step, counted from 0, and its first samples."""
        rows = ", ".join(str(int(i)) for i in batch.indices[:4])
        return cls(
            f"training diverged in epoch {epoch + 1}, step {step + 1} (samples {rows}, …): the loss is not finite; "
            "lower the learning rate or check those images"
        )


@dataclass(frozen=True, slots=True)
class Files:
    """What a training tells and keeps while it runs."""

    checkpoint_path: Path | None
    on_epoch: Callable[[EpochResult], None]
    stop: Callable[[EpochResult], bool]
    machine: Machine


def run_epochs(network: Module, lesson: Lesson, recipe: Recipe, engine: Engine, files: Files) -> None:
    """Go through the epochs with an engine; the network ends with the weights that count."""
    with prepared(network, lesson, recipe, engine, files) as training:
        training.run()
        state = training.state
        if state.mean or state.best.weights:
            network.load_state_dict(state.shipped())


@contextmanager
def prepared(network: Module, lesson: Lesson, recipe: Recipe, engine: Engine, files: Files) -> Iterator[Training]:
    """Make a training ready for its first step, as long as the block lasts."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    device = next(network.parameters()).device
    probe = probe_of(lesson, recipe, device)
    setting = Setting(device, "features" in lesson.method.needs, probe, engine.autocast)
    with classwork(lesson, network, recipe, setting, engine.rank) as work:
        guide = work.exercise.guide
        optimizer = optimizer_for(network, guide, recipe)
        mean = RunningMean(network, recipe.ema_decay) if recipe.ema_decay else None
        state = State(network, guide, optimizer, engine, mean, Best())
        yield Training(work, state, lesson, files)


class Training:
    """One training as it goes; `run` does all of it, `step` makes one step, for those who measure it."""

    def __init__(self, work: Classwork, state: State, lesson: Lesson, files: Files) -> None:
        self.work, self.state, self.lesson, self.files = work, state, lesson, files
        self.recipe = work.recipe
        shares = (state.engine.rank, state.engine.ranks)
        self.order = Order(
            self.recipe.batch_size,
            self.recipe.seed,
            self.recipe.mirror,
            self.recipe.augmentation,
            files.machine.workers,
            shares,
        )
        self.steps = self.order.steps(len(lesson.samples))
        self._forward = state.engine.set_up(work.exercise, state.optimizer)

    def run(self) -> None:
        """Go on from what is kept."""
        path = self.files.checkpoint_path
        done = checkpoint.restore(path, self.state, self.recipe) if path else Done()
        note = _threads_note(done)
        for epoch in range(done.epochs, self.recipe.epochs):
            began = time.perf_counter()
            loss = self._epoch(epoch, done)
            done = Done(epoch + 1)
            result = self._result(done, loss, began, note)
            note = ""
            # told before it is kept: a history may hold an epoch that is trained again after a kill, but lacks none
            self.files.on_epoch(result)
            self._keep(done)
            if self.files.stop(result):
                break

    def _epoch(self, epoch: int, done: Done) -> float:
        self.work.exercise.train()
        total = torch.zeros((), device=self.work.device) if done.total is None else done.total.to(self.work.device)
        saved = time.monotonic()
        for step, batch in enumerate(batches(self.work.source, self.order, epoch, done.steps), done.steps):
            total += self.step(batch, epoch, step)
            if time.monotonic() - saved >= self.files.machine.save_every_s and step + 1 < self.steps:
                self._keep(Done(epoch, step + 1, total))
                saved = time.monotonic()
        return float(self.state.engine.mean(total)) / self.steps

    def step(self, batch: Batch, epoch: int, step: int) -> Tensor:
        """Make one step, counted from 0 in its epoch; give the loss before it. Raises TrainingDiverged."""
        number = epoch * self.steps + step
        set_rate(self.state.optimizer, self.recipe, number / (self.recipe.epochs * self.steps))
        loss = self._forward(*self.work.given(batch, number, self.steps))
        if not losses.finite(loss):
            raise TrainingDiverged.at(epoch, step, batch)
        self.state.engine.step(loss, self.recipe.clip_norm)
        if self.state.mean:
            self.state.mean.update(number)
        return loss.detach()

    def _result(self, done: Done, loss: float, began: float, note: str) -> EpochResult:
        share = self._judged()
        best = self.state.best
        if share is not None and self.recipe.keep == "best" and share > best.accuracy:
            best.accuracy = share
            best.weights = {name: tensor.detach().clone() for name, tensor in self.state.current().items()}
        return EpochResult(done.epochs, self.recipe.epochs, loss, time.perf_counter() - began, share, note)

    def _judged(self) -> float | None:
        """Give the accuracy of the weights that are kept if this was the last epoch; None without samples."""
        if self.lesson.validation is None:
            return None
        network, mean = self.state.network, self.state.mean
        if mean is None:
            return accuracy(network, self.lesson.validation)
        raw = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(mean.tensors)
        try:
            return accuracy(network, self.lesson.validation)
        finally:
            network.load_state_dict(raw)

    def _keep(self, done: Done) -> None:
        if self.files.checkpoint_path and self.state.engine.rank == 0:
            checkpoint.save(self.files.checkpoint_path, self.state, self.recipe, done)


def _threads_note(done: Done) -> str:
    threads = torch.get_num_threads()
    if not done.anything or done.threads in {0, threads}:
        return ""
    return (
        f"the checkpoint was trained with {done.threads} threads and goes on with {threads}: "
        "sums are in another order, so the weights may differ in their last bits from an undisturbed training's"
    )
