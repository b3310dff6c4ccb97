"""dsconv: a depthwise convolution and a linear pointwise one (Howard et al., arXiv 1704.04861)."""

from __future__ import annotations

from edgekd.spaces.blocks.base import BlockKind, Layer, add_skip, add_squeeze, squeeze_width
from edgekd.spaces.builder import Builder


class DepthwiseSeparable(BlockKind):
    """depthwise k×k → squeeze → project 1×1, linear → skip."""

    name = "dsconv"

    def lay(self, builder: Builder, layer: Layer) -> None:
        """Append one layer."""
        start, start_shape = builder.tip, builder.shape
        squeeze = squeeze_width(builder, layer)
        builder.depthwise(f"{layer.scope}.depthwise", layer.kernel, layer.stride)
        add_squeeze(builder, layer, squeeze)
        builder.conv(f"{layer.scope}.project", layer.out_channels, kernel=1, act="none")
        add_skip(builder, layer, start, start_shape)
