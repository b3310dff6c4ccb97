"""Batches are functions of (seed, epoch, sample): bytes or numbers, any number of workers, from any step on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.data.dataset import DataSet, Split
from edgekd.distill import loader
from edgekd.distill.augment import Augmentation, Draws, varied
from edgekd.distill.loader import Batch, Order, Pictures, batches, on_device, parts, source_of
from edgekd.distill.views import Samples, samples_of, view_of

pytestmark = pytest.mark.whole  # loads torch

CPU = torch.device("cpu")
VARIED = Augmentation(crop_padding=1, crop_area=0.5, operators=1)


def pictures_of(data: DataSet, split: Split) -> Pictures:
    """Give a split as bytes."""
    return Pictures(split.images, torch.from_numpy(split.labels), data.mean, data.std)


def seen(source: Samples | Pictures, order: Order, epoch: int, start: int = 0) -> list[Batch]:
    """List an epoch's batches as numbers."""
    return [on_device(source, batch, CPU) for batch in batches(source, order, epoch, start)]


def same(a: list[Batch], b: list[Batch]) -> bool:
    """Compare all that batches hold, bit for bit."""
    fields = ("images", "labels", "indices", "views")
    return len(a) == len(b) and all(torch.equal(getattr(x, f), getattr(y, f)) for x, y in zip(a, b) for f in fields)  # noqa: B905 - compared before


@pytest.fixture
def colourful() -> DataSet:
    """Eleven images of noise in three channels, whose means and deviations are no round numbers."""
    rng = np.random.default_rng(1)
    split = Split(rng.integers(0, 256, (11, 6, 8, 3), dtype=np.uint8), np.arange(11) % 2)
    return DataSet("noise", "0" * 64, 2, (0.49, 0.48, 0.45), (0.247, 0.243, 0.261), split, split, split)


@pytest.mark.parametrize("mirror", [True, False])
def test_bytes_and_numbers_give_the_same_bits(colourful: DataSet, mirror: bool) -> None:
    """A set that is too large for memory trains exactly as a small one."""
    order = Order(4, seed=3, mirror=mirror)
    for epoch in range(3):
        as_numbers = seen(samples_of(colourful, colourful.train), order, epoch)
        assert same(as_numbers, seen(pictures_of(colourful, colourful.train), order, epoch))
        assert all(b.images.is_contiguous(memory_format=torch.channels_last) for b in as_numbers)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_pixel(colourful: DataSet, workers: int) -> None:
    """Augmented and mirrored, in one process or several."""
    pictures = pictures_of(colourful, colourful.train)
    alone = seen(pictures, Order(4, 3, augmentation=VARIED), 1)
    assert same(alone, seen(pictures, Order(4, 3, augmentation=VARIED, workers=workers), 1))


@given(start=st.integers(0, 3), epoch=st.integers(0, 50))
def test_an_epoch_begun_at_a_step_is_the_rest_of_the_whole(start: int, epoch: int) -> None:
    """So a training can go on in the middle of one."""
    images = np.random.default_rng(0).integers(0, 256, (13, 4, 4, 1), dtype=np.uint8)
    pictures = Pictures(images, torch.arange(13) % 3, (0.5,), (0.2,))
    order = Order(4, 7, augmentation=Augmentation(crop_padding=1))
    assert same(seen(pictures, order, epoch)[start:], seen(pictures, order, epoch, start))


def test_augmented_images_are_what_augment_makes_of_the_sample(colourful: DataSet) -> None:
    """Row by row: cropped and operated by (seed, epoch, sample), then mirrored, then normalised."""
    pictures, order, epoch = pictures_of(colourful, colourful.train), Order(4, 5, augmentation=VARIED), 2
    draws = Draws.of(VARIED, 11, 5, epoch)
    for batch in seen(pictures, order, epoch):
        for image, index, view in zip(batch.images, batch.indices, batch.views, strict=True):
            one = index.numpy()[None]
            plain = colourful.preprocess(varied(colourful.train.images[one], one, VARIED, draws))
            assert torch.equal(image, view_of(torch.from_numpy(plain).permute(0, 3, 1, 2), int(view))[0])


def test_devices_share_every_batch(colourful: DataSet) -> None:
    """Together they see what one would, each sample once."""
    samples = samples_of(colourful, colourful.train)
    whole = seen(samples, Order(4, 3), 0)
    shares = [seen(samples, Order(4, 3, share=(part, 2)), 0) for part in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert sorted(torch.cat([first.indices, second.indices]).tolist()) == sorted(batch.indices.tolist())
        assert len(first.indices) == len(second.indices) == 2


def test_the_form_of_a_source_follows_size_and_augmentation(
    colourful: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers where they fit and stay as they are; bytes for what is varied or large."""
    assert isinstance(source_of(colourful, colourful.train), Samples)
    assert isinstance(source_of(colourful, colourful.train, Augmentation(mixup_alpha=0.2)), Samples)
    assert isinstance(source_of(colourful, colourful.train, VARIED), Pictures)
    monkeypatch.setattr(loader, "_FLOAT_BYTES", 100)
    assert isinstance(source_of(colourful, colourful.train), Pictures)


def test_mapped_pictures_are_read_batch_by_batch(colourful: DataSet, tmp_path: Path) -> None:
    """A read-only file on disk, with workers and without."""
    np.save(tmp_path / "images.npy", colourful.train.images)
    mapped = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), colourful.train.labels)
    for workers in (0, 1):
        order = Order(4, 3, augmentation=VARIED, workers=workers)
        assert same(
            seen(pictures_of(colourful, colourful.train), order, 0), seen(pictures_of(colourful, mapped), order, 0)
        )


def test_parts_are_the_split_in_order(colourful: DataSet) -> None:
    """As bytes or as numbers, the last part included."""
    expected = torch.from_numpy(colourful.preprocess(colourful.test.images)).permute(0, 3, 1, 2)
    for source in (samples_of(colourful, colourful.test), pictures_of(colourful, colourful.test)):
        images, labels = zip(*parts(source, 4, CPU), strict=True)
        assert torch.equal(torch.cat(images), expected)
        assert torch.cat(labels).tolist() == colourful.test.labels.tolist()
