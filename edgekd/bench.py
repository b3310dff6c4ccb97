"""Holds a device and measures .tflite or .onnx files on it: models in, Measurements out, as they come.

Keeps no tables. The wires are device_agents' (session.py), the statistics latency_tables'.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from device_agents.connect import ConnectOptions
from device_agents.device import Device
from device_agents.engines import ENGINES, engine_named
from device_agents.errors import DeviceOffline, LinkLost, ProtocolError, TransportError
from device_agents.inventory import find_device, find_devices, open_transport
from device_agents.protocol import Job, JobResult, MeasureSettings
from device_agents.questions import Layer, Node
from device_agents.readiness import Conditions, differences, read_conditions, throttled, wait_until_cool, warnings_of
from device_agents.session import Session, SessionLimits
from device_agents.transport import Transport
from edgekd.config import Settings
from edgekd.errors import EdgekdError, UsageError
from edgekd.files import CannotWrite
from edgekd.graph.model_file import format_of
from edgekd.holding import Holding
from edgekd.sentinels import micro_content, network_content
from latency_tables.schema import THROTTLED, Measurement, TableKey, merged
from latency_tables.speed import Speed

# hours of training must not fail because another session measures for a while
_LIMITS = SessionLimits(lock_wait_s=300.0)
_USUAL = MeasureSettings()
ROUNDS, _ENOUGH_S, _SAMPLES = _USUAL.rounds, _USUAL.enough_s, _USUAL.samples_per_round
_PAIRED_SAMPLES = 3  # a visit beside a network, of which the fastest counts: two scatter by half as much again
_SENTINEL = "sentinel"
_MAX_ATTEMPTS = 20  # of a second or three each; slow phases of a shared machine last from moments to tens of seconds
# Looks at a device's heat cost it some 20 ms each. Rows come in groups, so that one look tells of all of one, and after
# each group the device loads other models or waits a moment.
_LOOK_EVERY_S = 5.0
_BLOCK_PAUSE_S = 0.3


class MeasuringFailed(EdgekdError):
    """The device could not run a model; the message is the device's."""


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """Which device, as a user names it, and which engine on it; empty texts take the device's own."""

    name: str = "host"
    engine: str = ""
    serial: str = ""
    connection: ConnectOptions = field(default_factory=ConnectOptions)

    @staticmethod
    def of(settings: Settings) -> DeviceChoice:
        """Give the choice that a run's settings make."""
        return DeviceChoice(settings.device, settings.device_engine, settings.serial)

    def find(self) -> Device:
        """Find the one device that is meant. Raises DeviceError."""
        return find_device(self.name, self.serial or None, self.connection, self._known_engine())

    def find_all(self) -> list[Device]:
        """Find every device that is meant, at least one. Raises DeviceError."""
        return list(find_devices(self.name, self.serial or None, self.connection, self._known_engine()))

    def _known_engine(self) -> str:
        return engine_named(self.engine).name if self.engine else ""


@dataclass(frozen=True, slots=True)
class Model:
    """A .tflite or .onnx file to measure, under a name that is unique in its batch.

    `beside` names the network that is its sentinel (sentinels.py); without one, and in formats that have none, it is a
    micro-model.
    """

    name: str
    content: bytes
    kind: str = "operator"  # or "network"
    beside: str = ""

    @property
    def suffix(self) -> str:
        """Tell the format by the content: tflite, onnx, or nothing for what is neither."""
        return format_of(self.content)


