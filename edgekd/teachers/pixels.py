"""A teacher sees the pixels that it was trained on, whatever normalisation the data has.

Images come with the data's mean and deviation taken out; where the teacher's file names others, its input is put right
by one multiplication and one addition a pixel. Module paths and weights stay as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError

Channels = tuple[float, ...]


def see_own_pixels(module: nn.Module, record: Mapping[str, str], data: DataSet) -> None:
    """Let the network see images as its record's `mean` and `std` say; without them the data's own are its own.

    Raises:
        DataError: one of the two is missing, or they are no finite numbers, one a channel, with `std` above 0.

    """
    if "mean" not in record and "std" not in record:
        return
    mean, std = (_channels(record, name, len(data.mean)) for name in ("mean", "std"))
    if min(std) <= 0:
        raise DataError(f"its std is {record['std'][:80]}; deviations are above 0")
    if (mean, std) == (data.mean, data.std):
        return
    scale = [theirs / own for theirs, own in zip(data.std, std, strict=True)]
    shift = [(theirs - own) / s for theirs, own, s in zip(data.mean, mean, std, strict=True)]
    # buffers move with the module to another device, and are no part of its weights
    module.register_buffer("pixel_scale", torch.tensor(scale).view(-1, 1, 1), persistent=False)
    module.register_buffer("pixel_shift", torch.tensor(shift).view(-1, 1, 1), persistent=False)
    module.register_forward_pre_hook(_put_right)


def _put_right(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    images, *others = inputs
    return (images * module.get_buffer("pixel_scale") + module.get_buffer("pixel_shift"), *others)  # (B, C, H, W)


def _channels(record: Mapping[str, str], name: str, count: int) -> Channels:
    try:
        values = json.loads(record.get(name, ""))
    except (ValueError, RecursionError):
        values = None
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != count or not all(abs(value) < math.inf for value in values):
        said = record.get(name, "not there")
        raise DataError(f"its {name} is {said[:80]}; it must be {count} finite numbers, one a channel")
    return tuple(map(float, values))
