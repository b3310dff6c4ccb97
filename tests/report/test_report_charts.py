"""Charts as files: tables that hold what is plotted, pictures of them, and what a spreadsheet must not run."""

from __future__ import annotations

import csv
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from report_runs import IDENTITY, SETTINGS, make_samples, write_study

from edgekd.config import Settings
from edgekd.errors import UsageError
from edgekd.report import compare_charts
from edgekd.report.analysis import pareto_front, points_of, running_median
from edgekd.report.chart_files import csv_text, write_csv, write_png
from edgekd.report.charts import Chart, Table, charts_of
from edgekd.report.comparison import Comparison
from edgekd.report.data import ReportData
from edgekd.report.png import picture
from edgekd.report.scene import Scene
from edgekd.report.where import Where
from edgekd.runs import open_run

MakeRun = Callable[..., Path]
NAMES = ("histogram", "scatter", "latency", "accuracy", "operations", "projection", "decisions")


def charts(data: ReportData) -> dict[str, Chart]:
    """Make the charts of a run, by name."""
    scene = Scene.of(data)
    return {chart.table.name: chart for chart in charts_of(scene, Where.of(data, scene))}


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV file by its header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.whole  # all charts of a run
def test_a_csv_holds_what_is_plotted(make_run: MakeRun, tmp_path: Path) -> None:
    """A row a sample, in full precision, with units in the names of columns; the front is marked."""
    data = ReportData.load(make_run())
    paths = write_csv(tmp_path / "out", tuple(charts(data).values()))
    assert [path.stem for path in paths] == list(NAMES)
    rows = read(tmp_path / "out" / "scatter.csv")
    points = points_of(data)
    assert [float(row["predicted_int8_ms"]) for row in rows] == [p.sample.predicted_ms["int8"] for p in points]
    assert [row["arch"] for row in rows] == [p.sample.arch for p in points]
    on_front = {p.sample.arch for p in pareto_front(points, data.target)}
    assert {row["arch"] for row in rows if row["front_percent"]} == on_front
    medians = [float(row["running_median_ms"]) for row in read(tmp_path / "out" / "latency.csv")]
    assert medians[:120] == running_median([p.sample.predicted_ms["int8"] for p in points[:120]])


@pytest.mark.whole  # all charts of a run
def test_the_histogram_counts_every_sample(make_run: MakeRun) -> None:
    """Bins follow each other without gaps, and the counts of each study add up."""
    table = charts(ReportData.load(make_run(random=30)))["histogram"].table
    for study, samples in (("AKD", 120), ("random", 30)):
        rows = [row for row in table.rows if row[0] == study]
        assert sum(int(str(row[3])) for row in rows) == samples
        assert [row[2] for row in rows[:-1]] == [row[1] for row in rows[1:]]


@pytest.mark.whole  # draws whole pages
def test_failed_samples_have_no_accuracy(make_run: MakeRun) -> None:
    """Their cells are empty, with the reason beside, and the scatter is without them."""
    found = charts(ReportData.load(make_run(failed=5)))
    failed = [row for row in found["accuracy"].table.rows if row[4]]
    assert {(row[2], row[4]) for row in failed} == {(None, "out of memory")}
    assert (len(failed), len(found["scatter"].table.rows)) == (5, 235)
    assert "\r\nAKD,119,,7" in csv_text(found["accuracy"].table)


@pytest.mark.slow  # matplotlib takes half a second for each of 14 pictures
@pytest.mark.parametrize("shape", [{"search": 0, "random": None}, {"search": 2, "random": 0, "failed": 1}])
def test_every_chart_becomes_a_picture(make_run: MakeRun, shape: dict[str, int]) -> None:
    """Empty and tiny runs, too: each chart is a PNG of some hundred pixels."""
    for chart in charts(ReportData.load(make_run(**shape, finished=False))).values():
        content = picture(chart)
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert min(width, height) > 400


@pytest.mark.whole  # draws two pictures
def test_pictures_are_the_same_every_time(make_run: MakeRun) -> None:
    """Nothing but the data is in a picture: no time, no version, no random place."""
    chart = charts(ReportData.load(make_run(search=20, random=5)))["projection"]
    assert picture(chart) == picture(chart)


@pytest.mark.slow  # four pictures of matplotlib
def test_a_comparison_becomes_files(tmp_path: Path) -> None:
    """Projection, accuracy, distances and shares of two runs, as CSV and PNG."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        open_run(folder, Settings(seed=seed))
        samples = make_samples(16, learns=True, seed=seed)
        write_study(folder / "search.jsonl", samples, replace(SETTINGS, seed=seed), IDENTITY)
    comparison = Comparison.load(folders)
    made = compare_charts.charts_of(comparison)
    write_csv(tmp_path / "csv", made)
    paths = write_png(tmp_path / "png", made)
    assert [path.stem for path in paths] == ["projection", "accuracy", "distances", "decisions"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    rows = read(tmp_path / "csv" / "distances.csv")
    assert [float(row["distance"]) for row in rows] == comparison.distances.ravel().tolist()
    assert len(read(tmp_path / "csv" / "projection.csv")) == 32


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_text_is_no_formula(text: str) -> None:
    """What a spreadsheet would run is kept text; numbers stay numbers, also negative ones."""
    table = Table("t", ("name", "value"), ((text, -1.5), ("plain", None)))
    (_, first), (_, second) = (row.split(",") for row in csv_text(table).splitlines()[1:])
    assert (first, second) == ("-1.5", "")
    assert csv_text(table).splitlines()[1].lstrip('"').startswith("'" + text)


@pytest.mark.whole  # draws whole pages
def test_hostile_names_are_drawn_as_text() -> None:
    """Formulas of the picture's own language and hidden labels are no error and no command."""
    table = Table("t", ("study", "x", "y"), (("$\\frac{", 0.0, 1.0), ("_hidden", 1.0, 2.0)))
    assert picture(Chart(table, "$\\undefined", "x", "y")).startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_csv(tmp_path / "file" / "out", ())


@pytest.mark.whole  # all charts of a run
def test_without_matplotlib_only_pictures_are_missing(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSV files are written all the same; for pictures the import says what is not there."""
    made = tuple(charts(ReportData.load(make_run(search=3, random=None))).values())
    monkeypatch.delitem(sys.modules, "edgekd.report.png")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert len(write_csv(tmp_path / "csv", made)) == len(NAMES)
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        write_png(tmp_path / "png", made)
