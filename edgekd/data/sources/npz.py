"""An npz file of six arrays: {train,validation,test}_images, uint8 (N, H, W) or (N, H, W, C), and {…}_labels, (N,).

It is distrusted: sizes are read before anything is unpacked, and nothing is unpickled.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.dataset import SPLITS, UNREADABLE_ARRAY, DataSet, Split
from edgekd.data.pictures import Wanted
from edgekd.errors import DataError
from edgekd.files import sha256_of

_MAX_BYTES = 4 << 30  # of one file, packed and unpacked; the whole set lives in memory
_MAX_CLASSES = 1 << 20  # more is a damaged label, and would ask for a classifier of that size
_UNREADABLE = (*UNREADABLE_ARRAY, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)


def load(text: str, wanted: Wanted, name: str = "") -> DataSet:  # noqa: ARG001 - every source has this form
    """Load an npz file given by its path.

    Raises:
        DataError: the file is missing, damaged, or its arrays do not fit together.

    """
    path = Path(text)
    arrays = _read_arrays(path)
    return checked(str(path), arrays, sha256_of(path), name or path.stem)


def checked(where: str, arrays: Mapping[str, npt.NDArray[Any]], sha256: str, name: str = "") -> DataSet:
    """Make a set of six arrays; `where` names them in errors.

    Raises:
        DataError: they do not fit together.

    """
    splits = {split: _split(where, arrays, split) for split in SPLITS}
    shapes = {split.images.shape[1:] for split in splits.values()}
    if len(shapes) != 1:
        raise DataError(f"data {where}: the splits' images have different shapes {sorted(shapes)}; make them equal")
    return DataSet.of(where, name or where, sha256, splits)


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
        raise DataError(
            f"data {path}: no such file; give `embedded`, an npz file, a folder of images, "
            "torchvision:CLASS:FOLDER, datasets:FOLDER or MODULE:CALLABLE"
        ) from error
    except _UNREADABLE as error:
        raise DataError(f"data {path}: not a readable npz file ({error}); make it anew") from error
    return {name: member for name, member in members.items() if isinstance(member, np.ndarray)}  # others are bytes


def _split(where: str, arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Split:
    missing = [key for key in (f"{name}_images", f"{name}_labels") if key not in arrays]
    if missing:
        raise DataError(f"data {where}: array {missing[0]!r} is missing; it has {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise DataError(f"data {where}: {name}_images is {images.dtype} {images.shape}; give uint8 (N, H, W, C)")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(f"data {where}: {name}_labels is {labels.dtype} {labels.shape}; give one integer an image")
    if labels.min() < 0 or labels.max() >= _MAX_CLASSES:
        raise DataError(
            f"data {where}: {name}_labels run from {labels.min()} to {labels.max()}; give 0 to classes − 1, "
            f"below {_MAX_CLASSES}"
        )
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int64))
