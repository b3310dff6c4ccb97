"""One session with a device: push models by their hash, measure them in batches, bring rows back, leave nothing behind.

    with Session(device, transport) as session:
        for result in session.measure(jobs, models, settings): ...

The runner it starts holds the device's lock, so that its life is the session's. A job that kills the runner is
recorded as failed and the rest goes on in a new one; rows that came are never measured again.
It judges no row: readiness, statistics and retries for noise are the caller's.
Read next: `protocol.py` for the lines, `runner/edgekd_runner.py` for how a row is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from device_agents import protocol
from device_agents.errors import (
    DeviceBusy,
    DeviceError,
    DeviceNotReady,
    InvalidRequest,
    RunnerFailed,
    TransportError,
    TransportTimeout,
)
from device_agents.inventory import Device
from device_agents.protocol import End, Hello, Job, JobResult, MeasureSettings, Refusal, RowReader, Start
from device_agents.strict_json import clean_lines
from device_agents.transport import RemoteProcess, Transport, killing_signal

# Make the work folder before anything is put there, and refuse one that somebody else made for us: whoever owns it
# could swap the runner between our push and its start.
_PREPARE = """
import os, stat, sys
folder = sys.argv[1]
os.makedirs(folder, mode=0o700, exist_ok=True)
status = os.lstat(folder)
if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
    sys.exit("not a folder that only this user can write to")
os.makedirs(os.path.join(folder, "models"), mode=0o700, exist_ok=True)
"""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a session puts up with before it gives up; seconds and bytes.

    lock_wait_s is how long to wait for another session's end. keep_bytes is how much of the pushed models may stay on
    the device for the next session; None keeps nothing on this machine and 256 MiB elsewhere.
    """

    max_restarts: int = 16  # one bad model costs one; a device that needs more is not worth its rows
    lock_wait_s: float = 0.0
    start_timeout_s: float = 60.0  # importing TensorFlow on an old board takes half of it
    command_timeout_s: float = 60.0
    grace_s: float = 10.0  # beyond a job's own limit, which the device enforces
    keep_bytes: int | None = None


DEFAULT_SETTINGS = MeasureSettings()
DEFAULT_LIMITS = SessionLimits()


