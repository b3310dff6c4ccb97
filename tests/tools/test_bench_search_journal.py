"""tools/bench_search_journal.py: what it measures, and that what it writes is a study."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgekd.search.study_file import load_study
from latency_tables.journal import sealed_lines


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the tool, small enough for a test."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "tools"), *sys.path])
    module = importlib.import_module("bench_search_journal")
    monkeypatch.setattr(module, "SAMPLES", 400)
    monkeypatch.setattr(module, "APPENDS", 40)
    return module


def test_the_figures_are_those_that_are_promised(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Under their names in --json, printed beside their bars; a quick run says from how many samples it reckons."""
    found = bench.run(quick=True)
    assert found.keys() == {"journal_append_ms", "journal_append_disk_ms", "load_100000_s"}
    assert all(value > 0 for value in found.values())
    printed = capsys.readouterr().out
    assert "(bar 1 ms)" in printed
    assert "(bar 2 s)" in printed
    assert "from 40" in printed


def test_what_is_read_is_a_study_of_distinct_architectures(bench: ModuleType, tmp_path: Path) -> None:
    """With every field as a search writes it, so that every check is at work."""
    record, path = bench.made_up(300), tmp_path / "study.jsonl"
    path.write_text("".join(sealed_lines(record.header.as_json(), (sample.as_json() for sample in record.samples))))
    assert load_study(path) == record
    assert len({sample.arch for sample in record.samples}) > 250