class Bench(Holding):
    """A device held for measuring and left as it was found; use it as a context manager.

    To enter it raises device_agents.errors.DeviceError where the device cannot be opened.
    """

    def __init__(self, device: Device, on_warning: Callable[[str], None]) -> None:
        super().__init__()
        self.device = device
        self._engine = engine_named(device.engine)
        self._on_warning = on_warning

    def _take(self, stack: ExitStack) -> None:
        self._transport = open_transport(self.device)
        stack.callback(self._transport.close)
        with _naming(self.device):
            for warning in warnings_of(read_conditions(self.device, self._transport)):
                self._on_warning(f"{self.device.name}: {warning}")
        self._session = stack.enter_context(Session(self.device, self._transport, _LIMITS, self._on_warning))
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgekd-models-")))

    @property
    def key(self) -> TableKey:
        """Say under which conditions this bench measures."""
        hello, mask = self._session.hello, self.device.cpu_mask
        return TableKey(
            device=self.device.name,
            build_fingerprint=self.device.build_fingerprint,
            engine=hello.engine,
            runtime=hello.runtime,
            runtime_version=hello.version,
            delegate=self._engine.delegate,
            threads=self.device.threads,
            cpu_mask="any" if mask is None else f"{mask:x}",
            clock=hello.clock if self.device.threads == 1 else "wall",  # one thread's clock tells of one thread
        )

    def still_here(self) -> None:
        """Keep the device waiting while this machine prepares something; to be called every few seconds."""
        self._session.still_here()

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        """Measure every model in so many rounds at most.

        Rows come in groups, not in the order given.

        Raises:
            MeasuringFailed: a model cannot be run there; the rows of all others have been given.

        """
        plans: dict[str, list[Job]] = {}  # by the network beside all of a plan, which is its first job
        files: dict[str, Path] = {}
        for model in models:
            self.still_here()  # files may take longer to make than a runner waits for its host
            beside = model.beside if self._engine.suffix == "tflite" else ""
            if beside not in plans:
                sentinel, path = self._stored(self._sentinel(beside))
                plans[beside], files[sentinel.model_sha256] = [sentinel], path
            job, path = self._stored(model)
            plans[beside].append(job)
            files[job.model_sha256] = path
        failed: list[JobResult] = []
        for name, jobs in plans.items():
            yield from self._measured(name, jobs, files, rounds, failed)
        if failed:
            more = f"; and {len(failed) - 1} others" if len(failed) > 1 else ""
            raise MeasuringFailed(
                f"device {self.device.name} could not measure {failed[0].job_id}: {failed[0].error}{more}"
            )

    def _measured(
        self, beside: str, jobs: Sequence[Job], files: Mapping[str, Path], rounds: int, failed: list[JobResult]
    ) -> Iterator[Measurement]:
        """Measure the jobs of one plan, of which the first is the sentinel; those that fail are put into `failed`."""
        device = self.device
        settings = MeasureSettings(
            threads=device.threads,
            rounds=rounds,
            least_rounds=_least_rounds(rounds, beside),
            samples_per_round=_PAIRED_SAMPLES if beside else _SAMPLES,
            enough_s=_ENOUGH_S * rounds / ROUNDS,
            sentinel_job_id=_SENTINEL,
            cpu_mask=device.cpu_mask,
        )
        watch, clock = _Watch(device, self._transport, self._on_warning, self._pause), self.key.clock
        for result in self._session.measure(
            jobs, {job.model_sha256: files[job.model_sha256] for job in jobs}, settings
        ):
            if result.job_id == _SENTINEL and not result.ok:
                raise MeasuringFailed(f"device {device.name} could not measure the sentinel: {result.error}")
            if result.ok and result.clock != clock:
                raise ProtocolError(f"device {device.name} measured on its {result.clock} clock, said it has {clock}")
            if not result.ok:
                failed.append(result)
            elif result.job_id != _SENTINEL:
                yield _measurement(result, watch.flags(), beside)

    def measure_settled(
        self, models: Sequence[Model], sentinel_ns: int = 0, attempts: int = _MAX_ATTEMPTS
    ) -> dict[str, Measurement]:
        """Measure a few models, again what was disturbed or slower than when the machine's sentinel took `sentinel_ns`.

        Only what a network beside it tells is told at any speed. Attempts at one model are joined as `merged` says.
        After the last one the best that could be had is given; its flags and its sentinel_ns say how disturbed and how
        slow the machine still was.
        """
        speed = Speed(sentinel_ns)
        found = {m.subject: m for m in self.measure(models)}
        for _ in range(attempts - 1):
            doubtful = {name for name, m in found.items() if speed.is_slow(m) or m.disturbances}
            if not doubtful:
                break
            for again in self.measure([m for m in models if m.name in doubtful]):
                before = found[again.subject]
                found[again.subject] = merged(before, replace(again, attempt=before.attempt + 1))
        return found

    def outputs(self, model: Model, inputs: bytes, layers: Sequence[Layer]) -> tuple[bytes, ...]:
        """Run a model once there and give the raw bytes of each output; `inputs` is all inputs one after the other."""
        job, path = self._stored(model)
        digest = hashlib.sha256(inputs).hexdigest()
        blob = self._folder / f"{digest}.bin"
        if not blob.exists():
            _write(blob, inputs)
        return self._session.outputs(job, path, (digest, blob), layers)

    def nodes(self, model: Model, runs: int) -> tuple[Node, ...]:
        """Measure each node of a network inside that network."""
        job, path = self._stored(model)
        return self._session.nodes(job, path, runs)

    def _pause(self, seconds: float) -> None:
        """Wait for a hot device, whose runner must not take this machine for gone."""
        self.still_here()
        time.sleep(seconds)  # a temperature that falls tells nobody

    def _sentinel(self, beside: str) -> Model:
        if beside:
            return Model(_SENTINEL, network_content(beside), "network")
        return Model(_SENTINEL, micro_content(self._engine.suffix))

    def _stored(self, model: Model) -> tuple[Job, Path]:
        if model.suffix != self._engine.suffix:
            engines = ", ".join(name for name, engine in ENGINES.items() if engine.suffix == model.suffix)
            what, how = (f"is a .{model.suffix} file", engines) if engines else ("is neither .tflite nor .onnx", "none")
            raise UsageError(
                f"{model.name} {what}; the engine {self._engine.name} runs .{self._engine.suffix} files "
                f"(engines for this one: {how})"
            )
        digest = hashlib.sha256(model.content).hexdigest()
        path = self._folder / digest
        if not path.exists():
            _write(path, model.content)
        return Job(model.name, digest, model.kind), path


