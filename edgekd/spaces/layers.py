"""From decisions to operators: the graph of an architecture, and every operator that a space can reach.

Both come from the same functions, so they cannot disagree; what a layer is made of is its block type's (blocks/). Does
not train (network.py) and does not write files (graph/tflite_writer.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from edgekd.graph.ir import Graph
from edgekd.spaces.arch import Arch, Block
from edgekd.spaces.blocks import BLOCKS
from edgekd.spaces.blocks.base import Layer
from edgekd.spaces.builder import Builder, Shape
from edgekd.spaces.space import Space
from latency_tables.op_spec import OpSpec


def graph_of(space: Space, arch: Arch) -> Graph:
    """Build the float32 graph of an architecture: stem, blocks, optional head conv, global mean, classifier."""
    builder = Builder(space.input_shape)
    _add_stem(builder, space)
    for number, block in enumerate(arch.blocks):
        _add_block(builder, space, number, block)
    _add_head(builder, space)
    return builder.graph(space.input_shape)


def reachable_ops(space: Space) -> list[OpSpec]:
    """List every distinct float32 operator that some architecture of the space holds, in network order."""
    ops, shape = stem_ops(space)
    found = dict.fromkeys(ops)
    starts = [shape]
    for number in range(len(space.blocks)):
        ends: dict[Shape, None] = {}
        # layers after the second repeat it, so two show them all
        for start, block in itertools.product(starts, kinds_of_block(space, number)):
            ops, shape = block_ops(space, number, start, block)
            found.update(dict.fromkeys(ops))
            ends[shape] = None
        starts = list(ends)
    for start in starts:
        found.update(dict.fromkeys(head_ops(space, start)))
    return list(found)


def block_ops(space: Space, number: int, start: Shape, block: Block) -> tuple[list[OpSpec], Shape]:
    """Give one block's float32 operators after an input of shape `start`, and its output shape."""
    builder = Builder(start)
    _add_block(builder, space, number, block)
    return [node.op for node in builder.nodes], builder.shape


def stem_ops(space: Space) -> tuple[list[OpSpec], Shape]:
    """Give the operators before the first block, and their output shape."""
    builder = Builder(space.input_shape)
    _add_stem(builder, space)
    return [node.op for node in builder.nodes], builder.shape


def head_ops(space: Space, start: Shape) -> list[OpSpec]:
    """Give the operators after the last block."""
    builder = Builder(start)
    _add_head(builder, space)
    return [node.op for node in builder.nodes]


def kinds_of_block(space: Space, number: int) -> Iterator[Block]:
    """Give every block that differs in more than its depth, as deep as two layers where the space allows that."""
    options = space.blocks[number]
    depth = min(2, max(options.layers))
    for conv_op, kernel, se_ratio, skip_op, filters in itertools.product(
        options.conv_ops, options.kernels, options.se_ratios, options.skip_ops, options.filters
    ):
        yield Block(conv_op, kernel, se_ratio, skip_op, depth, filters)


def _add_stem(builder: Builder, space: Space) -> None:
    builder.conv("stem", space.stem_width, kernel=3, stride=space.stem_stride)


def _add_block(builder: Builder, space: Space, number: int, block: Block) -> None:
    for index in range(block.layers):
        layer = Layer(
            scope=f"block{number + 1}.layer{index}",
            out_channels=space.channels(number, block.filters),
            stride=space.blocks[number].stride if index == 0 else 1,
            kernel=block.kernel,
            se_ratio=block.se_ratio,
            skip_op=block.skip_op,
        )
        BLOCKS[block.conv_op].lay(builder, layer)


def _add_head(builder: Builder, space: Space) -> None:
    if space.head_width:
        builder.conv("head.conv", space.head_width, kernel=1)
    builder.simple("head.pool", "mean")
    builder.fully_connected("head.classifier", space.classes)
