"""A study: an engine proposes, candidates are evaluated, the engine learns; every sample is in the journal first.

A killed study goes on by asking its engine the same questions again and answering from the journal, so no state of the
engine is stored. How a candidate's accuracy comes about is the caller's `evaluate` (proxy.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError
from edgekd.search.engines import EngineSettings, Told, engine_named
from edgekd.search.latency import LatencyModel
from edgekd.search.reward import Reward
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.space import Choices
from latency_tables.errors import FileDamaged
from latency_tables.journal import Journal

FORMAT, VERSION = "edgekd-study", 1
_ABSURD = 1e12  # no accuracy, and 30,000 years of seconds

Evaluate = Callable[[Sequence[Arch]], Iterator[tuple[float, float]]]  # → (accuracy 0–1, seconds), in order


class NoneUnderTarget(EdgekdError):
    """Some architecture would meet the target, but no sample did."""


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What a study's outcome depends on, besides how candidates are evaluated."""

    engine: str
    budget: int
    batch: int
    seed: int
    target_ms: float
    target_dtype: str
    reward: Reward


@dataclass(frozen=True, slots=True)
class Sample:
    """One evaluated candidate."""

    index: int
    arch: Arch
    predicted_ms: dict[str, float]
    proxy_accuracy: float
    reward: float
    seconds: float
    macs: int

    def as_json(self) -> dict[str, Any]:
        """Give the journal's form."""
        fields = asdict(self) | {"arch": str(self.arch), "arch_id": self.arch.arch_id}
        return {name: fields[name] for name in _FIELDS}


_FIELDS = ("index", "arch", "arch_id", "predicted_ms", "proxy_accuracy", "reward", "seconds", "macs")


@dataclass(frozen=True)
class Study:
    """A study bound to its space, table, journal file and identity (hashes of what else its samples depend on)."""

    settings: StudySettings
    latency: LatencyModel
    path: Path
    identity: dict[str, Any]

    def run(self, evaluate: Evaluate, on_sample: Callable[[Sample], None] = lambda sample: None) -> list[Sample]:
        """Evaluate up to the budget's number of distinct candidates; give all samples, in order.

        Raises:
            UnknownName: there is no such engine.
            FileDamaged: the journal does not hold what its engine proposes.

        """
        settings, space = self.settings, self.latency.space
        engine_settings = EngineSettings(settings.budget, settings.batch)
        engine = engine_named(settings.engine)(space.decision_sizes, engine_settings, settings.seed)
        journal = Journal(self.path, self._header())
        samples: list[Sample] = []
        while len(samples) < settings.budget:
            asked = engine.ask(min(settings.batch, settings.budget - len(samples)))
            if not asked:
                break  # the space is exhausted
            batch = self._evaluated(journal, asked, len(samples), evaluate, on_sample)
            engine.tell([Told(choices, s.reward) for choices, s in zip(asked, batch, strict=True)])
            samples += batch
        if len(journal.entries) > len(samples):
            raise FileDamaged(self.path, len(samples) + 2, f"this study ends after {len(samples)} samples")
        return samples

    def _evaluated(
        self,
        journal: Journal,
        asked: Sequence[Choices],
        first: int,
        evaluate: Evaluate,
        on_sample: Callable[[Sample], None],
    ) -> list[Sample]:
        """Give one sample a proposal, from the journal as far as that goes, and evaluate the others."""
        archs = [self.latency.space.arch(choices) for choices in asked]
        known = journal.entries[first : first + len(archs)]
        batch = [
            self._recall(first + i, arch, entry) for i, (arch, entry) in enumerate(zip(archs, known, strict=False))
        ]
        for sample in batch:
            on_sample(sample)
        rest = archs[len(known) :]
        for arch, (accuracy, seconds) in zip(rest, evaluate(rest) if rest else (), strict=True):
            sample = self._sample(first + len(batch), arch, accuracy, seconds)
            journal.append(sample.as_json())
            journal.sync()
            batch.append(sample)
            on_sample(sample)
        return batch

    def _sample(self, index: int, arch: Arch, accuracy: float, seconds: float) -> Sample:
        predicted = self.latency.predicted_ms(arch)
        reward = self.settings.reward(accuracy, predicted[self.settings.target_dtype], self.settings.target_ms)
        macs = graph_of(self.latency.space, arch).macs
        return Sample(index, arch, predicted, accuracy, reward, round(seconds, 3), macs)

    def _recall(self, index: int, arch: Arch, entry: dict[str, Any]) -> Sample:
        """Rebuild a sample from the journal, which must say what would be computed now."""
        accuracy, seconds = entry.get("proxy_accuracy"), entry.get("seconds")
        for value in (accuracy, seconds):
            if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value < _ABSURD:
                raise FileDamaged(self.path, index + 2, f"{value!r} is no accuracy or time")
        sample = self._sample(index, arch, float(entry["proxy_accuracy"]), float(entry["seconds"]))
        if sample.as_json() != entry:
            raise FileDamaged(self.path, index + 2, f"it is not sample {index} of this study, {arch}")
        return sample

    def _header(self) -> dict[str, Any]:
        settings = asdict(self.settings)
        return {"format": FORMAT, "version": VERSION, "space": self.latency.space.name, **settings, **self.identity}


def winner(samples: Sequence[Sample], settings: StudySettings) -> Sample:
    """Give the best proxy accuracy under the target; of equals the faster, then the earlier.

    Raises:
        NoneUnderTarget: no sample is under the target.

    """
    dtype, target = settings.target_dtype, settings.target_ms
    feasible = [s for s in samples if s.predicted_ms[dtype] <= target]
    if not feasible:
        nearest = min(samples, key=lambda s: s.predicted_ms[dtype])
        raise NoneUnderTarget(
            f"none of {len(samples)} samples is predicted under {target:.4g} ms ({dtype}); the nearest, "
            f"{nearest.arch}, is at {nearest.predicted_ms[dtype]:.4g} ms; raise --target-ms or --budget, "
            "or search with --reward absolute"
        )
    return min(feasible, key=lambda s: (-s.proxy_accuracy, s.predicted_ms[dtype], s.index))
