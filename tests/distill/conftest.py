"""Images and a teacher that train in moments, on one thread."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from synthetic import brighter, write_grey

from edgekd.data.dataset import DataSet
from edgekd.data.loading import load_data
from edgekd.teachers import CifarResNet, Teacher, load


@pytest.fixture(autouse=True)
def alone(one_thread: None) -> None:
    """Give every test one thread."""


@pytest.fixture
def tiny_data(tmp_path: Path) -> DataSet:
    """Three classes of 8x8 grey images: 31 to train (no multiple of any batch here), 6 and 6 others."""
    return load_data(str(write_grey(tmp_path / "tiny.npz", (31, 6, 6), 8, brighter)))


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
