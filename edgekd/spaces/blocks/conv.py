"""conv: one full convolution."""

from __future__ import annotations

from edgekd.spaces.blocks.base import BlockKind, Layer, add_skip, add_squeeze, squeeze_width
from edgekd.spaces.builder import Builder


class Conv(BlockKind):
    """conv k×k → squeeze → skip."""

    name = "conv"

    def lay(self, builder: Builder, layer: Layer) -> None:
        """Append one layer."""
        start, start_shape = builder.tip, builder.shape
        squeeze = squeeze_width(builder, layer)
        builder.conv(f"{layer.scope}.conv", layer.out_channels, layer.kernel, layer.stride)
        add_squeeze(builder, layer, squeeze)
        add_skip(builder, layer, start, start_shape)
