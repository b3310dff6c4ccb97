"""Writes a space as the .toml text that space_file.py reads, so that a user starts from a built-in one."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.spaces.space import BlockOptions, Space
from edgekd.spaces.space_file import OPTIONS, VERSION


def to_toml(space: Space, title: str = "") -> str:
    """Write a space under its title, or another one; reading it back gives a space of the same content."""
    return "\n".join(_lines(space, title or space.title)) + "\n"


def _lines(space: Space, title: str) -> Iterator[str]:
    yield f"version = {VERSION}"
    yield f'name = "{title}"'
    yield ""
    yield f"resolution = {space.resolution}  # pixels, square"
    yield f"channels = {space.in_channels}"
    yield f"classes = {space.classes}"
    yield f"channel_multiple = {space.channel_multiple}  # widths × filters are rounded to it"
    yield f"stem = {{ width = {space.stem_width}, stride = {space.stem_stride} }}"
    yield f"head = {{ width = {space.head_width} }}  # of the convolution before the mean; 0 for none"
    shared = [key for key in OPTIONS if len({getattr(block, key) for block in space.blocks}) == 1]
    if shared:
        yield "\n[options]  # of every block"
        yield from (_option(space.blocks[0], key) for key in shared)
    for block in space.blocks:
        yield ""
        yield "[[blocks]]"
        yield f"width = {block.width}"
        yield f"stride = {block.stride}"
        yield _option(block, "layers")
        yield f"reference_layers = {block.reference_layers}"
        yield from (_option(block, key) for key in OPTIONS if key not in shared)


def _option(block: BlockOptions, key: str) -> str:
    options = (f'"{option}"' if isinstance(option, str) else repr(option) for option in getattr(block, key))
    return f"{key} = [{', '.join(options)}]"
