"""Reads a user's search space from a .toml file; every key and value is checked, and the message says what is allowed.

    version = 1                     the format's, may be left out
    name = "my-space"
    like = "mnasnet-96"             a built-in space that gives what the file leaves out
    resolution, channels, classes   of the images; channel_multiple: widths are rounded to it
    stem = { width, stride }        head = { width }, 0 for none
    [options]                       what blocks may choose: conv_ops, kernels, se_ratios, skip_ops, filters
    [[blocks]]                      width, stride, layers, reference_layers, and options of its own

The name that the space gets is NAME@HASH, see Space. Writing is space_toml.py's; whether a space is sound is
space_check.py's.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.errors import ConfigError, suggest
from edgekd.spaces.arch import CONV_OPS, MAX_LAYERS, SKIP_OPS
from edgekd.spaces.space import EDITION, MNASNET_OPS, BlockOptions, Space
from edgekd.spaces.space_check import check_space
from edgekd.spaces.toml_values import Range, Table

VERSION = 1
OPTIONS = ("conv_ops", "kernels", "se_ratios", "skip_ops", "filters")
_MAX_BYTES = 1 << 20  # a space is a few kilobytes
_HASH_DIGITS = 8  # of an edition; 32 bits tell a user's few dozen editions apart
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")  # it becomes a part of file names and of architectures' texts
_KERNELS = (1, 3, 5, 7, 9)  # even ones would move features by half a pixel, and a text has room for one digit
_RATIO_DIGITS = 4  # behind the point, which an architecture's text spells exactly

_RESOLUTION = Range(4, 4096)
_CHANNELS = Range(1, 64)
_CLASSES = Range(2, 100_000)
_WIDTH = Range(1, 16_384)
_HEAD = Range(0, 16_384)
_MULTIPLE = Range(1, 256)
_STRIDE = Range(1, 3)  # a kernel of 3 sees every pixel
_LAYERS = Range(1, MAX_LAYERS)
_SE_RATIO = Range(0.0, 0.99)
_FILTERS = Range(0.01, 9.99)


def read_space(path: Path, known: Mapping[str, Space]) -> Space:
    """Read a space; `known` are the built-in ones, whose names are taken and which `like` may name.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or a key or value is wrong or does not make a sound space.

    """
    where = f"space {path}"
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror or error}") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{where} has more than {_MAX_BYTES} bytes; a space has a few thousand")
    try:
        return space_from(content.decode(), where, known)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 text: {error}") from error


def space_from(text: str, where: str, known: Mapping[str, Space]) -> Space:
    """Make a space of a TOML text; `where` names it in errors. See `read_space`."""
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    space = _space(Table(content, where), known)
    space = replace(space, name=f"{space.name}{EDITION}{space.sha256[:_HASH_DIGITS]}")
    check_space(space, where)
    return space


def _space(table: Table, known: Mapping[str, Space]) -> Space:
    _check_version(table)
    name, like = _name(table, known), _like(table, known)
    stem, head = table.table("stem"), table.table("head")
    base = dataclasses.asdict(like) if like else {"head_width": 0, "channel_multiple": 8}
    space = Space(
        name=name,
        resolution=table.integer("resolution", _RESOLUTION, base.get("resolution")),
        in_channels=table.integer("channels", _CHANNELS, base.get("in_channels")),
        classes=table.integer("classes", _CLASSES, base.get("classes")),
        stem_width=stem.integer("width", _WIDTH, base.get("stem_width")),
        stem_stride=stem.integer("stride", _STRIDE, base.get("stem_stride")),
        blocks=_blocks(table, like),
        head_width=head.integer("width", _HEAD, base["head_width"]),
        channel_multiple=table.integer("channel_multiple", _MULTIPLE, base["channel_multiple"]),
    )
    for part in (table, stem, head):
        part.finish()
    return space


def _check_version(table: Table) -> None:
    version = table.raw("version", VERSION)
    if isinstance(version, bool) or version != VERSION:
        raise table.wrong("version", version, f"this edgekd reads version {VERSION}")


def _name(table: Table, known: Mapping[str, Space]) -> str:
    name = table.text("name")
    if not _NAME.fullmatch(name):
        raise table.wrong("name", name, "it must be 1 to 32 letters, digits, '.', '_' or '-', the first no sign")
    if name in known:
        raise table.wrong("name", name, "that is a built-in space's; choose another")
    return name


def _like(table: Table, known: Mapping[str, Space]) -> Space | None:
    name = table.text("like", "")
    if name and name not in known:
        raise table.wrong("like", name, suggest(name, known))
    return known.get(name)


def _blocks(table: Table, like: Space | None) -> tuple[BlockOptions, ...]:
    shared = table.table("options")
    common: dict[str, Any] = {key: _option(shared, key, None) for key in OPTIONS if key in shared}
    if "blocks" not in table and like is not None:
        blocks = tuple(replace(block, **common) for block in like.blocks)
    else:
        blocks = tuple(_block(one, common) for one in table.tables("blocks", "block"))
    shared.finish()
    return blocks


_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "conv_ops": MNASNET_OPS,
    "kernels": (3, 5),
    "se_ratios": (0.0, 0.25),
    "skip_ops": SKIP_OPS,
    "filters": (0.75, 1.0, 1.25),
}


def _block(table: Table, common: Mapping[str, Any]) -> BlockOptions:
    layers = table.integers("layers", _LAYERS)
    middle = sorted(layers)[(len(layers) - 1) // 2]
    reference = table.integer("reference_layers", _LAYERS, middle)
    if reference not in layers:
        raise table.wrong("reference_layers", reference, f"it must be one of layers, {', '.join(map(str, layers))}")
    block = BlockOptions(
        width=table.integer("width", _WIDTH),
        stride=table.integer("stride", _STRIDE),
        layers=layers,
        reference_layers=reference,
        **{key: _option(table, key, common.get(key, _DEFAULTS[key])) for key in OPTIONS},
    )
    table.finish()
    return block


def _option(table: Table, key: str, default: tuple[Any, ...] | None) -> tuple[Any, ...]:
    if key == "conv_ops":
        return table.names(key, CONV_OPS, default)
    if key == "skip_ops":
        return table.names(key, SKIP_OPS, default)
    if key == "kernels":
        return table.one_of(key, _KERNELS, default)
    return table.numbers(key, _SE_RATIO if key == "se_ratios" else _FILTERS, _RATIO_DIGITS, default)
