"""The embedded images, untrained teachers' weights and record, and a small network with its files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from made_onnx import Write
from synthetic import random_network
from torch import Tensor

from edgekd import teachers
from edgekd.data.dataset import DataSet, Split
from edgekd.data.loading import load_data
from edgekd.distill.views import samples_of
from edgekd.export.quantize import calibrate_ranges
from edgekd.graph.ir import int8_graph
from edgekd.graph.tflite_writer import write_tflite
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network, folded_parameters

SPACE = space_named("tiny-28")

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


@pytest.fixture(scope="session")
def network() -> Network:
    """A network for the embedded images, with random weights."""
    return random_network(graph_of(SPACE, SPACE.reference()), seed=4).eval()


@pytest.fixture(scope="session")
def images(data: DataSet) -> Tensor:
    """A few images as a network sees them."""
    return samples_of(data, data.test).images[:6]


@pytest.fixture(scope="session")
def few(data: DataSet) -> DataSet:
    """The data with few training images."""
    return dataclasses.replace(data, train=Split(data.train.images[:20], data.train.labels[:20]))


@pytest.fixture(scope="session")
def tflite(network: Network) -> bytes:
    """The network's float file."""
    return write_tflite(network.graph, folded_parameters(network))


@pytest.fixture(scope="session")
def int8(network: Network, tflite: bytes, data: DataSet) -> bytes:
    """The network's quantised file."""
    ranges = calibrate_ranges(tflite, network.graph, data.preprocess(data.train.images[:50]))
    return write_tflite(int8_graph(network.graph), folded_parameters(network), ranges)


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Write a file; give its path."""

    def write(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module of the user's own into the current folder; give its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> str:
        name = f"own_{hashlib.sha256(f'{tmp_path} {text}'.encode()).hexdigest()[:16]}"  # no other test's
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    return write
