"""The final training of a run: with the teacher's logits, or without a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.config import settings_from
from edgekd.data.dataset import DataSet, Split
from edgekd.distill.student import StudentPlan, load_student, train_student
from edgekd.distill.train import EpochResult
from edgekd.errors import UsageError
from edgekd.spaces.mnasnet import space_named

pytestmark = pytest.mark.slow  # real trainings


@pytest.fixture
def data() -> DataSet:
    """Forty noisy images of ten classes, of the tiny space's shape."""
    rng = np.random.default_rng(2)
    split = Split(rng.integers(0, 255, (40, 28, 28, 1), dtype=np.uint8), np.arange(40) % 10)
    return DataSet("noise", "d" * 64, 10, (0.5,), (0.3,), split, split, split)


def plan(folder: Path, content: dict[str, Any]) -> StudentPlan:
    """Plan two short epochs of the reference network."""
    distil = {"epochs": 2, "batch_size": 16, "threads": 1, **content.pop("distil", {})}
    settings = settings_from({"space": "tiny-28", "distil": distil, **content}, "here")
    arch = space_named("tiny-28").reference()
    return StudentPlan(settings, arch, folder / "student.safetensors", "d" * 64, "")


def test_without_a_teacher_the_student_learns_from_labels(data: DataSet, tmp_path: Path) -> None:
    """Every epoch is told, and the finished student can be loaded."""
    told: list[EpochResult] = []
    alone = plan(tmp_path, {"teacher": "none"})
    trained = train_student(alone, data, None, told.append)
    assert [result.epoch for result in told] == [1, 2]
    loaded = load_student(alone).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in trained.state_dict().items())


def test_a_method_that_needs_a_teacher_is_refused_without_one(data: DataSet, tmp_path: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(UsageError, match="'dist' needs a teacher"):
        train_student(plan(tmp_path, {"distil": {"method": "dist"}}), data, None, lambda result: None)
    assert list(tmp_path.iterdir()) == []


def test_the_teacher_s_logits_are_used(data: DataSet, tmp_path: Path) -> None:
    """Another teacher makes another student; the same one the same."""
    weights = []
    for number, scale in enumerate((1.0, 1.0, -1.0)):
        folder = tmp_path / str(number)
        folder.mkdir()
        logits = np.random.default_rng(7).normal(size=(40, 2, 10)).astype(np.float32) * np.float32(scale)
        np.save(folder / "logits.npy", logits)
        trained = train_student(plan(folder, {}), data, folder / "logits.npy", lambda result: None)
        weights.append(torch.cat([p.detach().flatten() for p in trained.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
