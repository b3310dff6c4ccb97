"""A user's own network where it draws, and where it behaves otherwise in train mode."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data.dataset import DataSet, Split
from edgekd.distill.own_student import own_student, unlike
from edgekd.errors import DataError

pytestmark = pytest.mark.whole  # loads torch

OWN = """
import random

import numpy as np
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))

def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))

def by_other_generators():
    network = plain()
    with torch.no_grad():
        network[2].bias[0] = random.random()
        network[2].bias[1] = np.random.rand()
    return network

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.aside = plain(), plain()

    def forward(self, images):
        return (self.body(images), self.aside(images)) if self.training else self.body(images)

class Uncopied(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = plain()

    def forward(self, images):
        return self.body(images)

    def __deepcopy__(self, memo):
        raise RuntimeError("not to be copied")

SIGN = 1.0

class Signed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = plain()

    def forward(self, images):
        return SIGN * self.body(images)

heads, uncopied, signed = Heads, Uncopied, Signed
"""


@pytest.fixture
def data() -> DataSet:
    """A few images of noise in three classes."""
    split = Split(np.random.default_rng(2).integers(0, 255, (12, 8, 8, 1), dtype=np.uint8), np.arange(12) % 3)
    return DataSet("noise", "d" * 64, 3, (0.5,), (0.3,), split, split, split)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of a user's, in the folder where they work."""
    (tmp_path / "drawing_students.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("drawing_students", None)


@pytest.mark.parametrize("name", ["lazy", "by_other_generators"])
def test_whatever_draws_the_first_weights_draws_by_the_seed(data: DataSet, name: str) -> None:
    """Layers that are filled by the first images, and those who ask numpy or Python; no generator is left moved."""
    found = []
    for seed, elsewhere in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(elsewhere)
        random.seed(elsewhere)
        np.random.seed(elsewhere)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # of the first generator
        found.append(own_student(f"drawing_students:{name}", data, seed).identity)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # type: ignore[index]  # as above
    assert found[0] == found[1] != found[2]


def test_a_network_that_gives_several_answers_in_train_mode_is_refused(data: DataSet) -> None:
    """Before a folder is claimed, with the mode in which it does so."""
    with pytest.raises(DataError, match="heads in train mode: it gives tuple; return logits"):
        own_student("drawing_students:heads", data, 0)


def test_looking_in_train_mode_leaves_no_trace(data: DataSet) -> None:
    """Norms have seen nothing; what cannot be copied is looked at in eval mode alone."""
    for name in ("plain", "uncopied"):
        module = own_student(f"drawing_students:{name}", data, 0).module
        assert all(part.training for part in module.modules())
        assert not any(int(value) for key, value in module.state_dict().items() if key.endswith("num_batches_tracked"))


def test_two_networks_of_one_function_are_explained() -> None:
    """Two functions, or one network, are not."""
    assert "the function gives another network each time" in unlike("m:f#1", "m:f#2")
    assert unlike("m:f#1", "m:f#1") == unlike("m:f#1", "m:g#2") == unlike("tiny-28:a", "tiny-28:b") == ""


def test_a_changed_forward_makes_another_student(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts and weights are the same, the answers are not; a training of the one never counts as the other's."""
    before = own_student("drawing_students:signed", data, 1).identity
    assert own_student("drawing_students:signed", data, 1).identity == before
    monkeypatch.setattr(sys.modules["drawing_students"], "SIGN", -3.0)
    now = own_student("drawing_students:signed", data, 1).identity
    assert now != before
    assert "was changed" in unlike(before, now)
