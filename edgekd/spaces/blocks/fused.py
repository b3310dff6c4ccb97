"""fused3, fused6: MBConv with its first two convolutions fused into one full one, as in EfficientNetV2.

More multiplications and fewer passes over memory, which is faster where channels are few and features large.
Source: Tan and Le, arXiv 2104.00298, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.spaces.blocks.base import BlockKind, Layer, add_skip, add_squeeze, squeeze_width
from edgekd.spaces.builder import Builder


@dataclass(frozen=True)
class FusedMBConv(BlockKind):
    """expand k×k → squeeze → project 1×1, linear → skip."""

    expansion: int

    @property
    def name(self) -> str:
        """Give fused and the expansion."""
        return f"fused{self.expansion}"

    def lay(self, builder: Builder, layer: Layer) -> None:
        """Append one layer."""
        start, start_shape = builder.tip, builder.shape
        squeeze = squeeze_width(builder, layer)
        builder.conv(f"{layer.scope}.expand", builder.channels * self.expansion, layer.kernel, layer.stride)
        add_squeeze(builder, layer, squeeze)
        builder.conv(f"{layer.scope}.project", layer.out_channels, kernel=1, act="none")
        add_skip(builder, layer, start, start_shape)
