"""Teachers of timm and torchvision, here by stand-ins with those libraries' documented interfaces."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgekd import teachers
from edgekd.data.dataset import DataSet, Split
from edgekd.distill.views import samples_of
from edgekd.errors import DataError, EdgekdError, MissingExtra, UnknownName

pytestmark = pytest.mark.whole  # loads torch

SHAPE, CLASSES = (12, 10, 3), 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def colour() -> DataSet:
    """Coloured images of four classes."""
    rng = np.random.default_rng(3)
    split = Split(rng.integers(0, 256, (16, *SHAPE), np.uint8), np.arange(16) % CLASSES)
    return DataSet.of("colour", "colour", "1" * 64, {"train": split, "validation": split, "test": split})


@pytest.fixture
def images(colour: DataSet) -> Tensor:
    """The images as a network sees them."""
    return samples_of(colour, colour.test).images


class Net(nn.Module):
    """A small network that keeps what it saw; `fixed` is the only size that it takes."""

    def __init__(self, classes: int, channels: int = 3, fixed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 5, 3)
        self.fc = nn.Linear(5, classes)
        self.fixed = fixed
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed and x.shape[2:] != (self.fixed, self.fixed):
            raise AssertionError(f"Wrong image size {tuple(x.shape)}")
        self.seen.append(x)
        return self.fc(self.conv(x).mean((2, 3)))


def trained(classes: int, fixed: int = 0) -> Net:
    """Give the weights that the library's authors have trained."""
    net = Net(classes, fixed=fixed)
    with torch.no_grad():
        net.fc.bias.fill_(7.0)
    return net


# --- stand-ins --------------------------------------------------------------------------------------------------------

TIMM = {"smallnet": (CLASSES, 0), "bignet": (1000, 0), "former_16": (CLASSES, 16), "norweights": (CLASSES, 0)}


def timm_config(name: str) -> SimpleNamespace:
    """Give what timm knows of a network's pretrained weights."""
    if name.partition(".")[2] not in ("", "a1_in4"):
        raise RuntimeError(f"Invalid pretrained tag ({name.partition('.')[2]}) for {name.partition('.')[0]}.")
    classes, fixed = TIMM[name.partition(".")[0]]
    size = fixed or 24
    return SimpleNamespace(
        tag="a1_in4", num_classes=classes, input_size=(3, size, size), fixed_input_size=bool(fixed), mean=MEAN, std=STD
    )


def timm_model(name: str, pretrained: bool = False, num_classes: int | None = None, in_chans: int = 3) -> Net:
    """Make a network as timm.create_model does."""
    classes, fixed = TIMM[name.partition(".")[0]]
    if pretrained and name == "norweights":
        raise OSError("An error happened\nwhile trying to locate the file on the Hub")
    return trained(classes, fixed) if pretrained else Net(num_classes or classes, in_chans, fixed)


