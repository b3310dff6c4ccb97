"""Draws progress on stderr: bars and, of a search, a live view on a terminal; plain lines otherwise.

Implements progress.Progress; knows nothing of what is worked on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from edgekd.progress import Best, Progress, Standing, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress as Bars
    from rich.progress import TaskID
    from rich.table import Table

_QUIET_SECONDS = 5.0  # between two plain lines of one stage
_FRONT = 6  # architectures of a Pareto front that are shown


@contextmanager
def drawn_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Give a progress for the time of a command."""
    out = stream or sys.stderr
    if not out.isatty():
        yield _Plain(out)
        return
    from rich.console import Console

    with live_progress(Console(file=out)) as progress:
        yield progress


@contextmanager
def live_progress(console: Console) -> Iterator[Progress]:
    """Give a progress that is drawn on a console and drawn over again."""
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichBars

    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = RichBars(*columns, TextColumn("{task.fields[text]}", markup=False), console=console)
    with Live(bars, console=console, refresh_per_second=4) as live:
        yield _Live(live, bars)


class _Plain:
    """A line when a stage begins, one every few seconds, and one at its end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage = ""
        self._last = 0.0

    def stage(self, name: str) -> None:
        self._stage, self._last = name, 0.0
        self._say("begins")

    def step(self, done: int, total: int, text: str = "") -> None:
        if self._is_due(done, total):
            self._say(f"{done}/{total} {text}".rstrip())

    def standing(self, standing: Standing) -> None:
        if self._is_due(standing.done, standing.total):
            self._say(f"{standing.done}/{standing.total} {'; '.join(_in_words(standing))}")

    def note(self, text: str) -> None:
        self._say(text)

    def _is_due(self, done: int, total: int) -> bool:
        now = time.monotonic()
        due = done == total or now - self._last >= _QUIET_SECONDS
        if due:
            self._last = now
        return due

    def _say(self, text: str) -> None:
        print(f"{self._stage}: {text}" if self._stage else text, file=self._stream, flush=True)


def _in_words(standing: Standing) -> Iterator[str]:
    yield _shown(standing.newest)
    yield f"best reward {standing.best_reward.reward:.3f}"
    under = standing.best_under_target
    yield f"best under {standing.target_ms:.4g} ms {100 * under.accuracy:.1f} %" if under else "none under the target"
    yield f"front of {len(standing.front)}"
    if standing.failures:
        yield f"{standing.failures} failed"
    if standing.seconds_left is not None and standing.done < standing.total:
        yield f"{duration(standing.seconds_left)} left"


class _Live:
    """A bar a stage, and below the bars how a search stands."""

    def __init__(self, live: Live, bars: Bars) -> None:
        self._live, self._bars = live, bars
        self._task: TaskID | None = None

    def stage(self, name: str) -> None:
        self._task = self._bars.add_task(name, total=None, text="")
        self._live.update(self._bars)

    def step(self, done: int, total: int, text: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, text=text)

    def standing(self, standing: Standing) -> None:
        from rich.console import Group

        left = "" if standing.seconds_left is None else f"{duration(standing.seconds_left)} left"
        self.step(standing.done, standing.total, left)
        self._live.update(Group(self._bars, _table_of(standing)))

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)


def _table_of(standing: Standing) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    under, front = standing.best_under_target, standing.front
    rows = {
        "newest": _shown(standing.newest),
        "best reward": f"{_shown(standing.best_reward)}  {standing.best_reward.name}",
        f"best under {standing.target_ms:.4g} ms": f"{_shown(under)}  {under.name}" if under else "none yet",
        f"Pareto front of {len(front)}": _front_text(standing),
        "failed": str(standing.failures) if standing.failures else "",
    }
    for title, value in rows.items():
        if value:
            table.add_row(Text(title, justify="right"), Text(value, overflow="ellipsis", no_wrap=True))
    return table


def _front_text(standing: Standing) -> str:
    """Show those of a front that are nearest to the target."""
    near = sorted(standing.front, key=lambda best: abs(best.latency_ms - standing.target_ms))[:_FRONT]
    points = sorted(near, key=lambda best: best.latency_ms)
    return "  ".join(f"{best.latency_ms:.3g} ms {100 * best.accuracy:.1f} %" for best in points)


def _shown(best: Best) -> str:
    return f"{best.latency_ms:.4g} ms, {100 * best.accuracy:.1f} %, reward {best.reward:.3f}"
