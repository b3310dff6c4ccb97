"""Augmentation of a batch as a pure function of (seed, epoch, sample index): no generator has a state to be lost.

Images come as bytes (B, H, W, C) and stay bytes, so Pillow's operators apply; `mix` works on what the network gets.
Mirroring alone is views.py's: it has two outcomes, and the teacher's logits of both can be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from edgekd.errors import UsageError

Bytes = npt.NDArray[np.uint8]

_FILL = 128  # what moves into the picture: grey, near every set's mean
_LEVELS = 30.0  # RandAugment's scale of magnitudes
_STREAM = {"crop": 1, "operators": 2, "mix": 3, "window": 4}  # apart from each other, and from the order of samples


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How images are varied; everything off is the images as they are."""

    crop_padding: int = 0  # pixels on each side, out of which a picture of the old size is cut
    crop_area: float = 1.0  # least share of the picture that a window takes, which is then resized to the old size
    operators: int = 0  # of RandAugment, one after the other on each image
    magnitude: float = 9.0  # of each, 0 to 30
    mixup_alpha: float = 0.0  # of the Beta distribution that shares come from; 0 is off
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "operators", "mixup_alpha", "cutmix_alpha"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UsageError(f"augmentation {name} is {getattr(self, name)}; it must be at least 0")
        if not 0 < self.crop_area <= 1:
            raise UsageError(f"augmentation crop_area is {self.crop_area}; it must be above 0 and at most 1")
        if not 0 <= self.magnitude <= _LEVELS:
            raise UsageError(f"augmentation magnitude is {self.magnitude}; it must be from 0 to {_LEVELS:g}")

    @property
    def varies(self) -> bool:
        """Tell whether an image has more looks than views.py counts, so that the teacher must see each batch."""
        return self.touches_bytes or self.mixes

    @property
    def touches_bytes(self) -> bool:
        """Tell whether single pictures are varied, which is done on their bytes."""
        return bool(self.crop_padding or self.crop_area < 1 or self.operators)

    @property
    def mixes(self) -> bool:
        """Tell whether images are mixed with others."""
        return bool(self.mixup_alpha or self.cutmix_alpha)


def generator(seed: int, epoch: int, stream: str) -> np.random.Generator:
    """Make the generator of one epoch; each purpose has its own."""
    return np.random.default_rng([seed, epoch, _STREAM[stream]])


@dataclass(frozen=True, slots=True)
class Draws:
    """What chance decides for every sample of a set in one epoch, so that batches only look it up."""

    corners: npt.NDArray[np.int64]  # (N, 2), top and left of the crop in the padded image
    windows: npt.NDArray[np.float64]  # (N, 4), evenly from 0 to 1: a window's area, shape, top and left
    operators: npt.NDArray[np.int64]  # (N, operators)
    signs: npt.NDArray[np.float64]  # (N, operators), −1 or 1

    @staticmethod
    def of(how: Augmentation, count: int, seed: int, epoch: int) -> Draws:
        """Draw for a set of `count` samples."""
        operators = generator(seed, epoch, "operators")
        return Draws(
            generator(seed, epoch, "crop").integers(0, 2 * how.crop_padding + 1, (count, 2)),
            generator(seed, epoch, "window").random((count, 4 if how.crop_area < 1 else 0)),
            operators.integers(0, len(_OPERATORS), (count, how.operators)),
            operators.choice((-1.0, 1.0), (count, how.operators)),
        )


def varied(images: Bytes, indices: npt.NDArray[np.int64], how: Augmentation, draws: Draws) -> Bytes:
    """Crop and apply RandAugment to (B, H, W, C) bytes; `indices` (B,) name the samples."""
    found = _cropped(images, draws.corners[indices], how.crop_padding) if how.crop_padding else images
    if how.crop_area < 1:
        found = np.stack([_windowed(*one, how.crop_area) for one in zip(found, draws.windows[indices], strict=True)])
    if how.operators:
        chosen = zip(found, draws.operators[indices], draws.signs[indices], strict=True)
        found = np.stack([_operated(*one, how.magnitude / _LEVELS) for one in chosen])
    return found


