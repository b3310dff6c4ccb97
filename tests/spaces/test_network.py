"""Torch modules: shapes, names that hooks can find, and folding that changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import NARROW, random_archs, random_network
from torch import nn

from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.network import Network, folded_network, folded_parameters
from edgekd.spaces.space import Space

pytestmark = pytest.mark.usefixtures("one_thread")

EVERYTHING = Arch.parse(f"{NARROW.name}:" + "/".join(["mb3_k5_se0.25_pool_l2_f1"] * 7))
ARCHS = [NARROW.reference(), EVERYTHING, *random_archs(NARROW, 3, seed=31)]

some_archs = pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.arch_id)


def images_for(space: Space, count: int = 3) -> torch.Tensor:
    """Draw images (B, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, space.in_channels, space.resolution, space.resolution, generator=generator)


@some_archs
@pytest.mark.parametrize("count", [2, 5])
def test_a_batch_of_images_gives_a_row_of_logits_each(arch: Arch, count: int) -> None:
    """(B, C, H, W) in, (B, classes) out, and every parameter gets a gradient."""
    network = Network(graph_of(NARROW, arch))
    logits = network(images_for(NARROW, count))
    assert logits.shape == (count, NARROW.classes)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("resolution", [27, 29, 30, 33])
def test_odd_sizes_work_with_strides_and_pooling(resolution: int) -> None:
    """Every value inside has the shape that the graph says, where SAME padding is uneven too."""
    space = replace(NARROW, name="odd", resolution=resolution)
    graph = graph_of(space, Arch("odd", EVERYTHING.blocks))
    network = Network(graph).eval()
    seen: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:

        def note(module: nn.Module, inputs: object, output: torch.Tensor, name: str = node.name) -> None:
            seen[name] = tuple(output.shape)

        network.get_submodule(node.name).register_forward_hook(note)
    with torch.no_grad():
        network(images_for(space, 2))
    for node in graph.nodes:
        _, *spatial, channels = node.out_shape
        assert seen[node.name] == (2, channels, *spatial)


@some_archs
def test_folding_the_norms_changes_nothing(arch: Arch) -> None:
    """The folded network gives the same logits in eval mode, and holds no batch norm any more."""
    network = random_network(graph_of(NARROW, arch), seed=5)
    folded = folded_network(network)
    images = images_for(NARROW)
    with torch.no_grad():
        before, after = network(images), folded(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert before.std() > 0.01
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_folded_weights_have_the_layout_of_their_operators() -> None:
    """Each weighted operator has its weights in TFLite's shape, contiguous, float32, with a bias."""
    graph = graph_of(NARROW, EVERYTHING)
    parameters = folded_parameters(Network(graph))
    weighted = [node for node in graph.nodes if node.op.weight_bytes]
    assert set(parameters) == {node.name for node in weighted}
    for node in weighted:
        layer = parameters[node.name]
        assert layer.weight.shape == node.op.weight_shape
        assert layer.bias.shape == (node.op.out_channels,)
        assert layer.weight.dtype == layer.bias.dtype == np.float32


def test_features_can_be_tapped_by_the_nodes_names() -> None:
    """A node's dotted name is its module's path."""
    graph = graph_of(NARROW, NARROW.reference())
    network = Network(graph)
    assert all(network.get_submodule(node.name) is not network for node in graph.nodes)


def test_the_same_seed_makes_the_same_network() -> None:
    """Initial weights depend on torch's seed and nothing else."""
    made = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            made.append(Network(graph_of(NARROW, NARROW.reference())).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
