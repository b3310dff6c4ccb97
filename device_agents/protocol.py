"""The JSON lines between a session and what serves on the device, version 3.

    host → device   {"type": "plan", "protocol", "settings", "sentinel", "jobs"} then that many jobs
                    {"type": "job", "job", "sha256", "kind"}
                    {"type": "alive"}                                    at least every 60 s, or the server ends itself
                    {"type": "outputs", "job", "sha256", "inputs", "threads", "layers"}  one run on given inputs
                    {"type": "nodes", "job", "sha256", "runs", "threads"}  times of each node inside a network
    device → host   hello | busy | fatal                                 once, at the start
                    start (a risky step: each that is loaded, and the one it died in), row…, end   after a plan
                    start, outputs | nodes | failed, end                 after those

Version 1 had no outputs, nodes and engines, version 2 no readings of the sentinel beside each visit. What the device
says is distrusted: each line has exactly its fields, each number its type and range, each job its turn. It starts
nothing and reads no file. Read next: `questions.py` for outputs and nodes, `session.py` for who says what when,
`runner/edgekd_runner.py` for the other end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from device_agents.errors import InvalidRequest, ProtocolError
from device_agents.strict_json import MAX_TEXT, Fields, clean_text, excerpt

PROTOCOL_VERSION = 3
MAX_SAMPLES = 20_000  # a row; two clocks of it stay below the longest line
MAX_NS = 10**15  # 11 days: whatever claims to have taken longer is a broken clock
MAX_CPUS = 1024

LONG_VISIT = 4  # times as many samples a visit of a network, and of a job whose runs take a millisecond

KINDS = ("operator", "network")
CLOCKS = ("thread_cpu", "wall")
# What can be said against a row: others took the CPU, an output held denormal numbers (slow on some CPUs), the clock
# was held down by heat or power.
FLAGS = ("contended", "denormal", "throttled")
HOST_SILENT_EXIT = 75  # EX_TEMPFAIL of sysexits.h: the server ended because it no longer heard from the host
NO_REASON = "no reason given"
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
    """How a batch is measured; the defaults take about 5 ms of device time for an operator of 5 µs on a calm machine.

    Short rounds over many jobs spread a job's samples over seconds, so that some meet the machine at its best. A visit
    takes samples_per_round samples, LONG_VISIT times as many of a network and of a job whose runs take a millisecond. A
    job is visited in `least_rounds` at least and `rounds` at most; in between it is done once its three best visits
    agree within the share `agreement`, or once it has had `enough_s`. Visits agree also on what others leave of a
    disturbed machine: how often its sentinel is slow tells how many visits are wanted before agreement counts, and
    of jobs of long visits `patience` times as many, for few of their runs are undisturbed from end to end. Beside a
    network as sentinel no visit is longer, and a job is done once so many visits were on a calm machine, as that
    one's readings tell: a short operator after `least_rounds`, or a 4th of the `rounds`, others after four times
    as many. An engine may keep to fewer rounds, and to samples_per_round for every job. cpu_mask pins the runner (bit
    n is CPU n). time_limit_s bounds a job's loading with its warm-up, and again all its rounds together.
    sentinel_job_id names the job that is also measured before rounds and now and then in one; None takes the first
    of the batch.
    """

    threads: int = 1
    rounds: int = 96
    least_rounds: int = 6
    agreement: float = 0.01  # a quiet machine repeats to that
    patience: int = 2
    enough_s: float = 6.0
    samples_per_round: int = 2
    min_sample_us: float = 150.0  # long enough that reading two clocks (0.7 µs) is 0.5 % of it
    warmup_runs: int = 3
    warmup_min_ms: float = 1.0
    time_limit_s: float = 60.0
    block_size: int = 512  # rounds over so many short operators take seconds in all
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
            raise InvalidRequest(
                f"rounds and samples_per_round allow {self.samples} samples, must be at most {MAX_SAMPLES}"
            )

    @property
    def samples(self) -> int:
        """Count the samples that a row has at most."""
        return self.rounds * self.samples_per_round * LONG_VISIT

    @property
    def least_samples(self) -> int:
        """Count the samples that a row has at least."""
        return min(self.rounds, self.least_rounds) * self.samples_per_round


_SETTING_RANGES: tuple[tuple[str, float, float], ...] = (
    ("threads", 1, MAX_CPUS),
    ("rounds", 1, 100),
    ("least_rounds", 1, 100),
    ("agreement", 0, 1),
    ("patience", 1, 100),
    ("enough_s", 0, 86_400),
    ("samples_per_round", 1, 1000),
    ("min_sample_us", 0, 1e7),
    ("warmup_runs", 1, 100_000),
    ("warmup_min_ms", 0, 1e5),
    ("time_limit_s", 0.05, 86_400),
    ("block_size", 1, 4096),
    ("seed", 0, 2**31 - 1),
)
_REAL_SETTINGS = ("agreement", "enough_s", "min_sample_us", "warmup_min_ms", "time_limit_s")


@dataclass(frozen=True, slots=True)
class JobResult:
    """What the device answered for one job: every raw sample, or why there is none.

    samples_ns are on `clock`: "thread_cpu" with one thread, else "wall"; wall_samples_ns are the same samples
    on the wall. A sample is the mean of `loops` runs back to back. warmup_ns is the wall time of all `warmup_runs`,
    init_ns of creating the interpreter. peak_rss_bytes is the runner's high-water mark once this job was warm,
    0 where it cannot be told.
    sentinel_ns is the sentinel's fastest run, on `clock` where that lost no time, in all readings from the beginning of
    the job's block to this row: how fast the machine was at its best meanwhile; 0 when nothing served as one. beside_ns
    is what it took last before each visit, of as many samples each and in order; none likewise. flags: see FLAGS.
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
    beside_ns: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    error: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether the row holds samples."""
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Hello:
    """What serves says of itself: its engine, the runtime it found, where it runs, and the clock for one thread."""

    engine: str
    runtime: str
    version: str
    clock: str
    cpus: tuple[int, ...]
    pid: int


@dataclass(frozen=True, slots=True)
class Start:
    """The runner is about to load, warm or measure this job; what kills it now is this job's doing."""

    job_id: str
    phase: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The request about one job could not be done, for this reason."""

    error: str


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
    yield line_of(type="plan", **header)
    for job in jobs:
        yield line_of(type="job", **_job_fields(job))


def _job_fields(job: Job) -> dict[str, str]:
    return {"job": job.job_id, "sha256": job.model_sha256, "kind": job.kind}


def alive_line() -> bytes:
    """Write that the host is still there; it has no answer."""
    return line_of(type="alive")


def parse_greeting(line: bytes) -> Hello | Refusal:
    """Read the first line of a runner. Raises ProtocolError."""
    fields = Fields.of(line, "a greeting")
    if fields.type in ("busy", "fatal"):
        return refusal_of(fields)
    fields.expect("type", "protocol", "engine", "runtime", "version", "clock", "cpus", "pid")
    if fields.type != "hello" or fields.integer("protocol", 0, 1 << 31) != PROTOCOL_VERSION:
        raise ProtocolError(f"the runner speaks another protocol than {PROTOCOL_VERSION}: {excerpt(line)}")
    return Hello(
        fields.text("engine"),
        fields.text("runtime"),
        fields.text("version"),
        fields.choice("clock", CLOCKS),
        fields.integers("cpus", 0, MAX_CPUS - 1, MAX_CPUS),
        fields.integer("pid", 1, 1 << 31),
    )


def refusal_of(fields: Fields) -> Refusal:
    """Read the rest of a line that says why nothing is served. Raises ProtocolError."""
    fields.expect("type", "reason")
    return Refusal(fields.type == "busy", fields.text("reason"))


def start_of(fields: Fields, job_id: str) -> Start:
    """Read the rest of a line that announces a risky step. Raises ProtocolError."""
    fields.expect("type", "job", "phase")
    return Start(job_id, fields.choice("phase", ("load", "measure", "sentinel")))


@dataclass(slots=True)
class RowReader:
    """Read the answer to one plan, in which each job of `waiting` has one row; other `known` jobs may only start.

    Starts are counted: a device that announced steps for ever would keep the host from ever giving up.
    """

    settings: MeasureSettings
    waiting: dict[str, Job]
    known: frozenset[str]
    starts: int = 0

    @property
    def most_starts(self) -> int:
        """Say how many steps a plan has at most: loads and visits, and the sentinel around each round of each block."""
        return (len(self.known) + 1) * (3 * self.settings.rounds + 4)

    def parse(self, line: bytes) -> Start | JobResult | End | Refusal:
        """Read one line. Raises ProtocolError, and then nothing of the line has been counted."""
        fields = Fields.of(line, "a row")
        if fields.type == "end":
            return self._end(fields)
        if fields.type == "fatal":
            return refusal_of(fields)
        job_id = fields.raw("job")
        if not isinstance(job_id, str) or job_id not in self.known:
            raise ProtocolError(f"the runner speaks of a job it was not given: {excerpt(line)}")
        if fields.type == "start":
            self.starts += 1
            if self.starts > self.most_starts:
                raise ProtocolError(f"the runner announces more steps than its plan has: {self.starts}")
            return start_of(fields, job_id)
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
        return JobResult(job_id, "failed", error=fields.text("error") or NO_REASON)

    def _row(self, fields: Fields, job_id: str) -> JobResult:
        if fields.type != "row":
            raise ProtocolError(f"a line of unknown type {clean_text(fields.type)!r}")
        fields.expect("type", "job", *_ROW_FIELDS)
        samples = fields.integers("samples_ns", 1, MAX_NS, MAX_SAMPLES)
        wall = fields.integers("wall_samples_ns", 1, MAX_NS, MAX_SAMPLES)
        visits, rest = divmod(len(samples), self.settings.samples_per_round)
        if rest or not self.settings.least_samples <= len(samples) == len(wall) <= self.settings.samples:
            wanted = f"{self.settings.least_samples} to {self.settings.samples}"
            raise ProtocolError(f"job {job_id!r}: {len(samples)} samples, {wanted} were asked for")
        beside = fields.integers("beside_ns", 1, MAX_NS, MAX_SAMPLES)
        if beside and len(beside) not in (visits, visits / LONG_VISIT):
            raise ProtocolError(f"job {job_id!r}: {len(samples)} samples beside {len(beside)} readings of the sentinel")
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
            fields.integer("peak_rss_bytes", 0, 1 << 50),
            fields.timestamp("started_at"),
            fields.numbers("temperatures_c", -100.0, 200.0, 256),
            fields.integer("sentinel_ns", 0, MAX_NS),
            beside,
            fields.choices("flags", FLAGS),
        )


_ROW_FIELDS = tuple(JobResult.__dataclass_fields__.keys() - {"job_id", "status", "error"})


def line_of(**fields: object) -> bytes:
    """Write one message."""
    return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()
