"""A study: an engine proposes, candidates are evaluated, the engine learns; every sample is in the file first.

Each target has a phase with an engine of its own, which is told all earlier evaluations first; what is known is never
paid for again. A killed study goes on by asking its engines the same questions and answering from the file, so no state
of an engine is stored. How an accuracy comes about is the caller's `evaluate` (proxy.py, workers/); who won is
outcome.py's; the file's form, study_file.py's; taking evaluations over from another study, warm_start.py's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edgekd.search.engines import Engine, EngineSettings, Evaluated, engine_named
from edgekd.search.errors import LowerBudget
from edgekd.search.latency import LatencyModel
from edgekd.search.rated import Evaluate, Rated, hopeless_after
from edgekd.search.study_file import (
    MEASURED,
    WARM,
    Extension,
    Sample,
    StudyHeader,
    StudyRecord,
    StudySettings,
    check_version,
    record_of,
    uncollected,
)
from edgekd.search.warm_start import check_predictions, warm_samples
from edgekd.spaces.layers import graph_of
from edgekd.spaces.space import Choices
from latency_tables.errors import FileDamaged, OtherSettings
from latency_tables.journal import Entry, Journal, read_header, read_object, sealed_lines, to_line, write_new

_PROPOSALS = 20  # times the budget; an engine that repeats itself more often has nothing left to say


class Watcher(Protocol):
    """Who follows a study."""

    def recalled(self, sample: Sample) -> None:
        """A sample was in the file already."""
        ...

    def sampled(self, sample: Sample) -> None:
        """A sample was evaluated just now, and is in the file."""
        ...

    def noted(self, text: str) -> None:
        """Something that a person should know."""
        ...


class Unwatched:
    """Follows nothing."""

    def recalled(self, sample: Sample) -> None:
        """Ignore."""

    def sampled(self, sample: Sample) -> None:
        """Ignore."""

    def noted(self, text: str) -> None:
        """Ignore."""


@dataclass(frozen=True)
class Study:
    """A study bound to its space, table, file and identity (hashes of what else its samples depend on).

    `warm_start` is the file of another study, whose evaluations a new study takes over.
    """

    settings: StudySettings
    latency: LatencyModel
    path: Path
    identity: dict[str, Any] = field(default_factory=dict)
    warm_start: Path | None = None

    def run(self, evaluate: Evaluate, watcher: Watcher | None = None) -> StudyRecord:
        """Search until every target has had its share of the budget; give all samples, in order.

        Raises:
            UnknownName: there is no such engine.
            FileDamaged, OtherVersion, OtherSettings: the file is not this study's, or not what its engine proposes.
            LowerBudget: the study had a larger budget already.
            OtherStudy: the evaluations of the study to start from do not compare with this one's.
            FileNotWritable: the disk is full, say; nothing that was finished is lost.

        """
        engine_named(self.settings.engine)  # before a file is begun
        journal, record = self._open()
        course = _Course(self, journal, record, evaluate, watcher or Unwatched())
        course.run()
        return replace(record, samples=tuple(course.samples))

    def _open(self) -> tuple[Journal, StudyRecord]:
        """Open or begin the file; it keeps the header that it was begun with, whatever the budget is by now."""
        wanted = self._header()
        found = read_header(self.path)
        if found is not None:
            check_version(self.path, found)
            self._check_settings(found, wanted.as_json())
        elif self.warm_start is not None and not self.path.exists():
            samples = warm_samples(self.warm_start, wanted, self.latency)
            wanted = replace(wanted, warm_samples=len(samples))
            write_new(self.path, "".join(sealed_lines(wanted.as_json(), [sample.as_json() for sample in samples])))
        with uncollected():
            journal = Journal(self.path, wanted.as_json() if found is None else found, sealed=True)
            record = record_of(self.path, journal.header, journal.taken_entries())
        if len(record.samples) < record.header.warm_samples:
            raise FileDamaged(
                self.path, 1, f"{record.header.warm_samples} samples were taken over, {len(record.samples)} are here"
            )
        check_predictions(self.path, record, self.latency)
        return journal, self._extended(journal, record)

    def _header(self) -> StudyHeader:
        space = self.latency.space
        return StudyHeader(
            space.name, space.sha256, space.decision_sizes, self.settings, identity=_plain(self.identity)
        )

    def _check_settings(self, found: Entry, wanted: Entry) -> None:
        """See that the file is of this very study; its budget may differ, and how many samples were taken over."""
        free = {"budget", "budget_epochs", "warm_samples"}
        wanted = _plain(wanted)
        for name in [*wanted, *found]:
            if name not in free and found.get(name) != wanted.get(name):
                raise OtherSettings(self.path, name, found.get(name), wanted.get(name))

    def _extended(self, journal: Journal, record: StudyRecord) -> StudyRecord:
        """Note a larger budget in the file."""
        begun, now = record.header.settings, Extension(self.settings.budget, self.settings.budget_epochs)
        last = record.extensions[-1] if record.extensions else Extension(begun.budget, begun.budget_epochs)
        if now == last:
            return record
        if now.budget < last.budget or (now.budget_epochs or math.inf) < (last.budget_epochs or math.inf):
            raise LowerBudget(
                f"{self.path} has a budget of {_worded(last)} already, which can be raised, but not lowered to "
                f"{_worded(now)}; give at least that, or begin anew with another folder"
            )
        journal.append(now.as_json())
        journal.sync()
        after = (*record.extended_after, len(record.samples))
        return replace(record, extensions=(*record.extensions, now), extended_after=after)


def _plain(content: dict[str, Any]) -> Entry:
    """Give an object as JSON gives it back."""
    return read_object(to_line(content))


def _worded(budget: Extension) -> str:
    epochs = f" and {budget.budget_epochs} epochs" if budget.budget_epochs else ""
    return f"{budget.budget} evaluations{epochs}"


@dataclass
class _Phase:
    """What is left of the share of one target in one round of the budget."""

    target: int
    evaluations: int
    epochs: float  # infinite where they are not limited
    proposals: int

    def take(self, sample: Sample) -> None:
        """Pay for a sample."""
        self.evaluations -= 1
        self.epochs -= sample.epochs

    def allows(self, settings: StudySettings) -> int:
        """Say how many proposals may be asked for now, 0 at its end."""
        trainings = math.inf if math.isinf(self.epochs) else math.ceil(self.epochs / settings.epochs_each)
        return int(max(0, min(settings.batch, self.evaluations, trainings)))


class _Course:
    """One run of a study, from its first sample on: what is in the file is taken from there."""

    def __init__(
        self, study: Study, journal: Journal, record: StudyRecord, evaluate: Evaluate, watcher: Watcher
    ) -> None:
        self.samples: list[Sample] = []
        self._study, self._journal, self._record = study, journal, record
        self._settings = record.header.settings  # as the study was begun
        self._evaluate, self._watcher = evaluate, watcher
        self._known: dict[Choices, Sample] = {}
        self._engines: dict[int, Engine] = {}
        self._told: dict[int, int] = {}  # by target: how many of the samples its engine has seen

    def run(self) -> None:
        """Go through the budget and its extensions, in each through the targets."""
        for sample in self._record.samples[: self._record.header.warm_samples]:
            self._take(sample)
            self._watcher.recalled(sample)
        budgets = [Extension(self._settings.budget, self._settings.budget_epochs), *self._record.extensions]
        for budget in budgets:
            for phase in list(self._phases(budget)):
                self._search(phase)
        if len(self._record.samples) > len(self.samples):
            line = self._record.line_of(len(self.samples))
            raise FileDamaged(self._study.path, line, f"this study ends after {len(self.samples)} samples")

    def _phases(self, budget: Extension) -> Iterator[_Phase]:
        """Share what a budget leaves equally among the targets; what does not divide goes to the first."""
        paid = [sample for sample in self.samples if sample.target != WARM]
        left = max(0, budget.budget - len(paid))
        epochs = max(0, budget.budget_epochs - sum(sample.epochs for sample in paid)) if budget.budget_epochs else None
        targets = len(self._settings.targets_ms)
        for target in range(targets):
            share, rest = divmod(left, targets)
            share += rest if target == 0 else 0
            epoch_share = math.inf
            if epochs is not None:
                epoch_share = epochs // targets + (epochs % targets if target == 0 else 0)
            yield _Phase(target, share, epoch_share, _PROPOSALS * share)

    def _search(self, phase: _Phase) -> None:
        """Ask, evaluate and tell until the phase's share is used up or its engine has nothing new to propose."""
        if not phase.allows(self._settings):
            return
        engine = self._engine(phase)
        while count := min(phase.allows(self._settings), phase.proposals):
            asked = engine.ask(count)
            if not asked:
                self._watcher.noted(self._exhausted())
                break
            phase.proposals -= len(asked)
            self._rate([choices for choices in dict.fromkeys(asked) if choices not in self._known], phase)
            engine.tell([self._evaluated(self._known[choices], phase.target) for choices in asked])
        else:
            if phase.allows(self._settings):
                self._watcher.noted(
                    f"engine {self._settings.engine} only repeats itself: this phase ends with "
                    f"{phase.evaluations} evaluations of its budget left"
                )
        self._told[phase.target] = len(self.samples)

    def _engine(self, phase: _Phase) -> Engine:
        """Give the target's engine, told all that others found since it was asked last."""
        settings = self._settings
        if phase.target not in self._engines:
            feasible_ms = settings.targets_ms[phase.target] if settings.reward.form == "hard" else math.inf
            made_for = EngineSettings(phase.evaluations, settings.batch, feasible_ms)
            seed = settings.seed + phase.target
            sizes = self._study.latency.space.decision_sizes
            self._engines[phase.target] = engine_named(settings.engine)(sizes, made_for, seed)
        engine = self._engines[phase.target]
        news = self.samples[self._told.get(phase.target, 0) :]
        if news:
            engine.tell([self._evaluated(sample, phase.target) for sample in news])
        return engine

    def _evaluated(self, sample: Sample, target: int) -> Evaluated:
        latency_ms = sample.latency_ms(self._settings.target_dtype)
        reward = self._settings.reward(sample.proxy_accuracy, latency_ms, self._settings.targets_ms[target])
        return Evaluated(sample.choices, reward, sample.proxy_accuracy, latency_ms, bool(sample.failure))

    def _exhausted(self) -> str:
        size = self._study.latency.space.size
        if len(self.samples) >= size:
            return f"all {size} architectures of the space are evaluated: the search ends before its budget"
        return f"engine {self._settings.engine} has nothing more to propose: the search ends before its budget"

    def _rate(self, fresh: Sequence[Choices], phase: _Phase) -> None:
        """Have new proposals in the samples, from the file as far as that goes; the others are evaluated."""
        earlier = len(self.samples)
        recorded = self._record.samples[earlier : earlier + len(fresh)]
        for choices, sample in zip(fresh, recorded, strict=False):
            self._check_recorded(choices, sample, phase.target)
            self._take(sample)
            phase.take(sample)
            self._watcher.recalled(sample)
        rest = fresh[len(recorded) :]
        if not rest:
            return
        archs = [self._study.latency.space.arch(choices) for choices in rest]
        early = [
            sample.early_accuracy for sample in self.samples[:earlier]
        ]  # of earlier batches only, after a kill too
        hopeless = hopeless_after(early, self._settings.stop_share, self._settings.epochs_each)
        for choices, rated in zip(rest, self._evaluate(archs, hopeless), strict=True):
            sample = self._sample(choices, rated, phase.target)
            self._journal.append(sample.as_json())
            self._journal.sync()
            self._take(sample)
            phase.take(sample)
            self._watcher.sampled(sample)

    def _take(self, sample: Sample) -> None:
        self.samples.append(sample)
        self._known[sample.choices] = sample

    def _check_recorded(self, choices: Choices, sample: Sample, target: int) -> None:
        """See that the file goes on with what the engine proposes."""
        arch = str(self._study.latency.space.arch(choices))
        if (sample.choices, sample.arch, sample.target) != (choices, arch, target):
            raise FileDamaged(
                self._study.path,
                self._record.line_of(sample.index),
                f"sample {sample.index} is not what engine {self._settings.engine} proposes here, {arch}, "
                "unless another version of edgekd or torch does",
            )

    def _sample(self, choices: Choices, rated: Rated, target: int) -> Sample:
        """Make a sample of an evaluation; one that failed has accuracy 0, and is rewarded for that at its latency."""
        rated = _without_nonsense(rated, measures=self._settings.latency == MEASURED)
        model = self._study.latency
        arch = model.space.arch(choices)
        sample = Sample(
            index=len(self.samples),
            choices=choices,
            arch=str(arch),
            arch_id=arch.arch_id,
            predicted_ms=model.predicted_ms(arch),
            measured_ms=rated.measured_ms,
            proxy_accuracy=rated.accuracy,
            reward=0.0,
            seconds=round(rated.seconds, 3),
            macs=graph_of(model.space, arch).macs,
            epochs=rated.epochs,
            early_accuracy=rated.early_accuracy,
            failure=rated.failure,
            host=rated.host,
            target=target,
        )
        return replace(sample, reward=self._evaluated(sample, target).reward)


def _without_nonsense(rated: Rated, *, measures: bool) -> Rated:
    """Make a failure of what is no accuracy or no time: it is punished like one, and the search goes on."""
    measured_ms = rated.measured_ms if measures else None
    if measures and not (measured_ms is not None and 0 < measured_ms < math.inf):
        rated = replace(rated, failure=rated.failure or f"it was measured at {measured_ms} ms")
        measured_ms = None
    if not rated.failure and not 0 <= rated.accuracy <= 1:  # false for NaN, too
        rated = replace(rated, failure=f"its accuracy is {rated.accuracy}")
    return replace(rated, accuracy=0.0 if rated.failure else rated.accuracy, measured_ms=measured_ms)