class Session:
    """A device held for measuring; use it as a context manager."""

    def __init__(
        self,
        device: Device,
        transport: Transport,
        work_dir: str | None = None,
        limits: SessionLimits = DEFAULT_LIMITS,
    ) -> None:
        self._device = device
        self._transport = transport
        self._work_dir = PurePosixPath(work_dir or device.work_dir)
        self._limits = limits
        self._runner_path = ""
        self._process: RemoteProcess | None = None
        self._hello: Hello | None = None
        self._on_device: set[str] | None = None
        self._measuring = False

    def __enter__(self) -> Self:
        """Prepare the work folder and start the runner.

        Raises DeviceBusy when another session holds the device, DeviceNotReady when no runtime or no safe folder is
        there, TransportError, ProtocolError, RunnerFailed.
        """
        try:
            self._prepare()
            self._start_runner()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the runner and clean the work folder; an error on the way out does not hide the first one."""
        self._stop_runner()
        try:
            if self._runner_path:
                self._clean()
        except DeviceError:
            if error is None:
                raise

    @property
    def hello(self) -> Hello:
        """Return what the runner said of itself. Raises RunnerFailed outside the session."""
        if self._hello is None:
            raise RunnerFailed("the session has not been entered, so no runner has said hello")
        return self._hello

    def measure(
        self, jobs: Sequence[Job], models: Mapping[str, Path], settings: MeasureSettings = DEFAULT_SETTINGS
    ) -> Iterator[JobResult]:
        """Measure jobs and yield one result each, block by block as they come.

        `models` maps the SHA-256 of each job's model (lower-case hex) to its file on this machine. A job whose model
        cannot be loaded, that kills the runner or that passes its time limit yields a failed result.
        Raises InvalidRequest before anything is measured; ProtocolError, TransportError or RunnerFailed (too many
        restarts) on the way, after which the session can still be left in order.
        """
        batch = _Batch.of(jobs, models, settings)
        return self._measure(batch, models)

    def _measure(self, batch: _Batch, models: Mapping[str, Path]) -> Iterator[JobResult]:
        if self._measuring:
            raise InvalidRequest("this session is still measuring another batch; read that to its end or close it")
        self._measuring = True
        try:
            self._push_models(batch.hashes, models)
            while batch.waiting:
                yield from self._one_run(batch)
        except BaseException:  # even when the caller stops listening: this runner's further lines are of no use
            self._stop_runner()
            raise
        finally:
            self._measuring = False

    def _one_run(self, batch: _Batch) -> Iterator[JobResult]:
        """Let one runner measure what is waiting, until it is done or dead."""
        process = self._runner()
        try:
            for line in batch.plan():
                process.write_line(line, self._limits.command_timeout_s)
            yield from self._rows(process, batch)
        except TransportTimeout:
            yield from self._after_death(batch, f"no answer within its limit of {batch.settings.time_limit_s:g} s")
        except _RunnerDied as death:
            yield from self._after_death(batch, str(death))
        except TransportError as error:
            batch.running = None  # the wire broke, and no job is to blame for that
            yield from self._after_death(batch, str(error))

    def _rows(self, process: RemoteProcess, batch: _Batch) -> Iterator[JobResult]:
        reader = batch.reader()
        while True:
            line = process.read_line(batch.settings.time_limit_s + self._limits.grace_s)
            if line is None:
                raise _RunnerDied(self._last_words(process, batch.settings))
            answer = reader.parse(line)
            match answer:
                case End():
                    return
                case Refusal():
                    raise DeviceNotReady(f"{self._device.name}: {answer.reason}")
                case Start():
                    batch.running = answer.job_id
                case JobResult():
                    batch.running = None
                    del batch.waiting[answer.job_id]
                    yield answer

    def _after_death(self, batch: _Batch, reason: str) -> Iterator[JobResult]:
        self._stop_runner()
        batch.deaths += 1
        job_id, batch.running = batch.running, None
        if batch.deaths > self._limits.max_restarts:
            raise RunnerFailed(f"the runner died {batch.deaths} times, last: {reason}; {len(batch.waiting)} jobs left")
        batch.drop_sentinel(job_id)
        if job_id is not None and batch.waiting.pop(job_id, None) is not None:
            yield JobResult(job_id, "failed", error=reason)

    def _last_words(self, process: RemoteProcess, settings: MeasureSettings) -> str:
        code = process.wait(self._limits.command_timeout_s)
        name = killing_signal(code)
        if name == "SIGALRM":
            return f"the job passed its time limit of {settings.time_limit_s:g} s and was ended"
        lines = clean_lines(process.stderr_tail())
        return f"the runner died of {name or f'exit code {code}'} during this job" + (f": {lines[-1]}" if lines else "")

    # --- the runner's life --------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        folder = str(self._work_dir)
        self._run_python(["-S", "-c", _PREPARE, folder], "prepare the work folder " + folder)
        self._push_runner()

    def _push_runner(self) -> None:
        runner = files("device_agents.runner") / "edgekd_runner.py"
        digest = sha256(runner.read_bytes()).hexdigest()[:12]
        # Named by its content: another version of this package may share the folder.
        self._runner_path = str(self._work_dir / f"edgekd_runner-{digest}.py")
        with as_file(runner) as path:
            self._transport.push(path, self._runner_path)

    def _runner(self) -> RemoteProcess:
        if self._process is None:
            self._start_runner()
        if self._process is None:
            raise RunnerFailed("the runner did not start")
        return self._process

    def _start_runner(self) -> None:
        wait_s = self._limits.lock_wait_s
        argv = [self._device.python, "-B", self._runner_path, "serve", str(self._work_dir), f"{wait_s:g}"]
        self._process = process = self._transport.stream(argv)
        line = process.read_line(self._limits.start_timeout_s + wait_s)
        if line is None:
            raise RunnerFailed(f"{self._device.name}: {self._last_words(process, DEFAULT_SETTINGS)}")
        greeting = protocol.parse_greeting(line)
        if isinstance(greeting, Refusal):
            refused = DeviceBusy if greeting.busy else DeviceNotReady
            raise refused(f"{self._device.name}: {greeting.reason}")
        self._hello = greeting
        if wait_s:
            self._push_runner()  # the session that we waited for may have removed the whole folder at its end

    def _stop_runner(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _clean(self) -> None:
        keep_bytes = self._limits.keep_bytes
        if keep_bytes is None:
            keep_bytes = 0 if self._device.transport == "local" else 256 << 20
        self._run_python(["-S", "-B", self._runner_path, "clean", str(self._work_dir), str(keep_bytes)], "clean up")

    def _run_python(self, arguments: Sequence[str], purpose: str) -> None:
        """Run a short program of the standard library alone: -S spares it the packages installed there."""
        done = self._transport.run([self._device.python, *arguments], self._limits.command_timeout_s)
        if done.exit_code != 0:
            lines = clean_lines(done.stderr.decode("utf-8", "replace"))
            reason = lines[-1] if lines else f"exit code {done.exit_code}"
            raise DeviceNotReady(f"{self._device.name}: cannot {purpose}: {reason}")

    # --- models -------------------------------------------------------------------------------------------------

    def _push_models(self, hashes: Iterable[str], models: Mapping[str, Path]) -> None:
        if self._on_device is None:
            self._on_device = set(self._ask_stored())
        for digest in hashes:
            if digest not in self._on_device:
                self._transport.push(models[digest], str(self._work_dir / "models" / f"{digest}.tflite"))
                self._on_device.add(digest)

    def _ask_stored(self) -> Iterator[str]:
        """Ask for the models that lie there already, by the hash computed on the device, never by name or size."""
        process = self._runner()
        process.write_line(protocol.files_line(), self._limits.command_timeout_s)
        while True:
            line = process.read_line(self._limits.command_timeout_s)
            if line is None:
                raise RunnerFailed(f"{self._device.name}: {self._last_words(process, DEFAULT_SETTINGS)}")
            stored = protocol.parse_file(line)
            if isinstance(stored, End):
                return
            yield stored.sha256


class _RunnerDied(TransportError):
    """The runner's output ended before its answer did."""


