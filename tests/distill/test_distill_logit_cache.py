"""Cached teacher logits are the live ones, and a file that is not is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data.dataset import DataSet
from edgekd.distill import logit_cache
from edgekd.distill.coding import encoded
from edgekd.distill.logit_cache import cache_logits, map_logits, read_logits
from edgekd.distill.mentors import CachedLogits
from edgekd.distill.views import VIEWS, samples_of, view_of
from edgekd.errors import DataError
from edgekd.teachers import Teacher

pytestmark = pytest.mark.whole  # trainings


def whole(cached: CachedLogits) -> torch.Tensor:
    """Give exact logits (N, views, classes)."""
    assert cached.exact is not None
    return cached.exact


@pytest.fixture
def cached(tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet) -> Path:
    """The file of the tiny teacher's logits."""
    return cache_logits(tmp_path, tiny_teacher, tiny_data)


def test_cached_logits_are_the_live_ones_of_both_views(cached: Path, tiny_teacher: Teacher, tiny_data: DataSet) -> None:
    """Row i, view v of the file is what the teacher says of sample i in view v; mirrored differs from plain."""
    logits, samples = whole(read_logits(cached)), samples_of(tiny_data, tiny_data.train)
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


class Spy(torch.nn.Module):
    """Says where it is put and what it is shown; it knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.put: list[str] = []
        self.shown: set[str] = set()

    def to(self, device: torch.device) -> Spy:  # type: ignore[override]  # one of torch's many forms
        """Note it."""
        self.put.append(device.type)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give logits in main memory."""
        self.shown.add(images.device.type)
        return torch.zeros(len(images), 3)


def test_the_device_that_trains_computes_the_logits(
    cached: Path, tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet
) -> None:
    """Teacher and images go there, and the teacher comes back; what it computed is nobody else's."""
    spy = Spy()
    teacher = dataclasses.replace(tiny_teacher, module=spy)
    path = cache_logits(tmp_path, teacher, tiny_data, device=torch.device("meta"))
    assert (spy.put, spy.shown) == (["meta", "cpu"], {"meta"})
    assert path != cached
    assert cache_logits(tmp_path, teacher, tiny_data) == cached


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
    whole(read_logits(cached)).zero_()
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
                read_logits(cached)


def test_mapped_logits_are_those_of_the_file(cached: Path, tiny_data: DataSet) -> None:
    """A sample's number in the subset stands for its row."""
    chosen, views = torch.tensor([30, 0, 7]), torch.tensor([1, 0, 1])
    mapped = map_logits(cached, tiny_data, chosen).at(torch.arange(3), views)
    assert torch.equal(mapped, read_logits(cached).at(chosen, views))


