"""The teacher's logits, computed once per teacher and data and kept in a memory-mapped file.

Logits are stored by sample and view (views.py): float32 (N, views, classes) while that is small, and above 12 MB in
one byte each (coding.py, uint8 (N, views, 8 + classes)): 50,000 samples of 100 classes in both views take 10.8 MB. The
proxy and the final training read the same file, several workers share its pages, and nobody holds all of it: it is
written, checked and read in pieces. A file of another teacher or other data has another name, so it can never answer.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.data.dataset import UNREADABLE_ARRAY, DataSet, Split
from edgekd.distill.coding import HEAD, encoded
from edgekd.distill.judging import predict
from edgekd.distill.mentors import CachedLogits
from edgekd.distill.views import VIEWS, samples_of, view_of
from edgekd.errors import DataError
from edgekd.files import write_atomic
from edgekd.teachers import Teacher

_SAMPLES = 500  # that the teacher sees at once
_CPU = torch.device("cpu")
_EXACT_BYTES = 12_000_000  # that exact logits may take; in codes they take a third of it and less

Stored = np.memmap[tuple[int, ...], np.dtype[Any]]  # float32, or uint8 for codes


def cache_logits(
    folder: Path,
    teacher: Teacher,
    data: DataSet,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    device: torch.device = _CPU,
) -> Path:
    """Compute the logits of the training samples if they are not there yet; give the file's path.

    What another kind of device than a CPU computes differs in its last bits, and has a file of its own.

    Raises:
        DataError: the teacher's logits are not finite, or the file that is there does not fit.

    """
    form = ("" if _is_exact(data) else " coded") + ("" if device.type == "cpu" else f" {device.type}")
    name = hashlib.sha256(f"{teacher.sha256} {data.sha256} train {VIEWS}{form}".encode()).hexdigest()[:16]
    path = folder / f"teacher-logits-{name}.npy"
    if not path.exists():
        try:
            write_atomic(path, _npy_parts(teacher, data, on_progress, device))
        finally:
            teacher.module.to(_CPU)
    _check_shape(path, _mapped(path), data)
    return path


def read_logits(path: Path) -> CachedLogits:
    """Map a file of logits into memory, all of which will be used.

    Raises:
        DataError: it is damaged.

    """
    array = _mapped(path)
    width = int(np.prod(array.shape[1:])) * array.itemsize
    with path.open("rb") as file:  # read, not mapped: what is mapped and looked at stays in this process's memory
        file.seek(array.offset)
        for start in range(0, len(array), _SAMPLES):
            piece = file.read(min(_SAMPLES, len(array) - start) * width)
            _check_finite(path, np.frombuffer(piece, array.dtype).reshape(-1, *array.shape[1:]))
    return _cached(array, None)


def map_logits(path: Path, data: DataSet, rows: Tensor) -> CachedLogits:
    """Map a file of logits into memory, of which only `rows`, one a sample, will be used; the others are not read.

    Raises:
        DataError: the file is damaged, or of other data.

    """
    array = _mapped(path)
    _check_shape(path, array, data)
    for some in torch.split(rows, _SAMPLES):
        _check_finite(path, array[some.numpy()])
    return _cached(array, rows)


def _is_exact(data: DataSet) -> bool:
    return len(data.train) * VIEWS * data.classes * 4 <= _EXACT_BYTES


def _cached(array: Stored, rows: Tensor | None) -> CachedLogits:
    if array.dtype == np.uint8:
        return CachedLogits(coded=array, rows=rows)
    return CachedLogits(torch.from_numpy(array), rows=rows)


def _mapped(path: Path) -> Stored:
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # copy on write: torch wants a writable buffer
    except UNREADABLE_ARRAY as error:
        raise DataError(f"teacher logits {path} cannot be read ({error}); remove the file") from error
    if not isinstance(array, np.memmap) or array.ndim != 3 or array.size == 0:  # an archive is none
        raise DataError(_damaged(path))
    if array.dtype not in (np.float32, np.uint8):
        raise DataError(_damaged(path))
    return array


def _check_shape(path: Path, array: Stored, data: DataSet) -> None:
    head = 0 if array.dtype == np.float32 else HEAD
    if array.shape != (len(data.train), VIEWS, head + data.classes):
        raise DataError(f"teacher logits {path} have shape {array.shape}; remove the file")


def _check_finite(path: Path, rows: npt.NDArray[Any]) -> None:
    coded = rows.dtype == np.uint8
    if coded and rows.shape[-1] <= HEAD:
        raise DataError(_damaged(path))
    numbers = np.ascontiguousarray(rows[..., :HEAD]).view("<f4") if coded else rows
    if not np.isfinite(numbers).all() or (coded and (numbers[..., 1] < 0).any()):
        raise DataError(_damaged(path))


def _damaged(path: Path) -> str:
    return f"teacher logits {path} are no finite float32 (N, views, classes), nor their codes; remove the file"


def _npy_parts(
    teacher: Teacher, data: DataSet, on_progress: Callable[[int, int], None], device: torch.device
) -> Iterator[bytes]:
    """Give a .npy file piece by piece, as the teacher goes through the training samples."""
    module = teacher.module.to(device)
    count = len(data.train)
    header = io.BytesIO()
    exact = _is_exact(data)
    shape = (count, VIEWS, data.classes + (0 if exact else HEAD))
    described = {"descr": "<f4" if exact else "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    yield header.getvalue()
    for start in range(0, count, _SAMPLES):
        part = slice(start, start + _SAMPLES)
        images = samples_of(data, Split(data.train.images[part], data.train.labels[part])).images.to(device)
        logits = torch.stack([predict(module, view_of(images, v)).cpu() for v in range(VIEWS)], 1)  # (B, views, C)
        if not bool(torch.isfinite(logits).all()):
            raise DataError(f"teacher {teacher.name}: its logits of training samples from {start} on are not finite")
        yield logits.numpy().tobytes() if exact else encoded(logits.numpy()).tobytes()
        on_progress(min(start + _SAMPLES, count), count)
