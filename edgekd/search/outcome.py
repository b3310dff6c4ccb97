"""What a study found for a target: the best reward, the best architecture under the target, and the Pareto front.

The winner, which is distilled and shipped, is the best under the first target. Searching is study.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekd.search.errors import NoneUnderTarget
from edgekd.search.pareto import unbeaten
from edgekd.search.reward import Reward
from edgekd.search.study_file import Sample, StudyRecord

Measured = Mapping[int, float]  # ms on the device, by the index of a sample; those that were measured after the search


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one target. Latencies and rewards are of what was measured, where that was."""

    target_ms: float
    target_dtype: str
    best_reward: Sample
    best_under_target: Sample | None  # the winner, unless no sample is under the target
    front: tuple[Sample, ...]  # fastest first; nobody is both faster and more accurate than one of these
    samples: int
    failures: int

    def winner(self) -> Sample:
        """Give the best architecture under the target.

        Raises:
            NoneUnderTarget: no sample is under it; the message names the nearest.

        """
        if self.best_under_target is None:
            raise none_under(self)
        return self.best_under_target

    def as_json(self) -> dict[str, Any]:
        """Give the form in which it stands in winner.json."""
        under = self.best_under_target
        return {
            "target_ms": self.target_ms,
            "target_dtype": self.target_dtype,
            "best_reward": self.best_reward.as_json(),
            "best_under_target": under.as_json() if under is not None else None,
            "pareto_front": [_point(sample, self.target_dtype) for sample in self.front],
            "samples": self.samples,
            "failures": self.failures,
        }


def outcomes(record: StudyRecord, measured: Measured | None = None) -> list[Outcome]:
    """Judge all samples of a study at each of its targets. `measured` overrules predictions.

    Raises:
        NoneUnderTarget: every single candidate failed.

    """
    settings = record.header.settings
    samples = [
        replace(s, measured_ms=measured[s.index]) if measured and s.index in measured else s for s in record.samples
    ]
    return [outcome_at(samples, target_ms, settings.target_dtype, settings.reward) for target_ms in settings.targets_ms]


def outcome_at(samples: Sequence[Sample], target_ms: float, dtype: str, reward: Reward) -> Outcome:
    """Judge samples at one target: candidates that failed never win; of equals the faster, then the earlier.

    A hard reward compares what is under the target before what is not.

    Raises:
        NoneUnderTarget: every single candidate failed.

    """
    sound = [sample for sample in samples if not sample.failure]
    if not sound:
        reason = f": {samples[-1].failure}" if samples else ""
        raise NoneUnderTarget(
            f"none of {len(samples)} candidates could be rated, so nothing was found{reason:.300}; "
            "see that the proxy's settings fit the data, and begin anew"
        )
    at_target = [replace(s, reward=reward(s.proxy_accuracy, s.latency_ms(dtype), target_ms)) for s in sound]
    feasible = [sample for sample in at_target if sample.latency_ms(dtype) <= target_ms]
    candidates = feasible if reward.form == "hard" and feasible else at_target
    return Outcome(
        target_ms=target_ms,
        target_dtype=dtype,
        best_reward=min(candidates, key=lambda s: (-s.reward, s.latency_ms(dtype), s.index)),
        best_under_target=best_accuracy(feasible, dtype) if feasible else None,
        front=tuple(unbeaten(at_target, lambda s: s.latency_ms(dtype), lambda s: s.proxy_accuracy)),
        samples=len(samples),
        failures=len(samples) - len(sound),
    )


def best_accuracy(samples: Sequence[Sample], dtype: str) -> Sample:
    """Give the most accurate sample; of equals the faster, then the earlier."""
    return min(samples, key=lambda s: (-s.proxy_accuracy, s.latency_ms(dtype), s.index))


def none_under(outcome: Outcome) -> NoneUnderTarget:
    """Say that no sample is under the target, and which is nearest."""
    dtype, nearest = outcome.target_dtype, outcome.front[0]
    verb = "predicted" if nearest.measured_ms is None else "measured"
    return NoneUnderTarget(
        f"none of {outcome.samples} samples is {verb} under {outcome.target_ms:.4g} ms ({dtype}); the nearest, "
        f"{nearest.arch}, is at {nearest.latency_ms(dtype):.4g} ms; raise --target-ms or --budget, "
        "or search with --reward absolute, if it was another"
    )


def top_under(record: StudyRecord, outcome: Outcome, count: int) -> list[Sample]:
    """Give the best `count` samples under an outcome's target by the table, best first: those worth measuring."""
    dtype = outcome.target_dtype
    sound = [s for s in record.samples if not s.failure and s.latency_ms(dtype) <= outcome.target_ms]
    return sorted(sound, key=lambda s: (-s.proxy_accuracy, s.latency_ms(dtype), s.index))[:count]


def _point(sample: Sample, dtype: str) -> dict[str, Any]:
    return {
        "arch": sample.arch,
        "arch_id": sample.arch_id,
        "latency_ms": sample.latency_ms(dtype),
        "proxy_accuracy": sample.proxy_accuracy,
        "macs": sample.macs,
    }
