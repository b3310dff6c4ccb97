"""Reading a run folder: complete runs, runs cut off while writing, damage and hostile values."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import SETTINGS, TARGET_MS, make_samples, rewrite, scored, write_study

from edgekd.errors import EdgekdError
from edgekd.report.data import ReportData
from edgekd.report.errors import RunFileError
from edgekd.report.html import render
from edgekd.report.text import as_json, final_table
from edgekd.search.errors import OtherVersion
from latency_tables.errors import FileDamaged

pytestmark = pytest.mark.whole  # whole reports

MakeRun = Callable[..., Path]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def edit_manifest(run: Path, **changes: Any) -> None:
    """Change keys of the manifest; a value of `...` removes the key."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest |= changes
    (run / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not ...}))


def test_a_finished_run_is_read_whole(make_run: MakeRun) -> None:
    """All samples and figures arrive, and there is nothing to remark."""
    data = ReportData.load(make_run())
    assert [len(study.samples) for study in data.studies] == [120, 120]
    assert data.manifest is not None
    assert data.manifest.results.measured_ms == {"float32": 0.2312, "int8": 0.1231}
    assert data.manifest.provenance.device["features"] == "avx2, fma"
    assert data.search.reward.startswith("soft (soft_exponent -0.07")
    assert (data.notes, data.manifest.missing) == ((), ())


def test_the_baseline_may_be_absent(make_run: MakeRun) -> None:
    """A run without another engine's journal has one study."""
    data = ReportData.load(make_run(random=None))
    assert data.baseline is None
    assert data.studies == (data.search,)


def test_a_baseline_of_any_engine_is_found(make_run: MakeRun) -> None:
    """The journal of a baseline bears its engine's name."""
    run = make_run()
    write_study(run / "evolution.jsonl", make_samples(3, learns=False), replace(SETTINGS, engine="evolution"))
    (run / "random.jsonl").unlink()
    data = ReportData.load(run)
    assert data.baseline is not None
    assert (data.baseline.engine, len(data.baseline.samples)) == ("evolution", 3)


def test_a_search_alone_is_read(make_run: MakeRun) -> None:
    """Without a manifest the target is the search's own."""
    data = ReportData.load(make_run(finished=False))
    assert data.manifest is None
    assert (data.target.ms, data.target.dtype) == (TARGET_MS, "int8")
    assert "AKD, 120 of 120 samples: best under 0.150 ms is" in final_table(data)


def test_failed_samples_are_apart(make_run: MakeRun) -> None:
    """They are samples, but not among the rated."""
    search = ReportData.load(make_run(failed=4)).search
    assert (len(search.samples), len(search.rated)) == (120, 116)
    assert {sample.failure for sample in search.failed} == {"out of memory"}


def test_a_measured_latency_counts_instead_of_the_predicted(make_run: MakeRun) -> None:
    """A study that measures each candidate is reported by what it measured."""
    run = make_run(random=None, finished=False)
    measured = [scored(replace(s, measured_ms=0.2)) for s in make_samples(4, learns=True)]
    write_study(run / "search.jsonl", measured, replace(SETTINGS, latency="measured"))
    data = ReportData.load(run)
    assert {data.target.latency_ms(s) for s in data.search.samples} == {0.2}
    assert "measured int8 latency (ms)" in render(data)


@pytest.mark.parametrize("cut", [2, 30, 200])
def test_a_last_line_cut_off_is_left_out(make_run: MakeRun, cut: int) -> None:
    """A writer that was killed costs one sample, not the report."""
    run = make_run()
    raw = (run / "search.jsonl").read_bytes()
    (run / "search.jsonl").write_bytes(raw[:-cut])
    assert len(ReportData.load(run).search.samples) == 119


def test_a_changed_journal_is_refused(make_run: MakeRun) -> None:
    """A line that is not what its writer wrote stops the reading, with its number."""
    run = make_run()
    lines = (run / "search.jsonl").read_text().splitlines(keepends=True)
    lines[49] = lines[49].replace('"macs":', '"macs":1')
    (run / "search.jsonl").write_text("".join(lines))
    with pytest.raises(FileDamaged, match="line 50"):
        ReportData.load(run)


