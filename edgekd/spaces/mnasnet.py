"""The known spaces, as data. `space_named` finds one, or reads a user's.

The narrow one is for 28x28 grey images: a quarter of the reference widths late and half of them early, two strides
fewer, small enough to be searched on two cores in minutes. Adding a space is adding a value here; a user's space is a
file (space_file.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekd.errors import UnknownName
from edgekd.spaces.space import BlockOptions, Space
from edgekd.spaces.space_file import read_space

_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_LAYERS = (1, 2, 3, 4, 3, 3, 1)


def _blocks(widths: tuple[int, ...], strides: tuple[int, ...]) -> tuple[BlockOptions, ...]:
    return tuple(
        BlockOptions(
            width=width,
            stride=stride,
            reference_layers=layers,
            layers=tuple(n for n in (layers - 1, layers, layers + 1) if n >= 1),
        )
        for width, stride, layers in zip(widths, strides, _LAYERS, strict=True)
    )


def _mnasnet(resolution: int) -> Space:
    return Space(
        name=f"mnasnet-{resolution}",
        resolution=resolution,
        in_channels=3,
        classes=1000,
        stem_width=32,
        stem_stride=2,
        blocks=_blocks(_WIDTHS, _STRIDES),
        head_width=1280,
    )


# CIFAR's images: MnasNet's widths with three strides of 2 instead of five, so that the last features are 4x4, not 1x1.
_SMALL = replace(_mnasnet(32), classes=10, stem_stride=1, blocks=_blocks(_WIDTHS, strides=(1, 1, 2, 2, 1, 2, 1)))

_NARROW = Space(
    name="mnasnet-28-narrow",
    resolution=28,
    in_channels=1,
    classes=10,
    stem_width=8,
    stem_stride=2,
    blocks=_blocks((8, 12, 16, 24, 32, 48, 80), (1, 1, 2, 1, 1, 2, 1)),
    channel_multiple=4,
)

# For trying a device out: few operators, so that even an emulated one is profiled in minutes. Too small to search.
_TINY = Space(
    name="tiny-28",
    resolution=28,
    in_channels=1,
    classes=10,
    stem_width=8,
    stem_stride=2,
    blocks=tuple(
        BlockOptions(
            width,
            stride=2,
            layers=(1, 2),
            reference_layers=1,
            conv_ops=("mb3", "mb6"),
            kernels=(3,),
            se_ratios=(0.0,),
            skip_ops=("none", "identity"),
            filters=(1.0,),
        )
        for width in (8, 16)
    ),
)

_ALL = (_TINY, _NARROW, _SMALL, *map(_mnasnet, (96, 160, 224)))

SPACES: dict[str, Space] = {space.name: space for space in _ALL}

_FILE = ".toml"


def space_named(name: str) -> Space:
    """Find a space by name, or read a user's from a file where the name is a path that ends in .toml.

    Raises:
        UnknownName: there is none; the message names the nearest.
        ConfigError: the file cannot be read or holds no sound space.

    """
    if name.endswith(_FILE):
        return read_space(Path(name), SPACES)
    if name not in SPACES:
        raise UnknownName("space", name, SPACES)
    return SPACES[name]
