"""The known block types by name; base.py says what one is and how to add one."""

from __future__ import annotations

from edgekd.spaces.blocks.base import BlockKind
from edgekd.spaces.blocks.basic import Basic
from edgekd.spaces.blocks.conv import Conv
from edgekd.spaces.blocks.dsconv import DepthwiseSeparable
from edgekd.spaces.blocks.fused import FusedMBConv
from edgekd.spaces.blocks.mbconv import MBConv

_KINDS: tuple[BlockKind, ...] = (
    *(Conv(), DepthwiseSeparable(), MBConv(3), MBConv(6)),
    *(FusedMBConv(3), FusedMBConv(6), Basic()),
)

BLOCKS: dict[str, BlockKind] = {kind.name: kind for kind in _KINDS}
