"""From decisions to operators: the graph of an architecture, and every operator that a space can reach.

One function per conv op emits nodes; both the graph and the reachable operators come from it, so they cannot
disagree. Does not train (network.py) and does not write files (graph/tflite_writer.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from edgekd.graph.ir import INPUT, Graph, Node, out_shape_of
from edgekd.spaces.arch import Arch, Block
from edgekd.spaces.space import Space
from latency_tables.op_spec import OpSpec, TensorSpec

Shape = tuple[int, ...]  # (1, H, W, C)

_MIN_SQUEEZE = 4  # channels; one SIMD register of floats, below which nothing gets faster


def graph_of(space: Space, arch: Arch) -> Graph:
    """Build the float32 graph of an architecture: stem, blocks, optional head conv, global mean, classifier."""
    builder = _Builder(space.input_shape)
    _add_stem(builder, space)
    for number, block in enumerate(arch.blocks):
        _add_block(builder, space, number, block)
    _add_head(builder, space)
    return Graph(space.input_shape, tuple(builder.nodes))


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
    builder = _Builder(start)
    _add_block(builder, space, number, block)
    return [node.op for node in builder.nodes], builder.shape


def stem_ops(space: Space) -> tuple[list[OpSpec], Shape]:
    """Give the operators before the first block, and their output shape."""
    builder = _Builder(space.input_shape)
    _add_stem(builder, space)
    return [node.op for node in builder.nodes], builder.shape


def head_ops(space: Space, start: Shape) -> list[OpSpec]:
    """Give the operators after the last block."""
    builder = _Builder(start)
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


def _add_stem(builder: _Builder, space: Space) -> None:
    builder.conv("stem", space.stem_width, kernel=3, stride=space.stem_stride)


def _add_block(builder: _Builder, space: Space, number: int, block: Block) -> None:
    out_channels = space.channels(number, block.filters)
    for index in range(block.layers):
        layer = _Layer(
            scope=f"block{number + 1}.layer{index}",
            block=block,
            stride=space.blocks[number].stride if index == 0 else 1,
            out_channels=out_channels,
        )
        start = builder.tip
        start_shape = builder.shape
        _LAYERS[block.conv_op](builder, layer)
        _add_skip(builder, layer, start, start_shape)


def _add_head(builder: _Builder, space: Space) -> None:
    if space.head_width:
        builder.conv("head.conv", space.head_width, kernel=1)
    builder.simple("head.pool", "mean")
    builder.add(
        Node(
            "head.classifier",
            OpSpec("fully_connected", (builder.tensor,), "float32", space.classes),
            (builder.tip,),
            (),
        )
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    scope: str
    block: Block
    stride: int
    out_channels: int


def _conv_layer(builder: _Builder, layer: _Layer) -> None:
    squeeze = _squeeze_width(builder, layer)
    builder.conv(f"{layer.scope}.conv", layer.out_channels, kernel=layer.block.kernel, stride=layer.stride)
    _add_se(builder, layer, squeeze)


def _dsconv_layer(builder: _Builder, layer: _Layer) -> None:
    squeeze = _squeeze_width(builder, layer)
    builder.depthwise(f"{layer.scope}.depthwise", kernel=layer.block.kernel, stride=layer.stride)
    _add_se(builder, layer, squeeze)
    builder.conv(f"{layer.scope}.project", layer.out_channels, kernel=1, act="none")


def _mbconv_layer(expansion: int) -> Callable[[_Builder, _Layer], None]:
    def build(builder: _Builder, layer: _Layer) -> None:
        squeeze = _squeeze_width(builder, layer)
        builder.conv(f"{layer.scope}.expand", builder.shape[3] * expansion, kernel=1)
        builder.depthwise(f"{layer.scope}.depthwise", kernel=layer.block.kernel, stride=layer.stride)
        _add_se(builder, layer, squeeze)
        builder.conv(f"{layer.scope}.project", layer.out_channels, kernel=1, act="none")

    return build


_LAYERS: dict[str, Callable[[_Builder, _Layer], None]] = {
    "conv": _conv_layer,
    "dsconv": _dsconv_layer,
    "mb3": _mbconv_layer(3),
    "mb6": _mbconv_layer(6),
}


def _squeeze_width(builder: _Builder, layer: _Layer) -> int:
    """Give SE's inner width, relative to the layer's input as in MnasNet; 0 is no SE."""
    if layer.block.se_ratio == 0:
        return 0
    return max(_MIN_SQUEEZE, math.ceil(builder.shape[3] * layer.block.se_ratio))


def _add_se(builder: _Builder, layer: _Layer, squeeze: int) -> None:
    """Add squeeze-and-excitation: mean, reduce, expand, sigmoid, scale (Hu et al., arXiv 1709.01507)."""
    if not squeeze:
        return
    scope, features, shape = f"{layer.scope}.se", builder.tip, builder.shape
    builder.simple(f"{scope}.squeeze", "mean")
    builder.conv(f"{scope}.reduce", squeeze, kernel=1, act="relu", norm=False)
    builder.conv(f"{scope}.expand", shape[3], kernel=1, act="none", norm=False)
    builder.simple(f"{scope}.gate", "logistic")
    builder.binary(f"{scope}.scale", "mul", features, shape)


def _add_skip(builder: _Builder, layer: _Layer, start: str, start_shape: tuple[int, ...]) -> None:
    """Add the block's skip where it applies: identity where shapes match, pooling where channels do."""
    skip = layer.block.skip_op
    if skip == "identity" and start_shape == builder.shape:
        builder.binary(f"{layer.scope}.skip", "add", start, start_shape)
    elif skip == "pool" and start_shape[3] == builder.shape[3]:
        end = builder.tip
        end_shape = builder.shape
        builder.tip, builder.shape = start, start_shape
        builder.simple(f"{layer.scope}.pool", "average_pool_2d", kernel=(3, 3), stride=(layer.stride, layer.stride))
        builder.binary(f"{layer.scope}.skip", "add", end, end_shape)


@dataclass
class _Builder:
    """Appends nodes at the tip of a growing graph."""

    shape: tuple[int, ...]
    tip: str = INPUT
    nodes: list[Node] = field(default_factory=list)

    @property
    def tensor(self) -> TensorSpec:
        return TensorSpec(self.shape)

    def add(self, node: Node) -> None:
        node = replace(node, out_shape=out_shape_of(node.op))
        self.nodes.append(node)
        self.tip, self.shape = node.name, node.out_shape

    def conv(
        self, name: str, out_channels: int, kernel: int, stride: int = 1, act: str = "relu6", norm: bool = True
    ) -> None:
        op = OpSpec("conv_2d", (self.tensor,), "float32", out_channels, (kernel, kernel), (stride, stride), act=act)
        self.add(Node(name, op, (self.tip,), (), norm))

    def depthwise(self, name: str, kernel: int, stride: int) -> None:
        channels = self.shape[3]
        op = OpSpec(
            "depthwise_conv_2d", (self.tensor,), "float32", channels, (kernel, kernel), (stride, stride), act="relu6"
        )
        self.add(Node(name, op, (self.tip,), (), norm=True))

    def simple(self, name: str, kind: str, **attributes: tuple[int, int]) -> None:
        op = OpSpec(kind, (self.tensor,), "float32", **attributes)  # type: ignore[arg-type]  # only kernel and stride
        self.add(Node(name, op, (self.tip,), ()))

    def binary(self, name: str, kind: str, other: str, other_shape: tuple[int, ...]) -> None:
        op = OpSpec(kind, (TensorSpec(other_shape), self.tensor), "float32")
        self.add(Node(name, op, (other, self.tip), ()))
