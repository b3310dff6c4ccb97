"""One session with a device: push by hash, measure in batches, bring rows back, leave nothing behind.

    with Session(device, transport) as session:
        for result in session.measure(jobs, models, settings): ...

What serves on the device holds its lock, so that its life is the session's. A job that kills it is recorded as failed
and the rest goes on in a new one; after a broken link or a restart of the device the session waits for it to come back
and goes on with the first row that is missing. Rows that came are never measured again.
It judges no row: statistics and retries for noise are the caller's.
Read next: `server.py` for that process, `batch.py` for what waits, `protocol.py` for the lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from device_agents import protocol, questions
from device_agents.batch import Batch
from device_agents.care import Steadiness
from device_agents.device import Device
from device_agents.engines import engine_named
from device_agents.engines.engine import Start
from device_agents.errors import (
    DeviceBusy,
    DeviceError,
    DeviceNotReady,
    DeviceOffline,
    InvalidRequest,
    LinkLost,
    RunnerFailed,
    TransportError,
    TransportTimeout,
)
from device_agents.protocol import End, Failed, Hello, Job, JobResult, MeasureSettings, Refusal
from device_agents.questions import Layer, Node
from device_agents.server import RunnerDied, Server
from device_agents.transport import Transport
from device_agents.work_folder import WorkFolder, model_path, owner_label, program_path

_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between attempts to come back; the last one is repeated
_MAX_LOSSES = 8  # broken links without a row between them
_MAX_FAILURES = 1  # of a copy over a link that stands, and the like: a disk that is full stays full
_LINK_PROBE_S = 15.0
_LAST_WORDS_S = 5.0
_AWAY = (LinkLost, DeviceOffline, TransportTimeout, DeviceBusy)  # passes with time

Answer = TypeVar("Answer")
Parse = Callable[[bytes], Answer | protocol.Start | Failed | End | Refusal]


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a session puts up with before it gives up; seconds and bytes.

    lock_wait_s is how long to wait for another session's end, reconnect_s for a device that has gone away to come back.
    keep_bytes is how much of the pushed files may stay on the device for the next session; None keeps nothing on this
    machine and 256 MiB elsewhere.
    """

    max_restarts: int = 16  # one bad model costs one; a device that needs more is not worth its rows
    lock_wait_s: float = 0.0
    reconnect_s: float = 180.0  # a phone takes a minute to start
    start_timeout_s: float = 60.0  # importing TensorFlow on an old board takes half of it
    command_timeout_s: float = 60.0
    grace_s: float = 10.0  # beyond a job's own limit, which the device enforces
    keep_bytes: int | None = None


DEFAULT_SETTINGS = MeasureSettings()
DEFAULT_LIMITS = SessionLimits()


