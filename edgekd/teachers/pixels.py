"""A teacher sees the pixels that it was trained on, whatever normalisation and size the data has.

Images come with the data's mean and deviation taken out; where the teacher wants others, its input is put right by one
multiplication and one addition a pixel, and made larger or smaller. Module paths and weights stay as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, suggest

Channels = tuple[float, ...]
Size = tuple[int, int]  # height and width

_KEYS = ("mean", "std", "size")
_MAX_SIZE = 4096  # pixels a side; what is more is a slip of the hand


@dataclass(frozen=True, slots=True)
class Sight:
    """What a teacher wants to see; what is empty is the data's own."""

    mean: Channels = ()  # in units of 0–1, one a channel, or one for all
    std: Channels = ()
    size: Size | None = None

    def over(self, other: Sight) -> Sight:
        """Give the other's where this says nothing; mean and deviation go together."""
        normalised = self if self.mean or self.std else other
        return Sight(normalised.mean, normalised.std, self.size or other.size)

    def record(self) -> dict[str, str]:
        """Say it in a teacher's record."""
        said = {"mean": self.mean, "std": self.std, "input_size": self.size}
        return {key: json.dumps(list(value)) for key, value in said.items() if value}


def said(text: str) -> tuple[str, Sight]:
    """Part a teacher's name from what is said of its pixels: NAME,mean=0.5/0.4/0.4,std=0.2/0.2/0.2,size=224.

    Raises:
        DataError: what is said cannot be understood.

    """
    name, *entries = text.split(",")
    while entries and "=" not in entries[0]:  # a comma of the name's own
        name = f"{name},{entries.pop(0)}"
    sight = Sight()
    for entry in entries:
        sight = _with(text, sight, *entry.partition("=")[::2])
    return name, sight


def _with(text: str, sight: Sight, key: str, value: str) -> Sight:
    if key not in _KEYS:
        raise DataError(f"teacher {text}: unknown {key!r}: {suggest(key, _KEYS)}")
    try:
        numbers = tuple(map(float, value.split("/")))
    except ValueError:
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise DataError(f"teacher {text}: {key} is {value!r}; give a number, or one a channel with / between them")
    if key == "mean":
        return replace(sight, mean=numbers)
    if key == "std":
        return replace(sight, std=numbers)
    height, width = numbers[0], numbers[-1]
    if len(numbers) > 2 or not all(1 <= n <= _MAX_SIZE and n == int(n) for n in numbers):
        raise DataError(f"teacher {text}: size is {value!r}; give whole pixels, up to {_MAX_SIZE}, or HEIGHT/WIDTH")
    return replace(sight, size=(int(height), int(width)))


def see(module: nn.Module, sight: Sight, data: DataSet) -> None:
    """Let the network see images as it wants them.

    Raises:
        DataError: there are not as many numbers as channels, or `std` is not above 0.

    """
    if sight.mean or sight.std:
        _see_normalised(module, sight, data)
    if sight.size not in (None, data.train.images.shape[1:3]):
        module.register_forward_pre_hook(partial(_resize, sight.size), prepend=True)


def _see_normalised(module: nn.Module, sight: Sight, data: DataSet) -> None:
    mean, std = (_of_all(sight, name, len(data.mean)) for name in ("mean", "std"))
    if min(std) <= 0:
        raise DataError(f"its std is {json.dumps(list(std))[:80]}; deviations are above 0")
    if (mean, std) == (data.mean, data.std):
        return
    scale = [theirs / own for theirs, own in zip(data.std, std, strict=True)]
    shift = [(theirs - own) / s for theirs, own, s in zip(data.mean, mean, std, strict=True)]
    hook = partial(_put_right, torch.tensor(scale).view(-1, 1, 1), torch.tensor(shift).view(-1, 1, 1))
    module.register_forward_pre_hook(hook, prepend=True)  # before hooks of the network's own


def see_own_pixels(module: nn.Module, record: Mapping[str, str], data: DataSet) -> None:
    """Let the network see images as its record's `mean` and `std` say; without them the data's own are its own.

    Raises:
        DataError: one of the two is missing, or they are no finite numbers, one a channel, with `std` above 0.

    """
    if "mean" in record or "std" in record:
        mean, std = (_recorded(record, name, len(data.mean)) for name in ("mean", "std"))
        see(module, Sight(mean, std), data)


def _resize(size: Size, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001 - a hook's form
    images, *others = inputs
    if images.shape[2:] == size:
        return inputs
    return (functional.interpolate(images, size, mode="bilinear", antialias=True), *others)  # (B, C, H, W)


def _put_right(
    scale: Tensor,
    shift: Tensor,
    module: nn.Module,  # noqa: ARG001 - a hook's form
    inputs: tuple[Any, ...],
) -> tuple[Tensor, ...]:
    images, *others = inputs
    return (images * scale.to(images.device) + shift.to(images.device), *others)  # (B, C, H, W)


def _of_all(sight: Sight, name: str, count: int) -> Channels:
    values: Channels = getattr(sight, name)
    values = values * count if len(values) == 1 else values
    if len(values) != count:
        numbers = json.dumps(list(values))[:80] if values else "not there"
        raise DataError(f"its {name} is {numbers}; it must be {count} finite numbers, one a channel")
    return values


def _recorded(record: Mapping[str, str], name: str, count: int) -> Channels:
    try:
        values = json.loads(record.get(name, ""))
    except (ValueError, RecursionError):
        values = None
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != count or not all(abs(value) < math.inf for value in values):
        told = record.get(name, "not there")
        raise DataError(f"its {name} is {told[:80]}; it must be {count} finite numbers, one a channel")
    return tuple(map(float, values))
