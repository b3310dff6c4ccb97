"""`--measure top-k`: the best by the table are measured on the device, and the measured choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from studies import TINY, FakeProxy, study
from synthetic import table_for

from edgekd.config import SearchSettings, Settings
from edgekd.progress import Silent
from edgekd.runs import open_run
from edgekd.search.errors import NoneUnderTarget
from edgekd.search.outcome import outcomes, top_under
from edgekd.search_job import SearchJob
from edgekd.spaces.arch import Arch

pytestmark = pytest.mark.whole  # whole searches


@dataclass
class Stopwatch:
    """A device on which every architecture takes a multiple of what the table says; keeps what it was asked."""

    factor: dict[str, float]
    asked: list[list[str]] = field(default_factory=list)

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is held."""

    def measure(self, archs: Sequence[Arch]) -> list[float]:
        self.asked.append([str(arch) for arch in archs])
        return [self.factor.get(str(arch), 1.0) * TINY.predicted_ms(arch)["int8"] for arch in archs]


class Noted(Silent):
    """Keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_top_k_lets_the_measured_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It measures the next best until one is under the target, says how many those were, and measures none twice."""
    target_ms = 0.05
    record = study(tmp_path / "search.jsonl", targets_ms=(target_ms,)).run(FakeProxy().evaluate)
    by_table = top_under(record, outcomes(record)[0], 99)
    assert len(by_table) > 3
    watch = Stopwatch({sample.arch: 100.0 for sample in by_table[:2]})
    run = open_run(tmp_path / "run", Settings(search=SearchSettings(measure="top-k", measure_top=2)))
    job = SearchJob(run, TINY, table_for(TINY.space), None, None, None)  # type: ignore[arg-type]  # images are not asked for
    monkeypatch.setattr(SearchJob, "_measurer", lambda job, progress: watch)
    noted = Noted()
    winner = job.conclude(record, noted)[0].winner()
    assert watch.asked == [[s.arch for s in by_table[:2]], [s.arch for s in by_table[2:4]]]
    assert (winner.arch, winner.measured_ms) == (by_table[2].arch, by_table[2].predicted_ms["int8"])
    assert noted.notes == ["target 0.05 ms: measured the best 4 by the table"]
    assert job.conclude(record, noted)[0].winner() == winner
    assert len(watch.asked) == 2


def test_top_k_says_how_many_there_were_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than were asked for where fewer are under the target by the table; if none holds, nothing wins."""
    record = study(tmp_path / "search.jsonl").run(FakeProxy().evaluate)
    count = len(top_under(record, outcomes(record)[0], 99))
    run = open_run(tmp_path / "run", Settings(search=SearchSettings(measure="top-k", measure_top=50)))
    job = SearchJob(run, TINY, table_for(TINY.space), None, None, None)  # type: ignore[arg-type]  # as above
    monkeypatch.setattr(
        SearchJob, "_measurer", lambda job, progress: Stopwatch({s.arch: 100.0 for s in record.samples})
    )
    noted = Noted()
    with pytest.raises(NoneUnderTarget, match="raise --target-ms"):
        job.conclude(record, noted)
    assert noted.notes == [f"target 0.05 ms: measured the best {count} by the table"]