class Session:
    """A device held for measuring; use it as a context manager. `note` is told what a person should know."""

    def __init__(
        self,
        device: Device,
        transport: Transport,
        limits: SessionLimits = DEFAULT_LIMITS,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._device = device
        self._transport = transport
        self._limits = limits
        self._note = note
        self._engine = engine_named(device.engine)
        self._owner = owner_label()
        self._folder = WorkFolder(transport, device.work_dir, limits.command_timeout_s)
        self._steadiness = Steadiness(device, transport, note)
        self._server: Server | None = None
        self._hello: Hello | None = None
        self._prepared = False
        self._measuring = False

    def __enter__(self) -> Self:
        """Prepare the work folder and start what serves.

        Raises DeviceBusy when another session holds the device, DeviceNotReady when no runtime or no safe folder is
        there, TransportError, ProtocolError, RunnerFailed.
        """
        try:
            self._begin(self._limits.lock_wait_s)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what serves and clean the work folder; an error on the way out does not hide the first one."""
        self._stop()
        try:
            if self._prepared:
                self._folder.clean(self._keep_bytes())
        except DeviceError:
            if error is None:
                raise

    @property
    def hello(self) -> Hello:
        """Return what serves said of itself. Raises RunnerFailed outside the session."""
        if self._hello is None:
            raise RunnerFailed("the session has not been entered, so no runner has said hello")
        return self._hello

    @property
    def pushed_bytes(self) -> int:
        """Count the bytes that were pushed: what lay on the device already was not."""
        return self._folder.pushed_bytes

    def measure(
        self, jobs: Sequence[Job], models: Mapping[str, Path], settings: MeasureSettings = DEFAULT_SETTINGS
    ) -> Iterator[JobResult]:
        """Measure jobs and yield one result each: those of a block together, of a long block now and then.

        `models` maps the SHA-256 of each job's model (lower-case hex) to its file on this machine. A job whose model
        cannot be loaded, that kills the runner or that passes its time limit yields a failed result.
        Raises InvalidRequest before anything is measured; ProtocolError, RunnerFailed (too many restarts) or another
        DeviceError (the device did not come back) on the way, after which the session can still be left in order.
        """
        return self._alone(self._measure(Batch.of(jobs, models, self._engine.settings(settings), self._engine.suffix)))

    def outputs(self, job: Job, model: Path, inputs: tuple[str, Path], layers: Sequence[Layer]) -> tuple[bytes, ...]:
        """Run a model once and return the raw bytes of each output.

        `inputs` is the SHA-256 and the file of all inputs' raw bytes one after the other. Raises DeviceNotReady when
        the model cannot be run there, and what `measure` raises.
        """
        files = {model_path(job.model_sha256, self._engine.suffix): model, model_path(inputs[0], "bin"): inputs[1]}
        line = questions.outputs_line(job, inputs[0], self._device.threads, layers)
        return self._ask_once(files, line, lambda answer: questions.parse_outputs(answer, job.job_id))

    def nodes(self, job: Job, model: Path, runs: int) -> tuple[Node, ...]:
        """Measure each node of a network inside that network. Raises as `outputs` does."""
        line = questions.nodes_line(job, runs, self._device.threads)
        files = {model_path(job.model_sha256, self._engine.suffix): model}
        return self._ask_once(files, line, lambda answer: questions.parse_nodes(answer, job.job_id))

    def still_here(self) -> None:
        """Keep the device waiting while this machine prepares a batch: what serves ends after a minute of silence."""
        if self._server is not None:
            self._server.still_here()

    def _alone(self, results: Iterator[JobResult]) -> Iterator[JobResult]:
        if self._measuring:
            raise InvalidRequest("this session is still measuring another batch; read that to its end or close it")
        self._measuring = True
        try:
            yield from results
        except BaseException:  # even when the caller stops listening: this runner's further lines are of no use
            self._stop()
            raise
        finally:
            self._measuring = False

    def _measure(self, batch: Batch) -> Iterator[JobResult]:
        while batch.waiting:
            try:
                server = self._serving()
                self._folder.put(batch.files, server.still_here)
                server.ask(batch.plan())
                yield from self._rows(server, batch)
            except RunnerDied as death:
                yield from self._after_death(batch, str(death), killed=death.killed)
            except TransportTimeout:
                yield from self._after_silence(batch)
            except TransportError as error:
                self._after_loss(batch, error)

    def _rows(self, server: Server, batch: Batch) -> Iterator[JobResult]:
        reader = batch.reader()
        while True:
            answer = reader.parse(server.line(batch.settings.time_limit_s + self._limits.grace_s))
            match answer:
                case End():
                    return
                case Refusal():
                    raise DeviceNotReady(f"{self._device.name}: {answer.reason}")
                case JobResult():
                    batch.answered(answer)
                    yield answer
                case _:
                    batch.running = answer.job_id

    def _after_death(self, batch: Batch, reason: str, *, killed: bool = False) -> Iterator[JobResult]:
        self._stop()
        failed = batch.blame(reason, killed=killed)
        if failed is not None:
            yield failed
        if batch.deaths > self._limits.max_restarts:
            raise RunnerFailed(f"the runner died {batch.deaths} times, last: {reason}; {len(batch.waiting)} jobs left")

    def _after_silence(self, batch: Batch) -> Iterator[JobResult]:
        """Find out who is silent: a job that hangs beyond what the device enforces, or the link."""
        try:
            self._transport.run(["sh", "-c", 'kill -9 "$1"', "sh", str(self.hello.pid)], _LINK_PROBE_S)
        except (TransportError, DeviceNotReady) as error:
            self._after_loss(batch, error)
            return
        self._hear_last_step(batch)
        yield from self._after_death(batch, f"no answer within its limit of {batch.settings.time_limit_s:g} s")

    def _hear_last_step(self, batch: Batch) -> None:
        """Read what a server that was killed says last: the step in which it was."""
        reader = batch.reader()
        with suppress(TransportError):  # which is how its lines end
            while self._server is not None:
                answer = reader.parse(self._server.line(_LAST_WORDS_S))
                if isinstance(answer, protocol.Start):
                    batch.running = answer.job_id

    def _after_loss(self, batch: Batch, error: DeviceError) -> None:
        """Take note that the wire broke, for which no job is to blame."""
        self._stop()
        batch.running = None
        batch.losses += 1
        if batch.losses > (_MAX_LOSSES if isinstance(error, _AWAY) else _MAX_FAILURES):
            raise error
        self._note(f"{self._device.name}: {error}; {len(batch.waiting)} rows to go")

    def _ask_once(self, files: Mapping[str, Path], line: bytes, parse: Parse[Answer]) -> Answer:
        """Ask about one model and return the answer."""
        server = self._serving()
        try:
            self._folder.put(files, server.still_here)
            server.ask([line])
            return self._answer(server, parse)
        except DeviceError:
            self._stop()
            raise

    def _answer(self, server: Server, parse: Parse[Answer]) -> Answer:
        found: list[Answer] = []
        while True:
            match answer := parse(server.line(DEFAULT_SETTINGS.time_limit_s + self._limits.grace_s)):
                case protocol.Start():
                    continue
                case End() if found:
                    return found[0]
                case Failed():
                    raise DeviceNotReady(f"{self._device.name}: {answer.error}")
                case Refusal():
                    raise DeviceNotReady(f"{self._device.name}: {answer.reason}")
                case End():
                    raise RunnerFailed(f"{self._device.name}: the runner gave no answer")
                case _:
                    found.append(answer)

    # --- the life of what serves --------------------------------------------------------------------------------

    def _serving(self) -> Server:
        """Give what serves; where it has ended, start it again, waiting for a device that has gone away."""
        if self._server is not None:
            return self._server
        deadline = time.monotonic() + self._limits.reconnect_s
        for wait_s in _pauses():
            try:
                return self._begin(0.0)
            except _AWAY as error:
                self._stop()
                left_s = deadline - time.monotonic()
                if left_s <= wait_s and isinstance(error, TransportError):  # one more loss would begin the wait anew
                    waited_s = self._limits.reconnect_s
                    raise DeviceOffline(f"{self._device.name} was away for {waited_s:g} s: {error}") from error
                if left_s <= wait_s:
                    raise
                self._note(f"{self._device.name}: {error}; trying again for {left_s:.0f} s")
                time.sleep(wait_s)  # a device that is away tells nobody when it is back
        raise RunnerFailed("unreachable: the pauses never end")

    def _begin(self, wait_s: float) -> Server:
        self._folder.prepare()
        self._prepared = True
        if self._hello is not None:  # what served before the link broke may still hold the lock
            self._folder.free(self._owner)
        wanted = self._engine.files(self._device)
        programs = {name: program_path(name, local) for name, local in wanted.items()}
        by_path = {programs[name]: local for name, local in wanted.items()}
        self._folder.bring(by_path)
        remote = {name: f"{self._folder.path}/{path}" for name, path in programs.items()}
        start = Start(self._device, self._transport, self._folder.path, remote, self._owner, wait_s)
        self._server = server = Server(self._engine, start, self._limits.start_timeout_s)
        if wait_s:  # the session that we waited for may have removed the whole folder at its end
            self._folder.prepare()
            self._folder.bring(by_path)
        if self._hello is not None and not _same(self._hello, server.hello):
            raise DeviceNotReady(
                f"{self._device.name} came back with another runtime: {self._hello} before, {server.hello} now"
            )
        self._hello = server.hello
        self._steadiness.hold(server.hello.pid)
        return server

    def _stop(self) -> None:
        server, self._server = self._server, None
        try:
            if server is not None:
                server.stop()
        finally:
            self._steadiness.release()

    def _keep_bytes(self) -> int:
        if self._limits.keep_bytes is not None:
            return self._limits.keep_bytes
        return 0 if self._device.address.kind == "local" else 256 << 20


def _same(*hellos: Hello) -> bool:
    return len({(hello.engine, hello.runtime, hello.version, hello.clock) for hello in hellos}) == 1


def _pauses() -> Iterable[float]:
    yield from _RETRY_S
    while True:
        yield _RETRY_S[-1]
