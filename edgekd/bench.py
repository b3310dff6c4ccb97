"""Holds a device and measures .tflite files on it: models in, Measurements out, as they come.

Keeps no tables. The wires are device_agents' (session.py), the statistics latency_tables'.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from device_agents.inventory import Device, find_device, open_transport
from device_agents.protocol import Job, JobResult, MeasureSettings
from device_agents.readiness import read_conditions, warnings_of
from device_agents.session import Session, SessionLimits
from edgekd.errors import EdgekdError
from edgekd.files import CannotWrite
from edgekd.graph.micro import micro_model
from latency_tables.builder import SLOW
from latency_tables.schema import Measurement, OpSpec, TableKey, TensorSpec, merged

_THREADS = 1  # one thread can be timed by its own CPU clock, which ignores what else the machine does
_LIMITS = SessionLimits(
    lock_wait_s=300.0
)  # hours of training must not fail because another session measures for a while
_SENTINEL = "sentinel"
_MAX_ATTEMPTS = 20  # of about a second each; slow phases of a shared machine last from moments to tens of seconds
_DELEGATE = "xnnpack"  # what LiteRT applies by default on a CPU


class MeasuringFailed(EdgekdError):
    """The device could not run a model; the message is the device's."""


@dataclass(frozen=True, slots=True)
class Model:
    """A .tflite file to measure, under a name that is unique in its batch."""

    name: str
    content: bytes
    kind: str = "operator"  # or "network"


class Bench:
    """A device held for measuring; use it as a context manager."""

    def __init__(self, device_name: str, on_warning: Callable[[str], None]) -> None:
        self.device: Device = find_device(device_name)
        self._on_warning = on_warning
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open the device; raises device_agents.errors.DeviceError where it cannot be."""
        with ExitStack() as stack:
            transport = open_transport(self.device)
            stack.callback(transport.close)
            for warning in warnings_of(read_conditions(self.device, transport)):
                self._on_warning(f"{self.device.name}: {warning}")
            self._session = stack.enter_context(Session(self.device, transport, limits=_LIMITS))
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgekd-models-")))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the device as it was found."""
        self._stack.__exit__(kind, error, trace)

    @property
    def key(self) -> TableKey:
        """Say under which conditions this bench measures."""
        hello = self._session.hello
        return TableKey(
            device=self.device.name,
            build_fingerprint=self.device.build_fingerprint,
            runtime=hello.runtime,
            runtime_version=hello.version,
            delegate=_DELEGATE,
            threads=_THREADS,
            cpu_mask="any",
            clock=hello.clock,
        )

    def measure(self, models: Iterable[Model]) -> Iterator[Measurement]:
        """Measure every model; rows come block by block, not in the order given.

        Raises:
            MeasuringFailed: a model cannot be run there; the rows before it have been given.

        """
        jobs, files = [], {}
        for model in (_sentinel(), *models):
            digest = hashlib.sha256(model.content).hexdigest()
            files[digest] = self._folder / digest
            if not files[digest].exists():
                _write(files[digest], model.content)
            jobs.append(Job(model.name, digest, model.kind))
        settings = MeasureSettings(threads=_THREADS, sentinel_job_id=_SENTINEL)
        for result in self._session.measure(jobs, files, settings):
            if result.job_id == _SENTINEL and not result.ok:
                raise MeasuringFailed(f"device {self.device.name} could not measure the sentinel: {result.error}")
            if result.job_id != _SENTINEL:
                yield _measurement(self.device.name, result)

    def measure_settled(self, models: Sequence[Model], sentinel_ns: int) -> dict[str, Measurement]:
        """Measure a few models, again while the machine is slower than when its sentinel took `sentinel_ns`.

        Every sample of every attempt is kept. After _MAX_ATTEMPTS the best that could be had is given; its sentinel_ns
        says how slow the machine still was.
        """
        limit_ns = SLOW * sentinel_ns if sentinel_ns else math.inf  # 0 is unknown: then any speed will do
        found = {m.subject: m for m in self.measure(models)}
        for _ in range(_MAX_ATTEMPTS - 1):
            if all(m.sentinel_ns <= limit_ns for m in found.values()):
                break
            again = {m.subject: m for m in self.measure(models)}
            found = {name: merged(m, replace(again[name], attempt=m.attempt + 1)) for name, m in found.items()}
        return found


def _sentinel() -> Model:
    """Give the fixed model whose time tells how fast the machine is just now; about 50 µs on a desktop core."""
    op = OpSpec("conv_2d", (TensorSpec((1, 14, 14, 32)),), "float32", 32, (3, 3))
    return Model(_SENTINEL, micro_model(op))


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CannotWrite(path, error) from error


def _measurement(device: str, result: JobResult) -> Measurement:
    if not result.ok:
        raise MeasuringFailed(f"device {device} could not measure {result.job_id}: {result.error}")
    return Measurement(
        subject=result.job_id,
        samples_ns=result.samples_ns,
        wall_samples_ns=result.wall_samples_ns,
        inferences_per_sample=result.loops,
        warmup_ns=result.warmup_ns,
        init_ns=result.init_ns,
        started_at=result.started_at,
        temperatures_c=result.temperatures_c,
        peak_rss_bytes=result.peak_rss_bytes,
        sentinel_ns=result.sentinel_ns,
        flags=("contended",) if result.contended else (),
    )
