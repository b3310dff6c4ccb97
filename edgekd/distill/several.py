"""Training on several devices of one machine: Lightning Fabric's processes, each with its share of every batch.

Gradients are averaged by torch's distributed data parallel; norms see their device's share alone, and the first
device's statistics are kept. Process 0 keeps checkpoints and tells of epochs. What one process does is loop.py's.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessException

from edgekd.distill.engine import Fabrics, engine_for, fabric_for
from edgekd.distill.lesson import Lesson
from edgekd.distill.loop import EpochResult, Files, Machine, run_epochs
from edgekd.distill.methods.base import FeatureMethod
from edgekd.distill.recipe import Recipe
from edgekd.distill.views import Samples
from edgekd.errors import EdgekdError, UsageError
from edgekd.spaces.network import Network

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class DeviceProcessFailed(EdgekdError):
    """One of the processes that train on several devices ended; the message is its own where it had one."""


def train_on_several(network: nn.Module, lesson: Lesson, recipe: Recipe, files: Files) -> None:
    """Train in place on `files.machine.devices` devices of the kind where the network lies.

    `files.stop` is not asked: several devices are for long trainings.

    Raises:
        UsageError: the batch or the method cannot be shared among devices.
        DeviceProcessFailed: a process ended, for example because the loss was not finite.

    """
    device, devices = next(network.parameters()).device, files.machine.devices
    see_devices(lesson.method, recipe, len(lesson.samples), device, devices)
    # a method of features may leave a part of the network out for a time, and a network of the user's own any part
    late = "features" in lesson.method.needs or not isinstance(network, Network)
    fabric = fabric_for(recipe.precision, device, devices, find_unused=late)
    context = torch.multiprocessing.get_context("spawn")
    told = context.Queue()
    threads = torch.get_num_threads()
    job = _Job(network.to("cpu"), _on_cpu(lesson), recipe, files.checkpoint_path, files.machine, threads, told)
    _see_sendable(job)
    listener = _Listener(told, files.on_epoch)
    try:
        with listener:
            weights = fabric.launch(functools.partial(_one, job=job))  # Fabric would look into an argument
    except ProcessException as error:
        raise DeviceProcessFailed(listener.failure or f"a training process failed: {str(error)[-300:]}") from error
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    network.to(device)


def see_devices(method: FeatureMethod, recipe: Recipe, samples: int, device: torch.device, devices: int) -> None:
    """See, before a training, that so many devices of a kind can do it, one included.

    Raises:
        UsageError: there are not so many, they do not compute in that precision, or cannot share batch or method.
        MissingExtra: Fabric is needed and not installed.

    """
    if devices == 1:
        engine_for(recipe.precision, device)
        return
    size = min(recipe.batch_size, samples)
    if size % devices:
        raise UsageError(f"a batch of {size} cannot be shared evenly among {devices} devices; change batch_size")
    if "indices" in method.needs:
        raise UsageError(f"the method keeps a bank of all images, which {devices} devices do not share; choose one")
    there = torch.cuda.device_count()
    if device.type == "cuda" and devices > there:
        raise UsageError(
            f"{devices} devices of kind cuda are asked for, and there are {there}; ask for as many at most"
        )
    fabric_for(recipe.precision, device, devices)


def _see_sendable(job: _Job) -> None:
    """See that network and teacher can be sent to other processes. Raises UsageError."""
    for what, sent in (("the network", job.network), ("the teacher", job.lesson.teacher)):
        try:
            ForkingPickler(io.BytesIO()).dump(sent)
        except Exception as error:  # a user's module may hold anything
            raise UsageError(
                f"{what} cannot be sent to the processes of several devices ({' '.join(str(error).split())[:120]}): "
                "leave what has no name of its own, as lambdas, out of its attributes, or train on one device"
            ) from error


def _on_cpu(lesson: Lesson) -> Lesson:
    """Processes get their copies through main memory."""
    if isinstance(lesson.samples, Samples):
        return dataclasses.replace(lesson, samples=lesson.samples.to("cpu"))
    return lesson


@dataclass(frozen=True, slots=True)
class _Job:
    """What is sent to every process."""

    network: nn.Module
    lesson: Lesson
    recipe: Recipe
    checkpoint_path: Path | None
    machine: Machine
    threads: int  # of torch, which the processes share
    told: Any  # a queue of what process 0 has to tell: results, and one message of failure; None ends it


def _one(fabric: Fabric, job: _Job) -> dict[str, npt.NDArray[Any]]:
    """Train in one process; give the weights."""
    engine, network = Fabrics(fabric), copy.deepcopy(job.network)  # what was sent lies in memory that all share
    tell: Callable[[EpochResult], None] = job.told.put if engine.rank == 0 else lambda result: None
    files = Files(job.checkpoint_path, tell, lambda result: False, job.machine)
    torch.set_num_threads(max(1, job.threads // engine.ranks))
    try:
        run_epochs(network.to(fabric.device), job.lesson, job.recipe, engine, files)
    except EdgekdError as error:
        job.told.put(str(error))
        job.told.close()
        job.told.join_thread()  # told before this process ends and takes the others with it
        raise
    # as arrays: a tensor would be handed over in memory that ends with this process
    return {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}


class _Listener:
    """Hands on what the processes tell, in the process that started them."""

    def __init__(self, told: Any, on_epoch: Callable[[EpochResult], None]) -> None:
        self.failure = ""
        self._told, self._on_epoch = told, on_epoch
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while (item := self._told.get()) is not None:
            if isinstance(item, str):
                self.failure = self.failure or item
            else:
                self._on_epoch(item)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._told.put(None)
        self._thread.join()
