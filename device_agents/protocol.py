"""The JSON lines between a session and the runner, version 1.

    host → runner   {"type": "files"}                                    which models are there, hashed on the device?
                    {"type": "plan", "protocol", "settings", "sentinel", "jobs"} then that many jobs
                    {"type": "job", "job", "sha256", "kind"}
    runner → host   hello | busy | fatal                                 once, at the start
                    file… end                                            after files
                    start (before each risky step), row…, end            after a plan

What the runner says is distrusted: each line has exactly its fields, each number its type and range, each job its turn.
It starts nothing and reads no file. Read next: `session.py` for who says what when, `runner/edgekd_runner.py` for the
other end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from device_agents.errors import InvalidRequest, ProtocolError
from device_agents.strict_json import MAX_TEXT, Fields, clean_text, excerpt

PROTOCOL_VERSION = 1
MAX_SAMPLES = 10_000  # a row; two clocks of it stay below half of the longest line
MAX_NS = 10**15  # 11 days: whatever claims to have taken longer is a broken clock
MAX_CPUS = 1024

KINDS = ("operator", "network")
CLOCKS = ("thread_cpu", "wall")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Job:
    """One model to measure: a caller's id (at most 500 printable characters), the hash of its file, what it is."""

    job_id: str
    model_sha256: str
    kind: str = "operator"

    def __post_init__(self) -> None:
        """Raise InvalidRequest for a field that the wire could not carry."""
        if not self.job_id or len(self.job_id) > MAX_TEXT or clean_text(self.job_id) != self.job_id:
            raise InvalidRequest(f"job id {self.job_id!r} must be 1 to {MAX_TEXT} printable characters")
        if not _SHA256.match(self.model_sha256):
            raise InvalidRequest(f"job {self.job_id!r}: {self.model_sha256!r} is no SHA-256 in lower-case hex")
        if self.kind not in KINDS:
            raise InvalidRequest(f"job {self.job_id!r}: kind {self.kind!r} must be one of {', '.join(KINDS)}")


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """How a batch is measured; the defaults take about 10 ms of device time for an operator of 5 µs.

    Many short rounds over many jobs spread a job's samples over seconds, so that some of them meet the machine at its
    best: the fastest sample repeats much better than the median. cpu_mask pins the runner (bit n is CPU n).
    time_limit_s bounds a job's loading with its warm-up, and again all its rounds together.
    sentinel_job_id names the job that is also measured before every round; None takes the first of the batch.
    """

    threads: int = 1
    rounds: int = 16
    samples_per_round: int = 2
    min_sample_us: float = 150.0  # long enough that reading two clocks (0.7 µs) is 0.5 % of it
    warmup_runs: int = 3
    warmup_min_ms: float = 1.0
    time_limit_s: float = 60.0
    block_size: int = 512  # 16 rounds over so many short operators take seconds
    sentinel_job_id: str | None = None
    seed: int = 0
    cpu_mask: int | None = None

    def __post_init__(self) -> None:
        """Raise InvalidRequest for the first setting out of its range."""
        for name, low, high in _SETTING_RANGES:
            value = getattr(self, name)
            types = (int, float) if name in _REAL_SETTINGS else (int,)
            if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
                raise InvalidRequest(f"setting {name} is {value!r}, must be {types[-1].__name__}, {low} to {high}")
        if self.cpu_mask is not None and not 0 < self.cpu_mask < 1 << MAX_CPUS:
            raise InvalidRequest(f"setting cpu_mask is {self.cpu_mask!r}, must have one bit for each CPU to use")
        if self.samples > MAX_SAMPLES:
            raise InvalidRequest(f"rounds times samples_per_round is {self.samples}, must be at most {MAX_SAMPLES}")

    @property
    def samples(self) -> int:
        """Count the samples of a row."""
        return self.rounds * self.samples_per_round


