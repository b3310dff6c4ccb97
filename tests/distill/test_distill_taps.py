"""Features by module path: where stages end, what is heard there, and that nothing is left behind."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from edgekd.distill.taps import Taps, UnknownTap, UntappableModule, pairs, stage_ends
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network
from edgekd.teachers import CifarResNet

pytestmark = pytest.mark.whole  # runs networks


def images(size: int, channels: int = 1) -> Tensor:
    """Draw a batch of two."""
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def student(space: str) -> Network:
    """Make a space's reference."""
    return Network(graph_of(space_named(space), space_named(space).reference()))


def shapes(network: nn.Module, batch: Tensor) -> list[tuple[int, ...]]:
    """Give the shapes (C, H, W) at the automatic taps."""
    with Taps(network, stage_ends(network, batch)) as taps:
        network(batch)
        return [tuple(feature.shape[1:]) for feature in taps.take()]


def hooks_of(network: nn.Module) -> int:
    """Count the forward hooks of all modules."""
    return sum(len(module._forward_hooks) for module in network.modules())


class Residual(nn.Module):
    """An inverted residual: expansion, strided depthwise convolution, squeeze and excitation, projection."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.pad = nn.ZeroPad2d(1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, stride, groups=2 * width)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * width, 2 * width, 1), nn.Sigmoid())
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.pad(self.expand(x)))
        projected: Tensor = self.project(x * self.squeeze(x))
        return projected


def mobile() -> nn.Sequential:
    """Make a network of such blocks inside nested containers, as the public zoos do."""
    stages = [nn.Sequential(Residual(4, 1), Residual(4, 1)), nn.Sequential(Residual(4, 2), Residual(4, 1))]
    parts = {"stem": nn.Conv2d(1, 4, 3, padding=1), "stages": nn.Sequential(*stages)}
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(OrderedDict(body=nn.Sequential(OrderedDict(parts)), head=head))


def plain() -> nn.Sequential:
    """Make a plain network: convolutions and pooling in one row."""
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def test_a_resnets_stages_end_where_its_layers_do() -> None:
    """Each of the three resolutions is tapped at its last layer, as the teachers' papers do."""
    teacher = CifarResNet("resnet14", 1, 10)
    assert stage_ends(teacher, images(28)) == ("layer1", "layer2", "layer3")
    assert shapes(teacher, images(28)) == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        ("tiny-28", [(8, 14, 14), (8, 7, 7), (16, 4, 4)]),
        ("mnasnet-28-narrow", [(12, 14, 14), (32, 7, 7), (80, 4, 4)]),
        pytest.param(
            "mnasnet-96",
            [(16, 48, 48), (24, 24, 24), (40, 12, 12), (112, 6, 6), (1280, 3, 3)],
            marks=pytest.mark.whole,  # a large network
        ),
    ],
)
def test_a_searched_networks_stages_end_at_its_blocks(space: str, wanted: list[tuple[int, ...]]) -> None:
    """A stage is tapped at a block's end, never at the six times wider expansion of the block that shrinks it."""
    network = student(space)
    size = space_named(space).resolution
    assert shapes(network, images(size, space_named(space).in_channels)) == wanted


def test_blocks_in_nested_containers_are_found() -> None:
    """Containers are looked into, the block that shrinks is not, and neither padding nor 1x1 gates make a stage."""
    assert stage_ends(mobile(), images(8)) == ("body.stages.0", "body")


def test_a_plain_networks_stages_end_before_its_pooling() -> None:
    """Where there are no blocks, the last module of each resolution is the end."""
    assert stage_ends(plain(), images(8)) == ("1", "4")


def test_maps_of_one_pixel_count_where_there_are_no_others() -> None:
    """A network that begins by averaging still has an end; one without maps has none, and says so."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 2, 1), nn.Flatten())
    assert stage_ends(network, images(8)) == ("1",)
    with pytest.raises(UntappableModule, match="name the taps"):
        stage_ends(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), images(8))


def test_looking_for_stages_leaves_the_network_as_it_was() -> None:
    """No hook, no changed mode (a frozen norm in a training network stays frozen), no changed statistics."""
    network = CifarResNet("resnet8", 1, 3).train()
    network.bn1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    stage_ends(network, images(8))
    assert hooks_of(network) == 0
    assert not network.bn1.training
    assert network.layer1.training  # type: ignore[union-attr]  # a module by attribute
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_looking_for_stages_cleans_up_when_the_network_fails() -> None:
    """Images of a wrong width raise the network's own error, and no hook or mode stays."""
    network = CifarResNet("resnet8", 1, 3).train()
    with pytest.raises(RuntimeError, match="channels"):
        stage_ends(network, images(8, channels=2))
    assert hooks_of(network) == 0
    assert network.training


