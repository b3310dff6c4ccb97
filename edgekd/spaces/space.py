"""Space: a search space as data: input, stem, and blocks with the options of each decision.

Resolution, widths, strides and options are all values, so a 28x28 space and a 224x224 space are two values of one
type. The known ones are in mnasnet.py, a user's are read by space_file.py. Building graphs is in layers.py.
Source: MnasNet's factorised hierarchical space (Tan et al., arXiv 1807.11626) with the options of Search to Distill
(Liu et al., arXiv 1911.09074).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgekd.errors import UsageError
from edgekd.spaces.arch import SKIP_OPS, Arch, Block
from edgekd.spaces.blocks import BLOCKS
from edgekd.spaces.blocks.base import Layer

Choices = tuple[int, ...]  # one option index a decision, blocks in order, decisions in the order of Block's fields

MNASNET_OPS = ("conv", "dsconv", "mb3", "mb6")
DECISIONS = tuple(field.name for field in dataclasses.fields(Block))  # of a block, in order
EDITION = "@"  # stands between the title of a user's space and the first digits of its content's hash


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """One block: its reference width and stride, and what may be chosen."""

    width: int
    stride: int
    layers: tuple[int, ...]
    reference_layers: int
    conv_ops: tuple[str, ...] = MNASNET_OPS
    kernels: tuple[int, ...] = (3, 5)
    se_ratios: tuple[float, ...] = (0.0, 0.25)
    skip_ops: tuple[str, ...] = SKIP_OPS
    filters: tuple[float, ...] = (0.75, 1.0, 1.25)

    @property
    def decisions(self) -> tuple[tuple[object, ...], ...]:
        """Give the options of the six decisions, in the order of Block's fields."""
        return (self.conv_ops, self.kernels, self.se_ratios, self.skip_ops, self.layers, self.filters)

    def block(self, choices: Sequence[int]) -> Block:
        """Make the block that six option indices name."""
        conv_op, kernel, se_ratio, skip_op, layers, filters = choices
        return Block(
            self.conv_ops[conv_op],
            self.kernels[kernel],
            self.se_ratios[se_ratio],
            self.skip_ops[skip_op],
            self.layers[layers],
            self.filters[filters],
        )

    @property
    def lightest(self) -> tuple[int, ...]:
        """Give the option indices of the lightest block: the operator of the fewest multiplications, no skip if that is
        an option, and everything else as small as it may be.
        """
        sizes = (self.kernels, self.se_ratios, tuple(map(SKIP_OPS.index, self.skip_ops)), self.layers, self.filters)
        costs = [_macs_of(conv_op) for conv_op in self.conv_ops]
        return (costs.index(min(costs)), *(options.index(min(options)) for options in sizes))

    def reference(self) -> Block:
        """Give the block of mb6, kernel 3, no SE, identity and filters ×1, or what the options have nearest to that."""
        return Block(
            conv_op=_wanted("mb6", self.conv_ops),
            kernel=_nearest(3, self.kernels),
            se_ratio=min(self.se_ratios),
            skip_op=_wanted("identity", self.skip_ops),
            layers=self.reference_layers,
            filters=_nearest(1.0, self.filters),
        )


