"""Builder: appends operators at the tip of a growing graph and keeps the shape that is reached there.

It knows single operators; which of them make a layer is the block types' affair (blocks/).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgekd.graph.ir import INPUT, Graph, Node, out_shape_of
from latency_tables.op_spec import OpSpec, TensorSpec

Shape = tuple[int, ...]  # (1, H, W, C)


@dataclass
class Builder:
    """A graph in the making: `tip` names the last operator, `shape` is that of its output."""

    shape: Shape
    tip: str = INPUT
    nodes: list[Node] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """Give the channels at the tip."""
        return self.shape[3]

    def graph(self, input_shape: Shape) -> Graph:
        """Give what has been built, from an input of this shape."""
        return Graph(input_shape, tuple(self.nodes))

    def go_to(self, tip: str, shape: Shape) -> None:
        """Go on from an earlier operator, whose output has this shape."""
        self.tip, self.shape = tip, shape

    def conv(
        self, name: str, out_channels: int, kernel: int, stride: int = 1, act: str = "relu6", norm: bool = True
    ) -> None:
        """Add a convolution with what the runtime fuses into it: the norm, folded, and the activation."""
        op = OpSpec("conv_2d", (self._tensor,), "float32", out_channels, (kernel, kernel), (stride, stride), act=act)
        self._add(name, op, self.tip, norm=norm)

    def depthwise(self, name: str, kernel: int, stride: int) -> None:
        """Add a depthwise convolution with norm and activation."""
        window = (kernel, kernel), (stride, stride)
        op = OpSpec("depthwise_conv_2d", (self._tensor,), "float32", self.channels, *window, act="relu6")
        self._add(name, op, self.tip, norm=True)

    def fully_connected(self, name: str, out_channels: int) -> None:
        """Add a fully connected layer over all that is at the tip."""
        self._add(name, OpSpec("fully_connected", (self._tensor,), "float32", out_channels), self.tip)

    def average_pool(self, name: str, kernel: int, stride: int) -> None:
        """Add an average pooling."""
        op = OpSpec("average_pool_2d", (self._tensor,), "float32", kernel=(kernel, kernel), stride=(stride, stride))
        self._add(name, op, self.tip)

    def simple(self, name: str, kind: str) -> None:
        """Add an operator of one input that has nothing to set: mean, logistic."""
        self._add(name, OpSpec(kind, (self._tensor,), "float32"), self.tip)

    def binary(self, name: str, kind: str, other: str, other_shape: Shape, act: str = "none") -> None:
        """Add an operator of an earlier output and the tip: add, mul."""
        op = OpSpec(kind, (TensorSpec(other_shape), self._tensor), "float32", act=act)
        self._add(name, op, other, self.tip)

    @property
    def _tensor(self) -> TensorSpec:
        return TensorSpec(self.shape)

    def _add(self, name: str, op: OpSpec, *inputs: str, norm: bool = False) -> None:
        node = Node(name, op, inputs, (), norm)
        node = replace(node, out_shape=out_shape_of(op))
        self.nodes.append(node)
        self.tip, self.shape = node.name, node.out_shape
