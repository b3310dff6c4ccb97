"""basic: ResNet's plain residual block of two convolutions (He et al., arXiv 1512.03385), with ReLU6 as all others."""

from __future__ import annotations

from edgekd.spaces.blocks.base import BlockKind, Layer, add_skip, add_squeeze, has_skip, squeeze_width
from edgekd.spaces.builder import Builder

_ACT = "relu6"


class Basic(BlockKind):
    """conv k×k → conv k×k → squeeze → skip; the last activation comes after the sum, where there is one."""

    name = "basic"

    def lay(self, builder: Builder, layer: Layer) -> None:
        """Append one layer."""
        start, start_shape = builder.tip, builder.shape
        squeeze = squeeze_width(builder, layer)
        builder.conv(f"{layer.scope}.first", layer.out_channels, layer.kernel, layer.stride, _ACT)
        act = "none" if has_skip(layer, start_shape) else _ACT
        builder.conv(f"{layer.scope}.second", layer.out_channels, layer.kernel, act=act)
        add_squeeze(builder, layer, squeeze)
        add_skip(builder, layer, start, start_shape, _ACT)
