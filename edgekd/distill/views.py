"""Training images as tensors, in two views: as they are and mirrored left to right.

So the teacher's logits of every view can be cached (logit_cache.py). In which order and view an epoch shows them is
loader.py's. Does not read files (data/).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.data.dataset import DataSet, Split
from edgekd.errors import UsageError

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

    def to(self, device: str) -> Samples:
        """Give the samples in the memory of a torch device."""
        return Samples(self.images.to(device), self.labels.to(device))


def samples_of(data: DataSet, split: Split) -> Samples:
    """Preprocess a split into tensors."""
    images = torch.from_numpy(data.preprocess(split.images)).permute(0, 3, 1, 2)  # a view: memory stays channels-last
    return Samples(images, torch.from_numpy(split.labels))


def resized(samples: Samples, resolution: int) -> Samples:
    """Give the samples with square images of another size, bilinear and antialiased; of their own size as they are."""
    if samples.images.shape[2:] == (resolution, resolution):
        return samples
    images = functional.interpolate(samples.images, (resolution, resolution), mode="bilinear", antialias=True)
    return Samples(images.contiguous(memory_format=torch.channels_last), samples.labels)


def view_of(images: Tensor, view: int) -> Tensor:
    """Give one view of all images."""
    return images.flip(3) if view else images


def count_from(images: float, total: int) -> int:
    """Resolve a wanted number of images (a whole number above 1) or share of `total` (up to 1); at least 2 are needed
    to normalise a batch, and more than `total` there are not.

    Raises:
        UsageError: it is neither.

    """
    if not 0 < images < math.inf or (images > 1 and images != int(images)):
        raise UsageError(f"images is {images!r}; give a whole number above 1, or a share above 0 and up to 1")
    wanted = int(images) if images > 1 else round(images * total)
    return min(max(wanted, 2), total)


def balanced_subset(labels: Tensor, count: int) -> Tensor:
    """Choose the first `count` samples in an order that takes the classes in turn; give their indices."""
    rank = torch.zeros_like(labels)
    for label in range(int(labels.max()) + 1):
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    return torch.argsort(rank, stable=True)[:count]
