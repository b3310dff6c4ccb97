"""Sees that a space's values, each right by itself, make sense together: features, sizes, counts and texts.

The values themselves are space_file.py's to check.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgekd.errors import ConfigError
from edgekd.graph.ir import out_shape_of
from edgekd.spaces.arch import Block
from edgekd.spaces.builder import Shape
from edgekd.spaces.layers import block_ops, head_ops, stem_ops
from edgekd.spaces.space import Space
from latency_tables.op_spec import OpSpec

_MAX_ELEMENTS = 1 << 27  # of one operator's tensors together, 512 MB of floats: what can still be measured alone
_MAX_KINDS = 2000  # ways in which one block may differ in more than its depth; each is laid out to list the operators
_MAX_TEXT = 450  # characters of an architecture, which is part of a job's id on a device


def check_space(space: Space, where: str) -> None:
    """See that a space can be built, measured and named; `where` names it in errors.

    Raises:
        ConfigError: a stride finds nothing to halve, a layer is too large, a block has too many options, or the
            architectures' texts become too long.

    """
    _check_features(space, where)
    _check_counts(space, where)
    _check_sizes(space, where)
    longest = len(_longest_text(space))
    if longest > _MAX_TEXT:
        raise ConfigError(
            f"{where}: an architecture's text has up to {longest} characters, {_MAX_TEXT} at most are possible; "
            f"use fewer than {len(space.blocks)} blocks"
        )


def _longest_text(space: Space) -> str:
    longest = [max(range(len(options)), key=lambda i: len(options[i])) for options in space.decision_options]
    return str(space.arch(longest))


def _check_features(space: Space, where: str) -> None:
    """See that no stride meets features of 1x1."""
    side = space.resolution
    for name, stride in [
        ("stem", space.stem_stride),
        *((f"block {n}", b.stride) for n, b in enumerate(space.blocks, 1)),
    ]:
        if stride > 1 and side == 1:
            raise ConfigError(
                f"{where}: {name} has stride {stride}, but its features are 1x1 already; "
                f"give it stride 1 or raise the resolution above {space.resolution}"
            )
        side = math.ceil(side / stride)


def _check_counts(space: Space, where: str) -> None:
    for number, block in enumerate(space.blocks, 1):
        options = (block.conv_ops, block.kernels, block.se_ratios, block.skip_ops, block.filters)
        kinds = math.prod(map(len, options))
        if kinds > _MAX_KINDS:
            raise ConfigError(
                f"{where}: block {number} has {kinds} combinations of operator, kernel, squeeze, skip and filters; "
                f"{_MAX_KINDS} at most are possible"
            )


def _check_sizes(space: Space, where: str) -> None:
    """See that the largest operators fit, by the widest choices of every block."""
    ops, start = stem_ops(space)
    _see("stem", ops, space, where)
    for number, options in enumerate(space.blocks):
        ends: list[Shape] = []
        for conv_op in options.conv_ops:
            ops, end = block_ops(space, number, start, _widest(space, number, conv_op))
            _see(f"block {number + 1} with {conv_op}", ops, space, where)
            ends.append(end)
        start = ends[0]  # all have the same width
    _see("head", head_ops(space, start), space, where)


def _see(name: str, ops: Iterable[OpSpec], space: Space, where: str) -> None:
    largest = max(map(_elements, ops))
    if largest > _MAX_ELEMENTS:
        raise ConfigError(
            f"{where}: {name} has an operator of {largest / 1e6:.0f} million values, {_MAX_ELEMENTS / 1e6:.0f} million "
            f"at most are possible; lower the resolution of {space.resolution} or the widths"
        )


def _elements(op: OpSpec) -> int:
    shapes = [*(tensor.shape for tensor in op.inputs), out_shape_of(op), op.weight_shape]
    return sum(map(math.prod, shapes))


def _widest(space: Space, number: int, conv_op: str) -> Block:
    """Make the widest block of a type, as deep as two layers where the space allows that: the others repeat them."""
    options = space.blocks[number]
    depth = min(2, max(options.layers))
    kernel, se_ratio, filters = max(options.kernels), max(options.se_ratios), max(options.filters)
    return Block(conv_op, kernel, se_ratio, options.skip_ops[0], depth, filters)
