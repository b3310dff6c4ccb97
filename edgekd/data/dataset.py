"""Images with labels in three splits, and where they come from: the embedded set, or an npz file of the same form.

Training images teach, validation images choose (the proxy's accuracy, quantisation ranges come from training images),
test images only judge what is finished. Does not augment (distill/views.py) and does not import torch.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import DataError
from edgekd.files import write_atomic

SPLITS = ("train", "validation", "test")
EMBEDDED = Path(__file__).with_name("embedded.npz")
_MAX_BYTES = 4 << 30  # of one file, packed and unpacked; the whole set lives in memory
_MAX_CLASSES = 1 << 20  # more is a damaged label, and would ask for a classifier of that size
# what zipfile, zlib and numpy's header parser raise on damaged bytes; a shape that no memory holds is a MemoryError
UNREADABLE_ARRAY = (OSError, EOFError, ValueError, TypeError, SyntaxError, MemoryError, OverflowError, TokenError)
_UNREADABLE = (*UNREADABLE_ARRAY, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)

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


def load(source: str) -> DataSet:
    """Load `embedded`, or an npz file given by its path.

    The file holds {train,validation,test}_images, uint8 (N, H, W) or (N, H, W, C), and {…}_labels, integers (N,).

    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit together.

    """
    path = EMBEDDED if source == "embedded" else Path(source)
    arrays = _read_arrays(path)
    splits = {name: _split(path, arrays, name) for name in SPLITS}
    shapes = {split.images.shape[1:] for split in splits.values()}
    if len(shapes) != 1:
        raise DataError(f"data {path}: the splits' images have different shapes {sorted(shapes)}; make them equal")
    classes = 1 + max(int(split.labels.max()) for split in splits.values())
    if classes < 2:
        raise DataError(f"data {path}: all labels are 0; at least two classes are needed")
    images = splits["train"].images
    if (images.min((0, 1, 2)) == images.max((0, 1, 2))).any():
        raise DataError(f"data {path}: the training images are all of one value; give real images")
    scaled = images.astype(np.float64) / 255
    mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    return DataSet(
        name=source if source == "embedded" else path.stem,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        classes=classes,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        **splits,
    )


def write_split(path: Path, data: DataSet, split: Split) -> None:
    """Write an npz with x, float32 (N, H, W, C), preprocessed, and y, int64 (N,)."""
    content = io.BytesIO()
    np.savez_compressed(content, x=data.preprocess(split.images), y=split.labels)
    write_atomic(path, content.getvalue())


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"data {path}: {path.stat().st_size} bytes are more than {_MAX_BYTES}; use a subset")
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(member.file_size for member in archive.infolist())
        if size_bytes > _MAX_BYTES:
            raise DataError(f"data {path}: it unpacks to {size_bytes} bytes, more than {_MAX_BYTES}; use a subset")
        with np.load(path, allow_pickle=False) as file:
            members = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataError(f"data {path}: no such file; give `embedded` or the path of an npz file") from error
    except _UNREADABLE as error:
        raise DataError(f"data {path}: not a readable npz file ({error}); make it anew") from error
    return {name: member for name, member in members.items() if isinstance(member, np.ndarray)}  # others are bytes


def _split(path: Path, arrays: dict[str, npt.NDArray[Any]], name: str) -> Split:
    missing = [key for key in (f"{name}_images", f"{name}_labels") if key not in arrays]
    if missing:
        raise DataError(f"data {path}: array {missing[0]!r} is missing; it has {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise DataError(f"data {path}: {name}_images is {images.dtype} {images.shape}; give uint8 (N, H, W, C)")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(f"data {path}: {name}_labels is {labels.dtype} {labels.shape}; give one integer an image")
    if labels.min() < 0 or labels.max() >= _MAX_CLASSES:
        raise DataError(
            f"data {path}: {name}_labels run from {labels.min()} to {labels.max()}; give 0 to classes − 1, "
            f"below {_MAX_CLASSES}"
        )
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int64))
