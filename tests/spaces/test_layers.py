"""From decisions to operators: each architecture's graph holds what was decided, and the reachable set is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import NARROW, every_arch, random_archs, table_for, tiny_space

from edgekd.graph.ir import INPUT, Graph, out_shape_of
from edgekd.search.latency import LatencyModel
from edgekd.spaces.arch import Arch, Block
from edgekd.spaces.layers import graph_of, reachable_ops
from edgekd.spaces.mnasnet import SPACES
from edgekd.spaces.space import Space
from latency_tables.op_spec import OpSpec

ARCHS = [NARROW.reference(), *random_archs(NARROW, 15, seed=21)]

some_archs = pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.arch_id)


def layer_nodes(graph: Graph, block: int, layer: int) -> list[str]:
    """List the names of one layer's nodes, without their scope."""
    scope = f"block{block + 1}.layer{layer}."
    return [node.name.removeprefix(scope) for node in graph.nodes if node.name.startswith(scope)]


@some_archs
def test_a_graph_is_well_formed(arch: Arch) -> None:
    """Names are unique, inputs come before their use with the shapes that the operators expect, one output remains."""
    graph = graph_of(NARROW, arch)
    shapes = {INPUT: NARROW.input_shape}
    for node in graph.nodes:
        assert node.name not in shapes
        assert [shapes[name] for name in node.inputs] == [tensor.shape for tensor in node.op.inputs]
        assert node.out_shape == out_shape_of(node.op)
        assert node.op.dtype == "float32"
        shapes[node.name] = node.out_shape
    used = {name for node in graph.nodes for name in node.inputs}
    assert set(shapes) - used == {graph.nodes[-1].name}
    assert graph.nodes[-1].out_shape == (1, NARROW.classes)


@some_archs
def test_a_layer_holds_what_was_decided(arch: Arch) -> None:
    """Expansion, depthwise kernel, squeeze, width, stride and the number of layers, read back from the graph."""
    graph = graph_of(NARROW, arch)
    nodes = {node.name: node for node in graph.nodes}
    for number, block in enumerate(arch.blocks):
        main = {"conv": "conv", "dsconv": "depthwise", "mb3": "depthwise", "mb6": "depthwise"}[block.conv_op]
        for layer in range(block.layers):
            names = layer_nodes(graph, number, layer)
            scope = f"block{number + 1}.layer{layer}"
            op = nodes[f"{scope}.{main}"].op
            assert op.kernel == (block.kernel, block.kernel)
            assert op.stride == ((NARROW.blocks[number].stride if layer == 0 else 1,) * 2)
            assert ("expand" in names) == block.conv_op.startswith("mb")
            assert ("se.gate" in names) == (block.se_ratio > 0)
            last = nodes[f"{scope}.{'conv' if main == 'conv' else 'project'}"]
            assert last.out_shape[3] == NARROW.channels(number, block.filters)
            if "expand" in names:
                expand = nodes[f"{scope}.expand"].op
                assert expand.out_channels == int(block.conv_op[2:]) * expand.inputs[0].shape[3]
        assert layer_nodes(graph, number, block.layers) == []


@some_archs
def test_skips_are_where_they_apply_and_nowhere_else(arch: Arch) -> None:
    """Identity needs equal shapes, pooling equal channels, and both sides of an addition have one shape."""
    graph = graph_of(NARROW, arch)
    nodes = {node.name: node for node in graph.nodes}
    for number, block in enumerate(arch.blocks):
        for layer in range(block.layers):
            names = layer_nodes(graph, number, layer)
            start = nodes[f"block{number + 1}.layer{layer}.{names[0]}"].op.inputs[0].shape
            same_width = start[3] == NARROW.channels(number, block.filters)
            stride = NARROW.blocks[number].stride if layer == 0 else 1
            identity = block.skip_op == "identity" and same_width and stride == 1
            pool = block.skip_op == "pool" and same_width
            assert ("skip" in names) == (identity or pool)
            assert ("pool" in names) == pool
            if "skip" in names:
                skip = nodes[f"block{number + 1}.layer{layer}.skip"].op
                assert skip.inputs[0].shape == skip.inputs[1].shape
            if pool:
                op = nodes[f"block{number + 1}.layer{layer}.pool"].op
                assert (op.kernel, op.stride) == ((3, 3), (stride, stride))


