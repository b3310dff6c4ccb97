"""What all block types have in common: BlockKind, the layer that it is asked for, and the parts that several use.

A block type says once, in `lay`, which operators a layer of it is made of. Everything else follows from that: the graph
(`BlockKind.graph`), the operators that a table needs (the graph's), the torch module (network.py runs any graph) and
the files (graph/). To add one: a class in a file of its own here, and an entry in `BLOCKS` of blocks/__init__.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from edgekd.graph.ir import Graph
from edgekd.spaces.builder import Builder, Shape

_MIN_SQUEEZE = 4  # channels; one SIMD register of floats, below which nothing gets faster
_POOL = 3  # the pooling skip's kernel, as in MnasNet


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a block: where it stands, and what was decided about it."""

    scope: str  # its nodes' names begin so: block3.layer0
    out_channels: int
    stride: int = 1
    kernel: int = 3
    se_ratio: float = 0.0  # squeeze width over the layer's input channels; 0 is none
    skip_op: str = "none"  # none, identity or pool


class BlockKind(ABC):
    """A type of block."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Give its name in architectures and spaces: lower-case letters and digits."""

    @abstractmethod
    def lay(self, builder: Builder, layer: Layer) -> None:
        """Append one layer's operators, its skip included."""

    def graph(self, start: Shape, layer: Layer) -> Graph:
        """Build a layer alone, after an input of shape `start`."""
        builder = Builder(start)
        self.lay(builder, layer)
        return builder.graph(start)


def squeeze_width(builder: Builder, layer: Layer) -> int:
    """Give the inner width of the squeeze, relative to what is at the tip, as in MnasNet; 0 is none."""
    if layer.se_ratio == 0:
        return 0
    return max(_MIN_SQUEEZE, math.ceil(builder.channels * layer.se_ratio))


def add_squeeze(builder: Builder, layer: Layer, width: int) -> None:
    """Add squeeze-and-excitation: mean, reduce, expand, sigmoid, scale (Hu et al., arXiv 1709.01507)."""
    if not width:
        return
    scope, features, shape = f"{layer.scope}.se", builder.tip, builder.shape
    builder.simple(f"{scope}.squeeze", "mean")
    builder.conv(f"{scope}.reduce", width, kernel=1, act="relu", norm=False)
    builder.conv(f"{scope}.expand", shape[3], kernel=1, act="none", norm=False)
    builder.simple(f"{scope}.gate", "logistic")
    builder.binary(f"{scope}.scale", "mul", features, shape)


def has_skip(layer: Layer, start_shape: Shape) -> bool:
    """Tell whether the skip applies: identity where nothing changes shape, pooling where channels stay."""
    _, *sides, channels = start_shape
    if channels != layer.out_channels or layer.skip_op == "none":
        return False
    return layer.skip_op == "pool" or all(math.ceil(side / layer.stride) == side for side in sides)


def add_skip(builder: Builder, layer: Layer, start: str, start_shape: Shape, act: str = "none") -> None:
    """Add the skip from the layer's start, where it applies, with an activation after the sum."""
    if not has_skip(layer, start_shape):
        return
    if layer.skip_op == "identity":
        builder.binary(f"{layer.scope}.skip", "add", start, start_shape, act)
        return
    end, end_shape = builder.tip, builder.shape
    builder.go_to(start, start_shape)
    builder.average_pool(f"{layer.scope}.pool", _POOL, layer.stride)
    builder.binary(f"{layer.scope}.skip", "add", end, end_shape, act)
