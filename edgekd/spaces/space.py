"""Space: a search space as data: input, stem, and seven blocks with the options of each decision.

Resolution, widths, strides and options are all values, so a 28x28 space and a 224x224 space are two values of one
type (mnasnet.py holds the known ones). Building graphs is in layers.py.
Source: MnasNet's factorised hierarchical space (Tan et al., arXiv 1807.11626) with the options of Search to Distill
(Liu et al., arXiv 1911.09074).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekd.errors import UsageError
from edgekd.spaces.arch import CONV_OPS, SKIP_OPS, Arch, Block

Choices = tuple[int, ...]  # one option index a decision, blocks in order, decisions in the order of BlockOptions


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """One block: its reference width and stride, and what may be chosen."""

    width: int
    stride: int
    layers: tuple[int, ...]
    reference_layers: int
    conv_ops: tuple[str, ...] = CONV_OPS
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


@dataclass(frozen=True, slots=True)
class Space:
    """A search space. Channels are rounded to multiples of `channel_multiple`; `head_width` 0 means no head conv."""

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
    def input_shape(self) -> tuple[int, int, int, int]:
        """Give the shape of one image, (1, H, W, C)."""
        return (1, self.resolution, self.resolution, self.in_channels)

    @property
    def decision_sizes(self) -> tuple[int, ...]:
        """Give the number of options of each decision, six a block."""
        return tuple(len(options) for block in self.blocks for options in block.decisions)

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
        return Arch(self.name, tuple(b.block(choices[i * 6 : i * 6 + 6]) for i, b in enumerate(self.blocks)))

    def choices(self, arch: Arch) -> Choices:
        """Give the option indices of an architecture; the inverse of `arch`.

        Raises:
            UsageError: the architecture is not of this space.

        """
        if arch.space != self.name or len(arch.blocks) != len(self.blocks):
            raise UsageError(f"architecture {arch} is not of space {self.name} with {len(self.blocks)} blocks")
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
        """Give the option indices of the lightest architecture: depthwise-separable, and everything else as small as
        it may be.
        """
        return tuple(index for block in self.blocks for index in (_light_conv(block), 0, 0, 0, 0, 0))

    def reference(self) -> Arch:
        """Give the reference: mb6, kernel 3, no SE, identity, reference layers, filters ×1."""
        return Arch(self.name, tuple(Block("mb6", 3, 0.0, "identity", b.reference_layers, 1.0) for b in self.blocks))

    def channels(self, block_number: int, filters: float) -> int:
        """Give a block's output channels: its reference width × filters, rounded half up to the multiple."""
        return round_channels(self.blocks[block_number].width * filters, self.channel_multiple)


def _light_conv(block: BlockOptions) -> int:
    return block.conv_ops.index("dsconv") if "dsconv" in block.conv_ops else 0


def round_channels(channels: float, multiple: int) -> int:
    """Round half up to a multiple, at least one multiple."""
    return max(multiple, int(channels / multiple + 0.5) * multiple)
