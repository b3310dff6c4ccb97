"""The final training of a chosen architecture, and loading what it left.

The loop is train.py's; this file binds it to a run's settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from edgekd.config import Settings
from edgekd.data.dataset import DataSet
from edgekd.distill import checkpoint
from edgekd.distill.lesson import Lesson
from edgekd.distill.loader import source_of
from edgekd.distill.logit_cache import read_logits
from edgekd.distill.methods import method_named
from edgekd.distill.recipe import Recipe, sgd_recipe
from edgekd.distill.train import EpochResult, new_network, see_teacher, train
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network


@dataclass(frozen=True, slots=True)
class StudentPlan:
    """Which student is trained under which settings, and where its checkpoint lies."""

    settings: Settings
    arch: Arch
    checkpoint_path: Path
    data_sha256: str
    teacher_sha256: str

    @property
    def recipe(self) -> Recipe:
        """Give the recipe, which names everything that the weights depend on."""
        distil = self.settings.distil
        about = f"{self.arch} {distil.method} data {self.data_sha256} teacher {self.teacher_sha256}"
        return sgd_recipe(distil.epochs, distil.batch_size, distil.learning_rate, seed=self.settings.seed, about=about)


def train_student(
    plan: StudentPlan, data: DataSet, logits_path: Path | None, on_epoch: Callable[[EpochResult], None]
) -> Network:
    """Train, or go on training, the student; without logits there is no teacher.

    Raises:
        TrainingDiverged: the loss is not finite.
        DataError: the checkpoint is damaged or of another training.
        UsageError: the method needs a teacher and there is none.

    """
    distil = plan.settings.distil
    torch.set_num_threads(distil.threads)
    network = _fresh(plan)
    method = method_named(distil.method)
    see_teacher(distil.method, method, logits_path)
    lesson = Lesson(source_of(data, data.train), method, read_logits(logits_path) if logits_path else None)
    train(network, lesson, plan.recipe, plan.checkpoint_path, on_epoch)
    return network


def load_student(plan: StudentPlan) -> Network:
    """Load a trained student in eval mode.

    Raises:
        DataError: there is no checkpoint, or it is damaged, unfinished or of another architecture.

    """
    network = _fresh(plan)
    checkpoint.load_weights(plan.checkpoint_path, network, plan.recipe)
    return network.eval()


def _fresh(plan: StudentPlan) -> Network:
    graph = graph_of(space_named(plan.settings.space), plan.arch)
    return new_network(lambda: Network(graph), plan.settings.seed)
