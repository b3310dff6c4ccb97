"""tools/train_teacher.py: what it writes is a teacher of the data that it was trained on, the same every time."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from synthetic import striped, write_grey

from edgekd import teachers
from edgekd.data.loading import load_data
from edgekd.distill.train import accuracy
from edgekd.distill.views import samples_of

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("train_teacher")


pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("threads_restored")]  # loads torch


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """Ten classes of grey images, told apart by their stripes."""
    return write_grey(tmp_path / "stripes.npz", (260, 30, 30), 28, striped, classes=10, seed=7)


def train(data_path: Path, target: Path, architecture: str, *more: str) -> int:
    """Run the tool on one thread."""
    options = ["--data", str(data_path), "--architecture", architecture, "--threads", "1", "--target", str(target)]
    return int(tool.main([*options, *more]))


@pytest.mark.slow  # real trainings
@pytest.mark.parametrize("architecture", ["resnet8", "tiny-28"])
def test_what_is_written_is_a_teacher_with_a_true_record(data_path: Path, tmp_path: Path, architecture: str) -> None:
    """A family's or a space's: it loads, its accuracy is the recorded one, and it sees its own pixels."""
    target = tmp_path / "teacher.safetensors"
    assert train(data_path, target, architecture, "--epochs", "2") == 0
    data = load_data(str(data_path))
    teacher = teachers.load(str(target), data)
    assert teacher.record["data_sha256"] == data.sha256
    found = accuracy(teacher.module, samples_of(data, data.test))
    assert found == pytest.approx(float(teacher.record["test_accuracy"]), abs=1e-4)
    assert not teacher.module._forward_pre_hooks  # trained on this data's normalisation


@pytest.mark.slow  # three real trainings
def test_the_same_options_give_the_same_weights(data_path: Path, tmp_path: Path) -> None:
    """Bit for bit; another seed gives others."""
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, seed in zip(files, ("1", "1", "2"), strict=True):
        assert train(data_path, path, "resnet8", "--epochs", "1", "--seed", seed) == 0
    first, second, other = map(load_file, files)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["linear.weight"], other["linear.weight"])


def test_an_unknown_architecture_is_one_line(
    data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written."""
    target = tmp_path / "teacher.safetensors"
    assert train(data_path, target, "vgg9") == 2
    said = capsys.readouterr()
    assert "unknown teacher architecture 'vgg9': did you mean 'vgg8'" in said.out + said.err
    assert not target.exists()
