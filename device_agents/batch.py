"""One batch of jobs while it is measured: what waits, what runs, how often what served them has died.

It speaks to nobody: `session.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_agents import protocol
from device_agents.errors import InvalidRequest, RunnerFailed
from device_agents.protocol import Job, JobResult, MeasureSettings, RowReader
from device_agents.work_folder import model_path


@dataclass(slots=True)
class Batch:
    """What is still waiting, which job runs now, how often a job has ended the runner, and how often the link broke.

    losses counts broken links since the last row: a device that gives rows between two losses is worth waiting for.
    killed are the jobs that a SIGKILL has met once.
    """

    settings: MeasureSettings
    waiting: dict[str, Job]
    files: Mapping[str, Path]
    sentinel: Job | None
    running: str | None = None
    deaths: int = 0
    losses: int = 0
    killed: set[str] = field(default_factory=set)

    @staticmethod
    def of(jobs: Sequence[Job], models: Mapping[str, Path], settings: MeasureSettings, suffix: str = "tflite") -> Batch:
        """Check jobs and models. Raises InvalidRequest for doubled ids and models without a file."""
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
        files = {model_path(job.model_sha256, suffix): models[job.model_sha256] for job in jobs}
        return Batch(settings, waiting, files, sentinel)

    def plan(self) -> Iterable[bytes]:
        """Write the lines that ask for what is waiting."""
        if self.sentinel is None:
            self.sentinel = next(iter(self.waiting.values()))
        return protocol.plan_lines(self.settings, self.sentinel, list(self.waiting.values()))

    def reader(self) -> RowReader:
        """Give the reader of the answer to `plan`."""
        # The sentinel may be loaded again after its own row came, so it stays known without being awaited.
        known = {self.sentinel.job_id} if self.sentinel is not None else set()
        return RowReader(self.settings, dict(self.waiting), frozenset(self.waiting) | known)

    def answered(self, result: JobResult) -> None:
        """Take in that a job has its row."""
        del self.waiting[result.job_id]
        self.running, self.losses = None, 0

    def blame(self, reason: str, *, killed: bool = False) -> JobResult | None:
        """Give a failed row to the job that ran when the runner died; None when no job ran.

        A runner that was killed, by a person or for want of memory, may have been so whatever ran: a job is blamed only
        when that happens to it again.
        """
        job_id, self.running = self.running, None
        self.deaths += 1
        if killed and job_id is not None and job_id not in self.killed:
            self.killed.add(job_id)
            return None
        self._drop_sentinel(job_id, reason)
        if job_id is None or self.waiting.pop(job_id, None) is None:
            return None
        return JobResult(job_id, "failed", error=reason)

    def _drop_sentinel(self, job_id: str | None, reason: str) -> None:
        """Choose another sentinel when the runner died on this one; one that was named must not be replaced."""
        if self.settings.sentinel_job_id == job_id and job_id is not None:
            raise RunnerFailed(
                f"the sentinel {job_id!r} ends the runner ({reason}); without it no row of this batch can be judged"
            )
        if self.sentinel is not None and self.sentinel.job_id == job_id:
            self.sentinel = None
