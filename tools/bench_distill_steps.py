"""Training steps side by side: a bare one, each of edgekd's methods with a live teacher and with cached logits.

Two that are compared make a few steps right after each other, in shuffled order and in shuffled rounds of all pairs, so
that what else the machine does meets both; what counts is the median over rounds of their ratio. All train the same
student from the same weights on batches of the same shape. Pictures, teachers and logits are made up by a seed: no
step's duration depends on what they show.
A part of bench_distill.py; the peer's steps are bench_distill_peer.py's.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.engine import engine_for
from edgekd.distill.lesson import Lesson, needs_live
from edgekd.distill.loader import Batch, batches
from edgekd.distill.logit_cache import read_logits
from edgekd.distill.loop import Files, Machine, Training, prepared
from edgekd.distill.mentors import Anchors, CachedLogits, LiveTeacher, Mentor
from edgekd.distill.methods import METHODS, bindable_method_named
from edgekd.distill.recipe import Optimizer, Recipe
from edgekd.distill.train import new_network
from edgekd.distill.views import VIEWS, Samples
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network
from edgekd.teachers import new_teacher

BARE, LIVE, CACHED = "bare", "live", "cached"
PEER = "peer "
OPTIMIZER = Optimizer("sgd", learning_rate=1e-4, momentum=0.9, weight_decay=5e-4)  # so low that nothing diverges
EPOCHS = 1000  # of a schedule whose beginning is measured; fitnet's hints therefore, not its KD

Steps = Callable[[int], float]  # makes so many steps and gives their seconds
Pair = tuple[str, str]  # whose time over whose


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained on what."""

    student: str  # an architecture's text
    teacher: str  # a family's name
    batch: int
    samples: int
    device: str = "cpu"
    threads: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Give a batch's shape (B, C, H, W)."""
        _, height, width, channels = space_named(Arch.parse(self.student).space).input_shape
        return (self.batch, channels, height, width)

    @property
    def classes(self) -> int:
        """Give the number of classes."""
        return space_named(Arch.parse(self.student).space).classes

    def network(self) -> Network:
        """Make the student, untrained."""
        arch = Arch.parse(self.student)
        graph = graph_of(space_named(arch.space), arch)
        return new_network(lambda: Network(graph), seed=0)

    def mentor(self) -> nn.Module:
        """Make the teacher, frozen."""
        _, channels, height, width = self.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            module = new_teacher(self.teacher, (height, width, channels), self.classes)
        return module.eval().requires_grad_(requires_grad=False)

    def pictures(self) -> Samples:
        """Make the training samples up."""
        rng = torch.Generator().manual_seed(2)
        images = torch.randn((self.samples, *self.shape[1:]), generator=rng).contiguous(
            memory_format=torch.channels_last
        )
        return Samples(images, torch.arange(self.samples) % self.classes)

    def seconds(self, steps: Callable[[], object]) -> float:
        """Time steps: a lone thread by its own CPU time, which leaves other work on the machine out."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        clock = time.process_time if self.device == "cpu" and self.threads == 1 else time.perf_counter
        began = clock()
        steps()
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        return clock() - began


def contestants(task: Task, methods: Sequence[str], folder: Path, stack: ExitStack) -> dict[str, Steps]:
    """Make the bare step and each method's, by name: bare, kd live, kd cached … as long as the stack is open."""
    samples, logits = task.pictures(), _logits(task, folder)
    found: dict[str, Steps] = {BARE: _bare(task, samples)}
    for name in methods:
        for way in (LIVE, CACHED):
            if _is_possible(name, way):
                lesson = Lesson(samples, bindable_method_named(name), _mentor(task, name, way, logits))
                found[f"{name} {way}"] = _ours(task, lesson, stack)
    return found


def pairs_of(names: Iterable[str]) -> list[Pair]:
    """List who is compared: each method with the bare step, and those that the peer has with the peer's."""
    known = list(names)
    theirs = [(f"{name.removeprefix(PEER)} {LIVE}", name) for name in known if name.startswith(PEER)]
    return [(name, BARE) for name in known if name != BARE and not name.startswith(PEER)] + theirs


