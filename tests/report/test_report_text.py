"""The report in words: the terminal's table, the JSON and the wording of numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from report_runs import SETTINGS, TARGET_MS, make_samples, write_study

from edgekd.report import formats
from edgekd.report.data import ReportData
from edgekd.report.text import as_json, final_table

MakeRun = Callable[..., Path]


def test_the_final_table_is_aligned_plain_text(make_run: MakeRun) -> None:
    """The outcome comes first; columns line up; there is no control character."""
    lines = final_table(ReportData.load(make_run(search=3, random=None))).splitlines()
    assert lines[0] == "int8 student: 0.123 ms measured, target 0.150 ms, 87.6 % (teacher 89.5 %)"
    head, rule, *rows = lines[2:]
    starts = [i for i in range(len(rule)) if rule[i] == "-" and (i == 0 or rule[i - 1] == " ")]
    assert [head[start:].split("  ")[0] for start in starts][:3] == ["artifact", "size", "accuracy"]
    assert [[row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for row in rows][1] == [
        *("int8", "132 kB", "87.6 %", "0.127 (0.122\N{EN DASH}0.134)", "0.123", "0.127", "yes, 18 % below"),
    ]
    assert all(line.isprintable() for line in lines)


def test_the_json_holds_the_results_and_can_be_written(make_run: MakeRun) -> None:
    """It survives JSON unchanged and carries front, best, studies and outcome."""
    values = as_json(ReportData.load(make_run()))
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["target_met"] is True
    (target,) = values["targets"]
    assert target["target_ms"] == TARGET_MS
    assert len(target["best_under_target"]) == 10
    assert set(values["studies"]) == {"search", "baseline"}


def test_each_target_has_its_outcome(make_run: MakeRun) -> None:
    """A study of several targets has a row and an entry for each, chosen from all its samples."""
    run = make_run(random=None, finished=False)
    samples = make_samples(60, learns=True)
    write_study(run / "search.jsonl", samples, replace(SETTINGS, targets_ms=(TARGET_MS, 0.1)))
    data = ReportData.load(run)
    first, second = as_json(data)["targets"]
    assert [first["target_ms"], second["target_ms"]] == [TARGET_MS, 0.1]
    assert second["best_under_target"][0]["proxy_accuracy"] == max(
        s.proxy_accuracy for s in samples if s.predicted_ms["int8"] <= 0.1
    )
    assert [line.split()[:2] for line in final_table(data).splitlines()[4:]] == [["AKD", "0.150"], ["AKD", "0.100"]]


@pytest.mark.parametrize(
    ("value", "worded"),
    [
        (0.15, "0.150"),
        (0.04567, "0.0457"),
        (1.5, "1.50"),
        (12.34, "12.3"),
        (1234.5, "1234"),
        (0.9996, "1.00"),
        (0, "0"),
        (None, "\N{EN DASH}"),
    ],
)
def test_durations_have_three_digits(value: float | None, worded: str) -> None:
    """Small and large durations are worded with the same precision."""
    assert formats.ms(value) == worded


@pytest.mark.parametrize(
    ("number", "worded"), [(0, "0"), (512, "512"), (1_654_272, "1.65 M"), (98_410, "98.4 k"), (999_600, "1.00 M")]
)
def test_counts_have_a_prefix(number: int, worded: str) -> None:
    """A count is below 1,000 of its prefix."""
    assert formats.count(number) == worded


@pytest.mark.parametrize(
    ("value", "worded"), [(0.42, "0.42 s"), (59.7, "1 min 0 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")]
)
def test_long_durations_are_in_minutes_and_hours(value: float, worded: str) -> None:
    """Seconds are carried over, never shown as 60."""
    assert formats.seconds(value) == worded


def test_distance_to_the_target_says_its_direction() -> None:
    """A miss by a hair is still a miss."""
    worded = [formats.against(value, 0.2) for value in (0.1, 0.3, 0.2, 0.2001)]
    assert worded == ["50 % below", "50 % above", "exactly at", "less than 1 % above"]
