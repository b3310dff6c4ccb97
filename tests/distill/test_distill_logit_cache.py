"""Cached teacher logits are the live ones, and a file that is not is refused."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data.dataset import DataSet
from edgekd.distill.logit_cache import cache_logits, read_logits
from edgekd.distill.views import VIEWS, samples_of, view_of
from edgekd.errors import DataError
from edgekd.teachers import Teacher


@pytest.fixture
def cached(tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet) -> Path:
    """The file of the tiny teacher's logits."""
    return cache_logits(tmp_path, tiny_teacher, tiny_data)


def test_cached_logits_are_the_live_ones_of_both_views(cached: Path, tiny_teacher: Teacher, tiny_data: DataSet) -> None:
    """Row i, view v of the file is what the teacher says of sample i in view v; mirrored differs from plain."""
    logits, samples = read_logits(cached), samples_of(tiny_data, tiny_data.train)
    assert logits.shape == (31, VIEWS, 3)
    assert logits.dtype == torch.float32
    for view in range(VIEWS):
        assert torch.allclose(logits[:, view], tiny_teacher.module(view_of(samples.images, view)), atol=1e-5)
    assert not torch.allclose(logits[:, 0], logits[:, 1])


def test_logits_are_computed_once(cached: Path, tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet) -> None:
    """A second call reads the file and does not ask the teacher, who has left."""
    before = cached.stat().st_mtime_ns
    absent = dataclasses.replace(tiny_teacher, module=torch.nn.Identity())
    assert cache_logits(tmp_path, absent, tiny_data) == cached
    assert cached.stat().st_mtime_ns == before


def test_progress_counts_the_samples(tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet) -> None:
    """The last step is all of all."""
    steps: list[tuple[int, int]] = []
    cache_logits(tmp_path, tiny_teacher, tiny_data, lambda done, total: steps.append((done, total)))
    assert steps[-1] == (31, 31)


def test_another_teacher_or_other_data_has_another_file(
    cached: Path, tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet
) -> None:
    """A cache can never answer for a teacher or data that it was not made from."""
    other_teacher = dataclasses.replace(tiny_teacher, sha256="0" * 64)
    other_data = dataclasses.replace(tiny_data, sha256="0" * 64)
    paths = {
        cached,
        cache_logits(tmp_path, other_teacher, tiny_data),
        cache_logits(tmp_path, tiny_teacher, other_data),
    }
    assert len(paths) == 3


def test_what_a_reader_changes_in_memory_does_not_reach_the_file(cached: Path) -> None:
    """The mapping is copy on write."""
    before = cached.read_bytes()
    read_logits(cached).zero_()
    assert cached.read_bytes() == before


@pytest.mark.parametrize("shape", [(30, VIEWS, 3), (31, 1, 3), (31, VIEWS, 4)], ids=["samples", "views", "classes"])
def test_a_cache_of_another_shape_is_refused(
    cached: Path, tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet, shape: tuple[int, ...]
) -> None:
    """The message names the file and its shape."""
    np.save(cached, np.zeros(shape, np.float32))
    with pytest.raises(DataError, match="remove the file") as caught:
        cache_logits(tmp_path, tiny_teacher, tiny_data)
    assert str(cached) in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((31, 6), np.float32),
        np.zeros((31, 2, 3), np.float64),
        np.full((31, 2, 3), np.nan, np.float32),
        np.full((31, 2, 3), np.inf, np.float32),
    ],
    ids=["two axes", "float64", "NaN", "infinite"],
)
def test_an_array_that_is_no_table_of_logits_is_refused(cached: Path, array: np.ndarray) -> None:
    """Training on it would fail later and elsewhere, or worse, would not."""
    np.save(cached, array)
    with pytest.raises(DataError, match="no finite float32"):
        read_logits(cached)


def test_a_damaged_cache_is_refused(cached: Path) -> None:
    """Cut off anywhere, not numpy's, an archive, pickled objects, or a folder."""
    content = cached.read_bytes()
    for damaged in (b"", content[:5], content[:60], content[:-1], b"\0" * 200, b"\x93NUMPY\1\0\x10\0{'descr': broken"):
        cached.write_bytes(damaged)
        with pytest.raises(DataError, match="remove the file"):
            read_logits(cached)
    np.savez(cached.with_suffix(".npz"), logits=np.zeros(3))
    np.save(cached, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for path in (cached, cached.with_suffix(".npz"), cached.parent):
        with pytest.raises(DataError, match="remove the file"):
            read_logits(path)


def test_every_damaged_header_byte_is_survived(cached: Path) -> None:
    """A flipped byte of the header gives the same logits or a clear refusal, never another error."""
    content = cached.read_bytes()
    for position in range(80):
        for flip in (0x01, 0x80):
            cached.write_bytes(content[:position] + bytes([content[position] ^ flip]) + content[position + 1 :])
            with contextlib.suppress(DataError):
                assert read_logits(cached).ndim == 3