_SETTING_RANGES: tuple[tuple[str, float, float], ...] = (
    ("threads", 1, MAX_CPUS),
    ("rounds", 1, 100),
    ("samples_per_round", 1, 1000),
    ("min_sample_us", 0, 1e7),
    ("warmup_runs", 1, 100_000),
    ("warmup_min_ms", 0, 1e5),
    ("time_limit_s", 0.05, 86_400),
    ("block_size", 1, 4096),
    ("seed", 0, 2**31 - 1),
)


_REAL_SETTINGS = ("min_sample_us", "warmup_min_ms", "time_limit_s")


@dataclass(frozen=True, slots=True)
class JobResult:
    """What the device answered for one job: every raw sample, or why there is none.

    samples_ns are on `clock`: "thread_cpu" with one thread, else "wall"; wall_samples_ns are the same samples
    on the wall. A sample is the mean of `loops` runs back to back. warmup_ns is the wall time of all `warmup_runs`,
    init_ns of creating the interpreter. peak_rss_bytes is the runner's high-water mark once this job was warm.
    sentinel_ns is the sentinel's fastest run, on `clock`, in all readings while the job's block was measured: how fast
    the machine was at its best meanwhile; 0 when nothing served as one.
    contended: others took the CPU while it was measured.
    denormal: an output held denormal numbers, which some CPUs compute slowly.
    """

    job_id: str
    status: Literal["ok", "failed"]
    samples_ns: tuple[int, ...] = ()
    wall_samples_ns: tuple[int, ...] = ()
    clock: str = "wall"
    loops: int = 0
    warmup_ns: int = 0
    warmup_runs: int = 0
    init_ns: int = 0
    peak_rss_bytes: int = 0
    started_at: str = ""
    temperatures_c: tuple[float, ...] = ()
    sentinel_ns: int = 0
    contended: bool = False
    denormal: bool = False
    error: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether the row holds samples."""
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Hello:
    """What a runner says of itself: the runtime it found, where it runs, and the clock for one thread."""

    runtime: str
    version: str
    python: str
    clock: str
    cpus: tuple[int, ...]
    pid: int


@dataclass(frozen=True, slots=True)
class Start:
    """The runner is about to load, warm or measure this job; what kills it now is this job's doing."""

    job_id: str
    phase: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A model that lies on the device, with the hash computed there."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class End:
    """The answer is complete."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The runner cannot serve: `busy` when another session holds the device, with the reason for a person."""

    busy: bool
    reason: str


def plan_lines(settings: MeasureSettings, sentinel: Job, jobs: Sequence[Job]) -> Iterable[bytes]:
    """Write the plan for a runner: its header with the sentinel (any job), then a line a job."""
    shared = {key: value for key, value in asdict(settings).items() if key != "sentinel_job_id"}
    header = {"protocol": PROTOCOL_VERSION, "settings": shared, "sentinel": _job_fields(sentinel), "jobs": len(jobs)}
    yield _line(type="plan", **header)
    for job in jobs:
        yield _line(type="job", **_job_fields(job))


def _job_fields(job: Job) -> dict[str, str]:
    return {"job": job.job_id, "sha256": job.model_sha256, "kind": job.kind}


def files_line() -> bytes:
    """Write the question which models lie on the device."""
    return _line(type="files")


def parse_greeting(line: bytes) -> Hello | Refusal:
    """Read the first line of a runner. Raises ProtocolError."""
    fields = Fields.of(line, "a greeting")
    if fields.type in ("busy", "fatal"):
        return _refusal(fields)
    fields.expect("type", "protocol", "runtime", "version", "python", "clock", "cpus", "pid")
    if fields.type != "hello" or fields.integer("protocol", 0, 1 << 31) != PROTOCOL_VERSION:
        raise ProtocolError(f"the runner speaks another protocol than {PROTOCOL_VERSION}: {excerpt(line)}")
    return Hello(
        fields.text("runtime"),
        fields.text("version"),
        fields.text("python"),
        fields.choice("clock", CLOCKS),
        fields.integers("cpus", 0, MAX_CPUS - 1, MAX_CPUS),
        fields.integer("pid", 1, 1 << 31),
    )