def test_the_squeeze_is_relative_to_the_layers_input() -> None:
    """A quarter of the input's channels, rounded up, at least four: not of the six times wider expansion."""
    block = Block("mb6", 3, 0.25, "none", 2, 1.0)
    graph = graph_of(NARROW, Arch(NARROW.name, (*NARROW.reference().blocks[:6], replace(block, layers=2))))
    widths = {node.name: node.out_shape[3] for node in graph.nodes if node.name.endswith("se.reduce")}
    inputs = NARROW.channels(5, 1.0), NARROW.channels(6, 1.0)
    assert widths == {f"block7.layer{layer}.se.reduce": -(-inputs[layer] // 4) for layer in (0, 1)}
    first = graph_of(NARROW, Arch(NARROW.name, (block, *NARROW.reference().blocks[1:])))
    assert next(n.out_shape[3] for n in first.nodes if n.name == "block1.layer0.se.reduce") == 4


def test_the_reference_at_224_is_as_large_as_published() -> None:
    """MnasNet's layout with mb6, kernel 3 and no SE: known widths, and multiply-accumulates of the right order."""
    space = SPACES["mnasnet-224"]
    graph = graph_of(space, space.reference())
    projections = [n.out_shape for n in graph.nodes if n.name.endswith(".project")]
    assert projections[0] == (1, 112, 112, 16)
    assert projections[-1] == (1, 7, 7, 320)
    assert len(projections) == 17
    assert graph.nodes[-3].out_shape == (1, 7, 7, 1280)
    assert 300e6 < graph.macs < 700e6


def union(space: Space, archs: list[Arch]) -> set[OpSpec]:
    """Collect the operators of many architectures."""
    return {op for arch in archs for op in graph_of(space, arch).ops}


def with_ops(space: Space, *conv_ops: str) -> Space:
    """Give a space whose blocks choose among other operators."""
    return replace(space, blocks=tuple(replace(block, conv_ops=conv_ops) for block in space.blocks))


ENUMERATED = {
    "two blocks": tiny_space(),
    "one block and a head": replace(tiny_space(1), head_width=12),
    "other block types": with_ops(tiny_space(), "fused3", "basic"),
}


@pytest.mark.whole  # every architecture of a space
@pytest.mark.parametrize("space", ENUMERATED.values(), ids=ENUMERATED.keys())
def test_reachable_operators_are_those_of_every_architecture(space: Space) -> None:
    """A small space, enumerated: nothing is missing, and nothing is measured in vain."""
    listed = reachable_ops(space)
    assert len(listed) == len(set(listed))
    assert set(listed) == union(space, list(every_arch(space)))


@pytest.mark.slow  # hundreds of architectures are laid out
def test_random_architectures_reach_all_of_the_narrow_spaces_operators() -> None:
    """A few thousand samples hold every listed operator, and never one that is not listed."""
    missing = set(reachable_ops(NARROW))
    listed = set(missing)
    for seed in range(30):
        found = union(NARROW, random_archs(NARROW, 100, seed))
        assert found <= listed
        missing -= found
        if not missing and seed >= 3:
            return
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnasnet-96", "mnasnet-224"])
def test_random_architectures_of_large_spaces_hold_listed_operators(name: str) -> None:
    """The same inclusion where enumerating is out of the question."""
    space = SPACES[name]
    assert union(space, random_archs(space, 500, 1)) <= set(reachable_ops(space))


@pytest.mark.whole  # whole spaces
@pytest.mark.parametrize("space", ENUMERATED.values(), ids=ENUMERATED.keys())
def test_many_architectures_are_predicted_as_each_alone(space: Space) -> None:
    """The tables by option indices hold what the graphs do, for every block type, skip, depth and width."""
    latency = LatencyModel.of(space, table_for(space))
    archs = random_archs(space, 60, seed=3)
    choices = np.array([space.choices(arch) for arch in archs])
    one_by_one = [latency.predict(arch, "float32").total_ms for arch in archs]
    assert latency.arrays("float32").predict_ms(choices) == pytest.approx(one_by_one, rel=1e-9)
