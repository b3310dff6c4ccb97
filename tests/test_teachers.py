"""Teachers: frozen, as good as their record says, and refused where they do not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgekd import teachers
from edgekd.data import dataset
from edgekd.data.dataset import DataSet
from edgekd.distill.train import accuracy
from edgekd.distill.views import samples_of
from edgekd.errors import DataError, UnknownName
from edgekd.files import sha256_of

RECORD = {"architecture": "resnet8", "classes": "10", "in_channels": "1", "input_shape": "[28, 28, 1]"}


@pytest.fixture(scope="module")
def data() -> DataSet:
    """The embedded images."""
    return dataset.load("embedded")


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    """Use both cores here, and give torch its own count back."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Weights of an untrained resnet8."""
    return teachers.CifarResNet("resnet8", 1, 10).state_dict()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its teacher."""
    return tmp_path / "teacher.safetensors"


@pytest.mark.slow
def test_the_embedded_teachers_record_is_true(data: DataSet) -> None:
    """Its accuracies on both splits are those it was recorded with, and it is worth learning from: 0.88 or more."""
    teacher = teachers.load("embedded", data)
    test_accuracy = accuracy(teacher.module, samples_of(data, data.test))
    assert test_accuracy >= 0.88
    assert test_accuracy == pytest.approx(float(teacher.record["test_accuracy"]), abs=3e-4)
    validation_accuracy = accuracy(teacher.module, samples_of(data, data.validation))
    assert validation_accuracy == pytest.approx(float(teacher.record["validation_accuracy"]), abs=3e-4)


def test_a_teacher_is_frozen_and_in_eval_mode(data: DataSet) -> None:
    """No parameter asks for a gradient, no norm updates its statistics, and its answers carry no graph."""
    teacher = teachers.load("embedded", data)
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()}
    assert not any(module.training for module in teacher.module.modules())
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    logits = teacher.module(samples_of(data, data.test).images[:8])
    assert logits.shape == (8, 10)
    assert not logits.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.module.state_dict().items())


def test_a_teacher_says_what_it_was_trained_on_and_how(data: DataSet) -> None:
    """The record names the embedded data by hash, and the file is named by its own."""
    teacher = teachers.load("embedded", data)
    assert teacher.record["data_sha256"] == data.sha256
    assert teacher.sha256 == sha256_of(teachers.EMBEDDED)
    assert '"epochs"' in teacher.record["recipe"]


def test_a_file_of_ones_own_is_loaded_by_its_path(path: Path, data: DataSet, weights: dict[str, Tensor]) -> None:
    """Any safetensors file of a known architecture will do."""
    save_file(weights, path, RECORD)
    assert teachers.load(str(path), data).name == str(path)


@pytest.mark.parametrize(("name", "depth"), [("resnet8", 8), ("resnet14", 14), ("resnet20", 20), ("resnet56", 56)])
def test_architectures_have_the_depth_of_their_name(name: str, depth: int) -> None:
    """Layers with weights are counted as the paper does: convolutions and the classifier."""
    network = teachers.CifarResNet(name, 1, 10)
    assert sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in network.modules()) == depth
    assert network.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "9"}, "knows 9 classes, the data embedded has 10"),
        ({"classes": "999999999999"}, "knows 999999999999 classes"),
        ({"classes": "²"}, "metadata"),
        ({"classes": "ten"}, "metadata"),
        ({"classes": ""}, "metadata"),
        ({"in_channels": "3"}, "takes images"),
        ({"in_channels": "999999999999"}, "takes images"),
        ({"input_shape": "[32, 32, 3]"}, r"takes images \[32, 32, 3\], the data embedded has \[28, 28, 1\]"),
        ({"input_shape": "28x28"}, "takes images 28x28"),
        ({"architecture": "resnet14"}, "do not fit resnet14"),
    ],
)
def test_a_teacher_for_something_else_is_refused(
    path: Path, data: DataSet, weights: dict[str, Tensor], change: dict[str, str], message: str
) -> None:
    """Other classes, other images, or weights of another architecture; absurd sizes ask for no memory."""
    save_file(weights, path, RECORD | change)
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(str(path), data)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_suggests_the_nearest(path: Path, data: DataSet, weights: dict[str, Tensor]) -> None:
    """The message lists what is known."""
    save_file(weights, path, RECORD | {"architecture": "resnet18"})
    with pytest.raises(UnknownName, match=r"resnet18.*did you mean 'resnet.*resnet56"):
        teachers.load(str(path), data)


@pytest.mark.parametrize("missing", sorted(RECORD))
def test_an_incomplete_record_is_refused(path: Path, data: DataSet, weights: dict[str, Tensor], missing: str) -> None:
    """The message names what the metadata lacks."""
    save_file(weights, path, {name: value for name, value in RECORD.items() if name != missing})
    with pytest.raises(DataError, match=f"does not name {missing}"):
        teachers.load(str(path), data)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(
    path: Path, data: DataSet, weights: dict[str, Tensor], value: float
) -> None:
    """One such weight would spoil every lesson."""
    spoilt = {name: tensor.clone() for name, tensor in weights.items()}
    spoilt["linear.weight"][3, 3] = value
    save_file(spoilt, path, RECORD)
    with pytest.raises(DataError, match="not finite"):
        teachers.load(str(path), data)


def test_missing_or_additional_weights_are_refused(path: Path, data: DataSet, weights: dict[str, Tensor]) -> None:
    """All of the architecture's weights and nothing else."""
    for tensors in (
        {name: tensor for name, tensor in weights.items() if name != "linear.bias"},
        weights | {"extra": torch.zeros(1)},
        weights | {"linear.bias": torch.zeros(9)},
    ):
        save_file(tensors, path, RECORD)
        with pytest.raises(DataError, match="do not fit resnet8"):
            teachers.load(str(path), data)


def test_a_damaged_or_missing_file_is_refused(path: Path, data: DataSet) -> None:
    """Missing, a folder, empty, cut off anywhere, another format, or a spoilt header."""
    content = teachers.EMBEDDED.read_bytes()
    with pytest.raises(DataError, match="no such file; give `embedded` or a safetensors file"):
        teachers.load(str(path), data)
    for damaged in (b"", content[:4], content[:100], content[: len(content) // 2], content[:-1], b"PK" + content[2:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a readable safetensors file"):
            teachers.load(str(path), data)
    with pytest.raises(DataError, match="not a readable safetensors file"):
        teachers.load(str(path.parent), data)


def test_the_embedded_teacher_is_what_load_file_reads() -> None:
    """The shipped file holds float32 weights and integer counters, and nothing else."""
    assert {str(tensor.dtype) for tensor in load_file(teachers.EMBEDDED).values()} == {"torch.float32", "torch.int64"}
