"""Images in folders of classes: FOLDER/train/CLASS/*.jpg beside validation/ (or val/) and test/, or FOLDER/CLASS/*.jpg.

Splits that are missing are cut from what is there (listing.py); where there is a val/ but no test/, val/ judges, as in
ImageNet. Links are followed; hidden files, and files whose names do not end like pictures, are ignored.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgekd.data.dataset import DataSet
from edgekd.data.listing import Listing
from edgekd.data.pictures import Picture, Wanted
from edgekd.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_FOLDERS = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test",)}


def is_folder(text: str) -> bool:
    """Tell whether a source is a folder."""
    return Path(text).is_dir()


def load(text: str, wanted: Wanted) -> DataSet:
    """Load a folder.

    Raises:
        DataError: it is missing, has no pictures, splits of other classes, or too many damaged pictures.

    """
    root = Path(text)
    folders = _split_folders(root)
    classes = _classes(root, folders["train"])
    known = {name: label for label, name in enumerate(classes)}
    splits: dict[str, list[Picture]] = {}
    stamps: list[str] = []
    for split, folder in folders.items():
        splits[split] = []
        for path in _files(folder, known, classes):
            status = path.stat()
            name = path.relative_to(root).as_posix()
            stamps.append(f"{name} {status.st_size} {status.st_mtime_ns}")
            splits[split].append(Picture(name, known[path.relative_to(folder).parts[0]], path.read_bytes))
    return Listing(root.resolve().name, str(root), "\n".join(stamps), classes, splits).load(wanted)


def _split_folders(root: Path) -> dict[str, Path]:
    """Find the folder of each split that there is; the root itself is the training split where there is none."""
    if not root.is_dir():
        raise DataError(f"data {root}: no such folder")
    found = {
        split: next((root / name for name in names if (root / name).is_dir()), None)
        for split, names in _FOLDERS.items()
    }
    folders = {split: folder for split, folder in found.items() if folder is not None}
    if "train" not in folders:
        if folders:
            raise DataError(f"data {root}: it has {', '.join(f.name for f in folders.values())}/ but no train/")
        return {"train": root}
    if "test" not in folders and "validation" in folders:
        folders["test"] = folders.pop("validation")
    return folders


def _classes(root: Path, train: Path) -> tuple[str, ...]:
    classes = tuple(
        sorted(entry.name for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    )
    if not classes:
        raise DataError(f"data {root}: {train} has no folders of classes; give one folder of pictures a class")
    for name in classes:
        if not any(_pictures(train / name)):
            raise DataError(f"data {root}: class folder {train / name} holds no pictures ({', '.join(SUFFIXES)})")
    return classes


def _files(folder: Path, known: dict[str, int], classes: tuple[str, ...]) -> list[Path]:
    """List the pictures of a split, sorted by their paths."""
    others = {e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith(".")} - set(known)
    if others:
        raise DataError(
            f"data {folder}: class {min(others)!r} is none of the training pictures': {', '.join(classes[:9])}"
        )
    return sorted(path for name in known if (folder / name).is_dir() for path in _pictures(folder / name))


def _pictures(folder: Path) -> list[Path]:
    """List the pictures below a folder; a loop of links ends where the system ends it."""
    return [
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
