"""Families of teachers: each network is what its name says, takes images of any size, and can be trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import DataError, UnknownName
from edgekd.spaces.mnasnet import space_named
from edgekd.teachers import FAMILIES, CifarResNet, new_teacher
from edgekd.teachers.mobilenetv2 import CifarMobileNetV2
from edgekd.teachers.vgg import CifarVgg

pytestmark = pytest.mark.whole  # builds and runs networks

REFERENCE = str(space_named("tiny-28").reference())
DEAR = ("vgg11", "mobilenetv2-cifar", "mobilenetv2-cifar-half")  # large networks, or many layers
families = [pytest.param(name, marks=pytest.mark.whole) if name in DEAR else name for name in FAMILIES]


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """Give a network's convolutions in order."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name[-1].isdigit()])
def test_architectures_have_the_depth_of_their_name(name: str) -> None:
    """Layers with weights are counted as the papers do: convolutions and the classifier."""
    network = new_teacher(name, (8, 8, 1), 10)
    assert len(convolutions(network)) + 1 == int(name.removeprefix("resnet").removeprefix("vgg"))


@pytest.mark.parametrize("name", families)
@pytest.mark.parametrize("shape", [(8, 8, 1), (17, 9, 3), (1, 1, 1)], ids=str)
def test_every_family_takes_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    """Odd, oblong and tiny images give one row of logits each, from the same weights."""
    height, width, channels = shape
    network = new_teacher(name, shape, 7).eval()
    assert network(torch.zeros(2, channels, height, width)).shape == (2, 7)


@pytest.mark.slow  # a step of each
@pytest.mark.parametrize("name", [*FAMILIES, "tiny-28"])
def test_every_weight_of_a_family_learns(name: str) -> None:
    """A gradient reaches every parameter."""
    network = new_teacher(name, (28, 28, 1), 10)
    network(torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(2))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_plain_network_has_neither_shortcuts_nor_groups() -> None:
    """Its stages follow one another: running them by hand gives the same logits."""
    network = CifarVgg("vgg8", 3, 10).eval()
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    features = images
    for number in (1, 2, 3):
        for layer in network.get_submodule(f"stage{number}").children():
            features = layer(features)
    assert torch.equal(network.linear(features.mean((2, 3))), network(images))
    assert {conv.groups for conv in convolutions(network)} == {1}


def test_mobilenetv2_is_the_papers_network() -> None:
    """2.2 million weights for ten classes of colour images, every 3x3 behind the stem depthwise, three halvings."""
    network = CifarMobileNetV2("mobilenetv2-cifar", 3, 10)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == pytest.approx(2.24e6, rel=0.01)
    stem, *others = convolutions(network)
    assert all(conv.groups == conv.in_channels for conv in others if conv.kernel_size == (3, 3))
    assert stem.groups == 1
    assert sum(conv.stride == (2, 2) for conv in [stem, *others]) == 3
    assert sum(block.adds for block in network.modules() if hasattr(block, "adds")) == 10  # as in the paper's


def test_half_a_mobilenet_has_half_the_channels() -> None:
    """Rounded to multiples of eight."""
    whole, half = (convolutions(CifarMobileNetV2(n, 3, 10)) for n in ("mobilenetv2-cifar", "mobilenetv2-cifar-half"))
    for large, small in zip(whole, half, strict=True):
        assert small.out_channels % 8 == 0
        assert abs(small.out_channels - large.out_channels / 2) <= 24  # 6 × what rounding a block's input can make


@pytest.mark.parametrize("architecture", ["tiny-28", REFERENCE])
def test_a_spaces_network_can_teach(architecture: str) -> None:
    """By the space's name, which stands for its reference, or by its own text form."""
    assert new_teacher(architecture, (28, 28, 1), 10).eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_spaces_network_is_for_that_spaces_images_and_classes() -> None:
    """The message says what the space takes, and what was asked for."""
    with pytest.raises(DataError, match=r"takes images \[28, 28, 1\] of 10 classes, not \[32, 32, 3\] of 10"):
        new_teacher("tiny-28", (32, 32, 3), 10)
    with pytest.raises(DataError, match=r"of 10 classes, not \[28, 28, 1\] of 11"):
        new_teacher(REFERENCE, (28, 28, 1), 11)


@pytest.mark.parametrize("network", [CifarResNet, CifarVgg, CifarMobileNetV2])
def test_an_unknown_member_of_a_family_is_refused(network: type[nn.Module]) -> None:
    """The family names its members."""
    with pytest.raises(UnknownName, match="known: "):
        network("vgg7", 1, 10)


@pytest.mark.parametrize("name", [*families, "tiny-28"])
def test_features_can_be_tapped_anywhere(name: str) -> None:
    """No module changes its input in place, so what a hook saw behind any module is still what it gave."""
    network = new_teacher(name, (28, 28, 1), 10).eval()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for module in network.modules():
        module.register_forward_hook(lambda module, inputs, output: seen.append((output, output.clone())))
    with torch.no_grad():
        network(torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(5)))
    assert len(seen) >= len(convolutions(network))
    assert all(torch.equal(tapped, then) for tapped, then in seen)
