"""Teachers: frozen, as good as their record says, and refused where they do not fit."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgekd import teachers
from edgekd.data.dataset import DataSet, Split
from edgekd.distill.logit_cache import cache_logits
from edgekd.distill.train import accuracy
from edgekd.distill.views import samples_of
from edgekd.errors import DataError, UnknownName
from edgekd.files import sha256_of

pytestmark = pytest.mark.whole  # builds and runs networks


@pytest.mark.slow
def test_the_embedded_teachers_record_is_true(data: DataSet) -> None:
    """Its accuracies on both splits are those it was recorded with, and it is worth learning from: 0.88 or more."""
    teacher = teachers.load("embedded", data)
    test_accuracy = accuracy(teacher.module, samples_of(data, data.test))
    assert test_accuracy >= 0.88
    assert test_accuracy == pytest.approx(float(teacher.record["test_accuracy"]), abs=3e-4)
    validation_accuracy = accuracy(teacher.module, samples_of(data, data.validation))
    assert validation_accuracy == pytest.approx(float(teacher.record["validation_accuracy"]), abs=3e-4)


@pytest.mark.parametrize("architecture", ["resnet14", "vgg8", "mobilenetv2-cifar-half", "mnasnet-28-narrow"])
def test_a_teacher_is_frozen_and_in_eval_mode(path: Path, data: DataSet, architecture: str) -> None:
    """Of every family: no parameter asks for a gradient, no norm updates its statistics, no answer carries a graph."""
    network = teachers.new_teacher(architecture, (28, 28, 1), 10).train()
    save_file(network.state_dict(), path, {"architecture": architecture, "classes": "10", "input_shape": "[28, 28, 1]"})
    teacher = teachers.load(str(path), data)
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()}
    assert not any(module.training for module in teacher.module.modules())
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    logits = teacher.module(samples_of(data, data.test).images[:8])
    assert logits.shape == (8, 10)
    assert not logits.requires_grad
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.module.state_dict().items())


def test_a_teacher_answers_without_gradients(
    tmp_path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """While its logits are computed torch keeps no graph, and the teacher stays in eval mode."""
    save_file(weights, tmp_path / "teacher.safetensors", record)
    few = Split(data.train.images[:40], data.train.labels[:40])
    teacher = teachers.load(str(tmp_path / "teacher.safetensors"), data)
    seen: list[tuple[bool, bool]] = []

    def look(module: torch.nn.Module, inputs: Any) -> None:
        seen.append((torch.is_grad_enabled(), module.training))

    teacher.module.register_forward_pre_hook(look)
    cache_logits(tmp_path, teacher, dataclasses.replace(data, train=few))
    assert set(seen) == {(False, False)}


def test_a_teacher_says_what_it_was_trained_on_and_how(data: DataSet) -> None:
    """The record names the embedded data by hash, and the file is named by its own."""
    teacher = teachers.load("embedded", data)
    assert teacher.record["data_sha256"] == data.sha256
    assert teacher.sha256 == sha256_of(teachers.EMBEDDED)
    assert '"epochs"' in teacher.record["recipe"]


@pytest.mark.parametrize("prefix", ["", "file:"])
def test_a_file_of_ones_own_is_loaded_by_its_path(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str], prefix: str
) -> None:
    """Any safetensors file of a known architecture will do; `file:` before the path is allowed."""
    save_file(weights, path, record)
    teacher = teachers.load(f"{prefix}{path}", data)
    assert teacher.name == f"{prefix}{path}"
    assert teacher.sha256 == sha256_of(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "9"}, "knows 9 classes, the data embedded has 10"),
        ({"classes": "999999999999"}, "knows 999999999999 classes"),
        ({"classes": "9" * 5000}, "metadata"),
        ({"classes": "²"}, "metadata"),
        ({"classes": "ten"}, "metadata"),
        ({"classes": ""}, "metadata"),
        ({"in_channels": "3"}, "takes images"),
        ({"in_channels": "999999999999"}, "takes images"),
        ({"input_shape": "[32, 32, 3]"}, r"takes images \[32, 32, 3\], the data embedded has \[28, 28, 1\]"),
        ({"input_shape": "28x28"}, "takes images 28x28"),
        ({"architecture": "resnet14"}, "do not fit resnet14"),
        ({"architecture": "vgg8"}, "do not fit vgg8"),
        ({"architecture": "mnasnet-28-narrow"}, "do not fit mnasnet-28-narrow"),
        ({"architecture": "mnasnet-96"}, r"its space takes images \[96, 96, 3\] of 1000 classes"),
        ({"architecture": "mnasnet-28-narrow:conv_k3"}, "conv_k3"),
    ],
)
def test_a_teacher_for_something_else_is_refused(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str], change: dict[str, str], message: str
) -> None:
    """Other classes, other images, or weights of another architecture; absurd sizes ask for no memory."""
    save_file(weights, path, record | change)
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(str(path), data)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shape_may_be_spelled_without_blanks(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """Other writers of JSON leave them out."""
    save_file(weights, path, record | {"input_shape": "[28,28,1]"})
    assert teachers.load(str(path), data).sha256 == sha256_of(path)


def test_weights_of_eight_bits_are_refused(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """Torch cannot tell whether they are finite; the message says which and what to do."""
    save_file(weights | {"linear.bias": weights["linear.bias"].to(torch.float8_e4m3fn)}, path, record)
    with pytest.raises(DataError, match=r"linear\.bias is torch\.float8_e4m3fn; save it as float32"):
        teachers.load(str(path), data)


def test_a_teacher_of_larger_images_sees_them_where_that_is_asked_for(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """Images are resized for it alone; without asking it is refused, and the message says how to ask."""
    save_file(weights, path, record | {"input_shape": "[36, 40, 1]"})
    with pytest.raises(
        DataError, match=r"takes images \[36, 40, 1\], the data embedded has \[28, 28, 1\]; .*FILE,size=N"
    ):
        teachers.load(str(path), data)
    teacher = teachers.load(f"{path},size=36/40", data)
    seen: list[Any] = []
    teacher.module.get_submodule("conv1").register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    assert teacher.module(samples_of(data, data.test).images[:3]).shape == (3, 10)
    assert seen == [(3, 1, 36, 40)]
    assert teacher.sha256 != sha256_of(path)


def test_an_unknown_architecture_suggests_the_nearest(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """The message lists what is known."""
    save_file(weights, path, record | {"architecture": "resnet18"})
    with pytest.raises(UnknownName, match=r"resnet18.*did you mean 'resnet.*mobilenetv2-cifar.*resnet56.*vgg8"):
        teachers.load(str(path), data)


@pytest.mark.parametrize("missing", ["architecture", "classes", "input_shape"])
def test_an_incomplete_record_is_refused(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str], missing: str
) -> None:
    """The message names what the metadata lack, and how to say it without writing to the file."""
    save_file(weights, path, {name: value for name, value in record.items() if name != missing})
    with pytest.raises(DataError, match=rf"does not name {missing}; describe it in a TOML file \(weights, arch"):
        teachers.load(str(path), data)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str], value: float
) -> None:
    """One such weight would spoil every lesson."""
    spoilt = {name: tensor.clone() for name, tensor in weights.items()}
    spoilt["linear.weight"][3, 3] = value
    save_file(spoilt, path, record)
    with pytest.raises(DataError, match="not finite"):
        teachers.load(str(path), data)


def test_missing_or_additional_weights_are_refused(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """All of the architecture's weights and nothing else."""
    for tensors in (
        {name: tensor for name, tensor in weights.items() if name != "linear.bias"},
        weights | {"extra": torch.zeros(1)},
        weights | {"linear.bias": torch.zeros(9)},
    ):
        save_file(tensors, path, record)
        with pytest.raises(DataError, match="do not fit resnet8"):
            teachers.load(str(path), data)


def test_a_damaged_or_missing_file_is_refused(path: Path, data: DataSet) -> None:
    """Missing, a folder, empty, cut off anywhere, another format, or a spoilt header."""
    content = teachers.EMBEDDED.read_bytes()
    with pytest.raises(DataError, match="no such file; give `embedded`, a safetensors file"):
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
