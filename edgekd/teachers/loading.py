"""Load a teacher by what a user calls it: one source, or several joined by + that teach as one.

What a source may be is sources/__init__.py's; several of them are ensemble.py's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError
from edgekd.teachers.base import Teacher
from edgekd.teachers.ensemble import ensemble_of
from edgekd.teachers.pixels import said
from edgekd.teachers.sources import source_of


def load(source: str, data: DataSet) -> Teacher:
    """Load a teacher and check that it fits the data.

    The network is in eval mode and asks for no gradients; it takes images that are normalised as the data's.

    Raises:
        DataError: it is missing, damaged, or made for other classes or images.
        UnknownName: its architecture is not known.
        MissingExtra: a library that runs it is not installed.

    """
    names = [source] if _is_path(source) else source.split("+")
    if len(names) == 1:
        return _loaded(source, data)
    if len(set(names)) < len(names) or not all(names):
        raise DataError(f"teacher {source}: an ensemble is A+B of different teachers; name each once, and no empty one")
    return ensemble_of(source, [_loaded(name, data) for name in names])


def _loaded(text: str, data: DataSet) -> Teacher:
    name, sight = said(text)
    loader, rest = source_of(name)
    return replace(loader(rest, sight, data), name=text)


def _is_path(source: str) -> bool:
    """Tell whether it is a file whose name has a + in it."""
    name = source.partition(",")[0]
    return any(Path(part).is_file() for part in (name, name.partition(":")[2], name.partition("@")[2]) if part)
