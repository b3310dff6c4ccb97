"""Comparing runs: groups, distances, what is refused and what is remarked, the words and the page."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import Page
from report_runs import IDENTITY, SETTINGS, SIZES, make_sample, rewrite, write_study

from edgekd.config import Settings
from edgekd.errors import DataError
from edgekd.report.compare_html import render
from edgekd.report.compare_text import as_json, compared_table
from edgekd.report.comparison import Comparison
from edgekd.report.errors import NotComparable
from edgekd.runs import open_run
from edgekd.search.study_file import Sample, StudySettings, arch_id_of

pytestmark = pytest.mark.whole  # draws whole pages

HOSTILE = "<script>alert(1)</script>\"'&"


def went_to(option: int, count: int, seed: int) -> list[Sample]:
    """Draw samples that go, with time, to one option of each decision."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        drift = 0.9 * len(found) / count
        choices = tuple(option % n if draw.random() < drift else draw.randrange(n) for n in SIZES)
        found[choices] = make_sample(len(found), draw.uniform(0.05, 0.25), draw.uniform(0.4, 0.8), choices)
    return [replace(sample, index=index) for index, sample in enumerate(found.values())]


def write_run(
    folder: Path,
    teacher: str,
    seed: int,
    samples: Sequence[Sample],
    settings: StudySettings = SETTINGS,
    **identity: Any,
) -> Path:
    """Write a run that searched with a teacher."""
    open_run(folder, Settings(teacher=teacher, seed=seed))
    told = IDENTITY | {"teacher_sha256": teacher} | identity
    write_study(folder / "search.jsonl", samples, replace(settings, seed=seed), told)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Write two teachers' runs, which go to different options, three seeds each."""
    return [
        write_run(
            tmp_path / f"{name}-{seed}", f"teachers/{name}.safetensors", seed, went_to(option, 60, 10 * option + seed)
        )
        for option, name in enumerate(("resnet", "vgg"))
        for seed in range(3)
    ]


def test_runs_of_equal_settings_but_the_seed_are_a_group(runs: list[Path]) -> None:
    """Groups are named by what differs between them, here the teacher."""
    comparison = Comparison.load(runs)
    assert comparison.groups == ("teacher resnet", "teacher vgg")
    assert [(run.name, run.group, run.seed) for run in comparison.runs][2:4] == [("resnet-2", 0, 2), ("vgg-0", 1, 0)]


def test_groups_that_part_are_seen(runs: list[Path]) -> None:
    """Last samples of different teachers are further apart; six runs allow no p under .1, and that is said."""
    comparison = Comparison.load(runs)
    assert comparison.test is not None
    assert comparison.test.difference > 0.1
    assert comparison.test.p_value == pytest.approx(0.1)
    assert "With so few runs no outcome has p < 0.05 (least 0.1): add seeds." in compared_table(comparison)


def test_distances_are_those_of_the_last_samples(runs: list[Path]) -> None:
    """Entries of the matrix are mean Hamming distances over pairs; the diagonal leaves a sample itself out."""
    comparison = Comparison.load(runs, last=7)
    last = [np.array([s.choices for s in run.study.samples[-7:]]) for run in comparison.runs]
    slow = [[(a[:, None] != b[None]).mean() * (7 / 6 if a is b else 1) for b in last] for a in last]
    assert comparison.distances == pytest.approx(np.array(slow))
    assert comparison.group_distance(0, 1) == pytest.approx(
        np.mean([slow[a][b] for a in range(3) for b in range(3, 6)])
    )


def test_permuting_samples_inside_a_run_changes_nothing(runs: list[Path]) -> None:
    """The test is over runs: the order of a run's last samples does not enter."""
    before = Comparison.load(runs, last=60)
    for place, run in enumerate(before.runs):
        shuffled = random.Random(place).sample(run.study.samples, 60)
        samples = [replace(sample, index=index) for index, sample in enumerate(shuffled)]
        told = dict(run.study.header.identity)
        write_study(runs[place] / "search.jsonl", samples, run.study.header.settings, told)
    after = Comparison.load(runs, last=60)
    assert after.test == before.test
    assert after.distances == pytest.approx(before.distances)
    assert after.projection.shares == pytest.approx(before.projection.shares)


