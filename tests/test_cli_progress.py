"""Progress on stderr: a live view on a terminal, plain quiet lines otherwise."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgekd import cli_progress
from edgekd.progress import Best, Standing, duration

NEWEST = Best("aaa", 0.1234, 0.51, 0.3)
GOOD = Best("bbb", 0.09, 0.8, 0.75)
STANDING = Standing(7, 20, 754.0, 0.1, "int8", NEWEST, GOOD, GOOD, (Best("ccc", 0.05, 0.7, 0.4), GOOD), 2)


def test_without_a_terminal_there_are_plain_lines() -> None:
    """One for a standing, with what a person would look for, and nothing that moves the cursor."""
    stream = io.StringIO()
    with cli_progress.drawn_progress(stream) as progress:
        progress.stage("search")
        progress.standing(STANDING)
        progress.note("a note")
    assert stream.getvalue().splitlines() == [
        "search: begins",
        "search: 7/20 0.1234 ms, 51.0 %, reward 0.300; best reward 0.750; best under 0.1 ms 80.0 %; front of 2; "
        "2 failed; 13 min left",
        "search: a note",
    ]


def test_plain_lines_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in five seconds, and one at the end, however fast the samples come."""
    now = [100.0]
    monkeypatch.setattr(cli_progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with cli_progress.drawn_progress(stream) as progress:
        progress.stage("search")
        for done in range(1, 101):
            now[0] += 0.25
            progress.step(done, 100)
    shown = stream.getvalue().splitlines()
    assert len(shown) == 1 + 5 + 1
    assert shown[-1] == "search: 100/100"


def test_on_a_terminal_a_search_is_drawn_live() -> None:
    """Samples, the best so far, the front around the target, and the time left."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with cli_progress.live_progress(console) as progress:
        progress.stage("search")
        progress.standing(STANDING)
        progress.note("[a note]")
    drawn = stream.getvalue()
    for part in ("search", "7/20", "13 min left", "best under 0.1 ms", "0.09 ms, 80.0 %, reward 0.750  bbb"):
        assert part in drawn
    assert "Pareto front of 2" in drawn
    assert "0.05 ms 70.0 %  0.09 ms 80.0 %" in drawn
    assert "[a note]" in drawn


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (89.0, "89 s"), (754.0, "13 min"), (9000.0, "2 h 30 min")])
def test_durations_are_short(seconds: float, text: str) -> None:
    """Seconds, minutes, or hours and minutes."""
    assert duration(seconds) == text
