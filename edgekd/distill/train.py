"""The one training loop: for teachers, for the proxy of the search, and for the final student.

It goes through a recipe's epochs with the optimizer and schedule named there, stops and resumes through checkpoint.py,
and gives the last epoch's weights, or their running mean, or those of the epoch that was best on the validation
samples, as the recipe's `ema_decay` and `keep` say; it never sees a test split. A resumed run equals an undisturbed
one bit for bit on a CPU with the same number of threads.

Read next: lesson.py, what is taught; recipe.py, how; loop.py, step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from edgekd.distill.engine import engine_for
from edgekd.distill.judging import accuracy, predict
from edgekd.distill.lesson import Lesson
from edgekd.distill.loop import EpochResult, Files, Machine, TrainingDiverged, run_epochs
from edgekd.distill.methods.base import FeatureMethod
from edgekd.distill.recipe import Recipe
from edgekd.distill.several import train_on_several
from edgekd.errors import UsageError
from edgekd.spaces.network import Network

__all__ = [
    "EpochResult",
    "Machine",
    "TrainingDiverged",
    "accuracy",
    "new_network",
    "predict",
    "see_teacher",
    "train",
]

Module = torch.nn.Module


def see_teacher(name: str, method: FeatureMethod, logits_path: Path | None) -> None:
    """See that a method which needs a teacher has its logits.

    Raises:
        UsageError: there are none.

    """
    if method.needs and logits_path is None:
        raise UsageError(f"distillation method {name!r} needs a teacher; give one, or the method 'none'")


def train(
    network: Module,
    lesson: Lesson,
    recipe: Recipe,
    checkpoint_path: Path | None = None,
    on_epoch: Callable[[EpochResult], None] = lambda result: None,
    stop: Callable[[EpochResult], bool] = lambda result: False,
    machine: Machine | None = None,
) -> None:
    """Train in place; with a checkpoint path, go on after the last epoch or step found there.

    `stop` is asked after every epoch and ends the training there, before its schedule is at its end. Another number of
    threads than a checkpoint's goes on and is told in the next result's note: the bits may differ from then on.

    Raises:
        UsageError: method, teacher and recipe do not go together.
        TrainingDiverged: the loss is not finite.
        DataError: the checkpoint is damaged or of another training.

    """
    lesson.check(recipe)
    device = next(network.parameters()).device
    machine = machine or Machine()
    files = Files(checkpoint_path, on_epoch, stop, machine)
    if machine.devices > 1:
        return train_on_several(network, lesson, recipe, files)
    return run_epochs(network, lesson, recipe, engine_for(recipe.precision, device), files)


def new_network(network_type: Callable[[], Network], seed: int) -> Network:
    """Make a network whose initial weights are a function of the seed; torch's global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network_type()
