"""The embedded images, one thread, and the weights and record of an untrained teacher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgekd import teachers
from edgekd.data.dataset import DataSet
from edgekd.data.loading import load_data

RECORD = {"architecture": "resnet8", "classes": "10", "in_channels": "1", "input_shape": "[28, 28, 1]"}


@pytest.fixture(scope="session")
def data() -> DataSet:
    """The embedded images."""
    return load_data("embedded")


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    """Use both cores here, and give torch its own count back."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def record() -> dict[str, str]:
    """The metadata of an untrained resnet8 for the embedded images."""
    return dict(RECORD)


@pytest.fixture(scope="session")
def weights() -> dict[str, Tensor]:
    """Weights of an untrained resnet8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return teachers.CifarResNet("resnet8", 1, 10).state_dict()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its teacher."""
    return tmp_path / "teacher.safetensors"
