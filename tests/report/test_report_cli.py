"""The command `edgekd report`: one run, several runs, files that are asked for, requests that make no sense."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from report_runs import SETTINGS, make_samples, write_study

from edgekd import cli_report
from edgekd.config import Settings
from edgekd.errors import UsageError
from edgekd.runs import open_run

MakeRun = Callable[..., Path]


def report(*arguments: object) -> None:
    """Run the command as the parser calls it."""
    parser = argparse.ArgumentParser()
    cli_report.register(parser.add_subparsers())
    options = parser.parse_args(["report", *map(str, arguments)])
    options.command(options)


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Write two runs that differ in the seed."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        open_run(folder, Settings(seed=seed))
        write_study(folder / "search.jsonl", make_samples(12, True, seed=seed), replace(SETTINGS, seed=seed))
    return folders


@pytest.mark.whole  # draws a whole page
def test_a_run_gets_its_page_and_table(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """The page lies in the run folder; stdout has the table and where the page is."""
    run = make_run()
    report(run)
    out = capsys.readouterr().out
    assert out.startswith("int8 student: 0.123 ms measured")
    assert f"report: {run / 'report.html'}" in out
    assert (run / "report.html").read_text().endswith("</html>\n")


@pytest.mark.slow  # seven pictures of matplotlib
def test_a_search_alone_is_reported(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No manifest is needed, the page may lie elsewhere, and pictures and tables come where they are asked for."""
    run = make_run(search=8, random=None, finished=False)
    page, plots, tables = tmp_path / "page.html", tmp_path / "plots", tmp_path / "tables"
    report(run, "--out", page, "--plots", plots, "--csv", tables, "--format", "json")
    assert json.loads(capsys.readouterr().out)["manifest"] is None
    assert page.exists()
    assert not (run / "report.html").exists()
    names = {"histogram", "scatter", "latency", "accuracy", "operations", "projection", "decisions"}
    assert {path.stem for path in plots.iterdir()} == {path.stem for path in tables.iterdir()} == names


@pytest.mark.whole  # draws a whole page
def test_several_runs_are_compared(two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The comparison is printed; its page is written where --out says, and nothing into the run folders."""
    before = {folder: sorted(folder.iterdir()) for folder in two}
    report(*two)
    assert "All runs are of one group" in capsys.readouterr().out
    report(*two, "--out", tmp_path / "compare.html", "--csv", tmp_path / "tables", "--last", 5, "--format", "json")
    values = json.loads(capsys.readouterr().out)
    assert (values["format"], values["last_samples"]) == ("edgekd-comparison", 5)
    assert (tmp_path / "compare.html").read_text().endswith("</html>\n")
    assert (tmp_path / "tables" / "distances.csv").exists()
    assert {folder: sorted(folder.iterdir()) for folder in two} == before


def test_last_makes_sense_for_a_comparison_only(two: list[Path]) -> None:
    """One run has no last samples to compare, and no count is below 1."""
    for arguments in ((two[0], "--last", 5), (*two, "--last", 0)):
        with pytest.raises(UsageError, match="--last is"):
            report(*arguments)