class _Watch:
    """Looks now and then whether a device is held back by heat or power.

    Rows say so of themselves where the runner can see it, which on this machine it always can; a phone tells it to
    other commands only.
    """

    def __init__(
        self,
        device: Device,
        transport: Transport,
        note: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait for the device to be cool, with `pause` between two looks. Raises DeviceNotReady when it stays hot."""
        self._device, self._transport, self._note = device, transport, note
        self._before: Conditions | None = None
        if device.address.kind != "local":
            with _naming(device):
                self._before = wait_until_cool(device, transport, note=note, sleep=pause)
        self._looked_s = self._row_s = time.monotonic()
        self._flags: tuple[str, ...] = ()

    def flags(self) -> tuple[str, ...]:
        """Give what is to be said of a row that came just now."""
        now_s = time.monotonic()
        is_due = now_s - self._row_s >= _BLOCK_PAUSE_S or now_s - self._looked_s >= _LOOK_EVERY_S
        if self._before is not None and is_due:
            self._look(self._before)
        self._row_s = time.monotonic()
        return self._flags

    def _look(self, before: Conditions) -> None:
        try:
            now = read_conditions(self._device, self._transport)
        except (TransportError, DeviceOffline):
            return  # the session meets the same, and knows how to wait for a device
        signs = differences(before, now)
        for sign in signs if not self._flags else ():
            self._note(f"{self._device.name}: {sign}; the rows of that time are flagged")
        self._flags = (THROTTLED,) if signs or throttled(now) else ()
        self._before, self._looked_s = now, time.monotonic()


@contextmanager
def _naming(device: Device) -> Iterator[None]:
    """Let a lost link be told with the device's name; a transport knows none."""
    try:
        yield
    except LinkLost as error:
        raise LinkLost(f"{device.name} at {device.address}: {error}; the same command goes on from here") from error


def _least_rounds(rounds: int, beside: str) -> int:
    """Say how often a model is visited at least where `rounds` are the most.

    Beside a network only calm visits count, and half as many of an operator's told a network of fifty as well.
    """
    least = max(rounds // 16, 4)
    return min(rounds, least // 2 if beside else least)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
        path.chmod(0o444)  # it is named after its content: a transport may take it for good and need not copy it
    except OSError as error:
        raise CannotWrite(path, error) from error


def _measurement(result: JobResult, flags: tuple[str, ...], beside: str) -> Measurement:
    is_told = bool(beside and result.beside_ns)  # an engine without readings tells a network nothing
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
        sentinel_ns=result.sentinel_ns if is_told or not beside else 0,  # a network's tells no other speed
        flags=tuple(sorted({*result.flags, *flags})),
        beside=beside if is_told else "",
        beside_ns=result.beside_ns if is_told else (),
    )
