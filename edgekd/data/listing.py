"""Which pictures a set has: per split, with the splits that are missing cut from those that are there.

Which picture goes where is decided by its name, so that splits stay as they are when pictures come along.
Decodes nothing (pictures.py) and finds nothing (sources/).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.data.dataset import SPLITS, DataSet, Split
from edgekd.data.pictures import Decoded, Picture, Wanted, decode, named
from edgekd.errors import DataError

_HELD_BACK = 10  # one picture of so many goes to a split that is missing


@dataclass(frozen=True, slots=True)
class Listing:
    """The pictures of a set; `where` names it in errors, `identity` its pictures' content."""

    name: str
    where: str
    identity: str
    classes: tuple[str, ...]
    splits: dict[str, list[Picture]]

    def load(self, wanted: Wanted) -> DataSet:
        """Decode the pictures and give the set.

        Raises:
            DataError: a class or split has no picture, or too many are damaged.

        """
        if len(self.classes) < 2:
            raise DataError(f"data {self.where}: it has {len(self.classes)} class; at least two are needed")
        splits = completed(self.splits)
        for name in SPLITS:
            if not splits[name]:
                raise DataError(f"data {self.where}: split {name} has no picture; give it some, or more to cut it from")
        pictures = [picture for name in SPLITS for picture in splits[name]]
        identity = hashlib.sha256("\0".join([self.identity, *(p.name for p in pictures)]).encode()).hexdigest()
        return self._set_of(splits, decode(self.where, identity, pictures, wanted))

    def _set_of(self, splits: dict[str, list[Picture]], decoded: Decoded) -> DataSet:
        damaged, start, at, made = set(decoded.damaged), 0, 0, {}
        names = []
        for name in SPLITS:
            kept = [p for index, p in enumerate(splits[name], at) if index not in damaged]
            names += [p.name for index, p in enumerate(splits[name], at) if index in damaged]
            if not kept:
                raise DataError(f"data {self.where}: every picture of split {name} is damaged")
            labels = np.array([picture.label for picture in kept], np.int64)
            made[name] = Split(decoded.images[start : start + len(kept)], labels)
            start, at = start + len(kept), at + len(splits[name])
        notes = (f"{len(names)} damaged pictures are left out: {named(iter(names))}",) if names else ()
        digest = hashlib.sha256(decoded.sha256.encode())
        for split in made.values():
            digest.update(split.labels.tobytes())
        return DataSet.of(self.where, self.name, digest.hexdigest(), made, names=self.classes, notes=notes)


def completed(splits: dict[str, list[Picture]]) -> dict[str, list[Picture]]:
    """Cut the splits that are missing: a validation split always from the training one, never from what judges."""
    train = splits.get("train", [])
    test, train = (splits["test"], train) if splits.get("test") else cut(train, "test")
    validation, train = (splits["validation"], train) if splits.get("validation") else cut(train, "validation")
    return {"train": train, "validation": validation, "test": test}


def cut(pictures: Sequence[Picture], purpose: str) -> tuple[list[Picture], list[Picture]]:
    """Cut a tenth of each class off, at least one picture of a class that has two; give it and the rest, in order."""
    classes: dict[int, list[Picture]] = defaultdict(list)
    for picture in pictures:
        classes[picture.label].append(picture)
    chosen: set[str] = set()
    for members in classes.values():
        count = max(len(members) // _HELD_BACK, min(1, len(members) - 1))
        ordered = sorted(members, key=lambda p: hashlib.sha256(f"{purpose} {p.name}".encode()).digest())
        chosen.update(picture.name for picture in ordered[:count])
    return [p for p in pictures if p.name in chosen], [p for p in pictures if p.name not in chosen]
