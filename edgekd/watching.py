"""Follows a study: how it stands after each sample, for whoever draws progress, and as scalars for TensorBoard.

Judges a finished study no better than outcome.py does, only sooner. Drawing is cli_progress.py's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgekd.progress import Best, Progress, Standing
from edgekd.search.pareto import unbeaten
from edgekd.search.reward import feasible_first
from edgekd.search.study_file import WARM, Sample, StudySettings


class StudyWatcher:
    """Tells a progress how a study stands; `on_scalars` gets the numbers of each new sample, by name."""

    def __init__(
        self,
        settings: StudySettings,
        progress: Progress,
        on_scalars: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._progress = settings, progress
        self._on_scalars, self._clock = on_scalars, clock
        self._target = 0
        self._samples: list[Sample] = []
        self._front: list[Best] = []
        self._best: list[Best] = []  # of the target that is searched for: by reward, and under it
        self._under: list[Best] = []
        self._counts = {"done": 0, "failures": 0, "new": 0, "epochs": 0}
        self._began = clock()

    def recalled(self, sample: Sample) -> None:
        """Take a sample that was in the file; time starts to count behind it."""
        self._take(sample)
        self._began = self._clock()

    def sampled(self, sample: Sample) -> None:
        """Take a new sample, and tell how the study stands now."""
        self._counts["new"] += 1
        self._take(sample)
        standing = self._standing(sample)
        self._progress.standing(standing)
        self._on_scalars(self._counts["done"], self._scalars(standing, sample))

    def noted(self, text: str) -> None:
        """Pass a note on."""
        self._progress.note(text)

    def _take(self, sample: Sample) -> None:
        if sample.target != WARM:
            self._counts["done"] += 1
            self._counts["epochs"] += sample.epochs
        self._samples.append(sample)
        if sample.target not in (WARM, self._target):  # the next target's phase began
            self._target = sample.target
            self._best, self._under = [], []
            for earlier in self._samples:
                self._judge(earlier)
        else:
            self._judge(sample)
        if sample.failure:
            self._counts["failures"] += 1
            return
        both = [*self._front, self._shown(sample)]
        self._front = unbeaten(both, lambda best: best.latency_ms, lambda best: best.accuracy)

    def _judge(self, sample: Sample) -> None:
        if sample.failure:
            return
        shown = self._shown(sample)
        self._best = sorted([*self._best, shown], key=self._rank, reverse=True)[:1]
        if shown.latency_ms <= self._target_ms:
            self._under = sorted([*self._under, shown], key=lambda best: (-best.accuracy, best.latency_ms))[:1]

    def _rank(self, best: Best) -> tuple[bool, float]:
        """Give what the best reward is chosen by: under a hard reward, whatever is under the target comes first."""
        bound_ms = self._target_ms if self._settings.reward.form == "hard" else math.inf
        return feasible_first(best.reward, best.latency_ms, bound_ms)

    @property
    def _target_ms(self) -> float:
        return self._settings.targets_ms[self._target]

    def _shown(self, sample: Sample) -> Best:
        latency_ms = sample.latency_ms(self._settings.target_dtype)
        reward = self._settings.reward(sample.proxy_accuracy, latency_ms, self._target_ms)
        return Best(sample.arch_id, latency_ms, sample.proxy_accuracy, reward)

    def _standing(self, sample: Sample) -> Standing:
        newest = self._shown(sample)
        return Standing(
            done=self._counts["done"],
            total=self._settings.budget,
            seconds_left=self._seconds_left(),
            target_ms=self._target_ms,
            dtype=self._settings.target_dtype,
            newest=newest,
            best_reward=self._best[0] if self._best else newest,
            best_under_target=self._under[0] if self._under else None,
            front=tuple(self._front),
            failures=self._counts["failures"],
        )

    def _seconds_left(self) -> float:
        """Go by the mean pace of the new samples; of two budgets the one that ends sooner counts."""
        settings, counts = self._settings, self._counts
        left = (settings.budget - counts["done"]) / counts["new"]
        if settings.budget_epochs and counts["epochs"]:
            each = counts["epochs"] / counts["done"]
            left = min(left, (settings.budget_epochs - counts["epochs"]) / each / counts["new"])
        return max(0.0, left) * (self._clock() - self._began)

    def _scalars(self, standing: Standing, sample: Sample) -> dict[str, float]:
        found = {
            "search/seconds": sample.seconds,
            "search/failures": float(standing.failures),
            f"search/latency_ms_{standing.dtype}": standing.newest.latency_ms,
            "search/reward": standing.newest.reward,
            "search/best_reward": standing.best_reward.reward,
        }
        if not sample.failure:
            found["search/proxy_accuracy"] = sample.proxy_accuracy
        if standing.best_under_target is not None:
            found["search/best_accuracy_under_target"] = standing.best_under_target.accuracy
        return found


class ScalarBoard(AbstractContextManager["ScalarBoard"]):
    """Event files for TensorBoard in a folder; the extra `tensorboard` brings what writes them."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer: Any = EventFileWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write out what is left."""
        self._writer.close()

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Add one step's values; they are in the file at once."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._writer.add_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))
        self._writer.flush()