def test_three_groups_are_tested_in_pairs_too(runs: list[Path], tmp_path: Path) -> None:
    """A search without a teacher is named so, though its method differs as well; every pair has its test."""
    proxy = {**IDENTITY["proxy"], "method": "none"}
    runs += [
        write_run(tmp_path / f"none-{seed}", "none", seed, went_to(2, 60, seed + 50), proxy=proxy) for seed in range(3)
    ]
    comparison = Comparison.load(runs)
    assert comparison.groups == ("teacher resnet", "teacher vgg", "no teacher")
    assert [(p.first, p.second) for p in comparison.pair_tests] == [(0, 1), (0, 2), (1, 2)]
    assert all(p.test is not None and p.test.labellings == 20 for p in comparison.pair_tests)
    assert "teacher vgg | no teacher" in compared_table(comparison)


def test_other_settings_name_their_groups(tmp_path: Path) -> None:
    """Engine and targets differ here; the teacher is named all the same, and the targets are remarked."""
    slow = replace(SETTINGS, engine="evolution", targets_ms=(0.3,))
    samples = [replace(s, reward=slow.reward(s.proxy_accuracy, s.predicted_ms["int8"], 0.3)) for s in went_to(1, 20, 1)]
    first = write_run(tmp_path / "a", "embedded", 0, went_to(0, 20, 0))
    second = write_run(tmp_path / "b", "embedded", 0, samples, slow)
    comparison = Comparison.load([first, second])
    assert comparison.groups == (
        "teacher embedded, AKD, targets_ms 0.15",
        "teacher embedded, evolution, targets_ms 0.3",
    )
    assert "several targets, 0.150 ms (int8), 0.300 ms (int8)" in comparison.notes[0]
    assert comparison.test is None
    assert "No test: no group has two runs" in compared_table(comparison)


def test_one_group_has_nothing_to_be_tested_against(runs: list[Path]) -> None:
    """Seeds alone show how far runs of one setting are apart."""
    comparison = Comparison.load(runs[:3])
    assert (comparison.test, len(comparison.groups)) == (None, 1)
    assert "nothing to test" in compared_table(comparison)


def test_runs_of_other_lengths_and_tables_are_remarked(tmp_path: Path) -> None:
    """What is compared is cut to the shortest run; another table or budget makes no other group."""
    longer = replace(SETTINGS, budget=200)
    folders = [
        write_run(tmp_path / "a", "embedded", 0, went_to(0, 12, 0)),
        write_run(tmp_path / "b", "embedded", 1, went_to(0, 40, 1), longer, table_sha256="9" * 64),
    ]
    comparison = Comparison.load(folders, last=30)
    assert (len(comparison.groups), comparison.last) == (1, 12)
    said = " ".join(comparison.notes)
    assert "12 to 40 samples" in said
    assert "not 30" in said
    assert "different latency tables" in said


def test_shared_seeds_are_remarked(runs: list[Path]) -> None:
    """Runs of one seed begin alike whoever teaches; with a seed of its own each, there is no remark."""
    assert [note.partition(":")[0] for note in Comparison.load(runs).notes] == ["Groups share seeds"]
    assert Comparison.load([runs[0], runs[4]]).notes == ()


def test_other_spaces_are_refused(runs: list[Path], tmp_path: Path) -> None:
    """Decisions of another space cannot be compared; the error names both."""
    other = tmp_path / "other"
    open_run(other, Settings())
    write_study(other / "search.jsonl", went_to(0, 5, 0))
    rewrite(other / "search.jsonl", lambda lines: lines[0].update(space="elsewhere", space_sha256="f" * 64))
    with pytest.raises(NotComparable, match="other searched space elsewhere, run resnet-0 seven-blocks"):
        Comparison.load([*runs, other])


