"""How benchmark_model measures a batch: rounds of shuffled visits, block by block, the sentinel before each round.

A reading is a process like a visit, so that a round of some ten seconds has one alone.

A visit is one process of the binary and gives one sample: the mean of all its runs, on the wall clock. The binary times
each run in whole µs, so that only means say anything of short operators. A job that fails or hangs costs itself alone.
It chooses no settings (`benchmark_model.py` does) and reads no output of the binary (`benchmark_output.py` does).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from device_agents.benchmark_output import Timing, parse_timing
from device_agents.engines.benchmark_script import Conditions, Script, Talk
from device_agents.errors import ProtocolError

# A network is what predictions are held against, and there are few of them: they are worth more runs.
_NETWORK_TIMES = 4
_SHORTEST_LIMIT_S = 0.05


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job as the plan names it."""

    job_id: str
    sha256: str
    kind: str


@dataclass(slots=True)
class Visits:
    """What the visits to one job have given so far."""

    job: PlannedJob
    timings: list[Timing] = field(default_factory=list)
    beside_ns: list[int] = field(default_factory=list)
    started_at: str = ""
    spent_s: float = 0.0


class BenchmarkBatch:
    """One plan. `run` yields the lines of its answer without the end."""

    def __init__(self, script: Script, settings: Mapping[str, Any], cpus: frozenset[int]) -> None:
        self._script = script
        self._settings = settings
        mask = settings["cpu_mask"]
        self._cpus = cpus if mask is None else frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)
        self._order = random.Random(settings["seed"])  # noqa: S311 — an order to repeat, not a secret
        self._sentinels: list[PlannedJob] = []
        self._has_served = False
        self._sentinel_ns: list[int] = []
        self._first: Conditions | None = None

    def run(self, sentinel: PlannedJob, jobs: Sequence[PlannedJob]) -> Talk[None]:
        """Answer every job with one row or a reason."""
        self._sentinels = [sentinel, *jobs]
        size = self._settings["block_size"]
        for first in range(0, len(jobs), size):
            yield from self._block(jobs[first : first + size])

    def _block(self, jobs: Sequence[PlannedJob]) -> Talk[None]:
        self._sentinel_ns = []
        right = yield from self._script.check(list(dict.fromkeys(job.sha256 for job in jobs)))
        before = yield from self._script.conditions()
        self._first = self._first or before
        alive = []
        for job in jobs:
            if job.sha256 in right:
                alive.append(Visits(job))
            else:
                yield failed_line(job.job_id, "the model file does not have the hash it is named after")
        for _ in range(self._settings["rounds"]):
            alive = yield from self._round(alive)
        yield from self._read_sentinel()
        after = yield from self._script.conditions()
        flags = ["throttled"] if self._first.throttled(before, after, self._cpus) else []
        for visits in alive:
            yield self._row(visits, after.temperatures_c, flags)

    def _round(self, alive: list[Visits]) -> Talk[list[Visits]]:
        """Visit each job once; returns those that can go on."""
        yield from self._read_sentinel()
        self._order.shuffle(alive)
        kept = []
        for visits in alive:
            visits.started_at = visits.started_at or utc_now()
            error = yield from self._visit(visits, "measure")
            if error:
                yield failed_line(visits.job.job_id, error)
            else:
                kept.append(visits)
        return kept

    def _read_sentinel(self) -> Talk[None]:
        """Take a reading of the first job that can serve as sentinel; with none there is nothing to measure either.

        Once one has served it stays, even if a reading fails: readings of two models cannot be compared.
        """
        while self._sentinels:
            visits = Visits(self._sentinels[0])
            if not (yield from self._visit(visits, "sentinel")):
                self._sentinel_ns.append(_sample_ns(visits.timings[0]))
                self._has_served = True
                return
            if self._has_served:
                return
            del self._sentinels[0]

    def _visit(self, visits: Visits, phase: str) -> Talk[str]:
        """Run the binary once on a job; returns why that gave nothing."""
        job = visits.job
        yield encode(type="start", job=job.job_id, phase=phase)
        limit_s = max(_SHORTEST_LIMIT_S, self._settings["time_limit_s"] - visits.spent_s)
        began = time.monotonic()
        outcome = yield from self._script.run(self._words(job, limit_s), limit_s)
        visits.spent_s += time.monotonic() - began
        error = outcome.failure(self._settings["time_limit_s"])
        if error:
            return error
        try:
            timing = parse_timing(outcome.text)
        except ProtocolError as wrong:
            return str(wrong)
        if timing.runs.average_us <= 0 or timing.warmup.average_us <= 0:
            return "it takes less than the 1 µs that benchmark_model can tell; measure it with another engine"
        visits.timings.append(timing)
        visits.beside_ns += self._sentinel_ns[-1:]
        return ""

    def _words(self, job: PlannedJob, limit_s: float) -> list[str]:
        settings = self._settings
        mask = settings["cpu_mask"]
        min_s = settings["min_sample_us"] / 1e6 * (_NETWORK_TIMES if job.kind == "network" else 1)
        return [
            *("run", job.sha256, "-" if mask is None else f"{mask:x}", str(settings["threads"]), "1"),
            *(f"{min(min_s, limit_s):.6f}", f"{limit_s:.3f}", str(settings["warmup_runs"])),
            *(f"{settings['warmup_min_ms'] / 1e3:.6f}", "0"),
        ]

    def _row(self, visits: Visits, temperatures_c: Sequence[float], flags: Sequence[str]) -> bytes:
        first = visits.timings[0]
        is_complete = len(visits.beside_ns) == len(visits.timings)  # a reading may have failed
        samples = [_sample_ns(timing) for timing in visits.timings]
        return encode(
            type="row",
            job=visits.job.job_id,
            samples_ns=samples,
            wall_samples_ns=samples,
            clock="wall",
            loops=min(timing.runs.count for timing in visits.timings),
            warmup_ns=max(1, round(first.warmup.count * first.warmup.average_us * 1e3)),
            warmup_runs=first.warmup.count,
            init_ns=max(1, round(first.init_us * 1e3)),
            peak_rss_bytes=max(timing.footprint_bytes for timing in visits.timings),
            started_at=visits.started_at,
            temperatures_c=temperatures_c,
            sentinel_ns=min(self._sentinel_ns, default=0),
            beside_ns=visits.beside_ns if is_complete else [],
            flags=flags,
        )


def _sample_ns(timing: Timing) -> int:
    return max(1, round(timing.runs.average_us * 1e3))


def failed_line(job_id: str, error: str) -> bytes:
    """Write that a job gives nothing."""
    return encode(type="failed", job=job_id, error=error)


def encode(**fields: object) -> bytes:
    """Write a line of the protocol."""
    return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()


def utc_now() -> str:
    """Write this machine's time, which is righter than a phone's, as RFC 3339 does in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