@pytest.mark.parametrize("version", [1, 3, True, None])
def test_a_journal_of_another_version_is_refused(make_run: MakeRun, version: object) -> None:
    """What the reader does not know, it does not guess."""
    run = make_run()
    rewrite(run / "search.jsonl", lambda lines: lines[0].update(version=version))
    with pytest.raises(OtherVersion):
        ReportData.load(run)


@pytest.mark.parametrize("change", [{"version": 2}, {"version": True}, {"format": "edgekd-study"}, {"format": ...}])
def test_unknown_formats_are_refused(make_run: MakeRun, change: dict[str, object]) -> None:
    """What the reader does not know, it does not guess."""
    run = make_run()
    edit_manifest(run, **change)
    with pytest.raises(RunFileError, match=r"^manifest\.json: "):
        ReportData.load(run)


@pytest.mark.parametrize(
    "change",
    [
        {"target_ms": 0}, {"target_ms": ...}, {"target_dtype": "int4"}, {"accuracy": {"int8": 87.6}},
        {"accuracy": {"int4": 0.5}}, {"measured_ms": {"int8": -0.1}}, {"artifacts": {"int8": {"path": "x"}}},
        {"table": {"sha256": "zz", "rows": 3}}, {"device": []}, {"parity": {"int8": "small"}}, {"arch": ...},
    ],
)  # fmt: skip
def test_a_manifest_with_a_wrong_value_is_refused(make_run: MakeRun, change: dict[str, object]) -> None:
    """A result that is there must be right; the error names the file."""
    run = make_run()
    edit_manifest(run, **change)
    with pytest.raises(RunFileError, match=r"^manifest\.json"):
        ReportData.load(run)


def test_a_run_that_is_not_finished_is_read_with_a_note(make_run: MakeRun) -> None:
    """Results that are not there yet are named and shown as unknown."""
    run = make_run()
    edit_manifest(run, measured_ms=..., measured_wall_ms=..., accuracy=..., artifacts=..., parity=...)
    data = ReportData.load(run)
    assert data.manifest is not None
    assert data.manifest.missing == ("measured_ms", "measured_wall_ms", "accuracy", "artifacts", "parity")
    assert "not finished" in data.notes[0]
    assert "0.127 ms predicted" in final_table(data)
    assert "not measured yet" in render(data)


def test_journals_of_another_run_are_refused(make_run: MakeRun) -> None:
    """A journal whose target is not the manifest's belongs elsewhere."""
    run = make_run()
    edit_manifest(run, target_ms=0.2)
    with pytest.raises(RunFileError, match="different runs"):
        ReportData.load(run)


@pytest.mark.parametrize(
    "change", [{"space_sha256": "f" * 64}, {"decision_sizes": [9] * 42}, {"targets_ms": [TARGET_MS, 9.0]}]
)
def test_a_baseline_of_another_search_is_refused(make_run: MakeRun, change: dict[str, object]) -> None:
    """Samples of another space or target do not go into one plot."""
    run = make_run()
    rewrite(run / "random.jsonl", lambda lines: lines[0].update(change))
    with pytest.raises(RunFileError, match=r"^random\.jsonl line 1: .*different runs"):
        ReportData.load(run)


def test_a_missing_search_is_a_clear_error(make_run: MakeRun) -> None:
    """The error says which file, where, and it is one of edgekd's own."""
    run = make_run()
    (run / "search.jsonl").unlink()
    with pytest.raises(EdgekdError, match=r"^search\.jsonl: cannot be read from .*run .*name the folder of"):
        ReportData.load(run)


def test_an_empty_journal_is_refused(make_run: MakeRun) -> None:
    """A journal without its header cannot be placed."""
    run = make_run()
    (run / "search.jsonl").write_text("")
    with pytest.raises(FileDamaged, match="no header"):
        ReportData.load(run)