@dataclass(frozen=True, slots=True)
class Space:
    """A search space. Channels are rounded to multiples of `channel_multiple`; `head_width` 0 means no head conv.

    The name stands in every architecture's text. A user's space, read from a file, is called TITLE@HASH, so that
    architectures, tables and studies of another edition of the file cannot pass for its own.
    """

    name: str
    resolution: int  # pixels, square
    in_channels: int
    classes: int
    stem_width: int
    stem_stride: int
    blocks: tuple[BlockOptions, ...]
    head_width: int = 0
    channel_multiple: int = 8

    @property
    def title(self) -> str:
        """Give the name without the edition."""
        return self.name.partition(EDITION)[0]

    @property
    def sha256(self) -> str:
        """Give the hash of all that the space is, its name apart, in hexadecimal."""
        return _sha256_of(self)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Give the shape of one image, (1, H, W, C)."""
        return (1, self.resolution, self.resolution, self.in_channels)

    @property
    def decision_sizes(self) -> tuple[int, ...]:
        """Give the number of options of each decision, six a block."""
        return tuple(len(options) for block in self.blocks for options in block.decisions)

    @property
    def decision_names(self) -> tuple[str, ...]:
        """Name each decision: block1.conv_op, block1.kernel and so on, blocks counted from 1."""
        return tuple(f"block{number}.{name}" for number in range(1, len(self.blocks) + 1) for name in DECISIONS)

    @property
    def decision_options(self) -> tuple[tuple[str, ...], ...]:
        """Spell the options of each decision, as architectures' texts do."""
        decisions = [options for block in self.blocks for options in block.decisions]
        return tuple(tuple(_spelled(option) for option in options) for options in decisions)

    @property
    def size(self) -> int:
        """Count the architectures."""
        return math.prod(self.decision_sizes)

    def arch(self, choices: Sequence[int]) -> Arch:
        """Make the architecture that option indices name.

        Raises:
            UsageError: too many or too few indices, or one out of range.

        """
        sizes = self.decision_sizes
        if len(choices) != len(sizes) or any(not 0 <= c < n for c, n in zip(choices, sizes, strict=True)):
            raise UsageError(
                f"choices {tuple(choices)} do not fit space {self.name}, whose decisions have {sizes} options"
            )
        count = len(DECISIONS)
        own = [choices[start : start + count] for start in range(0, len(sizes), count)]
        return Arch(self.name, tuple(block.block(part) for block, part in zip(self.blocks, own, strict=True)))

    def choices(self, arch: Arch) -> Choices:
        """Give the option indices of an architecture; the inverse of `arch`.

        Raises:
            UsageError: the architecture is not of this space.

        """
        if arch.space != self.name or len(arch.blocks) != len(self.blocks):
            edited = EDITION in self.name and arch.space.partition(EDITION)[0] == self.title
            hint = "; its file was changed since" if edited and arch.space != self.name else ""
            raise UsageError(f"architecture {arch} is not of space {self.name} with {len(self.blocks)} blocks{hint}")
        return tuple(index for i in range(len(self.blocks)) for index in self._block_choices(arch, i))

    def _block_choices(self, arch: Arch, number: int) -> Iterator[int]:
        block = arch.blocks[number]
        values = (block.conv_op, block.kernel, block.se_ratio, block.skip_op, block.layers, block.filters)
        for value, options in zip(values, self.blocks[number].decisions, strict=True):
            if value not in options:
                raise UsageError(f"block {number + 1} of {arch}: {value!r} is not among {options}")
            yield options.index(value)

    @property
    def lightest(self) -> Choices:
        """Give the option indices of the lightest architecture; see BlockOptions.lightest."""
        return tuple(index for block in self.blocks for index in block.lightest)

    def reference(self) -> Arch:
        """Give the reference architecture, one of the space; see BlockOptions.reference."""
        return Arch(self.name, tuple(block.reference() for block in self.blocks))

    def channels(self, block_number: int, filters: float) -> int:
        """Give a block's output channels: its reference width × filters, rounded half up to the multiple."""
        return round_channels(self.blocks[block_number].width * filters, self.channel_multiple)


def round_channels(channels: float, multiple: int) -> int:
    """Round half up to a multiple, at least one multiple."""
    return max(multiple, int(channels / multiple + 0.5) * multiple)


@functools.cache
def _macs_of(conv_op: str) -> int:
    """Count what a small layer of a block type multiplies, to compare types."""
    return BLOCKS[conv_op].graph((1, 4, 4, 8), Layer("layer", out_channels=8)).macs


def _wanted(option: str, options: Sequence[str]) -> str:
    return option if option in options else options[0]


N = TypeVar("N", int, float)


def _nearest(number: N, options: Sequence[N]) -> N:
    return min(options, key=lambda option: abs(option - number))


def _spelled(option: object) -> str:
    return f"{option:g}" if isinstance(option, float) else str(option)


@functools.lru_cache(maxsize=256)  # a study asks again and again, and hypothesis makes many spaces
def _sha256_of(space: Space) -> str:
    content = dataclasses.asdict(space)
    del content["name"]
    for block in content["blocks"]:  # 1 and 1.0 are one value, and so one cache entry, but two texts
        block |= {key: tuple(map(float, block[key])) for key in ("se_ratios", "filters")}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
