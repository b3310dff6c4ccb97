"""Made-up values for tests: tables without a device, spaces small enough to enumerate, random networks, grey images.

Times come from a formula over the operator, never from a clock, so every run of a test sees the same table.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from requirements import require

from edgekd.data.dataset import SPLITS
from edgekd.graph.ir import Graph
from edgekd.profile import all_ops
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import SPACES
from edgekd.spaces.space import BlockOptions, Space
from latency_tables.calibrate import Calibration
from latency_tables.op_spec import DTYPES, OpSpec, TensorSpec
from latency_tables.schema import Measurement, TableKey
from latency_tables.store import LatencyTable

if TYPE_CHECKING:
    from edgekd.spaces.network import Network

NARROW = SPACES["mnasnet-28-narrow"]
Mark = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], None]  # writes the labels into the images

KEY = TableKey(
    device="bench",
    build_fingerprint="linux-6.1",
    engine="python",
    runtime="litert",
    runtime_version="2.3.0",
    delegate="xnnpack",
    threads=1,
    cpu_mask="any",
    clock="thread_cpu",
)

CALIBRATION = Calibration(
    scale=0.9,
    per_op_ms=-0.0002,
    offset_ms=0.004,
    heldout_mean_error=0.01,
    heldout_max_error=0.03,
    interval_error=0.02,
    networks=24.0,
    fetch_gb_per_s=0.5,
    kept_mb=0.002,  # so little that weights count in small networks of made-up rows
)


def conv(channels: int = 8, *, dtype: str = "float32", size: int = 14) -> OpSpec:
    """Make a 3x3 convolution that differs from others in its channels."""
    return OpSpec("conv_2d", (TensorSpec((1, size, size, channels)),), dtype, channels, (3, 3), act="relu6")


def measurement(subject: str, ns: int = 1000, **changes: object) -> Measurement:
    """Make a measurement of three samples, of which `ns` is the fastest."""
    made = Measurement(
        subject=subject,
        samples_ns=(ns + 20, ns, ns + 10),
        wall_samples_ns=(ns + 25, ns + 5, ns + 15),
        inferences_per_sample=150,
        warmup_ns=10 * ns,
        init_ns=5 * ns,
        started_at="2026-01-02T03:04:05Z",
        temperatures_c=(41.5,),
        peak_rss_bytes=1 << 20,
        sentinel_ns=5000,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the caller names fields of Measurement


def synthetic_ns(op: OpSpec) -> int:
    """Give a time that grows with an operator's tensors and weights and has a part of its own."""
    elements = sum(int.__mul__(*tensor.shape[-2:]) for tensor in op.inputs if len(tensor.shape) > 1)
    own = int.from_bytes(hashlib.sha256(op.key.encode()).digest()[:2], "big") % 3000
    return (500 + 3 * elements + op.weight_bytes // 8 + own) // (2 if op.dtype == "int8" else 1) + 1


def table_of(ops: Iterable[OpSpec]) -> LatencyTable:
    """Make a calibrated table with a row for each operator."""
    rows = {op.key: measurement(op.key, synthetic_ns(op)) for op in ops}
    return LatencyTable(KEY, rows, {}, dict.fromkeys(DTYPES, CALIBRATION))


def table_for(space: Space) -> LatencyTable:
    """Make a calibrated table of all that a space reaches, in both dtypes."""
    return table_of(all_ops(space))


def tiny_space(blocks: int = 2) -> Space:
    """Make a space of 32 or 16 architectures a block: squeezes, skips, depths, widths, and a stride at an odd size."""
    options = [
        BlockOptions(
            width=4 + 4 * number,
            stride=1 + number % 2,
            layers=(1, 3),
            reference_layers=1,
            conv_ops=("dsconv", "mb3")[number % 2 :],
            kernels=(3,),
            se_ratios=(0.0, 0.25),
            skip_ops=("identity", "pool"),
            filters=(1.0, 2.0),
        )
        for number in range(blocks)
    ]
    return Space("tiny", 15, 1, 3, 4, 2, tuple(options), channel_multiple=4)


def every_arch(space: Space) -> Iterator[Arch]:
    """Enumerate a small space."""
    for choices in itertools.product(*map(range, space.decision_sizes)):
        yield space.arch(choices)


def random_archs(space: Space, count: int, seed: int) -> list[Arch]:
    """Draw architectures uniformly."""
    rng = random.Random(seed)
    return [space.arch([rng.randrange(size) for size in space.decision_sizes]) for _ in range(count)]


def random_network(graph: Graph, seed: int) -> Network:
    """Make the eval-mode module of a graph with random weights and norms that saw some images, so that signals live."""
    import torch
    from torch import nn

    from edgekd.spaces.network import Network

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = Network(graph)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.7, 1.3)
            nn.init.normal_(norm.bias, std=0.3)
            norm.momentum = 1.0  # the statistics become those of the batch below
        _, height, width, channels = graph.input_shape
        network.train()(torch.randn(16, channels, height, width).cumsum(2).cumsum(3) / 10)
        for norm in norms:
            assert norm.running_var is not None
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.2)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.3)
                nn.init.normal_(module.bias, std=0.3)
    return network.eval()


def write_grey(path: Path, counts: Sequence[int], side: int, mark: Mark, *, classes: int = 3, seed: int = 5) -> Path:
    """Write an npz of square grey images, so many of each split: dark noise whose classes follow in turn, marked."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for name, count in zip(SPLITS, counts, strict=True):
        labels = np.arange(count) % classes
        images = rng.integers(0, 60, (count, side, side))
        mark(images, labels)
        arrays |= {f"{name}_images": images.astype(np.uint8), f"{name}_labels": labels}
    np.savez(path, **arrays)
    return path


def brighter(images: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> None:
    """Make the images of a class brighter than those of the one before."""
    images += 60 * labels[:, None, None]


def striped(images: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> None:
    """Brighten two rows of each image; which ones says the class."""
    for image, label in zip(images, labels, strict=True):
        image[label * 2 + 4 : label * 2 + 6] += 150


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a real file system of so many bytes; the test is left out where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    require(mounted, "mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - where it is differs
