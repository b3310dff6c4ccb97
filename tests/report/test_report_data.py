"""Reading a run folder: complete runs, runs cut off while writing, damage and hostile values."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import EdgekdError
from edgekd.report.data import ReportData
from edgekd.report.errors import RunFileError
from edgekd.report.html import render
from edgekd.report.text import as_json, final_table

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


def edit_line(run: Path, number: int, line: str) -> None:
    """Replace one line (from 1) of search.jsonl."""
    lines = (run / "search.jsonl").read_text().splitlines(keepends=True)
    lines[number - 1] = line + "\n"
    (run / "search.jsonl").write_text("".join(lines))


def test_a_finished_run_is_read_whole(make_run: MakeRun) -> None:
    """All samples and figures arrive, and there is nothing to remark."""
    data = ReportData.load(make_run())
    assert [len(study.samples) for study in data.studies] == [120, 120]
    assert data.manifest.results.measured_ms == {"float32": 0.2312, "int8": 0.1231}
    assert data.manifest.provenance.device["features"] == "avx2, fma"
    assert data.search.reward == "soft (exponent -0.07)"
    assert (data.notes, data.manifest.missing) == ((), ())


def test_random_search_may_be_absent(make_run: MakeRun) -> None:
    """A run without random.jsonl has one study."""
    data = ReportData.load(make_run(random=None))
    assert data.random is None
    assert data.studies == (data.search,)


def test_samples_are_ordered_by_index(make_run: MakeRun) -> None:
    """Workers may finish out of order; the report goes by index."""
    run = make_run()
    header, *samples = (run / "search.jsonl").read_text().splitlines(keepends=True)
    (run / "search.jsonl").write_text("".join([header, *reversed(samples)]))
    assert [s.index for s in ReportData.load(run).search.samples] == list(range(120))


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_last_line_cut_off_is_left_out_with_a_note(make_run: MakeRun, cut: int) -> None:
    """A writer that was killed costs one sample, not the report."""
    run = make_run()
    raw = (run / "search.jsonl").read_bytes()
    (run / "search.jsonl").write_bytes(raw[: -1 - cut])
    data = ReportData.load(run)
    assert len(data.search.samples) == 119
    assert data.notes == ("search.jsonl line 121 was cut off while it was written; it is left out.",)


def test_a_cut_inside_a_character_is_a_cut_like_any_other(make_run: MakeRun) -> None:
    """Half of a UTF-8 sequence at the end is no damage."""
    run = make_run()
    with (run / "search.jsonl").open("ab") as journal:
        journal.write('{"index": 120, "arch": "é'.encode()[:-1])
    assert len(ReportData.load(run).search.samples) == 120


def test_a_last_line_that_only_lacks_its_line_end_counts(make_run: MakeRun) -> None:
    """A complete object is complete without the line end."""
    run = make_run()
    (run / "search.jsonl").write_bytes((run / "search.jsonl").read_bytes()[:-1])
    data = ReportData.load(run)
    assert (len(data.search.samples), data.notes) == (120, ())


@pytest.mark.parametrize("line", ['{"index": 3', "", "[]", '{"index": NaN}', '{"index": 1, "index": 2}', "\ufffd\x00"])
def test_damage_elsewhere_is_an_error_with_its_line(make_run: MakeRun, line: str) -> None:
    """A damaged line that is not the last one stops the reading."""
    run = make_run()
    edit_line(run, 50, line)
    with pytest.raises(RunFileError, match=r"^search\.jsonl line 50: "):
        ReportData.load(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("index", -1), ("index", 3.5), ("index", True), ("index", 0), ("arch", ""), ("arch", 5), ("arch_id", None),
        ("predicted_ms", {"int8": 0.1}), ("predicted_ms", {"float32": 0.1, "int8": 0}), ("proxy_accuracy", 1.01),
        ("proxy_accuracy", "0.5"), ("reward", 1e300), ("seconds", -1), ("macs", 10**400), ("macs", 1.5),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(make_run: MakeRun, key: str, value: object) -> None:
    """The error names the line and the field."""
    run = make_run()
    sample = json.loads((run / "search.jsonl").read_text().splitlines()[9])
    edit_line(run, 10, json.dumps(sample | {key: value}))
    inner = "float32" if value == {"int8": 0.1} else "int8" if key == "predicted_ms" else key
    with pytest.raises(RunFileError, match=rf"^search\.jsonl line 10.*{inner}"):
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


@pytest.mark.parametrize("name", ["manifest.json", "search.jsonl"])
def test_a_missing_file_is_a_clear_error(make_run: MakeRun, name: str) -> None:
    """The error says which file, and it is one of edgekd's own."""
    run = make_run()
    (run / name).unlink()
    with pytest.raises(EdgekdError, match=rf"^{name}: cannot be read"):
        ReportData.load(run)


def test_an_empty_journal_has_no_header(make_run: MakeRun) -> None:
    """A journal without its header cannot be placed."""
    run = make_run()
    (run / "search.jsonl").write_text("")
    with pytest.raises(RunFileError, match="no complete header"):
        ReportData.load(run)


def test_deep_nesting_is_damage_not_a_crash(make_run: MakeRun) -> None:
    """A line that would exhaust the parser's stack is an error like any other."""
    run = make_run()
    edit_line(run, 5, '{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(RunFileError, match=r"search\.jsonl line 5"):
        ReportData.load(run)


def test_hidden_characters_do_not_reach_the_terminal(make_run: MakeRun) -> None:
    """Escape sequences, direction overrides and lone surrogates become a visible mark."""
    run = make_run()
    edit_manifest(run, device={"name": "a\x1b[31mb\u202ec\ud800d\ne"})
    assert ReportData.load(run).manifest.provenance.device["name"] == "a\ufffd[31mb\ufffdc\ufffdd e"


@settings(max_examples=60, deadline=None)  # each example writes and draws a run; the time of one says nothing
@given(
    name=st.sampled_from(["manifest.json", "search.jsonl"]),
    key=st.sampled_from(
        ["device", "versions", "seconds", "reference", "seed", "arch", "predicted_ms", "reward", "macs"]
    ),
    value=JSON_VALUES,
)
def test_any_value_is_read_or_refused(
    make_small_run: Callable[[Path], None], name: str, key: str, value: object
) -> None:
    """Whatever a field holds, reading ends in a report that can be drawn and encoded, or in a RunFileError."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        make_small_run(run)
        lines = (run / name).read_text().splitlines()
        lines[-1] = json.dumps(json.loads(lines[-1]) | {key: value})
        (run / name).write_text("\n".join(lines) + "\n")
        try:
            data = ReportData.load(run)
        except RunFileError as error:
            named = error.where
        else:
            named = name
            assert render(data).encode().endswith(b"</html>\n")
            assert json.loads(json.dumps(as_json(data), allow_nan=False))["format"] == "edgekd-report"
        assert named.startswith(name)


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