def _refusal(fields: Fields) -> Refusal:
    fields.expect("type", "reason")
    return Refusal(fields.type == "busy", fields.text("reason"))


def parse_file(line: bytes) -> StoredFile | End:
    """Read one line of the answer to `files`. Raises ProtocolError."""
    fields = Fields.of(line, "a stored file")
    if fields.type == "end":
        fields.expect("type")
        return End()
    fields.expect("type", "sha256", "size_bytes")
    if fields.type != "file" or not _SHA256.match(fields.text("sha256")):
        raise ProtocolError(f"expected a stored file, got {excerpt(line)}")
    return StoredFile(fields.text("sha256"), fields.integer("size_bytes", 0, 1 << 50))


@dataclass(slots=True)
class RowReader:
    """Read the answer to one plan, in which each job of `waiting` has one row; other `known` jobs may only start."""

    settings: MeasureSettings
    waiting: dict[str, Job]
    known: frozenset[str]

    def parse(self, line: bytes) -> Start | JobResult | End | Refusal:
        """Read one line. Raises ProtocolError, and then nothing of the line has been counted."""
        fields = Fields.of(line, "a row")
        if fields.type == "end":
            return self._end(fields)
        if fields.type == "fatal":
            return _refusal(fields)
        job_id = fields.raw("job")
        if not isinstance(job_id, str) or job_id not in self.known:
            raise ProtocolError(f"the runner speaks of a job it was not given: {excerpt(line)}")
        if fields.type == "start":
            fields.expect("type", "job", "phase")
            return Start(job_id, fields.choice("phase", ("load", "measure", "sentinel")))
        if job_id not in self.waiting:
            raise ProtocolError(f"a second row for job {job_id!r}")
        result = self._failed(fields, job_id) if fields.type == "failed" else self._row(fields, job_id)
        del self.waiting[job_id]
        return result

    def _end(self, fields: Fields) -> End:
        fields.expect("type")
        if self.waiting:
            raise ProtocolError(f"the runner ended with {len(self.waiting)} jobs unanswered")
        return End()

    def _failed(self, fields: Fields, job_id: str) -> JobResult:
        fields.expect("type", "job", "error")
        return JobResult(job_id, "failed", error=fields.text("error") or "no reason given")

    def _row(self, fields: Fields, job_id: str) -> JobResult:
        if fields.type != "row":
            raise ProtocolError(f"a line of unknown type {clean_text(fields.type)!r}")
        fields.expect("type", "job", *_ROW_FIELDS)
        samples = fields.integers("samples_ns", 1, MAX_NS, MAX_SAMPLES)
        wall = fields.integers("wall_samples_ns", 1, MAX_NS, MAX_SAMPLES)
        if not len(samples) == len(wall) == self.settings.samples:
            raise ProtocolError(f"job {job_id!r}: {len(samples)} samples, {self.settings.samples} were asked for")
        return JobResult(
            job_id,
            "ok",
            samples,
            wall,
            fields.choice("clock", CLOCKS),
            fields.integer("loops", 1, 10**9),
            fields.integer("warmup_ns", 1, MAX_NS),
            fields.integer("warmup_runs", 1, 10**9),
            fields.integer("init_ns", 1, MAX_NS),
            fields.integer("peak_rss_bytes", 1, 1 << 50),
            fields.timestamp("started_at"),
            fields.numbers("temperatures_c", -100.0, 200.0, 256),
            fields.integer("sentinel_ns", 0, MAX_NS),
            fields.flag("contended"),
            fields.flag("denormal"),
        )


_ROW_FIELDS = tuple(JobResult.__dataclass_fields__.keys() - {"job_id", "status", "error"})


def _line(**fields: object) -> bytes:
    return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()
