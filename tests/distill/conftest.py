"""A network, images and a teacher that train in moments, and a guard that gives torch its thread count back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgekd.data.dataset import DataSet
from edgekd.data.loading import load_data
from edgekd.teachers import CifarResNet, Teacher, load


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    """Give every test one thread, and torch its own count back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_data(tmp_path: Path) -> DataSet:
    """Three classes of 8x8 grey images: 31 to train (no multiple of any batch here), 6 and 6 others."""
    rng = np.random.default_rng(5)
    arrays: dict[str, Any] = {}
    for name, count in (("train", 31), ("validation", 6), ("test", 6)):
        labels = np.arange(count) % 3
        arrays[f"{name}_images"] = (rng.integers(0, 60, (count, 8, 8)) + 60 * labels[:, None, None]).astype(np.uint8)
        arrays[f"{name}_labels"] = labels
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays)
    return load_data(str(path))


@pytest.fixture
def tiny_teacher(tiny_data: DataSet, tmp_path: Path) -> Teacher:
    """An untrained resnet8 for the tiny data, loaded as every teacher is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = CifarResNet("resnet8", 1, tiny_data.classes)
    record = {"architecture": "resnet8", "classes": "3", "in_channels": "1", "input_shape": "[8, 8, 1]"}
    path = tmp_path / "teacher.safetensors"
    save_file(network.state_dict(), path, record)
    return load(str(path), tiny_data)
