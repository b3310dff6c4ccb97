"""Arch: one architecture of a space, as a frozen value with a text form and an id.

It says what was decided, block by block; what the decisions mean in channels and operators is in layers.py and
blocks/.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from edgekd.errors import UsageError
from edgekd.spaces.blocks import BLOCKS

CONV_OPS = tuple(BLOCKS)
SKIP_OPS = ("none", "identity", "pool")
MAX_LAYERS = 99  # of a block; its text has room for two digits

_BLOCK = re.compile(
    r"(?P<conv_op>[a-z0-9]+)_k(?P<kernel>\d)_se(?P<se_ratio>0|0\.\d+)_(?P<skip_op>[a-z]+)"
    r"_l(?P<layers>\d{1,2})_f(?P<filters>\d(?:\.\d+)?)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """The decisions of one block; its layers are alike, the first carries the stride."""

    conv_op: str  # one of CONV_OPS, the names of the block types
    kernel: int
    se_ratio: float  # squeeze width over the layer's input channels; 0 is none
    skip_op: str  # one of SKIP_OPS
    layers: int
    filters: float  # × the block's reference width

    def __str__(self) -> str:
        return f"{self.conv_op}_k{self.kernel}_se{self.se_ratio:g}_{self.skip_op}_l{self.layers}_f{self.filters:g}"


@dataclass(frozen=True, slots=True)
class Arch:
    """An architecture. `str(arch)` and `Arch.parse` are inverse."""

    space: str
    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return f"{self.space}:" + "/".join(map(str, self.blocks))

    @property
    def arch_id(self) -> str:
        """Give 12 hexadecimal digits that name the architecture in files."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:12]

    @staticmethod
    def parse(text: str) -> Arch:
        """Read the text form.

        Raises:
            UsageError: the text is not one that `str(arch)` writes.

        """
        space, colon, body = text.partition(":")
        if not colon or not space:
            raise UsageError(f"architecture {text[:80]!r} is not SPACE:BLOCK/BLOCK/…; copy one from search.jsonl")
        arch = Arch(space, tuple(_parse_block(part) for part in body.split("/")))
        if str(arch) != text:
            raise UsageError(f"architecture {text[:80]!r} is not in its one form, which would be {str(arch)[:80]!r}")
        return arch


def _parse_block(text: str) -> Block:
    match = _BLOCK.fullmatch(text)
    if not match or match["conv_op"] not in CONV_OPS or match["skip_op"] not in SKIP_OPS:
        raise UsageError(f"block {text[:80]!r} is not like mb6_k3_se0.25_identity_l2_f1")
    return Block(
        conv_op=match["conv_op"],
        kernel=int(match["kernel"]),
        se_ratio=float(match["se_ratio"]),
        skip_op=match["skip_op"],
        layers=int(match["layers"]),
        filters=float(match["filters"]),
    )
