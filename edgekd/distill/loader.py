"""Batches of a training: which samples, in which order, looking how, as functions of (seed, epoch, sample).

No generator has a state that a killed run could lose, and no number of worker processes changes a pixel. Small sets lie
in memory as numbers (views.Samples); Pictures keep bytes, mapped from disk where the data are, and make numbers batch
by batch. Decoding is done by data/; mixing of images by the loop, on the device that trains.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekd.data.dataset import DataSet, Images, Split
from edgekd.distill.augment import Augmentation, Draws, varied
from edgekd.distill.views import VIEWS, Samples, samples_of

_FLOAT_BYTES = 256 << 20  # that a set may take as numbers in memory; a larger one stays bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch: images (B, C, H, W), labels (B,), and which sample and view each row is (in main memory)."""

    images: Tensor
    labels: Tensor
    indices: Tensor  # (B,)
    views: Tensor  # (B,)


@dataclass(frozen=True, slots=True)
class Pictures:
    """A split as bytes (N, H, W, C), perhaps mapped from disk, and how to make a network's numbers of them."""

    images: Images
    labels: Tensor  # (N,)
    mean: tuple[float, ...]  # in units of 0–1, a channel
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, images: Tensor) -> Tensor:
        """Make (B, C, H, W) float32 in channels-last memory of bytes (B, H, W, C), on their device.

        The same operations as DataSet.preprocess, and so the same bits.
        """
        device = images.device  # numbers as tensors: a division by a Python number may be done as a multiplication
        mean, std, white = (torch.tensor(n, dtype=torch.float32, device=device) for n in (self.mean, self.std, 255.0))
        width = images.shape[2]  # whole rows at once: three numbers at a time are many times slower
        rows = (images.flatten(2).float() / white - mean.repeat(width)) / std.repeat(width)  # (B, H, W·C)
        return rows.view(images.shape).permute(0, 3, 1, 2)


Source = Samples | Pictures


def source_of(data: DataSet, split: Split, augmentation: Augmentation | None = None) -> Source:
    """Give a split in the form that a training reads it: numbers where they fit and stay as they are, or else bytes."""
    varies = augmentation is not None and augmentation.touches_bytes
    if not varies and split.images.size * 4 <= _FLOAT_BYTES:
        return samples_of(data, split)
    return Pictures(split.images, torch.from_numpy(split.labels), data.mean, data.std)


@dataclass(frozen=True, slots=True)
class Order:
    """What decides an epoch's batches, and how they are made."""

    batch_size: int
    seed: int
    mirror: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)  # of bytes: of Pictures alone
    workers: int = 0  # processes that vary images; none changes a pixel
    share: tuple[int, int] = (0, 1)  # of each batch: (which, of how many), for several devices

    def steps(self, count: int) -> int:
        """Give the number of batches that `count` samples make; what does not fill one is left out."""
        return count // min(self.batch_size, count)


@dataclass(frozen=True, slots=True)
class _Epoch:
    """One epoch, drawn."""

    order: Tensor  # (N,)
    views: Tensor  # (N,) by sample

    @staticmethod
    def of(count: int, order: Order, epoch: int) -> _Epoch:
        rng = np.random.default_rng([order.seed, epoch])
        rows = torch.from_numpy(rng.permutation(count))
        none = torch.zeros(count, dtype=torch.int64)
        return _Epoch(rows, torch.from_numpy(rng.integers(0, VIEWS, count)) if order.mirror else none)

    def rows(self, order: Order, start: int) -> list[Tensor]:
        """Give the samples of each batch from a step on, of this process's share."""
        count = len(self.order)
        size = min(order.batch_size, count)
        part, parts = order.share
        batches = [self.order[i : i + size] for i in range(start * size, count - size + 1, size)]
        return batches if parts == 1 else [rows[part::parts] for rows in batches]


def batches(source: Source, order: Order, epoch: int, start: int = 0) -> Iterator[Batch]:
    """Give one epoch in shuffled order, from a step on; the last, incomplete batch is left out."""
    drawn = _Epoch.of(len(source), order, epoch)
    if isinstance(source, Samples):
        return (_from_memory(source, rows, drawn.views[rows], order) for rows in drawn.rows(order, start))
    return _from_bytes(source, drawn, order, epoch, start)


def _from_memory(samples: Samples, rows: Tensor, views: Tensor, order: Order) -> Batch:
    images = samples.images[rows]
    if order.mirror:
        images = torch.where(views.view(-1, 1, 1, 1).bool().to(images.device), images.flip(3), images)
    return Batch(images.contiguous(memory_format=torch.channels_last), samples.labels[rows], rows, views)


def _from_bytes(pictures: Pictures, drawn: _Epoch, order: Order, epoch: int, start: int) -> Iterator[Batch]:
    draws = Draws.of(order.augmentation, len(pictures), order.seed, epoch)
    looks = _Looks(pictures.images, drawn.views, order.augmentation, draws)
    rows = drawn.rows(order, start)
    for which, images in zip(rows, _made(looks, rows, order.workers), strict=True):
        yield Batch(images, pictures.labels[which], which, drawn.views[which])


@dataclass(frozen=True, slots=True)
class _Looks(Dataset[Tensor]):
    """The pictures of one epoch as they are shown, in bytes: what goes to the workers."""

    images: Images
    views: Tensor
    augmentation: Augmentation
    draws: Draws

    def __len__(self) -> int:
        return len(self.views)

    def __getitems__(self, rows: list[int]) -> Tensor:
        """Give bytes (B, H, W, C)."""
        indices = np.asarray(rows)
        found = varied(np.asarray(self.images[indices]), indices, self.augmentation, self.draws)
        mirrored = self.views.numpy()[indices] == 1
        found[mirrored] = found[mirrored][:, :, ::-1]  # a copy by now: no one's images change
        return torch.from_numpy(np.ascontiguousarray(found))


def _made(looks: _Looks, rows: list[Tensor], workers: int) -> Iterable[Tensor]:
    """Make the batches here, or in so many processes, in order."""
    listed = [which.tolist() for which in rows]
    if not workers:
        return (looks.__getitems__(which) for which in listed)
    # forked workers share the pages of mapped pictures; others would get copies
    context = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    return DataLoader(
        looks,
        batch_sampler=listed,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context=context,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(images: Any) -> Any:
    return images


def on_device(source: Source, batch: Batch, device: torch.device) -> Batch:
    """Give the batch as numbers in a device's memory; bytes travel, numbers are made there."""
    images = batch.images.to(device, non_blocking=True)
    if isinstance(source, Pictures):
        images = source.normalised(images)
    return Batch(images, batch.labels.to(device, non_blocking=True), batch.indices, batch.views)


def parts(source: Source, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Give images (B, C, H, W) and labels (B,) in the order of the split, unvaried, as numbers on a device."""
    for start in range(0, len(source), size):
        part = slice(start, start + size)
        labels = source.labels[part].to(device)
        if isinstance(source, Samples):
            yield source.images[part].to(device), labels
        else:
            yield source.normalised(torch.from_numpy(np.ascontiguousarray(source.images[part])).to(device)), labels
