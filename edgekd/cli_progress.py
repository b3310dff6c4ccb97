"""Draws progress on stderr: a live bar on a terminal, plain lines otherwise.

Implements progress.Progress; knows nothing of what is worked on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgekd.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_QUIET_SECONDS = 5.0  # between two plain lines of one stage


@contextmanager
def drawn_progress() -> Iterator[Progress]:
    """Give a progress for the time of a command."""
    if not sys.stderr.isatty():
        yield _Plain()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichBars

    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichBars(*columns, TextColumn("{task.fields[text]}", markup=False), console=Console(stderr=True)) as bars:
        yield _Live(bars)


class _Plain:
    """A line when a stage begins, one every few seconds, and one at its end."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0

    def stage(self, name: str) -> None:
        self._stage, self._last = name, 0.0
        self._say("begins")

    def step(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if done == total or now - self._last >= _QUIET_SECONDS:
            self._last = now
            self._say(f"{done}/{total} {text}".rstrip())

    def note(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        print(f"{self._stage}: {text}" if self._stage else text, file=sys.stderr, flush=True)


class _Live:
    """A bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str) -> None:
        self._task = self._bars.add_task(name, total=None, text="")

    def step(self, done: int, total: int, text: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, text=text)

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)
