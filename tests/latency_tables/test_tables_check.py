"""What a table file is said to hold: counts, sources, times, and what a kill left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import CALIBRATION, KEY, conv, measurement
from table_files import CAL, NETWORK, OPS, filled, older, rewrite

from latency_tables.check import errors_of, inspect
from latency_tables.errors import FileDamaged
from latency_tables.store import TableFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a filled table."""
    return filled(tmp_path / "table.jsonl").path


def test_a_report_counts_what_is_there(path: Path) -> None:
    """Rows by kind and dtype, networks by dtype, calibrations, attempts, and the key."""
    file = TableFile(path, KEY)
    file.add_row(measurement(OPS[0].key, 900, attempt=2, started_at="2026-01-05T00:00:00Z"))
    report = inspect(path)
    assert report.rows == {("conv_2d", "float32"): 2, ("conv_2d", "int8"): 1}
    assert report.networks == {"float32": 1}
    assert report.calibrations == {"float32": CALIBRATION, "int8": CALIBRATION}
    assert report.attempts == {1: 3, 2: 1}
    assert (report.first_at, report.last_at) == ("2026-01-02T03:04:05Z", "2026-01-05T00:00:00Z")
    assert report.key == KEY
    assert (report.version, report.sealed, report.cut_bytes) == (9, True, 0)
    assert report.size_bytes == path.stat().st_size
    assert (report.sources, report.unmeasured) == ({"measured": 4}, {})
    assert report.disturbed == report.outdated == ()


def test_a_calibrations_errors_are_those_of_its_fields_that_are_named_so() -> None:
    """Whatever coefficients it has; a share of 0.01 is 1 %."""
    assert errors_of(CALIBRATION)
    assert all(name.endswith("error") and 0 <= value < 1 for name, value in errors_of(CALIBRATION).items())


def test_times_are_the_first_and_the_last_that_are_known(tmp_path: Path) -> None:
    """Zones are heeded; a text that is no time is left out, and a table without any says so."""
    file = TableFile(tmp_path / "t.jsonl", KEY)
    assert (inspect(file.path).first_at, inspect(file.path).last_at) == ("", "")
    times = ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05+02:00", "yesterday", "", "2026-01-02T03:04:06"]
    for channels, started_at in enumerate(times, 1):
        file.add_row(measurement(conv(channels).key, started_at=started_at))
    report = inspect(file.path)
    assert (report.first_at, report.last_at) == ("2026-01-02T03:04:05+02:00", "2026-01-02T03:04:06")


def test_what_was_disturbed_or_not_measured_is_named(tmp_path: Path) -> None:
    """By subject and by source."""
    file = TableFile(tmp_path / "t.jsonl", KEY)
    file.add_row(measurement(OPS[0].key, flags=("throttled",)))
    file.add_row(measurement(OPS[1].key, source="simulated"))
    file.add_row(measurement(OPS[2].key, source="imported:a paper"))
    report = inspect(file.path)
    assert report.disturbed == (OPS[0].key,)
    assert report.unmeasured == {"simulated": 1, "imported:a paper": 1}


def test_a_line_that_a_kill_cut_is_told_and_not_counted(path: Path) -> None:
    """Looking at the file does not change it; opening it to go on drops the part of a line."""
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[:-10])
    report = inspect(path)
    assert report.cut_bytes == len(last) - 10
    assert list(report.calibrations) == ["float32"]
    assert path.read_bytes() == whole[:-10]
    TableFile(path, KEY)
    assert inspect(path).cut_bytes == 0


def test_an_older_file_says_so(path: Path) -> None:
    """Its version, that it has no checksums, and that a calibration was fitted in another way."""
    older(path, 1)
    rewrite(path, CAL, lambda entry: entry.update(slope=1.0))
    report = inspect(path)
    assert (report.version, report.sealed, report.outdated) == (1, False, ("float32",))


def test_what_cannot_be_trusted_is_refused_as_everywhere(path: Path) -> None:
    """The refusal is the store's, with its line."""
    network = replace(NETWORK.measurement, attempt=2)
    TableFile(path, KEY).add_network(replace(NETWORK, measurement=network))
    rewrite(path, 8, lambda entry: entry["measurement"].update(attempt=3))
    with pytest.raises(FileDamaged, match="line 8: attempt 3 at network:a does not follow attempt 1"):
        inspect(path)
