"""The teacher's logits, computed once per teacher and data and kept in a memory-mapped file.

Logits are stored by sample and view (views.py), float32 (N, views, classes). The proxy and the final training read
the same file. A file of another teacher or other data has another name, so it can never answer.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekd.data.dataset import UNREADABLE_ARRAY, DataSet
from edgekd.distill.train import predict
from edgekd.distill.views import VIEWS, Samples, samples_of, view_of
from edgekd.errors import DataError
from edgekd.files import write_atomic
from edgekd.teachers import Teacher


def cache_logits(
    folder: Path,
    teacher: Teacher,
    data: DataSet,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Compute the logits of the training samples if they are not there yet; give the file's path."""
    name = hashlib.sha256(f"{teacher.sha256} {data.sha256} train {VIEWS}".encode()).hexdigest()[:16]
    path = folder / f"teacher-logits-{name}.npy"
    if not path.exists():
        write_atomic(path, _npy_bytes(_compute(teacher, samples_of(data, data.train), on_progress)))
    logits = read_logits(path)
    if logits.shape != (len(data.train), VIEWS, data.classes):
        raise DataError(f"teacher logits {path} have shape {tuple(logits.shape)}; remove the file")
    return path


def read_logits(path: Path) -> Tensor:
    """Map a file of logits (N, views, classes) into memory.

    Raises:
        DataError: it is damaged.

    """
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # copy on write: torch wants a writable buffer
    except UNREADABLE_ARRAY as error:
        raise DataError(f"teacher logits {path} cannot be read ({error}); remove the file") from error
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != 3
        or array.dtype != np.float32
        or not np.isfinite(array).all()
    ):
        raise DataError(f"teacher logits {path} are no finite float32 (N, views, classes); remove the file")
    return torch.from_numpy(array)


def _compute(teacher: Teacher, samples: Samples, on_progress: Callable[[int, int], None]) -> Tensor:
    chunks: list[Tensor] = []
    size = 500
    for start in range(0, len(samples), size):
        images = samples.images[start : start + size]
        chunks.append(torch.stack([predict(teacher.module, view_of(images, v)) for v in range(VIEWS)], 1))
        on_progress(min(start + size, len(samples)), len(samples))
    return torch.cat(chunks)  # (N, views, classes)


def _npy_bytes(logits: Tensor) -> bytes:
    data = io.BytesIO()
    np.lib.format.write_array(data, logits.numpy(), allow_pickle=False)
    return data.getvalue()