def test_taps_hear_what_modules_put_out_and_change_nothing() -> None:
    """Features come in the order asked for and carry gradients; the logits are those without taps."""
    network = CifarResNet("resnet8", 1, 3).eval()
    wanted = network(images(8))
    with Taps(network, ("layer3", "layer1.0.conv1")) as taps:
        found = network(images(8))
        deep, shallow = taps.take()
    assert torch.equal(found, wanted)
    assert torch.equal(network.linear(deep.mean((2, 3))), wanted)
    assert shallow.shape == (2, 16, 8, 8)
    assert shallow.requires_grad


def test_taps_are_taken_off_at_the_end() -> None:
    """After the block, and after an error inside it, no hook is left and nothing is held."""
    network = CifarResNet("resnet8", 1, 3)
    with Taps(network, ("layer1", "layer2")) as taps:
        assert hooks_of(network) == 2
        network(images(8))
    assert hooks_of(network) == 0
    with pytest.raises(UntappableModule, match="'layer1' did not run"):
        taps.take()
    with pytest.raises(ZeroDivisionError), Taps(network, ("layer1",)):
        1 / 0  # noqa: B018 - the error is the point
    assert hooks_of(network) == 0


def test_features_are_of_the_last_forward_pass_and_taken_once() -> None:
    """Two passes give the second's; a second take without a pass is an error, not old features."""
    network = CifarResNet("resnet8", 1, 3).eval()
    with Taps(network, ("layer1",)) as taps:
        network(images(8))
        network(2 * images(8))
        (last,) = taps.take()
        with pytest.raises(UntappableModule, match="did not run"):
            taps.take()
        network(2 * images(8))
        assert torch.equal(last, taps.take()[0])


@pytest.mark.parametrize(
    ("path", "nearest"),
    [("layer4", "layer"), ("layer1.0.cnv1", "layer1.0.conv1"), ("Linear", "linear"), ("", "conv1")],
)
def test_an_unknown_tap_gives_the_nearest(path: str, nearest: str) -> None:
    """The message holds the wrong path, how many modules there are, and the nearest three, not all."""
    with pytest.raises(
        UnknownTap, match=f"no module '{path}' to tap among the network's 21: the nearest are"
    ) as raised:
        Taps(CifarResNet("resnet8", 1, 3), (path,))
    message = str(raised.value)
    assert nearest in message.partition("nearest are")[2]
    assert message.count(",") <= 2
    assert raised.value.exit_code == 2


def test_a_module_that_gives_no_tensor_cannot_be_tapped() -> None:
    """A recurrent layer's pair, for one: the error says what came instead."""
    network = nn.Sequential(OrderedDict(rnn=nn.LSTM(4, 4)))
    with Taps(network, ("rnn",)), pytest.raises(UntappableModule, match="'rnn' gives tuple"):
        network(torch.zeros(2, 3, 4))
    with Taps(nn.Sequential(nn.Identity()), ("0",)) as taps, pytest.raises(UntappableModule, match="of 3 dimensions"):
        taps._modules[0](torch.zeros(2, 3, 4))


def test_what_is_changed_in_place_cannot_be_tapped() -> None:
    """A norm before an in-place ReLU would be heard as the ReLU; the ReLU itself is fine, and so is inference mode."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1))
    with Taps(network, ("1",)) as taps:
        network(images(8))
        with pytest.raises(UntappableModule, match="'1' gave was changed in place"):
            taps.take()
    with Taps(network, ("2",)) as taps:
        network(images(8))
        assert bool((taps.take()[0] >= 0).all())
        with torch.inference_mode():
            network(images(8))
        assert taps.take()[0].shape == (2, 2, 6, 6)


def maps(*sizes: int) -> list[Tensor]:
    """Make feature maps of these heights."""
    return [torch.zeros(2, 3, size, size) for size in sizes]


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ((32, 16, 8), (32, 16, 8), ((0, 0), (1, 1), (2, 2))),
        ((16, 8, 4), (32, 16, 8), ((0, 1), (1, 2))),
        ((14, 7, 4), (28, 14, 7), ((0, 1), (1, 2))),
        ((16, 8, 4), (112, 56, 28, 14, 7), ((0, 2), (1, 3), (2, 4))),
        ((48, 24, 12, 6), (9, 5), ((2, 0), (3, 1))),
        ((8,), (32, 16, 8), ((0, 2),)),
        ((), (8,), ()),
    ],
)
def test_stages_are_matched_by_resolution(
    ours: tuple[int, ...], theirs: tuple[int, ...], wanted: tuple[tuple[int, int], ...]
) -> None:
    """Equal resolutions go together; where hardly any are equal, the deepest with the deepest."""
    assert pairs(maps(*ours), maps(*theirs)) == wanted


def test_embeddings_are_no_stages() -> None:
    """A vector among the features is passed over, and indices still count it."""
    assert pairs([*maps(16), torch.zeros(2, 3), *maps(8)], maps(16, 8)) == ((0, 0), (2, 1))
