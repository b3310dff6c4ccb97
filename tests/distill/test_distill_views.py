"""Order and augmentation are functions of (seed, epoch, sample); nothing else decides them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekd.data.dataset import DataSet
from edgekd.distill.loader import Batch, Order, batches
from edgekd.distill.views import (
    VIEWS,
    Samples,
    balanced_subset,
    count_from,
    resized,
    samples_of,
    view_of,
)
from edgekd.errors import UsageError

pytestmark = pytest.mark.whole  # loads torch


def numbered(count: int) -> Samples:
    """Make samples whose pixels tell their number, and on which side they began."""
    images = torch.arange(count * 4, dtype=torch.float32).view(count, 1, 2, 2)
    return Samples(images, torch.arange(count) % 3)


def epoch_of(samples: Samples, seed: int, epoch: int, size: int = 4, mirror: bool = True) -> list[Batch]:
    """List an epoch's batches."""
    return list(batches(samples, Order(size, seed, mirror), epoch))


def rows_of(found: list[Batch]) -> Tensor:
    """Join the sample numbers of an epoch."""
    return torch.cat([batch.indices for batch in found])


@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6), count=st.integers(1, 40), size=st.integers(1, 50))
def test_an_epoch_shows_every_sample_at_most_once_in_full_batches(seed: int, epoch: int, count: int, size: int) -> None:
    """What does not fill a batch is left out; with fewer samples than a batch, all make one."""
    found = epoch_of(numbered(count), seed, epoch, size)
    rows = rows_of(found).tolist()
    assert {len(batch.indices) for batch in found} == {min(size, count)}
    assert len(set(rows)) == len(rows) == count // min(size, count) * min(size, count)
    assert set(rows) <= set(range(count))


def test_order_and_mirror_depend_on_seed_and_epoch_alone() -> None:
    """The same seed and epoch give the same batches whatever was drawn before; another one gives others."""
    samples = numbered(24)
    first = epoch_of(samples, 7, 3)
    torch.manual_seed(99)
    epoch_of(samples, 1, 1)
    again = epoch_of(samples, 7, 3)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.views, b.views)
        assert torch.equal(a.images, b.images)
    for seed, epoch in ((7, 4), (8, 3)):
        assert not torch.equal(rows_of(first), rows_of(epoch_of(samples, seed, epoch)))


def test_a_samples_view_does_not_depend_on_the_batch_size() -> None:
    """The view belongs to the sample, not to its place in a batch."""
    samples = numbered(24)
    views = [
        {int(i): int(v) for batch in epoch_of(samples, 5, 0, size) for i, v in zip(batch.indices, batch.views)}  # noqa: B905 - tensors of one batch
        for size in (4, 12)
    ]
    assert views[0] == views[1]


def test_a_batch_holds_the_views_and_labels_that_it_names() -> None:
    """Row by row: the sample's image, mirrored where its view says so, and its label; both views occur."""
    samples = numbered(24)
    seen: Counter[int] = Counter()
    for batch in epoch_of(samples, 2, 0):
        for image, label, index, view in zip(batch.images, batch.labels, batch.indices, batch.views, strict=True):
            assert torch.equal(image, view_of(samples.images[index : index + 1], int(view))[0])
            assert label == samples.labels[index]
            seen[int(view)] += 1
    assert set(seen) == set(range(VIEWS))


def test_without_mirroring_only_the_plain_view_is_shown() -> None:
    """Images that may not be mirrored, such as digits, are all as they are."""
    samples = numbered(12)
    for batch in epoch_of(samples, 2, 0, mirror=False):
        assert not batch.views.any()
        assert torch.equal(batch.images, samples.images[batch.indices])


def test_the_views_are_the_image_and_its_mirror() -> None:
    """View 1 is flipped left to right, not top to bottom."""
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert view_of(image, 0).flatten().tolist() == [1, 2, 3, 4]
    assert view_of(image, 1).flatten().tolist() == [2, 1, 4, 3]


def test_samples_are_the_preprocessed_split_in_channels_first_shape(tiny_data: DataSet) -> None:
    """(N, H, W, C) becomes (N, C, H, W) without moving memory, and labels stay in order."""
    samples = samples_of(tiny_data, tiny_data.train)
    assert samples.images.shape == (31, 1, 8, 8)
    assert torch.equal(
        samples.images.permute(0, 2, 3, 1), torch.from_numpy(tiny_data.preprocess(tiny_data.train.images))
    )
    assert samples.labels.tolist() == tiny_data.train.labels.tolist()
    chosen = samples.subset(torch.tensor([4, 2]))
    assert torch.equal(chosen.images[1], samples.images[2])
    assert chosen.labels.tolist() == [samples.labels[4], samples.labels[2]]


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), count=st.integers(1, 80))
def test_a_balanced_subset_takes_the_classes_in_turn(labels: list[int], count: int) -> None:
    """No class is taken again while another that is left was taken less often; within a class, first come first."""
    chosen = balanced_subset(torch.tensor(labels), count).tolist()
    assert len(set(chosen)) == len(chosen) == min(count, len(labels))
    taken, there = Counter(labels[i] for i in chosen), Counter(labels)
    for one in there:
        assert [i for i in chosen if labels[i] == one] == [i for i, x in enumerate(labels) if x == one][: taken[one]]
        if taken[one] < there[one]:
            assert taken[one] >= max(taken.values()) - 1


@pytest.mark.parametrize("count", [30, 60])
def test_a_balanced_subset_of_the_embedded_kind_is_exactly_balanced(count: int) -> None:
    """Where every class has enough, each gives the same number."""
    labels = torch.arange(200) % 10
    assert set(Counter(labels[balanced_subset(labels, count)].tolist()).values()) == {count // 10}


def test_resized_images_keep_what_they_show() -> None:
    """Half as many pixels hold the means of their neighbourhoods; a constant image stays one; labels stay."""
    image = torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 4).view(1, 1, 4, 4)
    small = resized(Samples(image, torch.tensor([2])), 2)
    assert small.images.shape == (1, 1, 2, 2)
    assert small.images[0, 0, 0, 0] < 2
    assert small.images[0, 0, 0, 1] > 6
    assert small.labels.tolist() == [2]
    flat = resized(Samples(torch.full((2, 3, 5, 5), 0.7), torch.tensor([0, 1])), 8)
    assert torch.allclose(flat.images, torch.tensor(0.7), atol=1e-6)
    assert flat.images.is_contiguous(memory_format=torch.channels_last)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    """Not a bit, and nothing is copied."""
    samples = numbered(3)
    assert resized(samples, 2) is samples


@pytest.mark.parametrize(
    ("images", "count"), [(800, 800), (800.0, 800), (2, 2), (1, 1000), (1.0, 1000), (0.1, 100), (5000, 1000), (1e-9, 2)]
)
def test_images_are_counted_or_a_share(images: float, count: int) -> None:
    """Above 1 they are a number, up to 1 a share; at least 2 and never more than there are."""
    assert count_from(images, 1000) == count


@pytest.mark.parametrize("images", [0, -1, 1.5, float("nan"), float("inf")])
def test_images_that_are_neither_are_refused(images: float) -> None:
    """One and a half images are none."""
    with pytest.raises(UsageError, match="whole number above 1, or a share"):
        count_from(images, 1000)