def test_a_large_file_is_computed_and_checked_in_pieces(
    cached: Path, tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of any size give the same file, and what is wrong in the last one is found."""
    monkeypatch.setattr(logit_cache, "_SAMPLES", 4)
    (tmp_path / "pieces").mkdir()
    pieces = cache_logits(tmp_path / "pieces", tiny_teacher, tiny_data)
    assert torch.allclose(whole(read_logits(pieces)), whole(read_logits(cached)), atol=1e-6)
    array = np.load(pieces)
    array[-1, -1, -1] = np.nan
    np.save(pieces, array)
    with pytest.raises(DataError, match="no finite float32"):
        read_logits(pieces)


def test_a_teacher_who_gives_nan_leaves_no_file(tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet) -> None:
    """It is named; the half-written file is gone."""

    class Mad(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 3), torch.nan)

    before = set(tmp_path.iterdir())
    with pytest.raises(DataError, match="its logits of training samples from 0 on are not finite"):
        cache_logits(tmp_path, dataclasses.replace(tiny_teacher, module=Mad()), tiny_data)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("shape", [(30, VIEWS, 3), (31, 1, 3), (31, VIEWS, 4)], ids=["samples", "views", "classes"])
def test_mapping_a_cache_of_another_shape_is_refused(cached: Path, tiny_data: DataSet, shape: tuple[int, ...]) -> None:
    """Before one of them is used for the wrong sample."""
    np.save(cached, np.zeros(shape, np.float32))
    with pytest.raises(DataError, match="remove the file"):
        map_logits(cached, tiny_data, torch.tensor([0]))


def test_only_the_rows_that_are_used_are_looked_at(cached: Path, tiny_data: DataSet) -> None:
    """A number that is not finite is found where it would be learnt from."""
    array = np.load(cached)
    array[7, 1, 2] = np.inf
    np.save(cached, array)
    assert map_logits(cached, tiny_data, torch.tensor([6, 8])).at(torch.tensor([1]), torch.tensor([0])).shape == (1, 3)
    with pytest.raises(DataError, match="no finite float32"):
        map_logits(cached, tiny_data, torch.tensor([6, 7]))


def test_many_logits_are_kept_in_a_byte_each(
    tmp_path: Path, tiny_teacher: Teacher, tiny_data: DataSet, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file than the exact one, of the same answers within what a code can say."""
    monkeypatch.setattr(logit_cache, "_EXACT_BYTES", 100)
    path = cache_logits(tmp_path, tiny_teacher, tiny_data)
    assert path != cached
    assert np.load(path).dtype == np.uint8
    rows, views = torch.arange(31), torch.arange(31) % VIEWS
    exact = read_logits(cached).at(rows, views)
    for coded in (read_logits(path), map_logits(path, tiny_data, rows)):
        found = coded.at(rows, views)
        assert torch.equal(found.argmax(1), exact.argmax(1))
        assert (found - exact).abs().max() <= 1.01 * (exact.amax(1) - exact.amin(1)).max() / 255
    assert cache_logits(tmp_path, tiny_teacher, tiny_data) == path


@pytest.mark.parametrize("head", [(np.nan, 1.0), (0.0, np.inf), (0.0, -1.0)], ids=["largest", "range", "negative"])
def test_damaged_codes_are_refused(tmp_path: Path, head: tuple[float, float]) -> None:
    """A row's largest and range are numbers, the range at least 0."""
    codes = encoded(np.zeros((4, VIEWS, 3), np.float32))
    codes[2, 1, :8] = np.array(head, "<f4").view(np.uint8)
    np.save(tmp_path / "codes.npy", codes)
    with pytest.raises(DataError, match="remove the file"):
        read_logits(tmp_path / "codes.npy")
    np.save(tmp_path / "short.npy", codes[..., :8])
    with pytest.raises(DataError, match="remove the file"):
        read_logits(tmp_path / "short.npy")


def test_fifty_thousand_samples_of_a_hundred_classes_take_less_than_12_mb() -> None:
    """In both views, with the heads of all rows."""
    row = encoded(np.zeros((1, VIEWS, 100), np.float32))
    assert 50_000 * row.nbytes < 12e6


CLASSES, SAMPLES = 1000, 60_000  # 480 MB of logits
READER = """
import sys, pathlib, types, torch
from edgekd.distill.logit_cache import map_logits, read_logits

def peak_bytes():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

path, samples, classes = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data = types.SimpleNamespace(train=range(samples), classes=classes)
before = peak_bytes()
rows = torch.arange(0, samples, samples // 100)
used, both = torch.arange(100), torch.ones(100, dtype=torch.int64)
for logits in (map_logits(path, data, rows).at(used, both), read_logits(path).at(rows, both)):
    assert logits.shape == (100, classes)
print(peak_bytes() - before)
"""


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A file of half a gigabyte of logits that takes no room on the disk: all of them are 0."""
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (SAMPLES, VIEWS, CLASSES)).flush()
    yield path
    path.unlink()


@pytest.mark.slow  # half a gigabyte is written and read by a process of its own
def test_a_large_file_is_never_held_whole(large: Path) -> None:
    """Checking half a gigabyte and using a hundredth of its rows grows the process by a tenth of it at most."""
    size_bytes = large.stat().st_size
    command = [sys.executable, "-c", READER, str(large), str(SAMPLES), str(CLASSES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert size_bytes > 4.7e8
    assert int(done.stdout) < size_bytes / 10
