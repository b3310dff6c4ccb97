"""A Hugging Face set saved with `save_to_disk`, as datasets:FOLDER; nothing is downloaded (extra `datasets`).

The first column of type Image holds the pictures, the first of type ClassLabel their classes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from edgekd.data.dataset import DataSet
from edgekd.data.listing import Listing
from edgekd.data.pictures import Picture, Wanted
from edgekd.errors import DataError

_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


def load(text: str, wanted: Wanted) -> DataSet:
    """Load a saved set.

    Raises:
        DataError: it is missing, damaged, or has no pictures, classes or training split.
        ModuleNotFoundError: the library is not installed.

    """
    import datasets

    where = f"datasets:{text}"
    try:
        found = datasets.load_from_disk(text)
    except Exception as error:  # another library's reader, on files that may be anything
        raise DataError(f"data {where}: not a set saved with save_to_disk ({error})") from error
    parts = dict(found.items()) if isinstance(found, datasets.DatasetDict) else {"train": found}
    parts = {_NAMES[name]: part for name, part in parts.items() if name in _NAMES}
    if "train" not in parts:
        raise DataError(f"data {where}: it has no split called train; it has {', '.join(found)}")
    features = parts["train"].features
    image = _column(where, features, datasets.Image, "pictures")
    label = _column(where, features, datasets.ClassLabel, "classes")
    classes = tuple(features[label].names)
    splits = {}
    for name, part in parts.items():
        raw = part.cast_column(image, datasets.Image(decode=False))  # pictures.py decodes, and names the damaged
        splits[name] = _pictures(where, raw, name, image, label)
    stamp = " ".join(f"{name} {getattr(part, '_fingerprint', len(part))}" for name, part in sorted(parts.items()))
    return Listing(Path(text).resolve().name, where, f"{where} {stamp}", classes, splits).load(wanted)


def _column(where: str, features: Any, kind: type, what: str) -> str:
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if not names:
        raise DataError(f"data {where}: no column is of type {kind.__name__}, which holds the {what}: {features}")
    return str(names[0])


def _pictures(where: str, part: Any, split: str, image: str, label: str) -> list[Picture]:
    labels = part[label]
    if any(value is None or value < 0 for value in labels):
        raise DataError(f"data {where}: pictures of split {split} have no class")
    return [Picture(f"{split}/{i}", int(value), partial(_read, part, i, image)) for i, value in enumerate(labels)]


def _read(part: Any, index: int, column: str) -> bytes:
    told = part[index][column]
    content: bytes = told["bytes"] if told["bytes"] is not None else Path(told["path"]).read_bytes()
    return content
