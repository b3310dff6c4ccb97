"""Images with labels in three splits, as bytes; what every source of data gives (sources/, by loading.py).

Training images teach, validation images choose (the proxy's accuracy, quantisation ranges come from training images),
test images only judge what is finished. Does not augment (distill/views.py) and does not import torch.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from edgekd.errors import DataError
from edgekd.files import write_atomic

SPLITS = ("train", "validation", "test")
_CHUNK = 4096  # images whose pixels are counted at once
_NAMED = 5  # classes in a note
# what zipfile, zlib and numpy's header parser raise on damaged bytes; a shape that no memory holds is a MemoryError
UNREADABLE_ARRAY = (OSError, EOFError, ValueError, TypeError, SyntaxError, MemoryError, OverflowError, TokenError)

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
FloatImages = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Split:
    """Images (N, H, W, C) as uint8 and labels (N,) as int64."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Three disjoint splits of one set; `mean` and `std` are the training pixels', in units of 0–1, per channel."""

    name: str
    sha256: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()  # what its reader has to tell the user: damaged pictures that were left out

    @staticmethod
    def of(
        where: str,
        name: str,
        sha256: str,
        splits: Mapping[str, Split],
        *,
        names: Sequence[str] = (),
        notes: tuple[str, ...] = (),
    ) -> DataSet:
        """Make a set of three splits; `where` names it in errors. Without names, classes are found from the labels.

        A class that a split has no image of is noted.

        Raises:
            DataError: there is one class only, or the training images are all of one value.

        """
        found = _checked_classes(where, splits, len(names))
        mean, std = _statistics(where, splits["train"].images)
        missing = tuple(_missing(splits, names or [str(label) for label in range(found)]))
        return DataSet(name, sha256, found, mean, std, **splits, notes=notes + missing)

    def split(self, name: str) -> Split:
        """Give a split by name.

        Raises:
            DataError: no split has that name.

        """
        if name not in SPLITS:
            raise DataError(f"split {name!r} does not exist; choose one of {', '.join(SPLITS)}")
        chosen: Split = getattr(self, name)
        return chosen

    def preprocess(self, images: Images) -> FloatImages:
        """Scale to 0–1, subtract the mean, divide by the deviation: (N, H, W, C) as every artifact's input expects."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (images.astype(np.float32) / np.float32(255) - mean) / std


def write_split(path: Path, data: DataSet, split: Split) -> None:
    """Write an npz with x, float32 (N, H, W, C), preprocessed, and y, int64 (N,)."""
    content = io.BytesIO()
    np.savez_compressed(content, x=data.preprocess(split.images), y=split.labels)
    write_atomic(path, content.getvalue())


def _missing(splits: Mapping[str, Split], names: Sequence[str]) -> Iterator[str]:
    """Say which classes a split has no image of: what it tells is silent about them."""
    for split, part in splits.items():
        there = set(np.unique(part.labels).tolist())
        absent = [name for label, name in enumerate(names) if label not in there]
        if absent:
            more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
            which = ", ".join(absent[:_NAMED]) + more
            yield f"split {split} has no image of {len(absent)} of {len(names)} classes: {which}"


def _checked_classes(where: str, splits: Mapping[str, Split], classes: int) -> int:
    found = 1 + max(int(split.labels.max()) for split in splits.values())
    if found < 2:
        raise DataError(f"data {where}: all labels are 0; at least two classes are needed")
    return classes or found


def _statistics(where: str, images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the mean and deviation of each channel in units of 0–1; sums are of integers, and so exact, at any size."""
    counts = np.zeros((images.shape[3], 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    if (np.count_nonzero(counts, axis=1) < 2).any():
        raise DataError(f"data {where}: the training images are all of one value; give real images")
    values, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return tuple(map(float, mean)), tuple(map(float, deviation))
