"""What feeds a training: images a second of the loader, and the size and opening time of a large teacher cache.

A part of bench_distill.py. Decoding of files is not in here: pictures are decoded once and then mapped (data/).
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekd.data.dataset import DataSet, Images, Split
from edgekd.distill.augment import Augmentation
from edgekd.distill.loader import Order, Pictures, batches, on_device
from edgekd.distill.logit_cache import cache_logits, map_logits, read_logits
from edgekd.teachers import Teacher

SAMPLES, CLASSES = 50_000, 100  # of the cache
SIDE = 8  # pixels of its made-up pictures, which only a linear teacher looks at
OPENED = 5  # times; the median counts
MB = 1e6

Number = float | bool


@dataclass(frozen=True, slots=True)
class Reading:
    """How batches are read: which pictures, how varied, by how many processes."""

    side: int
    batch: int
    batches: int
    augmentation: Augmentation
    workers: int = 0
    device: str = "cpu"


def read_rate(reading: Reading, folder: Path) -> float:
    """Give images a second from mapped bytes to numbers on the device; without workers, of one core's own time."""
    count = reading.batch * (reading.batches + 1)
    source = _pictures(reading.side, count, folder)
    order = Order(reading.batch, 0, mirror=True, augmentation=reading.augmentation, workers=reading.workers)
    device = torch.device(reading.device)
    stream = (on_device(source, batch, device) for batch in batches(source, order, 0))
    next(stream)  # processes are started and memory is taken
    clock = time.perf_counter if reading.workers or reading.device != "cpu" else time.process_time
    began = clock()
    images = sum(len(batch.labels) for batch in itertools.islice(stream, reading.batches))
    if reading.device != "cpu":
        torch.cuda.synchronize(reading.device)
    return images / (clock() - began)


def _pictures(side: int, count: int, folder: Path) -> Pictures:
    path = folder / f"pictures-{side}-{count}.bin"
    mapped: Images = np.memmap(path, np.uint8, "w+", shape=(count, side, side, 3))
    mapped[:] = np.random.default_rng(6).integers(0, 256, mapped.shape, np.uint8)
    return Pictures(mapped, torch.arange(count) % 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


# --- the teacher's cache ----------------------------------------------------------------------------------------------


def cache_facts(folder: Path, samples: int = SAMPLES, classes: int = CLASSES) -> dict[str, Number]:
    """Cache a teacher's logits of many samples; give the file's size, whether it is mapped, and how fast it opens.

    To open it for a whole training means to check all of it once; for a part, that part.
    """
    data, teacher = _data(samples, classes), _linear_teacher(classes)
    path = cache_logits(folder, teacher, data)
    few = torch.arange(min(500, samples))
    opened = read_logits(path)
    return {
        "mb": path.stat().st_size / MB,
        "mapped": isinstance(opened.coded, np.memmap),
        "open_all_ms": _median_ms(lambda: read_logits(path)),
        "open_500_ms": _median_ms(lambda: map_logits(path, data, few)),
    }


def _median_ms(action: Callable[[], object]) -> float:
    found = []
    for _ in range(OPENED):
        began = time.perf_counter()
        action()
        found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(found)


def _data(samples: int, classes: int) -> DataSet:
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (samples, SIDE, SIDE, 1), np.uint8)
    split = Split(images, np.arange(samples) % classes)
    few = Split(images[:classes], np.arange(classes))
    sha256 = hashlib.sha256(images.tobytes()).hexdigest()
    return DataSet("made up", sha256, classes, (0.5,), (0.25,), split, few, few)


def _linear_teacher(classes: int) -> Teacher:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        module = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, classes))
    module.eval().requires_grad_(requires_grad=False)
    return Teacher("linear", hashlib.sha256(b"linear").hexdigest(), module, {})
