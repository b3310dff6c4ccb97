"""The proxy task: how good a candidate is after a short training with the teacher in the loop.

Candidates are trained in worker processes of one torch thread each, so that an accuracy depends on the candidate and
the settings alone, not on how many workers there are. Rewards and proposals are study.py's.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from edgekd.data import dataset
from edgekd.distill.logit_cache import read_logits
from edgekd.distill.methods import method_named
from edgekd.distill.train import Lesson, Recipe, TrainingDiverged, accuracy, new_network, train
from edgekd.distill.views import Samples, balanced_subset, samples_of
from edgekd.errors import EdgekdError
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network


class WorkerLost(EdgekdError):
    """A process that rates candidates ended by itself or was killed."""


@dataclass(frozen=True, slots=True)
class ProxyTask:
    """What a worker needs to rate candidates; small enough to be sent to it."""

    space: str
    data: str
    logits_path: Path | None  # the teacher's, by sample and view; None trains without a teacher
    method: str
    images: int  # class-balanced, of the training split
    recipe: Recipe


class ProxyPool:
    """Worker processes that rate candidates; use it as a context manager."""

    def __init__(self, task: ProxyTask, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self._pool = ProcessPoolExecutor(workers, context, _start_worker, (task,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers; what is still queued is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def evaluate(self, archs: Sequence[Arch]) -> Iterator[tuple[float, float]]:
        """Give (validation accuracy 0–1, seconds) of each architecture, in the order given.

        Raises:
            WorkerLost: a worker process ended.

        """
        try:
            with _interrupts_held():
                rated = self._pool.map(_rate, [str(arch) for arch in archs])
            yield from rated
        except BrokenProcessPool as error:
            raise WorkerLost(
                "a process that rates candidates ended (killed for want of memory?); every finished sample is kept: "
                "run the same command again, with fewer workers if that repeats"
            ) from error


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes that a Ctrl-C on the terminal does not reach: they keep this mask, and end with their parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, slots=True)
class _Classroom:
    task: ProxyTask
    lesson: Lesson
    validation: Samples


_CLASSROOM: list[_Classroom] = []  # one, of this worker process


def _start_worker(task: ProxyTask) -> None:
    """Load data and logits once a worker, and end with the parent even when that is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    data = dataset.load(task.data)
    chosen = balanced_subset(torch.from_numpy(data.train.labels), task.images)
    logits = read_logits(task.logits_path)[chosen] if task.logits_path else None
    lesson = Lesson(samples_of(data, data.train).subset(chosen), method_named(task.method), logits)
    _CLASSROOM.append(_Classroom(task, lesson, samples_of(data, data.validation)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)  # a pool's worker would wait for work for ever


def _rate(arch_text: str) -> tuple[float, float]:
    room = _CLASSROOM[0]
    began = time.perf_counter()
    graph = graph_of(space_named(room.task.space), Arch.parse(arch_text))
    network = new_network(lambda: Network(graph), room.task.recipe.seed)
    try:
        train(network, room.lesson, room.task.recipe)
        share = accuracy(network, room.validation)
    except TrainingDiverged:
        share = 0.0  # a candidate that cannot be trained is the worst, not the end of the search
    return share, time.perf_counter() - began
