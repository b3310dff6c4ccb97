"""Teachers in other runtimes' hands: what is damaged is refused, what is rounded is understood, and students learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from made_onnx import CLASSES, SIDE, Made, Write
from torch import Tensor

from edgekd import teachers
from edgekd.data.dataset import DataSet
from edgekd.distill.lesson import Lesson
from edgekd.distill.logit_cache import cache_logits, read_logits
from edgekd.distill.mentors import LiveTeacher
from edgekd.distill.methods import bindable_method_named
from edgekd.distill.recipe import sgd_recipe
from edgekd.distill.train import train
from edgekd.distill.views import samples_of
from edgekd.errors import DataError, UsageError
from edgekd.teachers.pixels import Sight
from edgekd.teachers.runtimes import Runtime, content_of, runtime_teacher

pytestmark = pytest.mark.whole  # loads torch


# every .tflite file is tried in another Python
@pytest.mark.parametrize("name", ["made.onnx", pytest.param("net.tflite", marks=pytest.mark.whole)])
def test_a_damaged_or_missing_file_is_refused(
    written: Write, tmp_path: Path, data: DataSet, tflite: bytes, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, a folder, empty, cut off, or of another kind: one line, and nothing on stdout."""
    content = tflite if name.endswith("tflite") else Made().content()
    with pytest.raises(DataError, match="it cannot be read"):
        teachers.load(str(tmp_path / name), data)
    kind = name.rpartition(".")[2]
    with pytest.raises(DataError, match="it cannot be read"):
        teachers.load(f"{kind}:{tmp_path}", data)
    misnamed = content.replace(b"MatMul", b"\xff\xfetMul")  # no text, which the runtime cannot even complain of
    misnamed = misnamed.replace(b"TFL3", b"TFL4")
    halves = content[: len(content) // 2], content[:-1]
    for damaged in (b"", b"junk", *halves, misnamed, teachers.EMBEDDED.read_bytes()):
        path = written(name, damaged)
        with pytest.raises(
            DataError, match=r"not a (readable ONNX file|file that (onnxruntime|LiteRT) runs)"
        ) as caught:
            teachers.load(path, data)
        assert path in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_file_beyond_what_the_formats_hold_is_refused(tmp_path: Path) -> None:
    """Before it is read: two gigabytes and one byte, of which none is on the disk."""
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate((1 << 31) + 1)
    with pytest.raises(DataError, match="it has 2147483649 bytes; a file has 2147483648 at most"):
        content_of(path)


class Shares:
    """An open file of a quantised softmax: all but one class are below half a step."""

    shape = (None, SIDE, SIDE, 1)
    step = 1 / 256

    def __init__(self, content: bytes) -> None:
        self.winner = int(content)

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        shares = np.zeros((len(images), CLASSES), np.float32)
        shares[:, self.winner] = 255 / 256
        return shares


def test_shares_that_were_rounded_to_nothing_are_half_a_step(data: DataSet, images: Tensor) -> None:
    """Their logarithm is a number, and the rounded sum is no obstacle."""
    teacher = runtime_teacher("shares", b"3", Runtime("made up", Shares, channels_last=True), Sight(), data)
    assert teacher.record["answers"] == "probabilities"
    logits = teacher.module(images)
    assert logits.argmax(1).tolist() == [3] * len(images)
    torch.testing.assert_close(logits.exp()[:, 0], torch.full((len(images),), 1 / 512))


class Balanced(Shares):
    """An open file whose answers sum to 1 though they are no shares."""

    step = 0.0

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        answers = np.zeros((len(images), CLASSES), np.float32)
        answers[:, :2] = 3.0, -2.0
        return answers


def test_negative_numbers_are_no_shares(data: DataSet, images: Tensor) -> None:
    """Even where they sum to 1 they are logits."""
    teacher = runtime_teacher("balanced", b"0", Runtime("made up", Balanced, channels_last=True), Sight(), data)
    assert teacher.record["answers"] == "logits"
    assert teacher.module(images)[0, :3].tolist() == [3.0, -2.0, 0.0]


# --- use --------------------------------------------------------------------------------------------------------------


def test_its_logits_can_be_cached(written: Write, tflite: bytes, few: DataSet, tmp_path: Path) -> None:
    """Under a name of its own: another file's are others."""
    teacher = teachers.load(written("net.tflite", tflite), few)
    path = cache_logits(tmp_path, teacher, few)
    rows = torch.arange(20)
    logits = read_logits(path).at(rows, torch.zeros_like(rows))
    torch.testing.assert_close(logits, teacher.module(samples_of(few, few.train).images), rtol=1e-5, atol=1e-5)
    other = teachers.load(written("made.onnx", Made().content()), few)
    assert cache_logits(tmp_path, other, few) != path


def test_methods_of_logits_learn_from_it_and_others_refuse(written: Write, tflite: bytes, few: DataSet) -> None:
    """An epoch of dist changes the student; a method that compares features names what it misses."""
    teacher = teachers.load(written("net.tflite", tflite), few)
    recipe = sgd_recipe(1, batch_size=10, learning_rate=0.1)
    student = teachers.CifarResNet("resnet8", 1, CLASSES)
    before = student.linear.weight.clone()
    samples = samples_of(few, few.train)
    with pytest.raises(UsageError, match=r"compares features, and teacher .*net\.tflite gives logits alone"):
        train(student, Lesson(samples, bindable_method_named("at"), LiveTeacher.of(teacher)), recipe)
    assert torch.equal(student.linear.weight, before)
    train(student, Lesson(samples, bindable_method_named("dist"), LiveTeacher.of(teacher)), recipe)
    assert not torch.equal(student.linear.weight, before)
