"""Workers on Ray: one actor each, which opens the room once and rates one candidate at a time.

Candidates go to whoever is free, and answers are given in the order of the proposals. A lost worker or node costs
time only: its candidate is tried again elsewhere, and another worker is asked for, for as long as any works. Nothing
waits without end. How the cluster is joined is cluster.py's; what runs in a worker's process is room.py's Rater.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.holding import Holding
from edgekd.search.rated import Hopeless, Rated
from edgekd.search.workers.cluster import imported_ray, joined, reason_of
from edgekd.search.workers.errors import TooFewResources, WorkersGone
from edgekd.search.workers.room import OpenRoom, Rater, Refusal
from edgekd.search.workers.settings import WorkerSettings
from edgekd.spaces.arch import Arch

_MAX_LOSSES = 3  # of one candidate's workers; then it is the candidate that kills them
_MAX_FAILED_STARTS = 3  # in a row; then it is not the machine's mood
_LOOK_S = 1.0  # between two looks at the clock while nothing happens


@dataclass
class _Worker:
    """An actor and what it does: `answer` is a sign of life or that of `turn`; one that may be given work has none."""

    actor: Any
    answer: Any
    turn: _Turn | None = None
    is_placed: bool = False  # Ray has found room for it
    is_known: bool = False  # it has opened its room

    @property
    def is_free(self) -> bool:
        return self.answer is None

    @property
    def is_opening(self) -> bool:
        return self.is_placed and not self.is_known


@dataclass
class _Turn:
    """A candidate on its way."""

    place: int
    arch: Arch
    began_s: float = 0.0
    losses: int = 0
    seconds: float = 0.0  # that were lost with its workers


@dataclass
class _Batch:
    """The candidates of one call: who waits, and who has an answer that is not given yet."""

    hopeless: Hopeless | None
    waiting: deque[_Turn]
    rated: dict[int, Rated] = field(default_factory=dict)


class RayWorkers(Holding):
    """Rates candidates in actors; use it as a context manager.

    To enter it raises what open_workers names; see there.
    """

    def __init__(self, open_room: OpenRoom, settings: WorkerSettings) -> None:
        super().__init__()
        self._open_room = open_room
        self._settings = settings
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._seen_s = 0.0  # when a worker last came, or was there

    def _take(self, stack: ExitStack) -> None:
        self._ray = imported_ray()
        stack.enter_context(joined(self._settings))
        stack.callback(self._end_all)
        self._see_gpus()
        self._workers = [self._started() for _ in range(self._settings.workers)]
        self._seen_s = time.monotonic()
        nobody = _Batch(None, deque())
        while not all(worker.is_known for worker in self._workers):
            self._collect(nobody)
            if any(worker.is_opening for worker in self._workers):
                self._seen_s = time.monotonic()  # a large data set takes its time where it was never read before
            elif time.monotonic() - self._seen_s > self._settings.wait_s:
                raise TooFewResources(self._missing())

    def evaluate(self, archs: Sequence[Arch], hopeless: Hopeless | None = None) -> Iterator[Rated]:
        """Give each candidate's rating as soon as all before it have theirs.

        Raises:
            WorkersGone: all workers are lost and none comes back.
            Refused: a worker met an error of the request.

        """
        batch = _Batch(hopeless, deque(_Turn(place, arch) for place, arch in enumerate(archs)))
        self._seen_s = time.monotonic()
        try:
            for place in range(len(archs)):
                self._hand_out(batch)
                while place not in batch.rated:
                    self._collect(batch)
                    self._hand_out(batch)
                    self._see_life()
                yield batch.rated.pop(place)
        finally:
            self._drop_busy()

    def _hand_out(self, batch: _Batch) -> None:
        """Give every free worker a candidate."""
        for worker in self._workers:
            if batch.waiting and worker.is_free:
                worker.turn = turn = batch.waiting.popleft()
                turn.began_s = time.monotonic()
                worker.answer = worker.actor.rate.remote(turn.arch, batch.hopeless)

    def _collect(self, batch: _Batch) -> None:
        """Wait a moment for answers, of candidates and of workers that start."""
        expected = {worker.answer: worker for worker in self._workers if worker.answer is not None}
        ready, _ = self._ray.wait(list(expected), num_returns=1, timeout=_LOOK_S)
        for answer in ready:
            self._take_answer(expected[answer], batch)

    def _take_answer(self, worker: _Worker, batch: _Batch) -> None:
        lost = self._ray.exceptions
        try:
            found = self._ray.get(worker.answer)
        except lost.RayTaskError:
            raise  # a defect of the room, with its trace
        except lost.RayError as error:  # whatever else Ray says, there is no answer and will be none
            self._replace(worker, batch, reason_of(error))
            return
        if isinstance(found, Refusal):
            raise found.as_error()
        if not worker.is_placed:
            worker.is_placed, self._seen_s, worker.answer = True, time.monotonic(), worker.actor.open.remote()
            return
        turn, worker.answer, worker.turn = worker.turn, None, None
        if turn is None:
            worker.is_known, self._failed_starts, self._seen_s = True, 0, time.monotonic()
        else:
            batch.rated[turn.place] = found

    def _replace(self, lost: _Worker, batch: _Batch, reason: str) -> None:
        """Ask for another worker, and let the lost one's candidate be the next to be tried."""
        self._ray.kill(lost.actor)  # it may only be out of reach
        if lost.turn is not None:
            self._count_loss(lost.turn, batch, reason)
        elif not lost.is_known:
            self._failed_starts += 1
            if self._failed_starts >= max(_MAX_FAILED_STARTS, self._settings.workers):
                raise WorkersGone(f"workers cannot start: {reason}; the same edgekd must be on every machine of Ray's")
        self._workers[self._workers.index(lost)] = self._started()
        for worker in self._workers:
            if worker.is_free:  # it may have been on the same machine: work that it is given must not count as lost
                worker.answer = worker.actor.open.remote()

    def _count_loss(self, turn: _Turn, batch: _Batch, reason: str) -> None:
        turn.losses += 1
        turn.seconds += time.monotonic() - turn.began_s
        if turn.losses < _MAX_LOSSES:
            batch.waiting.appendleft(turn)
        else:
            batch.rated[turn.place] = Rated(0.0, turn.seconds, f"worker lost {turn.losses} times: {reason}")

    def _started(self) -> _Worker:
        """Ask for an actor; it comes when there is room for it, and so does one in the place of a lost one."""
        settings = self._settings
        resources = {"num_cpus": settings.cpus_per_worker, "num_gpus": settings.gpus_per_worker}
        # spread over the machines, or a cluster's first would train alone while there is room on it
        options = {**resources, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        actor = self._ray.remote(**options)(Rater).remote(self._open_room, str(Path.cwd()))
        return _Worker(actor, actor.is_here.remote())

    def _see_life(self) -> None:
        if any(worker.is_placed for worker in self._workers):
            self._seen_s = time.monotonic()
        if time.monotonic() - self._seen_s > self._settings.wait_s:
            raise WorkersGone(
                f"all workers are lost and none came back within {self._settings.wait_s:.0f} s ({self._missing()}); "
                "every finished sample is kept: run the same command again"
            )

    def _see_gpus(self) -> None:
        """Find at once what a machine of ours can never have. A cluster may grow, so there it is waited for."""
        asked = self._settings.workers * self._settings.gpus_per_worker
        if not self._settings.ray_address and self._ray.cluster_resources().get("GPU", 0) < asked:
            raise TooFewResources(self._missing())

    def _missing(self) -> str:
        """Say what is asked for, and what there is."""
        settings, waiting = self._settings, sum(not worker.is_placed for worker in self._workers)
        have, free = self._ray.cluster_resources(), self._ray.available_resources()
        there = " and ".join(f"{have.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in ("CPU", "GPU"))
        return (
            f"{waiting or settings.workers} of {settings.workers} workers have no place: each asks for "
            f"{settings.cpus_per_worker:g} CPU and {settings.gpus_per_worker:g} GPU, and Ray has {there} in all; "
            "ask for fewer workers or smaller shares, or add machines"
        )

    def _drop_busy(self) -> None:
        """End those who work for nobody any more; others take their places when there is work again."""
        for place, worker in enumerate(self._workers):
            if worker.turn is not None and self._ray.is_initialized():
                self._ray.kill(worker.actor)
                self._workers[place] = self._started()

    def _end_all(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers = []
