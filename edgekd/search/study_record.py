"""A study as values: its settings, its samples, its header, and how it was extended. The file is study_file.py's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edgekd.search.reward import Reward
from edgekd.spaces.space import Choices

FORMAT, VERSION = "edgekd-study", 2
TABLE, MEASURED = "table", "measured"  # where the latency in a reward comes from
WARM = -1  # the target of a sample that was taken over from another study


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What a study's samples depend on, besides the space and its identity."""

    engine: str
    budget: int  # distinct evaluations, over all targets
    batch: int  # proposals between two tells
    seed: int
    targets_ms: tuple[float, ...]  # searched for one after the other
    target_dtype: str
    reward: Reward
    budget_epochs: int = 0  # of training, over all targets; 0 is no limit
    epochs_each: int = 1  # the most that one evaluation trains
    stop_share: float = 0.0  # of earlier candidates that one must not fall behind; 0 ends none early
    latency: str = TABLE  # or MEASURED: each candidate is measured and rewarded for that


@dataclass(frozen=True)  # without slots, for `of`
class Sample:
    """One evaluated architecture, as a line of the file.

    index             0, 1, 2, … without a gap
    choices           option indices; `arch` is their text form, `arch_id` its short name
    predicted_ms      by dtype, from the table
    measured_ms       on the device in the target dtype; null unless the study's `latency` is "measured"
    proxy_accuracy    0 to 1 on the validation split; 0 if `failure` says why there is none
    reward            at target number `target` of the header, the first for -1; of accuracy 0 if it failed
    seconds, epochs   what its training took; fewer epochs than others' where it was ended early
    early_accuracy    at a third of its epochs, where hopeless candidates are looked for; null where they are not
    macs              multiply-accumulates of one image
    failure           "" or a sentence; host: the machine that trained it
    target            0, 1, …, the target that was searched for; -1 if taken over from another study
    """

    index: int
    choices: Choices
    arch: str
    arch_id: str
    predicted_ms: Mapping[str, float]
    measured_ms: float | None
    proxy_accuracy: float
    reward: float
    seconds: float
    macs: int
    epochs: int
    early_accuracy: float | None
    failure: str
    host: str
    target: int

    @classmethod
    def of(cls, values: dict[str, Any]) -> Sample:
        """Make one of all its fields' values, which are the sample's own from then on.

        A large study is read sooner by a tenth than in the usual way, which sets field by field.
        """
        sample = object.__new__(cls)
        object.__setattr__(sample, "__dict__", values)
        return sample

    def latency_ms(self, dtype: str) -> float:
        """Give what counts in the target dtype: what was measured, else what is predicted."""
        return self.predicted_ms[dtype] if self.measured_ms is None else self.measured_ms

    def as_json(self) -> dict[str, Any]:
        """Give the line's form."""
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(item.name for item in fields(Sample))


@dataclass(frozen=True, slots=True)
class StudyHeader:
    """The first line."""

    space: str
    space_sha256: str
    decision_sizes: tuple[int, ...]
    settings: StudySettings
    warm_samples: int = 0
    identity: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Give the line's form."""
        place = {"space": self.space, "space_sha256": self.space_sha256, "decision_sizes": list(self.decision_sizes)}
        settings = asdict(self.settings) | {"targets_ms": list(self.settings.targets_ms)}
        own = {"format": FORMAT, "version": VERSION, **place, **settings, "warm_samples": self.warm_samples}
        return own | dict(self.identity)


@dataclass(frozen=True, slots=True)
class Extension:
    """A larger budget that a study was given later."""

    budget: int
    budget_epochs: int

    def as_json(self) -> dict[str, Any]:
        """Give the line's form."""
        return {"extended": asdict(self)}


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as it was read: its header, all samples in order, and how it was extended."""

    header: StudyHeader
    samples: tuple[Sample, ...]
    extensions: tuple[Extension, ...] = ()
    extended_after: tuple[int, ...] = ()  # how many samples stand before each extension

    @property
    def budget(self) -> int:
        """Give the budget that it was given last."""
        return self.extensions[-1].budget if self.extensions else self.header.settings.budget

    def line_of(self, index: int) -> int:
        """Give the line on which a sample stands, or would stand next."""
        return 2 + index + sum(after <= index for after in self.extended_after)


def arch_id_of(text: str) -> str:
    """Give the identifier of an architecture's text form, as Arch.arch_id does."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
