"""How long work shows itself: the protocol that stages talk to, and a silent implementation for libraries and tests.

Drawing is cli_progress.py's; stages never print.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a stage may tell while it works."""

    def stage(self, name: str) -> None:
        """A new stage begins."""
        ...

    def step(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` pieces of the stage are finished."""
        ...

    def note(self, text: str) -> None:
        """Something that a person should know, such as a warning."""
        ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str) -> None:
        """Ignore."""

    def step(self, done: int, total: int, text: str = "") -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
