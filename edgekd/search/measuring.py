"""Measures architectures on the device while a study runs: from this machine, or from the Ray node that has the device.

A node that has a phone plugged in says so when it is started (`ray start --resources '{"device:pixel4": 1}'`) and then
measures for all. What is measured is the whole network with random weights, whose values do not matter to the time.
How rows are taken and which are taken again is bench.py's; when a study measures is study.py's.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from device_agents.errors import DeviceError, InvalidRequest
from edgekd.bench import Bench, DeviceChoice, Model
from edgekd.errors import DataError, EdgekdError
from edgekd.graph.ir import graph_in
from edgekd.graph.micro import random_model
from edgekd.holding import Holding
from edgekd.search.workers.cluster import imported_ray, joined, reason_of
from edgekd.search.workers.errors import TooFewResources, WorkersGone
from edgekd.search.workers.room import Refusal
from edgekd.search.workers.settings import WorkerSettings
from edgekd.sentinels import known_to
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.space import Space
from latency_tables.errors import TableError
from latency_tables.schema import TableKey
from latency_tables.speed import AS_MEASURED, Speed

_LOOK_S = 2.0  # between two looks whether the node that measures is still there
_DEVICE_ERROR = 3  # the exit code of an error of the device


@dataclass(frozen=True, slots=True)
class MeasureOrder:
    """What is measured where, and the conditions that the measured must share with the study's table."""

    device: DeviceChoice
    space: Space
    dtype: str
    key: TableKey
    speed: Speed = AS_MEASURED  # the table's, which what is measured is told by

    @property
    def resource(self) -> str:
        """Name what a Ray node offers that has the device."""
        return f"device:{self.device.name}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one architecture took on the device."""

    ms: float
    flags: tuple[str, ...]  # what still disturbed the best measurement that could be had
    host: str  # the machine that the device is attached to
    node: str  # Ray's name of it; empty without Ray


Note = Callable[[str], None]


class Measurer(Holding):
    """Measures architectures, each once; use it as a context manager.

    To enter it raises MissingExtra or NoCluster where a Ray address is given and cannot be joined.
    """

    def __init__(self, order: MeasureOrder, settings: WorkerSettings, on_warning: Note = lambda text: None) -> None:
        super().__init__()
        self._order = order
        self._settings = settings
        self._on_warning = on_warning
        self._is_remote = False
        self.known: dict[Arch, Measured] = {}  # all that was measured so far

    def _take(self, stack: ExitStack) -> None:
        if not self._settings.ray_address:
            return
        stack.enter_context(joined(self._settings))
        self._is_remote = _has(self._order.resource)
        if not self._is_remote:
            self._on_warning(
                f"no node of Ray cluster {self._settings.ray_address} offers {self._order.resource}: "
                "architectures are measured from this machine"
            )

    def measure(self, archs: Sequence[Arch]) -> list[float]:
        """Give each architecture's latency in ms in the order's dtype; what is known is not measured again.

        Raises:
            DeviceError: the device is unknown, busy or lost.
            MeasuringFailed: it cannot run one of them.
            DataError: it is not in the state in which the table was measured.
            WorkersGone: the node that measures is lost.

        """
        new = [arch for arch in dict.fromkeys(archs) if arch not in self.known]
        if new:
            found = self._elsewhere(new) if self._is_remote else measure_here(self._order, new, self._on_warning)
            self.known.update(zip(new, found, strict=True))
        return [self.known[arch].ms for arch in archs]

    def _elsewhere(self, archs: Sequence[Arch]) -> list[Measured]:
        """Let the node measure that has the device. Others that measure there at the same time go first or wait."""
        ray = imported_ray()
        task = ray.remote(num_cpus=0, resources={self._order.resource: 1}, max_retries=2)(_in_task)
        answer = task.remote(self._order, list(archs))
        try:
            self._wait(answer)
            found, notes = ray.get(answer)
        except ray.exceptions.RayTaskError:
            raise  # a defect, with its trace
        except ray.exceptions.RayError as error:
            raise WorkersGone(f"the node that offers {self._order.resource} is lost: {reason_of(error)}") from error
        except BaseException:
            ray.cancel(answer, force=True)  # interrupted: the device is wanted by others
            raise
        for note in notes:
            self._on_warning(note)
        if isinstance(found, Refusal):
            raise DeviceError(found.text) if found.exit_code == _DEVICE_ERROR else found.as_error()
        measured: list[Measured] = found
        return measured

    def _wait(self, answer: Any) -> None:
        """Wait for the answer as long as some node offers the device. Raises TooFewResources."""
        ray, seen_s = imported_ray(), time.monotonic()
        while not ray.wait([answer], timeout=_LOOK_S)[0]:
            if _has(self._order.resource):
                seen_s = time.monotonic()
            elif time.monotonic() - seen_s > self._settings.wait_s:
                raise TooFewResources(
                    f"no node of the Ray cluster offers {self._order.resource} any more; start one with: "
                    f"ray start --address=HEAD:PORT --resources '{{\"{self._order.resource}\": 1}}'"
                )


def measure_here(order: MeasureOrder, archs: Sequence[Arch], on_warning: Note, node: str = "") -> list[Measured]:
    """Measure architectures on a device that is attached to this machine. Raises as Measurer.measure."""
    models = [_model(order, arch) for arch in archs]
    with Bench(order.device.find(), on_warning) as bench:
        for difference in order.key.differences(bench.key):
            raise DataError(f"the latency table was measured under another key ({difference}); profile again")
        found = bench.measure_settled(models, order.speed.usual_sentinel_ns)
    rows = [found[model.name] for model in models]
    return [Measured(order.speed.settled_ms(row), row.flags, platform.node(), node) for row in rows]


def _model(order: MeasureOrder, arch: Arch) -> Model:
    graph = graph_in(graph_of(order.space, arch), order.dtype)
    name = f"network:{order.dtype}:{arch.arch_id}"
    return Model(name, random_model(graph), "network", known_to(order.speed, order.dtype))


def _in_task(order: MeasureOrder, archs: list[Arch]) -> tuple[list[Measured] | Refusal, list[str]]:
    """Measure on the node that Ray chose; errors travel as text, with the exit codes that they have here."""
    notes: list[str] = []
    try:
        return measure_here(order, archs, notes.append, _node_id()), notes
    except EdgekdError as error:
        return Refusal.of(error), notes
    except DeviceError as error:
        return Refusal(str(error), 2 if isinstance(error, InvalidRequest) else _DEVICE_ERROR), notes
    except TableError as error:
        return Refusal(str(error), 2), notes


def _node_id() -> str:
    return str(imported_ray().get_runtime_context().get_node_id())


def _has(resource: str) -> bool:
    return bool(imported_ray().cluster_resources().get(resource, 0))
