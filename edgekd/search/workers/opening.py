"""Chooses the workers that a study's settings ask for, and what their rooms train on.

Both torch and Ray are imported only where they are used: a study's settings are read without either.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from edgekd.search.workers.errors import TooFewResources
from edgekd.search.workers.inline import InlineWorker
from edgekd.search.workers.room import OpenRoom, Workers
from edgekd.search.workers.settings import WorkerSettings

if TYPE_CHECKING:
    from edgekd.search.proxy import ProxyTask


def open_workers(task: ProxyTask, settings: WorkerSettings) -> Workers:
    """Give workers that rate candidates of a task; use them as a context manager.

    To enter it raises:
        MissingExtra: Ray is needed and not installed.
        NoCluster: nothing answers at the Ray address.
        TooFewResources: the machine or cluster has not what the workers ask for.
        Refused, DataError, UsageError: a worker cannot open the task.

    """
    from edgekd.search.proxy import Classroom

    if settings.gpus_per_worker:
        task = dataclasses.replace(task, device="cuda")
        _see_gpu(settings)
    return workers_in(functools.partial(Classroom.open, task), settings)


def workers_in(open_room: OpenRoom, settings: WorkerSettings) -> Workers:
    """Give workers whose rooms are opened by `open_room`; see open_workers."""
    if settings.is_inline:
        return InlineWorker(open_room)
    from edgekd.search.workers.ray_pool import RayWorkers

    return RayWorkers(open_room, settings)


def _see_gpu(settings: WorkerSettings) -> None:
    """Find a GPU where this process is to train; with Ray it need not be on this machine."""
    import torch

    if settings.is_inline and not torch.cuda.is_available():
        raise TooFewResources("a worker asks for a GPU, and torch finds none here; set gpus_per_worker to 0")
