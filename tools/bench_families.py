"""Networks of other families than edgekd's spaces, for `bench_tables.py`. Other authors' files are bench_foreign.py's.

ResNet-like, ShuffleNet-like and MobileNetV3-like networks of several widths, with random weights: their shapes and
operators matter, not what they say. Sources: He et al., arXiv 1512.03385; Zhang et al., arXiv 1707.01083; Ma et al.,
arXiv 1807.11164; Howard et al., arXiv 1905.02244.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from edgekd.graph.ir import CONSTANT, INPUT, Graph, Node, out_shape_of
from latency_tables.op_spec import OpSpec, TensorSpec

PX = 96  # of the space whose table speaks for networks of other families
_CLASSES = 1000
_MULTIPLE = 8  # of channels
_V3_WIDTHS = (0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True, slots=True)
class Tip:
    """Where a growing network stands: a tensor's name and shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def tensor(self) -> TensorSpec:
        """Give it as an operator's input."""
        return TensorSpec(self.shape)


@dataclass
class Growing:
    """Appends float32 operators; each method takes a tip and gives the next."""

    px: int
    nodes: list[Node] = field(default_factory=list)

    @property
    def start(self) -> Tip:
        """Give the image."""
        return Tip(INPUT, (1, self.px, self.px, 3))

    def finished(self, tip: Tip) -> Graph:
        """Close with the global mean and the classifier."""
        tip = self.add(OpSpec("mean", (tip.tensor,), "float32"), tip)
        self.add(OpSpec("fully_connected", (tip.tensor,), "float32", _CLASSES), tip)
        return Graph(self.start.shape, tuple(self.nodes))

    def add(self, op: OpSpec, *tips: Tip | None) -> Tip:
        """Append any operator; None stands for a constant input."""
        name, shape = f"op{len(self.nodes)}", out_shape_of(op)
        self.nodes.append(Node(name, op, tuple(tip.name if tip else CONSTANT for tip in tips), shape))
        return Tip(name, shape)

    def conv(self, tip: Tip, out: int, kernel: int = 1, stride: int = 1, act: str = "relu", groups: int = 1) -> Tip:
        """Append a convolution."""
        sizes = ((kernel, kernel), (stride, stride))
        return self.add(OpSpec("conv_2d", (tip.tensor,), "float32", out, *sizes, groups=groups, act=act), tip)

    def depthwise(self, tip: Tip, kernel: int = 3, stride: int = 1, act: str = "none") -> Tip:
        """Append a depthwise convolution."""
        sizes = ((kernel, kernel), (stride, stride))
        return self.add(OpSpec("depthwise_conv_2d", (tip.tensor,), "float32", tip.shape[3], *sizes, act=act), tip)

    def pool(self, tip: Tip, kind: str) -> Tip:
        """Append a 3x3 pooling of stride 2; kind is max_pool_2d or average_pool_2d."""
        return self.add(OpSpec(kind, (tip.tensor,), "float32", kernel=(3, 3), stride=(2, 2)), tip)

    def binary(self, kind: str, one: Tip, other: Tip, act: str = "none") -> Tip:
        """Append ADD or MUL of two tensors."""
        return self.add(OpSpec(kind, (one.tensor, other.tensor), "float32", act=act), one, other)

    def hard_swish(self, tip: Tip) -> Tip:
        """Append the operator HARD_SWISH."""
        return self.add(OpSpec("hard_swish", (tip.tensor,), "float32", out=(tip.shape,)), tip)

    def hard_sigmoid(self, tip: Tip) -> Tip:
        """Append relu6(x + 3) / 6, spelled as converters do."""
        constant = TensorSpec((), constant=True)
        tip = self.add(OpSpec("add", (tip.tensor, constant), "float32", act="relu6"), tip, None)
        return self.add(OpSpec("mul", (tip.tensor, constant), "float32"), tip, None)

    def concatenation(self, one: Tip, other: Tip) -> Tip:
        """Append a concatenation of channels."""
        shape = (*one.shape[:3], one.shape[3] + other.shape[3])
        op = OpSpec("concatenation", (one.tensor, other.tensor), "float32", out=(shape,), attributes=(("axis", "3"),))
        return self.add(op, one, other)

    def split(self, tip: Tip) -> tuple[Tip, Tip]:
        """Cut the channels in two halves."""
        half = (*tip.shape[:3], tip.shape[3] // 2)
        axis = TensorSpec((), constant=True, dtype="int32", values=(3,))
        op = OpSpec("split", (axis, tip.tensor), "float32", out=(half, half), attributes=(("num_splits", "2"),))
        first = self.add(op, None, tip)
        return first, Tip(f"{first.name}:1", half)

    def shuffle(self, tip: Tip, groups: int) -> Tip:
        """Mix the channels of groups: reshape, transpose, reshape."""
        batch, height, width, channels = tip.shape
        mixed = self._reshaped(tip, (batch, height, width, groups, channels // groups))
        order = TensorSpec((5,), constant=True, dtype="int32", values=(0, 1, 2, 4, 3))
        turned = (batch, height, width, channels // groups, groups)
        mixed = self.add(OpSpec("transpose", (mixed.tensor, order), "float32", out=(turned,)), mixed, None)
        return self._reshaped(mixed, tip.shape)

    def _reshaped(self, tip: Tip, shape: tuple[int, ...]) -> Tip:
        wanted = TensorSpec((len(shape),), constant=True, dtype="int32", values=shape)
        return self.add(OpSpec("reshape", (tip.tensor, wanted), "float32", out=(shape,)), tip, None)


# --- ResNet -----------------------------------------------------------------------------------------------------------


def resnet(px: int, *, width: int, bottleneck: bool) -> Graph:
    """Build two residual blocks in each of four stages, `width` channels in the first."""
    net = Growing(px)
    tip = net.pool(net.conv(net.start, width, kernel=7, stride=2), "max_pool_2d")
    for stage in range(4):
        for number in range(2):
            stride = 2 if stage and not number else 1
            tip = _residual(net, tip, width << stage, stride, bottleneck=bottleneck)
    return net.finished(tip)


def _residual(net: Growing, tip: Tip, width: int, stride: int, *, bottleneck: bool) -> Tip:
    if bottleneck:
        out, inner = 4 * width, net.conv(net.conv(tip, width), width, kernel=3, stride=stride)
        inner = net.conv(inner, out, act="none")
    else:
        out, inner = width, net.conv(tip, width, kernel=3, stride=stride)
        inner = net.conv(inner, out, kernel=3, act="none")
    if inner.shape != tip.shape:
        tip = net.conv(tip, out, stride=stride, act="none")
    return net.binary("add", inner, tip, act="relu")


# --- ShuffleNet -------------------------------------------------------------------------------------------------------


def shufflenet_v1(px: int, width: int, groups: int) -> Graph:
    """Build units of grouped 1x1 convolutions with shuffled channels; `width` channels in the first stage."""
    net = Growing(px)
    tip = net.pool(net.conv(net.start, 24, kernel=3, stride=2), "max_pool_2d")
    for stage, units in enumerate((2, 4, 2)):
        for number in range(units):
            tip = _grouped_unit(net, tip, width << stage, groups, shrinks=number == 0)
    return net.finished(tip)


def _grouped_unit(net: Growing, tip: Tip, out: int, groups: int, *, shrinks: bool) -> Tip:
    own = out - tip.shape[3] if shrinks else out  # the other channels are the pooled input's
    inner = net.shuffle(net.conv(tip, out // 4, groups=groups if tip.shape[3] % groups == 0 else 1), groups)
    inner = net.conv(net.depthwise(inner, stride=2 if shrinks else 1), own, act="none", groups=groups)
    if shrinks:
        return net.concatenation(net.pool(tip, "average_pool_2d"), inner)
    return net.binary("add", inner, tip, act="relu")


def shufflenet_v2(px: int, width: int) -> Graph:
    """Build units that split their channels, work on one half and shuffle; `width` channels in the first stage."""
    net = Growing(px)
    tip = net.pool(net.conv(net.start, 24, kernel=3, stride=2), "max_pool_2d")
    for stage, units in enumerate((2, 4, 2)):
        half = (width << stage) // 2
        left = net.conv(net.depthwise(tip, stride=2), half)
        right = net.conv(net.depthwise(net.conv(tip, half), stride=2), half)
        tip = net.shuffle(net.concatenation(left, right), 2)
        for _ in range(units - 1):
            left, right = net.split(tip)
            right = net.conv(net.depthwise(net.conv(right, half)), half)
            tip = net.shuffle(net.concatenation(left, right), 2)
    return net.finished(net.conv(tip, 1024))


# --- MobileNetV3 ------------------------------------------------------------------------------------------------------

# kernel, expanded channels, channels, squeeze-and-excitation, hard-swish, stride
_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
)
_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
)


def mobilenet_v3(px: int, *, width: float, large: bool) -> Graph:
    """Build inverted bottlenecks with hard-swish and squeeze-and-excitation; all channels × `width`."""
    net = Growing(px)
    tip = net.hard_swish(net.conv(net.start, 16, kernel=3, stride=2, act="none"))
    for kernel, expanded, channels, has_se, swishes, stride in _LARGE if large else _SMALL:
        inner = _activated(net, partial(net.conv, tip, _scaled(expanded, width)), swishes=swishes)
        inner = _activated(net, partial(net.depthwise, inner, kernel, stride), swishes=swishes)
        end = net.conv(_squeezed(net, inner) if has_se else inner, _scaled(channels, width), act="none")
        tip = net.binary("add", tip, end) if tip.shape == end.shape else end
    last = partial(net.conv, tip, _scaled(960 if large else 576, width))
    return net.finished(_activated(net, last, swishes=True))


def _activated(net: Growing, layer: Callable[..., Tip], *, swishes: bool) -> Tip:
    return net.hard_swish(layer(act="none")) if swishes else layer(act="relu")


def _squeezed(net: Growing, tip: Tip) -> Tip:
    gate = net.add(OpSpec("mean", (tip.tensor,), "float32"), tip)
    gate = net.conv(net.conv(gate, _scaled(tip.shape[3] / 4, 1.0)), tip.shape[3], act="none")
    return net.binary("mul", tip, net.hard_sigmoid(gate))


def _scaled(channels: float, width: float) -> int:
    return max(_MULTIPLE, int(channels * width / _MULTIPLE + 0.5) * _MULTIPLE)


# --- all of them ------------------------------------------------------------------------------------------------------

Family = tuple[str, Callable[[int], Graph]]

FAMILIES: tuple[tuple[Family, ...], ...] = (
    (
        *((f"resnet-{width}", partial(resnet, width=width, bottleneck=False)) for width in (16, 24, 32, 48)),
        *((f"resnet-bottleneck-{width}", partial(resnet, width=width, bottleneck=True)) for width in (8, 16, 24, 32)),
    ),
    (
        *((f"shufflenet-v2-{width}", partial(shufflenet_v2, width=width)) for width in (48, 116, 176, 244)),
        # the widths that give equal work for so many groups, as published
        *(
            (f"shufflenet-v1-g{groups}", partial(shufflenet_v1, width=width, groups=groups))
            for groups, width in ((2, 200), (3, 240), (4, 272), (8, 384))
        ),
    ),
    (
        *((f"mobilenet-v3-small-{width}", partial(mobilenet_v3, width=width, large=False)) for width in _V3_WIDTHS),
        *((f"mobilenet-v3-large-{width}", partial(mobilenet_v3, width=width, large=True)) for width in _V3_WIDTHS),
    ),
)


def family_graphs(px: int, of_each: int = 8) -> dict[str, Graph]:
    """Build networks of every family, as many of each as wanted, by name."""
    return {name: build(px) for family in FAMILIES for name, build in family[:of_each]}
