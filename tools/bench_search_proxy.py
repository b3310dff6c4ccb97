"""The proxy's training step, with cached teacher logits, against a bare training step of the same network.

Both train the reference network of the 28-pixel space on the embedded images with one thread, one after the other and
many times, so that other work on the machine meets both; a process's own CPU time is what counts, for the same reason.
A part of bench_search.py; it does not look at accuracies.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from edgekd import teachers
from edgekd.data.dataset import DataSet, Split
from edgekd.data.loading import load_data
from edgekd.distill.lesson import Lesson
from edgekd.distill.logit_cache import cache_logits, map_logits
from edgekd.distill.mentors import CachedLogits
from edgekd.distill.methods import method_named
from edgekd.distill.recipe import sgd_recipe
from edgekd.distill.train import new_network, train
from edgekd.distill.views import Samples, balanced_subset, samples_of
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network

BAR = 1.15  # guidance is said to cost up to 15 % more time; order, mirroring and schedule are in it too
SPACE = "mnasnet-28-narrow"
BATCH = 16
KEY = "proxy_step_ratio"
METHOD = "kd"


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often each is measured, and how many steps a measurement has."""

    rounds: int
    steps: int


def run(quick: bool) -> dict[str, float]:
    """Measure and print the ratio of a proxy step's time to a bare step's; give it under its key."""
    ratio = measured(Rounds(5, 4) if quick else Rounds(15, 20))
    print(f"  bar: at most {BAR} bare steps a proxy step: {'holds' if ratio <= BAR else 'DOES NOT HOLD'}")
    return {KEY: ratio}


def missed_bars(result: Mapping[str, float]) -> list[str]:
    """Say whether a proxy step costs more than it may."""
    return [f"{KEY} is {result[KEY]:.3f}, above {BAR}"] if result[KEY] > BAR else []


def measured(rounds: Rounds) -> float:
    """Give the median over rounds of the proxy's CPU time over the bare loop's, and print both."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        proxy, bare = _loops(rounds.steps)
        for loop in (proxy, bare):
            loop()  # kernels are chosen and memory is taken the first time
        pairs = [(_cpu_seconds(proxy), _cpu_seconds(bare)) for _ in range(rounds.rounds)]
    finally:
        torch.set_num_threads(before)
    proxy_ms, bare_ms = (1e3 * statistics.median(column) / rounds.steps for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"proxy step ({METHOD}, cached logits, batch {BATCH}): {proxy_ms:.2f} ms, bare training step: {bare_ms:.2f} ms "
        f"of CPU time, ratio {ratio:.3f} (median of {rounds.rounds} rounds of {rounds.steps} steps)"
    )
    return ratio


def _loops(steps: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Make both loops over the same images, each with a network of its own."""
    data = _few(load_data("embedded"), steps * BATCH)
    samples = samples_of(data, data.train)
    lesson = Lesson(samples, method_named(METHOD), _logits(data))
    recipe = sgd_recipe(epochs=1, batch_size=BATCH, learning_rate=0.03)
    taught, plain = _network(), _network()
    optimizer = torch.optim.SGD(plain.parameters(), 0.03, 0.9, nesterov=True, weight_decay=5e-4, fused=True)
    return lambda: train(taught, lesson, recipe), lambda: _bare(plain, optimizer, samples, steps)


def _few(data: DataSet, count: int) -> DataSet:
    """Leave a class-balanced part of the training split, so that the teacher need not look at all of it."""
    rows = balanced_subset(torch.from_numpy(data.train.labels), count).numpy()
    return dataclasses.replace(data, train=Split(data.train.images[rows], data.train.labels[rows]))


def _logits(data: DataSet) -> CachedLogits:
    """Give the teacher's logits as the proxy reads them: a cached file, mapped."""
    with tempfile.TemporaryDirectory() as folder:
        path = cache_logits(Path(folder), teachers.load("embedded", data), data)
        return map_logits(path, data, torch.arange(len(data.train)))  # a mapped file can be unlinked


def _network() -> Network:
    space = space_named(SPACE)
    return new_network(lambda: Network(graph_of(space, space.reference())), seed=0)


def _bare(network: nn.Module, optimizer: torch.optim.Optimizer, samples: Samples, steps: int) -> None:
    """Train as little code as can: batches as they lie in memory, cross entropy, one rate."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    network.train()
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        loss = functional.cross_entropy(network(samples.images[rows]), samples.labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()


def _cpu_seconds(loop: Callable[[], None]) -> float:
    began = time.process_time()
    loop()
    return time.process_time() - began