def _cropped(images: Bytes, corners: npt.NDArray[np.int64], pad: int) -> Bytes:
    """Cut (B, H, W, C) at corners (B, 2) out of images padded with zeros, as the CIFAR recipes do."""
    count, height, width, _ = images.shape
    wide = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = corners[:, :1] + np.arange(height)  # (B, H)
    columns = corners[:, 1:] + np.arange(width)  # (B, W)
    found: Bytes = wide[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return found


def _windowed(image: Bytes, draw: npt.NDArray[np.float64], least: float) -> Bytes:
    """Resize a window of a drawn area and shape to the whole, as the ImageNet recipes do.

    Source: Szegedy et al., arXiv 1409.4842, section 6: aspect ratios from 3/4 to 4/3.
    """
    height, width, _ = image.shape
    area = (least + (1 - least) * draw[0]) * height * width
    ratio = (3 / 4) * (16 / 9) ** draw[1]  # even in its logarithm
    wide, high = min(float(np.sqrt(area * ratio)), width), min(float(np.sqrt(area / ratio)), height)
    top, left = draw[2] * (height - high), draw[3] * (width - wide)
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    box = (float(left), float(top), min(float(left) + wide, width), min(float(top) + high, height))
    resized = picture.resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(resized, np.uint8).reshape(image.shape)


# --- RandAugment (Cubuk et al., arXiv 1909.13719): so many operators, drawn evenly, all of one magnitude --------------


def _operated(image: Bytes, operators: npt.NDArray[np.int64], signs: npt.NDArray[np.float64], strength: float) -> Bytes:
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    for number, sign in zip(operators, signs, strict=True):
        picture = _OPERATORS[number](picture, strength, float(sign))
    return np.asarray(picture, np.uint8).reshape(image.shape)


Operator = Callable[[Image.Image, float, float], Image.Image]  # (picture, strength 0–1, sign)


def _affine(picture: Image.Image, *coefficients: float) -> Image.Image:
    fill = _FILL if picture.mode == "L" else (_FILL,) * 3
    return picture.transform(
        picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=fill
    )


def _rotate(picture: Image.Image, strength: float, sign: float) -> Image.Image:
    fill = _FILL if picture.mode == "L" else (_FILL,) * 3
    return picture.rotate(30 * strength * sign, Image.Resampling.BILINEAR, fillcolor=fill)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operator:
    return lambda picture, strength, sign: kind(picture).enhance(1 + 0.9 * strength * sign)


_OPERATORS: tuple[Operator, ...] = (
    lambda picture, strength, sign: picture,
    lambda picture, strength, sign: ImageOps.autocontrast(picture),
    lambda picture, strength, sign: ImageOps.equalize(picture),
    _rotate,
    lambda picture, strength, sign: ImageOps.solarize(picture, round(256 * (1 - strength))),
    lambda picture, strength, sign: ImageOps.posterize(picture, 8 - round(4 * strength)),
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Sharpness),
    lambda picture, strength, sign: _affine(picture, 1, 0.3 * strength * sign, 0, 0, 1, 0),
    lambda picture, strength, sign: _affine(picture, 1, 0, 0, 0.3 * strength * sign, 1, 0),
    lambda picture, strength, sign: _affine(picture, 1, 0, 0.45 * strength * sign * picture.width, 0, 1, 0),
    lambda picture, strength, sign: _affine(picture, 1, 0, 0, 0, 1, 0.45 * strength * sign * picture.height),
)


# --- mixing two images ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mix:
    """How each image of a batch is mixed with its partner: image ← share of its own + (1 − share) of the partner's."""

    partners: Tensor  # (B,) rows of the batch
    share: float  # of the own image, and so of its label
    box: tuple[int, int, int, int] | None  # CutMix's: top, bottom, left, right of what is the partner's; None is MixUp


def mix_for(how: Augmentation, shape: tuple[int, int], rows: int, seed: int, epoch: int, step: int) -> Mix | None:
    """Draw how a batch is mixed; where both ways are on, one of them by chance. None where both are off.

    Source: MixUp, Zhang et al., arXiv 1710.09412; CutMix, Yun et al., arXiv 1905.04899.
    """
    if not how.mixup_alpha and not how.cutmix_alpha:
        return None
    rng = np.random.default_rng([seed, epoch, _STREAM["mix"], step])
    cut = bool(how.cutmix_alpha) and (not how.mixup_alpha or rng.random() < 0.5)
    alpha = how.cutmix_alpha if cut else how.mixup_alpha
    share = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(rows))
    if not cut:
        return Mix(partners, share, None)
    box = _box(shape, share, rng)
    area = (box[1] - box[0]) * (box[3] - box[2])
    return Mix(partners, 1 - area / (shape[0] * shape[1]), box)  # of what was really cut, at the border less


def _box(shape: tuple[int, int], share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    sides = []
    for length in shape:
        half = round(length * np.sqrt(1 - share)) // 2
        middle = int(rng.integers(0, length))
        sides += [max(0, middle - half), min(length, middle + half)]
    return sides[0], sides[1], sides[2], sides[3]


def mixed(images: Tensor, mix: Mix) -> Tensor:
    """Mix images (B, C, H, W)."""
    others = images[mix.partners.to(images.device)]
    if mix.box is None:
        return mix.share * images + (1 - mix.share) * others
    top, bottom, left, right = mix.box
    found = images.clone()
    found[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return found
