"""The one training loop: for teachers, for the proxy of the search, and for the final student.

SGD with Nesterov momentum, linear warm-up and cosine decay. Stops and resumes at epochs through checkpoint.py;
a resumed run equals an undisturbed one bit for bit with the same number of threads. It chooses nothing: the last
epoch's weights count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgekd.distill import checkpoint, losses
from edgekd.distill.methods.base import Method
from edgekd.distill.views import Batch, Samples, batches
from edgekd.errors import EdgekdError
from edgekd.spaces.network import Network

Module = torch.nn.Module


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how hard to train."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1  # the peak, after the warm-up
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_share: float = 0.1  # of all steps
    mirror: bool = True  # also show images mirrored left to right
    seed: int = 0
    about: str = ""  # who is taught what by whom; a checkpoint about something else is refused


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch brought."""

    epoch: int  # 1 is the first
    epochs: int
    loss: float  # mean over the epoch's batches
    seconds: float


class TrainingDiverged(EdgekdError):
    """The loss became NaN or infinite."""

    def __init__(self, epoch: int, step: int, batch: Batch) -> None:
        rows = ", ".join(str(int(i)) for i in batch.indices[:4])
        super().__init__(
            f"training diverged in epoch {epoch + 1}, step {step + 1} (samples {rows}, …): the loss is not finite; "
            "lower the learning rate or check those images"
        )


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is taught: samples, the method, and the teacher's logits (N, views, classes) where the method needs them."""

    samples: Samples
    method: Method
    teacher_logits: Tensor | None = None

    def loss(self, network: Module, batch: Batch) -> Tensor:
        """Give the loss of one batch."""
        guide = None
        if self.teacher_logits is not None and self.method.needs_teacher:
            guide = self.teacher_logits[batch.indices, batch.views]  # (B, classes)
        return self.method.loss(network(batch.images), guide, batch.labels)


def train(
    network: Module,
    lesson: Lesson,
    recipe: Recipe,
    checkpoint_path: Path | None = None,
    on_epoch: Callable[[EpochResult], None] = lambda result: None,
) -> None:
    """Train in place; with a checkpoint path, go on after the last whole epoch found there.

    Raises:
        TrainingDiverged: the loss is not finite.

    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    optimizer = _optimizer(network, recipe)
    start = checkpoint.restore(checkpoint_path, network, optimizer, recipe) if checkpoint_path else 0
    for epoch in range(start, recipe.epochs):
        began = time.perf_counter()
        loss = _epoch(network, lesson, recipe, optimizer, epoch)
        # told before it is kept: a history may hold an epoch that is trained again after a kill, but never lacks one
        on_epoch(EpochResult(epoch + 1, recipe.epochs, loss, time.perf_counter() - began))
        if checkpoint_path:
            checkpoint.save(checkpoint_path, network, optimizer, recipe, epoch + 1)


def _optimizer(network: Module, recipe: Recipe) -> torch.optim.SGD:
    """Decay weights, but neither norms nor biases (He et al., arXiv 1812.01187)."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, nesterov=True, fused=True)


def _epoch(network: Module, lesson: Lesson, recipe: Recipe, optimizer: torch.optim.Optimizer, epoch: int) -> float:
    network.train()
    size = min(recipe.batch_size, len(lesson.samples))
    steps = len(lesson.samples) // size
    total = torch.zeros(())
    for step, batch in enumerate(batches(lesson.samples, size, recipe.seed, epoch, recipe.mirror)):
        rate = learning_rate_at((epoch * steps + step) / (recipe.epochs * steps), recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = lesson.loss(network, batch)
        if not losses.finite(loss):
            raise TrainingDiverged(epoch, step, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
        total += loss.detach()
    return float(total) / steps


def learning_rate_at(progress: float, recipe: Recipe) -> float:
    """Give the learning rate at a share of the whole training, from 0 to 1: linear warm-up, then a cosine to 0."""
    if progress < recipe.warmup_share:
        return recipe.learning_rate * (progress / recipe.warmup_share + 1e-2) / (1 + 1e-2)
    left = (progress - recipe.warmup_share) / (1 - recipe.warmup_share)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * left))


@torch.no_grad()
def accuracy(network: Module, samples: Samples, batch_size: int = 500) -> float:
    """Give the share of samples classified right, from 0 to 1."""
    return float((predict(network, samples.images, batch_size).argmax(1) == samples.labels).double().mean())


@torch.no_grad()
def predict(network: Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Give logits (N, classes) in eval mode; the module is left in the mode it was in."""
    was_training = network.training
    network.eval()
    try:
        return torch.cat([network(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
    finally:
        network.train(was_training)


def new_network(network_type: Callable[[], Network], seed: int) -> Network:
    """Make a network whose initial weights are a function of the seed; torch's global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network_type()
