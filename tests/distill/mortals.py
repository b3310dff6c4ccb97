"""Students that die in a chosen step, for trainings that are to go on; a lesson that any process can make."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.distill.lesson import Lesson
from edgekd.distill.methods import bindable_method_named
from edgekd.distill.recipe import Recipe, sgd_recipe
from edgekd.distill.train import Machine
from edgekd.distill.views import Samples

EVERY_STEP = Machine(save_every_s=0.0)


def tiny_network(seed: int = 1) -> nn.Module:
    """Make a student of two resolutions for grey 8x8 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip


def state(network: nn.Module) -> dict[str, Tensor]:
    """Copy a network's weights and statistics."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Compare bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    """Stands for the end of the process."""


class Mortal(nn.Module):
    """A student that dies in one of its steps, counted from 0."""

    def __init__(self, network: nn.Module, step: int) -> None:
        super().__init__()
        self.network, self.left = network, step

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.left -= 1
            if self.left < 0:
                raise Killed
        logits: Tensor = self.network(images)
        return logits


LONG = sgd_recipe(epochs=12, batch_size=8, learning_rate=0.02, seed=3)


def lesson_for_child() -> tuple[Lesson, Recipe, nn.Module]:
    """Make a lesson without files, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    samples = Samples(torch.randn(400, 1, 8, 8, generator=generator), torch.arange(400) % 3)
    return Lesson(samples, bindable_method_named("none")), LONG, tiny_network()
