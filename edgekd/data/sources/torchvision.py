"""A torchvision set that lies on disk already, as torchvision:CIFAR10:FOLDER; nothing is downloaded.

The set's own class reads it (extra `torchvision`); edgekd asks for its training and its test part, and validation where
it has one, by the names that torchvision's classes use for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgekd.data.dataset import DataSet
from edgekd.data.listing import Listing
from edgekd.data.pictures import Picture, Wanted
from edgekd.errors import DataError, suggest

# what a class's `split` may be called, by ours
_SPLITS = {"train": ("train", "trainval"), "validation": ("val", "valid"), "test": ("test", "val")}


def load(text: str, wanted: Wanted) -> DataSet:
    """Load CLASS:FOLDER.

    Raises:
        DataError: there is no such class, or its files are not in the folder.
        ModuleNotFoundError: torchvision is not installed.

    """
    from torchvision import datasets

    name, _, root = text.partition(":")
    known = [n for n, kind in vars(datasets).items() if inspect.isclass(kind)]
    if name not in known or not root:
        raise DataError(f"data torchvision:{text}: give torchvision:CLASS:FOLDER; {suggest(name, known)}")
    parts = _parts(getattr(datasets, name), name, root)
    splits = {split: _pictures(part, split) for split, part in parts.items()}
    labels = {picture.label for picture in splits["train"]}
    classes = tuple(getattr(parts["train"], "classes", ())) or tuple(map(str, sorted(labels)))
    if max(labels) >= len(classes):
        raise DataError(f"data torchvision:{text}: label {max(labels)} is beyond its {len(classes)} classes")
    where = f"torchvision:{name}:{root}"
    identity = "\n".join([where, *sorted(f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in _files(root))])
    return Listing(name, where, identity, classes, splits).load(wanted)


def _files(root: str) -> list[Path]:
    return [path for path in Path(root).rglob("*") if path.is_file()]


def _parts(kind: Callable[..., Any], name: str, root: str) -> dict[str, Any]:
    """Open the parts that a class has."""
    accepted = inspect.signature(kind).parameters
    if "train" in accepted:
        return {"train": _opened(kind, name, root, train=True), "test": _opened(kind, name, root, train=False)}
    if "split" not in accepted:
        raise DataError(
            f"data torchvision:{name}: that class has neither a `train` nor a `split`; edgekd cannot use it"
        )
    parts: dict[str, Any] = {"train": _first(kind, name, root, _SPLITS["train"])}
    for split in ("test", "validation"):
        taken = [part.split for part in parts.values() if hasattr(part, "split")]
        try:
            parts[split] = _first(kind, name, root, [n for n in _SPLITS[split] if n not in taken])
        except DataError:
            if split == "test":
                raise
    return parts


def _first(kind: Callable[..., Any], name: str, root: str, splits: tuple[str, ...] | list[str]) -> Any:
    failures: list[DataError] = []
    for split in splits:
        try:
            return _opened(kind, name, root, split=split)
        except DataError as error:
            failures.append(error)
    raise failures[0] if failures else DataError(f"data torchvision:{name}: no such part")


def _opened(kind: Callable[..., Any], name: str, root: str, **which: Any) -> Any:
    accepted = inspect.signature(kind).parameters
    offline = {"download": False} if "download" in accepted else {}
    try:
        return kind(root, **which, **offline)
    except Exception as error:  # another library's reader, on files that may be anything
        chosen = ", ".join(f"{key}={value}" for key, value in which.items())
        raise DataError(f"data torchvision:{name} in {root} ({chosen}): {error}") from error


def _pictures(part: Any, split: str) -> list[Picture]:
    """List a part's pictures; labels that the class holds at hand are not read from the pictures' records."""
    targets = next((getattr(part, name) for name in ("targets", "labels", "_labels") if hasattr(part, name)), None)
    labels = [int(label) for label in targets] if targets is not None else [int(part[i][1]) for i in range(len(part))]
    return [Picture(f"{split}/{index}", label, partial(_read, part, index)) for index, label in enumerate(labels)]


def _read(part: Any, index: int) -> Any:
    return part[index][0]  # an open PIL picture
