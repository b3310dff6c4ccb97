"""Loads the data that a user names, from whichever source it is; sources/__init__.py lists them."""

from __future__ import annotations

from edgekd.data.dataset import DataSet
from edgekd.data.pictures import Wanted
from edgekd.data.sources import source_of


def load_data(source: str, wanted: Wanted | None = None) -> DataSet:
    """Load a set; pictures of any size are made into the wanted shape.

    Raises:
        DataError: the source is missing, damaged, or does not hold three splits of two classes or more.
        ModuleNotFoundError: a library that reads it is not installed.

    """
    load, text = source_of(source)
    return load(text, wanted or Wanted())