@pytest.fixture(autouse=True)
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stand in for timm."""
    module: Any = ModuleType("timm")
    module.__version__ = "1.2.3"
    module.is_model = lambda name: name.partition(".")[0] in TIMM
    module.list_models = lambda: list(TIMM)
    module.list_pretrained = lambda pattern: [f"{pattern.removesuffix('.*')}.a1_in4"]
    module.get_pretrained_cfg = timm_config
    module.create_model = timm_model
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


class Weights(enum.Enum):
    """The weights of a torchvision network."""

    V1 = "V1"
    V2 = "V2"
    DEFAULT = V2

    @property
    def meta(self) -> dict[str, Any]:
        return {"categories": [*"abcd"], "min_size": (1, 1)}

    def transforms(self) -> Any:
        return SimpleNamespace(crop_size=[24], mean=list(MEAN), std=list(STD))

    def get_state_dict(self, *, progress: bool, check_hash: bool, weights_only: bool) -> dict[str, Tensor]:
        assert check_hash
        assert weights_only  # torch's restricted reader
        if self is Weights.V1:
            raise OSError("<urlopen error>")
        return trained(CLASSES).state_dict()


class ThousandWeights(enum.Enum):
    """Weights of a thousand classes, for a network that takes no images below 16 pixels."""

    DEFAULT = "DEFAULT"

    @property
    def meta(self) -> dict[str, Any]:
        return {"categories": ["?"] * 1000, "min_size": (16, 16)}

    def transforms(self) -> Any:
        return SimpleNamespace(crop_size=[24], mean=list(MEAN), std=list(STD))


TORCHVISION: dict[str, type[enum.Enum]] = {"smallnet": Weights, "largenet": ThousandWeights}


def torchvision_model(name: str, weights: Weights | None, num_classes: int = 1000, progress: bool = True) -> Net:
    """Make a network as torchvision.models.get_model does."""
    return trained(CLASSES) if weights is not None else Net(num_classes)


@pytest.fixture(autouse=True)
def torchvision(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stand in for torchvision."""
    package, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    module: Any = models
    module.list_models = lambda module: list(TORCHVISION)
    module.get_model_weights = TORCHVISION.__getitem__
    module.get_model = torchvision_model
    monkeypatch.setattr(package, "__version__", "0.9", raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


# --- what they teach --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["timm:smallnet", "timm:smallnet.a1_in4", "torchvision:smallnet"])
def test_pretrained_weights_see_what_they_were_trained_on(colour: DataSet, images: Tensor, source: str) -> None:
    """Frozen, in the library's size and normalisation, and the record says whose weights they are."""
    teacher = teachers.load(source, colour)
    assert teacher.gives == teachers.EVERYTHING
    assert not any(module.training for module in teacher.module.modules())
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    logits = teacher.module(images)
    assert not logits.requires_grad
    assert torch.equal(teacher.module.get_parameter("fc.bias"), torch.full((CLASSES,), 7.0))
    white = (1 - torch.tensor(colour.mean)) / torch.tensor(colour.std)
    teacher.module(white.view(1, 3, 1, 1).expand(2, 3, *SHAPE[:2]))
    seen = teacher.module.seen[-1]
    assert seen.shape == (2, 3, 24, 24)
    expected = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(seen.mean((0, 2, 3)), expected, rtol=1e-4, atol=1e-4)
    assert teacher.record["library"] in ("timm 1.2.3", "torchvision 0.9")
    assert teacher.record["weights"] in ("timm's a1_in4", "torchvision's V2")
    assert json.loads(teacher.record["input_size"]) == [24, 24]


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_random_weights_are_the_same_every_time(colour: DataSet, images: Tensor, library: str) -> None:
    """For the data's classes and in its own pixels, and the record says that they are random."""
    first = teachers.load(f"{library}:smallnet@random", colour)
    torch.rand(3)  # whatever torch's own generator has given meanwhile
    second = teachers.load(f"{library}:smallnet@random", colour)
    assert first.sha256 == second.sha256
    assert first.record["weights"] == "random"
    first.module(images)
    assert torch.equal(first.module.seen[-1], images)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_weights_of_ones_own_come_from_a_file(colour: DataSet, tmp_path: Path, library: str) -> None:
    """Seen as the library's own; where the file lies does not count, what is in it does."""
    net = Net(CLASSES)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file(net.state_dict(), first)
    save_file(net.state_dict(), second)
    a, b = (teachers.load(f"{library}:smallnet@{path}", colour) for path in (first, second))
    assert torch.equal(a.module.get_parameter("fc.weight"), net.fc.weight)
    assert a.sha256 == b.sha256
    assert a.record["weights"] == str(first)
    assert a.record["mean"] == json.dumps(list(MEAN))
    assert teachers.load(f"{library}:smallnet@{first},size=16", colour).sha256 != a.sha256
    assert len({a.sha256, *(teachers.load(f"{library}:smallnet{w}", colour).sha256 for w in ("", "@random"))}) == 3


def test_a_network_of_one_size_sees_that_size(colour: DataSet, images: Tensor) -> None:
    """Images are resized for a transformer even where its weights are random; another size is refused."""
    teacher = teachers.load("timm:former_16@random", colour)
    assert teacher.module(images).shape == (16, CLASSES)
    assert teacher.record["input_size"] == "[16, 16]"
    with pytest.raises(DataError, match=r"timm:former_16@random: it fails on images .*Wrong image size"):
        teachers.load("timm:former_16@random,size=20", colour)


def test_images_too_small_for_a_network_are_made_larger(colour: DataSet) -> None:
    """As far as torchvision says that it needs."""
    assert teachers.load("torchvision:largenet@random", colour).record["input_size"] == "[16, 16]"


def test_grey_images_are_for_networks_of_one_channel(data: DataSet, tmp_path: Path) -> None:
    """Timm makes them; what is trained on colours is refused, and torchvision has no others."""
    assert teachers.load("timm:smallnet@random", data).record["classes"] == "10"
    path = tmp_path / "grey.safetensors"
    save_file(Net(10, 1).state_dict(), path)
    teacher = teachers.load(f"timm:smallnet@{path}", data)
    assert "mean" not in teacher.record  # three numbers say nothing of one channel
    assert teacher.record["input_size"] == "[24, 24]"
    with pytest.raises(DataError, match="torchvision:smallnet: it takes images of 3 channels, the data embedded has 1"):
        teachers.load("torchvision:smallnet@random", data)


def test_pretrained_networks_refuse_grey_images(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is downloaded."""
    monkeypatch.setitem(TIMM, "smallnet", (10, 0))
    with pytest.raises(DataError, match="timm:smallnet: it takes images of 3 channels, the data embedded has 1"):
        teachers.load("timm:smallnet", data)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:bignet", "it knows 1000 classes, the data colour has 4; train it on this data, and give .*@FILE"),
        ("torchvision:largenet", "it knows 1000 classes, the data colour has 4; train it on this data"),
        ("timm:norweights", r"its weights cannot be had \(OSError: An error happened while .*; give @FILE.*or @random"),
        ("torchvision:smallnet@V1", r"its weights cannot be had \(OSError: <urlopen error>\)"),
        ("torchvision:smallnet@V3", "it has no weights 'V3'; give a .safetensors file, or one of V1, V2, DEFAULT, ran"),
        ("timm:smallnet@", "nothing stands behind its @"),
        ("timm:smallnet@gone.safetensors", "weights gone.safetensors: no such file"),
        ("torchvision:smallnet@gone.safetensors", "weights gone.safetensors: no such file"),
    ],
)
def test_weights_that_cannot_teach_this_are_refused(colour: DataSet, source: str, message: str) -> None:
    """In one line that names the teacher, what is wrong and what to do; nothing random takes their place."""
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(source, colour)
    assert source.partition("@")[0].partition(":")[2] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_file_of_another_network_is_refused(colour: DataSet, tmp_path: Path, library: str) -> None:
    """Other classes, names or numbers, or no safetensors file at all."""
    path = tmp_path / "other.safetensors"
    for network in (Net(CLASSES + 1), nn.Linear(5, CLASSES)):
        save_file(network.state_dict(), path)
        with pytest.raises(DataError, match=r"other\.safetensors do not fit it, made for this data's classes \("):
            teachers.load(f"{library}:smallnet@{path}", colour)
    path.write_bytes(b"PK junk")
    with pytest.raises(DataError, match=r"other\.safetensors: not a readable safetensors file"):
        teachers.load(f"{library}:smallnet@{path}", colour)
    spoilt = Net(CLASSES).state_dict()
    spoilt["conv.bias"][0] = float("inf")
    save_file(spoilt, path)
    with pytest.raises(DataError, match="not finite"):
        teachers.load(f"{library}:smallnet@{path}", colour)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_an_unknown_network_suggests_the_nearest(colour: DataSet, library: str) -> None:
    """Of thousands only those next to it."""
    with pytest.raises(UnknownName, match=rf"network of {library} \(\d are known\) 'smalnet': did you mean 'smallnet'"):
        teachers.load(f"{library}:smalnet@random", colour)


@pytest.mark.parametrize("weights", ["", "@random"])
def test_an_unknown_tag_of_timm_suggests_those_there_are(colour: DataSet, weights: str) -> None:
    """Whether its weights are wanted or not."""
    message = r"timm 'smallnet\.a1_in5': did you mean 'smallnet\.a1_in4'"
    with pytest.raises(UnknownName, match=message):
        teachers.load(f"timm:smallnet.a1_in5{weights}", colour)


def test_a_network_that_timm_says_nothing_of_is_refused(colour: DataSet, timm: Any) -> None:
    """Such as one that a program has registered without a configuration."""
    timm.get_pretrained_cfg = lambda name: None
    with pytest.raises(DataError, match="timm:smallnet: timm knows no configuration of it; make it by a function"):
        teachers.load("timm:smallnet@random", colour)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_without_the_library_the_extra_is_named(colour: DataSet, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """And how to install it."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"{library} is not installed; .*edgekd\[{library}\]"):
        teachers.load(f"{library}:smallnet", colour)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_cannot_be_imported_says_why(
    colour: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """A torchvision that was built for another torch raises anything."""
    (tmp_path / library).mkdir()
    code = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    (tmp_path / library / "__init__.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, library)
    with pytest.raises(DataError, match=rf"{library} cannot be imported \(RuntimeError: operator .*fits your torch"):
        teachers.load(f"{library}:smallnet", colour)


def test_a_network_that_a_library_cannot_make_is_refused(colour: DataSet, timm: Any) -> None:
    """Such as one that has no choice of classes; the library's own words are in the message."""

    def refuse(name: str, **options: Any) -> Net:
        raise TypeError("unexpected keyword argument 'num_classes'")

    timm.create_model = refuse
    with pytest.raises(EdgekdError, match=r"timm:smallnet: the library does not make it for this data \(TypeError: un"):
        teachers.load("timm:smallnet@random", colour)
