"""mb3, mb6: the inverted bottleneck of MobileNetV2 (Sandler et al., arXiv 1801.04381) with an expansion of 3 or 6."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.spaces.blocks.base import BlockKind, Layer, add_skip, add_squeeze, squeeze_width
from edgekd.spaces.builder import Builder


@dataclass(frozen=True)
class MBConv(BlockKind):
    """expand 1×1 → depthwise k×k → squeeze → project 1×1, linear → skip."""

    expansion: int

    @property
    def name(self) -> str:
        """Give mb and the expansion."""
        return f"mb{self.expansion}"

    def lay(self, builder: Builder, layer: Layer) -> None:
        """Append one layer."""
        start, start_shape = builder.tip, builder.shape
        squeeze = squeeze_width(builder, layer)
        builder.conv(f"{layer.scope}.expand", builder.channels * self.expansion, kernel=1)
        builder.depthwise(f"{layer.scope}.depthwise", layer.kernel, layer.stride)
        add_squeeze(builder, layer, squeeze)
        builder.conv(f"{layer.scope}.project", layer.out_channels, kernel=1, act="none")
        add_skip(builder, layer, start, start_shape)