def test_a_space_of_absurd_size_is_refused(make_run: MakeRun) -> None:
    """A header that claims more options than any space has does not fill the memory."""
    run = make_run(search=3, random=None)
    rewrite(run / "search.jsonl", lambda lines: lines[0].update(decision_sizes=[10**6] * 42))
    with pytest.raises(RunFileError, match="42000000 options"):
        render(ReportData.load(run))


def test_hidden_characters_do_not_reach_the_terminal(make_run: MakeRun) -> None:
    """Escape sequences, direction overrides and lone surrogates become a visible mark."""
    run = make_run()
    edit_manifest(run, device={"name": "a\x1b[31mb\u202ec\ud800d\ne"})
    samples = [
        replace(s, host="x\x1b[31m", failure="\u202eno", proxy_accuracy=0.0) for s in make_samples(2, learns=True)
    ]
    write_study(run / "search.jsonl", [scored(s) for s in samples])
    data = ReportData.load(run)
    assert data.manifest is not None
    assert data.manifest.provenance.device["name"] == "a\ufffd[31mb\ufffdc\ufffdd e"
    assert {(s.host, s.failure) for s in data.search.samples} == {("x\ufffd[31m", "\ufffdno")}


@settings(max_examples=40, deadline=None)  # each example writes and draws a run; the time of one says nothing
@given(
    name=st.sampled_from(["manifest.json", "search.jsonl"]),
    header=st.booleans(),
    key=st.sampled_from(
        (
            *(
                "device",
                "versions",
                "seconds",
                "reference",
                "seed",
                "arch",
                "predicted_ms",
                "reward",
                "macs",
                "choices",
            ),
            *("space", "engine", "decision_sizes", "targets_ms", "proxy", "teacher_sha256", "failure", "host"),
        )
    ),
    value=JSON_VALUES,
)
def test_any_value_is_read_or_refused(
    make_small_run: Callable[[Path], None], name: str, header: bool, key: str, value: object
) -> None:
    """Whatever a field holds, reading ends in a report that can be drawn and encoded, or in one of our errors."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        make_small_run(run)
        if name == "manifest.json":
            edit_manifest(run, **{key: value})
        else:
            place = 0 if header else -1
            try:
                rewrite(run / name, lambda lines: lines[place].update({key: value}))
            except (ValueError, UnicodeEncodeError):
                return  # NaN or half a surrogate pair, which no JSON file holds
        with contextlib.suppress(EdgekdError, FileDamaged):
            data = ReportData.load(run)
            assert render(data).encode().endswith(b"</html>\n")
            assert json.loads(json.dumps(as_json(data), allow_nan=False))["format"] == "edgekd-report"


def test_a_table_that_was_not_measured_is_noted(make_run: MakeRun) -> None:
    """winner.json tells how many rows of the table that chose it were measured nowhere; most say none."""
    run = make_run()
    for unmeasured, notes in (
        ({}, ()),
        ({"simulated": 12}, ("12 rows of the latency table were not measured on the device: simulated.",)),
    ):
        (run / "winner.json").write_text(json.dumps({"unmeasured": unmeasured}))
        assert ReportData.load(run).notes == notes
    (run / "winner.json").write_text(json.dumps({"unmeasured": {"simulated": "many"}}))
    with pytest.raises(RunFileError, match=r"winner\.json, unmeasured: simulated"):
        ReportData.load(run)


def test_a_winner_that_was_measured_is_noted(make_run: MakeRun) -> None:
    """After a search with --measure top-k the best by the table, which the page shows, may not be the winner."""
    run = make_run()
    (run / "winner.json").write_text(json.dumps({"arch_id": "0123456789ab", "measured_ms": None}))
    assert ReportData.load(run).notes == ()
    (run / "winner.json").write_text(json.dumps({"arch_id": "0123456789ab", "measured_ms": 0.25}))
    (note,) = ReportData.load(run).notes
    assert note.startswith("The winner, 0123456789ab, was measured on the device: 0.25")
    (run / "winner.json").write_text(json.dumps({"arch_id": "0123456789ab", "measured_ms": -1}))
    with pytest.raises(RunFileError, match=r"winner\.json: measured_ms is -1"):
        ReportData.load(run)
