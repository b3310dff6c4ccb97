"""The proxy task: how good a candidate is after a short training with the teacher in the loop.

A classroom holds the images and the teacher's logits and rates one candidate after the other, in this process and with
a fixed number of torch threads, so that an accuracy depends on the candidate and the task alone. A candidate that
cannot be trained is an answer, not an error. Does not start processes (workers/) and knows no rewards (study.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from edgekd.data.dataset import DataSet, Split
from edgekd.data.loading import load_data
from edgekd.data.pictures import Wanted
from edgekd.distill.lesson import Lesson
from edgekd.distill.logit_cache import map_logits
from edgekd.distill.methods import method_named, weights_in
from edgekd.distill.recipe import Recipe
from edgekd.distill.train import EpochResult, TrainingDiverged, new_network, predict, see_teacher, train
from edgekd.distill.views import Samples, balanced_subset, count_from, resized, samples_of
from edgekd.errors import DataError, UsageError
from edgekd.search.rated import Hopeless, Rated
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.network import Network
from edgekd.spaces.space import Space

_MOST_ENLARGED = 4  # times the space's own side: pixels beyond only repeat, and ask for all of the memory


@dataclass(frozen=True, slots=True)
class ProxyTask:
    """What is needed to rate candidates; small enough to be sent to a worker, whose machine must see both files."""

    space: Space
    data: str
    logits_path: Path | None  # the teacher's, by sample and view; None trains without a teacher
    method: str  # one that needs only logits, or several joined by a plus
    images: float  # class-balanced, of the training split: a number of them, or a share of up to 1
    recipe: Recipe
    resolution: int = 0  # pixels, square, that the student sees; 0 is the space's own
    threads: int = 1
    data_sha256: str = ""  # where given, other data is refused
    device: str = "cpu"  # torch's name of what trains; sums of an accelerator can vary from run to run
    weights: str = ""  # of the method's parts, as in "kd=0.5,dist=2": multiples of the published ones


class Classroom:
    """Rates candidates of one task, one at a time; make it with `open`."""

    def __init__(self, task: ProxyTask, lesson: Lesson, validation: Samples) -> None:
        self.task = task
        self._space = dataclasses.replace(task.space, resolution=task.resolution or task.space.resolution)
        self._lesson = lesson
        self._validation = validation

    @classmethod
    def open(cls, task: ProxyTask) -> Classroom:
        """Load the data, and map the teacher's logits.

        Raises:
            DataError: the data or the logits are missing, damaged, or do not fit together.
            UsageError: the method needs a teacher and there is none, a setting is out of range, or the images do not
                fit into memory.

        """
        method = method_named(task.method, weights_in(task.weights))
        see_teacher(task.method, method, task.logits_path)
        most = _MOST_ENLARGED * task.space.resolution
        if not 0 <= task.resolution <= most:
            raise UsageError(
                f"proxy resolution is {task.resolution}; it must be from 1 to {most} in space {task.space.name}, or 0 "
                "for the space's own"
            )
        data = _checked_data(task)
        chosen = balanced_subset(torch.from_numpy(data.train.labels), count_from(task.images, len(data.train)))
        logits = map_logits(task.logits_path, data, chosen) if method.needs and task.logits_path else None
        few = chosen.numpy()
        with _threads(task.threads):
            try:
                taught = _seen(task, data, Split(data.train.images[few], data.train.labels[few]))
                return cls(task, Lesson(taught, method, logits), _seen(task, data, data.validation))
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                raise UsageError(
                    f"{len(few)} training and {len(data.validation)} validation images of "
                    f"{task.resolution or task.space.resolution} pixels do not fit into memory; lower proxy.images or "
                    "proxy.resolution"
                ) from error

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        """Train a candidate and judge it on the validation split; what goes wrong with it is in the answer."""
        began = time.perf_counter()
        attempt = _Attempt(self._validation, hopeless)
        with _threads(self.task.threads):
            try:
                accuracy, failure = self._trained(arch, attempt), ""
            except TrainingDiverged as error:
                accuracy, failure = 0.0, str(error).removeprefix("training ")
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                accuracy, failure = 0.0, f"out of memory: {' '.join(str(error).split())[:200]}"
        seconds = time.perf_counter() - began
        return Rated(accuracy, seconds, failure, attempt.epochs, platform.node(), early_accuracy=attempt.early_accuracy)

    def _trained(self, arch: Arch, attempt: _Attempt) -> float:
        graph = graph_of(self._space, arch)
        network = new_network(lambda: Network(graph), self.task.recipe.seed).to(self.task.device)
        attempt.network = network
        train(network, self._lesson, self.task.recipe, stop=attempt.is_hopeless)
        if attempt.stopped and attempt.early_accuracy is not None:
            return attempt.early_accuracy
        return _accuracy(network, self._validation, attempt.epochs)


class _Attempt:
    """One candidate's training as it goes: how far it came, and whether it is ended early."""

    def __init__(self, validation: Samples, hopeless: Hopeless | None) -> None:
        self.network: Network | None = None
        self.epochs = 0
        self.early_accuracy: float | None = None
        self.stopped = False
        self._validation = validation
        self._hopeless = hopeless

    def is_hopeless(self, result: EpochResult) -> bool:
        self.epochs = result.epoch
        rule = self._hopeless
        if rule is None or result.epoch != rule.after_epochs or self.network is None:
            return False
        self.early_accuracy = _accuracy(self.network, self._validation, result.epoch)
        self.stopped = self.early_accuracy < rule.floor
        return self.stopped


def _checked_data(task: ProxyTask) -> DataSet:
    data = load_data(task.data, Wanted(task.space.input_shape[1:]))
    if task.data_sha256 not in {"", data.sha256}:
        raise DataError(
            f"data {task.data} on {platform.node()} is not the study's: its SHA-256 is {data.sha256[:12]}…, "
            f"not {task.data_sha256[:12]}…; copy the same file there"
        )
    return data


def _seen(task: ProxyTask, data: DataSet, split: Split) -> Samples:
    """Preprocess a split as the student sees it."""
    samples = samples_of(data, split)
    if task.resolution:
        samples = resized(samples, task.resolution)
    return samples.to(task.device)


def _accuracy(network: Network, samples: Samples, epoch: int) -> float:
    """Give the share classified right; logits that are not finite are a divergence that the last step brought."""
    logits = predict(network, samples.images)
    if not bool(torch.isfinite(logits).all()):
        raise TrainingDiverged(
            f"training diverged by the end of epoch {epoch}: the logits of validation images are not finite; "
            "lower the learning rate"
        )
    return float((logits.argmax(1) == samples.labels).double().mean())


def _is_out_of_memory(error: Exception) -> bool:
    """Tell a want of memory from a defect; torch has a class of its own only for accelerators."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in ("can't allocate memory", "not enough memory"))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
