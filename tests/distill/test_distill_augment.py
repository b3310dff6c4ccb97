"""Augmentation is a function of (seed, epoch, sample): whatever the batch, its order, or what ran before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.distill.augment import Augmentation, Draws, Mix, mix_for, mixed, varied
from edgekd.errors import UsageError

pytestmark = pytest.mark.whole  # runs networks

STRONG = Augmentation(crop_padding=2, operators=2, magnitude=15)


def noise(count: int, channels: int = 3) -> np.ndarray:
    """Make images of noise, (N, 8, 8, C)."""
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)


@given(st.permutations(range(6)), st.integers(0, 5))
def test_a_sample_is_varied_alike_in_every_batch(order: list[int], epoch: int) -> None:
    """Neither the order nor the company of a sample matters."""
    images, draws = noise(6), Draws.of(STRONG, 6, 3, epoch)
    whole = varied(images, np.arange(6), STRONG, draws)
    shuffled = varied(images[order], np.array(order), STRONG, draws)
    assert (shuffled == whole[order]).all()
    alone = varied(images[2:3], np.array([2]), STRONG, draws)
    assert (alone == whole[2:3]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_epochs_and_seeds_vary_differently(channels: int) -> None:
    """The same image looks different in another epoch or under another seed."""
    images, indices = noise(8, channels), np.arange(8)
    draws = [Draws.of(STRONG, 8, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    looks = {varied(images, indices, STRONG, drawn).tobytes() for drawn in draws}
    assert len(looks) == 6


def test_without_augmentation_images_stay() -> None:
    """Everything off gives the very same pixels, and one look that can be cached."""
    images = noise(3)
    assert varied(images, np.arange(3), Augmentation(), Draws.of(Augmentation(), 3, 0, 0)) is images
    assert not Augmentation().varies
    assert STRONG.varies


def test_crops_are_windows_of_the_padded_image() -> None:
    """Every crop is found in the zero-padded picture, and over many epochs every place is met."""
    image, seen = noise(1), set()
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    windows = {padded[t : t + 8, left : left + 8].tobytes(): (t, left) for t in range(3) for left in range(3)}
    how = Augmentation(crop_padding=1)
    for epoch in range(100):
        found = varied(image, np.zeros(1, np.int64), how, Draws.of(how, 1, 0, epoch))
        seen.add(windows[found.tobytes()])
    assert len(seen) == 9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_every_operator_keeps_shape_and_type(channels: int, magnitude: float) -> None:
    """Grey and colour pictures, at no and at full strength."""
    how = Augmentation(operators=3, magnitude=magnitude)
    found = varied(noise(64, channels), np.arange(64), how, Draws.of(how, 64, 0, 0))
    assert (found.shape, found.dtype) == ((64, 8, 8, channels), np.uint8)


@pytest.mark.parametrize(("name", "value"), [("crop_padding", -1), ("magnitude", 31.0), ("mixup_alpha", float("inf"))])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    """The message names the setting and its value."""
    with pytest.raises(UsageError, match=f"augmentation {name} is {value}"):
        Augmentation(**{name: value})  # type: ignore[arg-type] # a float stands for an int, too


@given(st.integers(0, 50), st.floats(0.1, 3))
def test_mixing_keeps_shares(step: int, alpha: float) -> None:
    """Ones mixed with zeros hold, on average over the pixels, the share that the label gets."""
    for how in (Augmentation(mixup_alpha=alpha), Augmentation(cutmix_alpha=alpha)):
        mix = mix_for(how, (8, 6), 2, 0, 0, step)
        assert mix is not None
        images = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, 3, 8, 6)
        swapped = Mix(torch.tensor([1, 0]), mix.share, mix.box)
        found = mixed(images, swapped)
        assert float(found[0].mean()) == pytest.approx(mix.share, abs=1e-5)
        assert float(found[1].mean()) == pytest.approx(1 - mix.share, abs=1e-5)
        assert sorted(mix.partners.tolist()) == [0, 1]


def test_how_a_batch_is_mixed_depends_on_seed_epoch_and_step_alone() -> None:
    """The same batch of another run is mixed alike; both ways are met where both are on."""
    how = Augmentation(mixup_alpha=1, cutmix_alpha=1)
    mixes = [mix_for(how, (8, 8), 4, 0, 0, step) for step in range(40)]
    again = mix_for(how, (8, 8), 4, 0, 0, 7)
    assert again is not None
    assert mixes[7] is not None
    assert (again.share, again.box) == (mixes[7].share, mixes[7].box)
    assert {mix is not None and mix.box is None for mix in mixes} == {True, False}
    assert mix_for(Augmentation(), (8, 8), 4, 0, 0, 0) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_of_the_whole_area_is_at_least_as_large_as_wanted(channels: int) -> None:
    """On a ramp, what a window shows spans at least its side; smaller areas show less, and the size stays."""
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, channels))[None]
    for least in (0.9, 0.1):
        how, spans = Augmentation(crop_area=least), []
        for epoch in range(60):
            found = varied(ramp, np.zeros(1, np.int64), how, Draws.of(how, 1, 0, epoch))
            assert found.shape == ramp.shape
            spans.append((int(found[0, 0, -1, 0]) - int(found[0, 0, 0, 0])) / 252)
        side = np.sqrt(least * 3 / 4)  # of the narrowest window
        assert min(spans) > side - 0.05
        assert min(spans) < np.sqrt(least) + 0.1
        assert len(set(spans)) > 10


def test_windows_leave_the_other_draws_alone() -> None:
    """Each purpose has its own stream, so that an operator of a sample does not depend on how it is cropped."""
    plain, windowed = Augmentation(operators=2), Augmentation(operators=2, crop_area=0.5)
    assert (Draws.of(plain, 5, 1, 2).operators == Draws.of(windowed, 5, 1, 2).operators).all()
    assert windowed.varies
    assert windowed.touches_bytes
    assert not Augmentation(mixup_alpha=1).touches_bytes


@pytest.mark.parametrize("area", [0.0, -0.1, 1.5, float("nan")])
def test_an_impossible_window_is_refused(area: float) -> None:
    """Above nothing, and at most all."""
    with pytest.raises(UsageError, match="crop_area"):
        Augmentation(crop_area=area)
