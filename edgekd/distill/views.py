"""Training images as tensors, with the order and augmentation of every epoch as a function of (seed, epoch, sample).

No generator has a state that a killed run could lose. An image has two views, as it is and mirrored, so the teacher's
logits of every view can be cached (logit_cache.py). Does not read files (data/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekd.data.dataset import DataSet, Split

VIEWS = 2  # 0: as it is, 1: mirrored left to right


@dataclass(frozen=True, slots=True)
class Samples:
    """A split ready for torch: images (N, C, H, W) float32 in channels-last memory, labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> Samples:
        """Give the samples at `indices`."""
        return Samples(self.images[indices], self.labels[indices])


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch: images (B, C, H, W), labels (B,), and which sample and view each row is."""

    images: Tensor
    labels: Tensor
    indices: Tensor  # (B,)
    views: Tensor  # (B,)


def samples_of(data: DataSet, split: Split) -> Samples:
    """Preprocess a split into tensors."""
    images = torch.from_numpy(data.preprocess(split.images)).permute(0, 3, 1, 2)  # a view: memory stays channels-last
    return Samples(images, torch.from_numpy(split.labels))


def view_of(images: Tensor, view: int) -> Tensor:
    """Give one view of all images."""
    return images.flip(3) if view else images


def batches(samples: Samples, batch_size: int, seed: int, epoch: int, mirror: bool) -> Iterator[Batch]:
    """Give one epoch in shuffled order; the last, incomplete batch is left out."""
    rng = np.random.default_rng([seed, epoch])
    order = torch.from_numpy(rng.permutation(len(samples)))
    flips = (
        torch.from_numpy(rng.integers(0, VIEWS, len(samples)))
        if mirror
        else torch.zeros(len(samples), dtype=torch.int64)
    )
    size = min(batch_size, len(samples))
    for start in range(0, len(samples) - size + 1, size):
        rows = order[start : start + size]
        views = flips[rows]
        images = samples.images[rows]
        images = torch.where(views.view(-1, 1, 1, 1).bool(), images.flip(3), images) if mirror else images
        yield Batch(images.contiguous(memory_format=torch.channels_last), samples.labels[rows], rows, views)


def balanced_subset(labels: Tensor, count: int) -> Tensor:
    """Choose the first `count` samples in an order that takes the classes in turn; give their indices."""
    rank = torch.zeros_like(labels)
    for label in range(int(labels.max()) + 1):
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    return torch.argsort(rank, stable=True)[:count]