@dataclass(slots=True)
class _Batch:
    """What is still waiting, which job runs now, and how often a runner has died of it."""

    settings: MeasureSettings
    waiting: dict[str, Job]
    hashes: tuple[str, ...]
    sentinel: Job | None
    running: str | None = None
    deaths: int = 0

    @staticmethod
    def of(jobs: Sequence[Job], models: Mapping[str, Path], settings: MeasureSettings) -> _Batch:
        waiting = {job.job_id: job for job in jobs}
        if len(waiting) != len(jobs):
            raise InvalidRequest(f"{len(jobs)} jobs have only {len(waiting)} different ids")
        for job in jobs:
            path = models.get(job.model_sha256)
            if path is None or not path.is_file():
                raise InvalidRequest(f"job {job.job_id!r}: no file for model {job.model_sha256[:12]} ({path})")
        named = settings.sentinel_job_id
        if named is not None and named not in waiting:
            raise InvalidRequest(f"sentinel_job_id {named!r} is not among the {len(jobs)} jobs")
        sentinel = waiting[named] if named is not None else next(iter(jobs), None)
        return _Batch(settings, waiting, tuple(dict.fromkeys(job.model_sha256 for job in jobs)), sentinel)

    def plan(self) -> Iterable[bytes]:
        if self.sentinel is None:
            self.sentinel = next(iter(self.waiting.values()))
        return protocol.plan_lines(self.settings, self.sentinel, list(self.waiting.values()))

    def reader(self) -> RowReader:
        # The sentinel may be loaded again after its own row came, so it stays known without being awaited.
        known = {self.sentinel.job_id} if self.sentinel is not None else set()
        return RowReader(self.settings, dict(self.waiting), frozenset(self.waiting) | known)

    def drop_sentinel(self, job_id: str | None) -> None:
        """Choose another sentinel when the runner died on this one; one that was named must not be replaced."""
        if self.settings.sentinel_job_id == job_id and job_id is not None:
            raise RunnerFailed(
                f"the sentinel {job_id!r} ends the runner; without it no row of this batch can be judged"
            )
        if self.sentinel is not None and self.sentinel.job_id == job_id:
            self.sentinel = None
