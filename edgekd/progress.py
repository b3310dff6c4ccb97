"""How work shows itself: the protocol that stages talk to, and a silent implementation for libraries and tests.

Drawing is cli_progress.py's; stages never print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Best:
    """One architecture that a search may show: a short name, what it takes, and how good it is."""

    name: str
    latency_ms: float
    accuracy: float  # 0 to 1
    reward: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How a search stands after a sample."""

    done: int  # samples that count for the budget
    total: int
    seconds_left: float | None  # None while nobody can tell
    target_ms: float  # the one that is searched for now
    dtype: str
    newest: Best
    best_reward: Best
    best_under_target: Best | None
    front: tuple[Best, ...]  # unbeaten on both counts, fastest first
    failures: int = 0


class Progress(Protocol):
    """What a stage may tell while it works."""

    def stage(self, name: str) -> None:
        """A new stage begins."""
        ...

    def step(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` pieces of the stage are finished."""
        ...

    def standing(self, standing: Standing) -> None:
        """A search has one sample more."""
        ...

    def note(self, text: str) -> None:
        """Something that a person should know, such as a warning."""
        ...


class Silent:
    """Tells nobody. Its heirs tell some of it."""

    def stage(self, name: str) -> None:
        """Ignore."""

    def step(self, done: int, total: int, text: str = "") -> None:
        """Ignore."""

    def standing(self, standing: Standing) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def duration(seconds: float) -> str:
    """Word a time that is left."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


class StepsAlone(Silent):
    """Passes steps on: for what is done twice, and whose notes are worth telling once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def step(self, done: int, total: int, text: str = "") -> None:
        """Pass it on."""
        self._progress.step(done, total, text)