def test_a_run_counts_once(runs: list[Path], tmp_path: Path) -> None:
    """The same folder twice, or a copy of a run, would be evidence that is none."""
    with pytest.raises(NotComparable, match="named twice"):
        Comparison.load([runs[0], runs[0].parent / "." / runs[0].name])
    copy = write_run(tmp_path / "copy", "teachers/resnet.safetensors", 0, went_to(0, 60, 0))
    with pytest.raises(NotComparable, match="same settings and seed 0"):
        Comparison.load([runs[0], copy])


def test_a_run_without_samples_is_refused(runs: list[Path], tmp_path: Path) -> None:
    """There is nothing to compare yet."""
    empty = write_run(tmp_path / "empty", "embedded", 0, [])
    with pytest.raises(NotComparable, match="no samples yet"):
        Comparison.load([runs[0], empty])


def test_a_folder_that_is_no_run_is_refused(runs: list[Path], tmp_path: Path) -> None:
    """The error says so."""
    with pytest.raises(DataError, match="no run folder"):
        Comparison.load([runs[0], tmp_path])


def test_the_json_holds_all_and_can_be_written(runs: list[Path]) -> None:
    """It survives JSON unchanged; shares of each decision add up for each group."""
    values = as_json(Comparison.load(runs))
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["test"]["p_value"] == pytest.approx(0.1)
    shares = [row["shares"][0] for row in values["marginals"] if row["decision"] == "block 3 op"]
    assert sum(shares) == pytest.approx(1)
    assert len(values["distances"]) == len(values["runs"]) == 6


def test_the_terminal_gets_aligned_plain_text(runs: list[Path]) -> None:
    """A row a run, and no control character."""
    lines = compared_table(Comparison.load(runs)).splitlines()
    assert all(line.isprintable() for line in lines)
    assert [line.split()[0] for line in lines[4:10]] == [run.name for run in runs]


def test_the_page_draws_every_run(runs: list[Path]) -> None:
    """A mark a sample in the projection, a line a run, the matrix of distances."""
    root = Page(render(Comparison.load(runs))).root
    assert len(root.by_id("plot-where").all("use", "mark")) == 360
    assert len(root.by_id("plot-best").all("path", "trend")) == 6
    assert [n.text for n in root.all("h2")] == ["Runs", "Searches", "Distances", "Decisions"]
    assert len(root.all("div", "distances")[0].all("td")) == 36


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """Names of folders, teachers, engines and settings add no element to the page."""
    told = {"arch": HOSTILE, "arch_id": arch_id_of(HOSTILE), "failure": HOSTILE}
    hostile = [replace(s, **told, proxy_accuracy=0.0, reward=0.0) for s in went_to(0, 4, 0)]
    folders = [
        write_run(
            tmp_path / name, HOSTILE, seed, hostile, replace(SETTINGS, engine=HOSTILE + str(seed)), **{HOSTILE: name}
        )
        for seed, name in enumerate((HOSTILE.replace("/", "-"), "b"))
    ]
    page = render(Comparison.load(folders))
    assert len(Page(page).root.all("script")) == 1
    assert "<script>alert" not in page


@pytest.mark.slow  # 4,000 samples are written, read and drawn
def test_a_page_of_many_samples_is_thinned(tmp_path: Path) -> None:
    """Marks are drawn evenly from each run, with a remark."""
    folders = [write_run(tmp_path / str(seed), "embedded", seed, went_to(seed, 2000, seed)) for seed in range(2)]
    page = render(Comparison.load(folders))
    root = Page(page).root
    assert len(root.by_id("plot-where").all("use", "mark")) == 2000
    assert "Of 4000 samples 2000 are drawn" in "".join(n.text for n in root.all("p", "soft"))