def measured(steps: Mapping[str, Steps], pairs: Sequence[Pair], rounds: int, turn: int) -> Times:
    """Let all pairs take turns, first once for nothing; give both ones' seconds a step, round by round."""
    rng, found = random.Random(3), Times({pair: [] for pair in pairs})  # noqa: S311 - an order, no secret
    for number in range(rounds + 1):
        for pair in rng.sample(pairs, len(pairs)):
            seconds = {name: steps[name](turn) / turn for name in rng.sample(pair, 2)}
            if number:  # kernels are chosen and memory is taken in the first
                found.rounds[pair].append((seconds[pair[0]], seconds[pair[1]]))
    return found


@dataclass(frozen=True, slots=True)
class Times:
    """What was measured of each pair: seconds a step of one and of the other, round by round."""

    rounds: dict[Pair, list[tuple[float, float]]]

    def ratio(self, one: str, other: str) -> float | None:
        """Give the median of one's time over another's beside it; None where the two were not compared."""
        times = self.rounds.get((one, other))
        return statistics.median(a / b for a, b in times) if times else None

    def median(self, name: str) -> float:
        """Give the median of one's seconds a step."""
        return statistics.median(t for pair, times in self.rounds.items() for t in _own(name, pair, times))

    def names(self) -> list[str]:
        """Name all that were measured."""
        return list(dict.fromkeys(name for pair in self.rounds for name in pair))

    def step_ratios(self) -> dict[str, dict[str, float | None]]:
        """Give each method's steps over the bare one; None where there are none of a kind."""
        methods = dict.fromkeys(name.rpartition(" ")[0] for name, other in self.rounds if other == BARE)
        return {name: {way: self.ratio(f"{name} {way}", BARE) for way in (LIVE, CACHED)} for name in methods}


def _own(name: str, pair: Pair, times: Iterable[tuple[float, float]]) -> list[float]:
    return [seconds for both in times for who, seconds in zip(pair, both, strict=True) if who == name]


def _is_possible(name: str, way: str) -> bool:
    method = bindable_method_named(name)
    if not method.needs:
        return way == LIVE  # the loop as it is, with nobody to ask
    return way == LIVE or not needs_live(method, Recipe(EPOCHS))


def _mentor(task: Task, name: str, way: str, logits: CachedLogits) -> Mentor | None:
    needs = METHODS[name]().needs
    if not needs:
        return None
    one = logits if way == CACHED else LiveTeacher(task.mentor().to(task.device), task.teacher)
    return Anchors((one, one)) if "anchors" in needs else one


def _logits(task: Task, folder: Path) -> CachedLogits:
    """Write logits as a cache holds them, and map the file."""
    path = folder / "logits.npy"
    rng = np.random.default_rng(4)
    np.save(path, rng.standard_normal((task.samples, VIEWS, task.classes)).astype(np.float32))
    return read_logits(path)


def _ours(task: Task, lesson: Lesson, stack: ExitStack) -> Steps:
    """Make the loop's own steps, reading of batches and all."""
    network = task.network().to(task.device)
    recipe = Recipe(EPOCHS, task.batch, OPTIMIZER)
    files = Files(None, lambda result: None, lambda result: False, Machine())
    engine = engine_for(recipe.precision, torch.device(task.device))
    training = stack.enter_context(prepared(network, lesson, recipe, engine, files))
    training.work.exercise.train()
    stream = _stream(training)

    def run(steps: int) -> float:
        return task.seconds(lambda: [training.step(*next(stream)) for _ in range(steps)])

    return run


def _stream(training: Training) -> Iterator[tuple[Batch, int, int]]:
    for epoch in itertools.count():
        for step, batch in enumerate(batches(training.work.source, training.order, epoch)):
            yield batch, epoch, step


def _bare(task: Task, samples: Samples) -> Steps:
    """Train by as little code as can be: batches as they lie in memory, cross entropy, one rate."""
    network = task.network().to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    network.train()
    rate, momentum, decay = OPTIMIZER.learning_rate, OPTIMIZER.momentum, OPTIMIZER.weight_decay
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum, nesterov=True, weight_decay=decay, fused=True)
    parts = itertools.cycle(range(0, task.samples - task.batch + 1, task.batch))

    def step() -> Tensor:
        rows = slice(start := next(parts), start + task.batch)
        images, labels = (tensor[rows].to(task.device) for tensor in (samples.images, samples.labels))
        loss: Tensor = functional.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
        return loss

    return lambda steps: task.seconds(lambda: [step() for _ in range(steps)])
