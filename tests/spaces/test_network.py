"""Torch modules: shapes, names that hooks can find, and folding that changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import NARROW, random_archs, random_network
from torch import nn

from edgekd.graph.ir import INPUT, Graph, Node, out_shape_of
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.network import Network, folded_network, folded_parameters
from edgekd.spaces.space import Space
from latency_tables.op_spec import OpSpec, TensorSpec

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("one_thread")]

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


def average_by_hand(values: np.ndarray, op: OpSpec) -> np.ndarray:
    """Average what each window holds of the image, as SAME places the windows: (H, W, C) → (H', W', C)."""
    ends, starts = [], []
    for n, k, s in zip(values.shape, op.kernel, op.stride, strict=False):
        before = max((-(-n // s) - 1) * s + k - n, 0) // 2
        starts.append([max(i * s - before, 0) for i in range(-(-n // s))])
        ends.append([min(i * s - before + k, n) for i in range(-(-n // s))])
    rows, columns = (list(zip(*pair, strict=True)) for pair in zip(starts, ends, strict=True))
    return np.array([[values[a:b, c:d].mean((0, 1)) for c, d in columns] for a, b in rows])


def pooling(height: int, width: int, kernel: tuple[int, int], stride: tuple[int, int]) -> Node:
    """Make a node of one average pooling."""
    op = OpSpec("average_pool_2d", (TensorSpec((1, height, width, 2)),), "float32", kernel=kernel, stride=stride)
    return Node("pool", op, (INPUT,), out_shape_of(op))


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_average_pooling_is_tflites(size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """Any size, square or not, with uneven padding in one direction alone: padding never counts."""
    node = pooling(*size, kernel, stride)
    values = np.random.default_rng(0).standard_normal((*size, 2)).astype(np.float32)
    network = Network(Graph(node.op.inputs[0].shape, (node,)))
    found = network(torch.from_numpy(values).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert found.shape == node.out_shape[1:]
    assert found == pytest.approx(average_by_hand(values, node.op), abs=1e-5)


def test_pooling_that_torch_cannot_do_is_refused() -> None:
    """An even kernel without a stride would be padded unevenly everywhere."""
    with pytest.raises(ValueError, match="take an odd kernel"):
        Network(Graph((1, 5, 5, 2), (pooling(5, 5, (2, 2), (1, 1)),)))
