"""The commands `edgekd table ...`: what they print, what they refuse in one line, and what they never overwrite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import KEY, conv, measurement
from table_files import CAL, NET, OPS, ROW, filled, older, replace_line, rewrite

from edgekd import cli
from latency_tables.store import TableFile, load_table

pytestmark = pytest.mark.whole  # whole commands

Says = Callable[..., str]
Gives = Callable[..., Any]


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder with two tables of one key: b measured one row again and another for the first time."""
    monkeypatch.chdir(tmp_path)
    filled(Path("a.jsonl"))
    file = TableFile(Path("b.jsonl"), KEY)
    file.add_row(measurement(OPS[0].key, 3000, started_at="2026-01-03T00:00:00Z"))
    file.add_row(measurement(conv(24).key, flags=("throttled",)))


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Run a `table` command that must succeed and give its stdout."""

    def run(*arguments: str) -> str:
        assert cli.run(["table", *arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


@pytest.fixture
def gives(says: Says) -> Gives:
    """Run a command with --format json and give its result."""

    def run(*arguments: str) -> Any:
        return json.loads(says(*arguments, "--format", "json"))

    return run


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Says:
    """Run a command that must end with code 2, an empty stdout and one line on stderr; give that line."""

    def run(*arguments: str) -> str:
        assert cli.run(["table", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("edgekd: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_prints_what_a_good_table_holds(says: Says, gives: Gives) -> None:
    """Rows by kind and dtype, networks, calibrations with their errors, key, times and attempts."""
    text = says("check", "a.jsonl")
    for part in (
        "a.jsonl: is whole; version 9",
        "every line has a checksum",
        "key: device bench, build_fingerprint linux-6.1, engine python",
        "2  conv_2d float32",
        "whole networks: 1 float32",
        "calibrated for int8: heldout mean error 1 %",
        "measured: from 2026-01-02T03:04:05Z to 2026-01-02T03:04:05Z",
        "measured once: 4; flagged as disturbed every time: 0",
    ):
        assert part in text
    assert "!" not in text
    result = gives("check", "a.jsonl")
    assert result["rows"][0] == {"kind": "conv_2d", "dtype": "float32", "rows": 2}
    assert result["calibrations"]["int8"]["heldout_mean_error"] == 0.01
    assert (result["version"], result["key"]["device"], result["unmeasured"]) == (9, "bench", {})


def test_check_tells_what_is_not_as_it_should_be(says: Says) -> None:
    """A cut last line, an older file, disturbed rows, no calibration; none of them is a refusal."""
    path = Path("b.jsonl")
    path.write_bytes(path.read_bytes() + b'{"type":"ro')
    text = says("check", "b.jsonl")
    assert "! the last line was cut by a kill after 11 bytes: it is dropped when the table is completed" in text
    assert "not calibrated" in text
    assert f"disturbed every time: 1\n    {conv(24).key}" in text
    rewrite(older(Path("a.jsonl"), 1), CAL, lambda entry: entry.update(slope=1.0))
    text = says("check", "a.jsonl")
    assert "version 1" in text
    assert "begun by an older edgekd, without checksums" in text
    assert "! the calibration for float32 is of an older form: fitted again by edgekd profile" in text


def cut_header(path: Path) -> None:
    """Leave a part of the first line."""
    path.write_bytes(path.read_bytes()[:30])


def flip_a_bit(path: Path) -> None:
    """Change a digit of a sample."""
    path.write_text(path.read_text().replace("2020", "2021", 1))


def mix_keys(path: Path) -> None:
    """Put in a row of another device's table."""
    other = filled(Path("other.jsonl"), replace(KEY, device="other")).path
    path.write_text(path.read_text() + other.read_text().splitlines(keepends=True)[1])


def append_table(path: Path) -> None:
    """Put a whole table behind an older one."""
    older(path).write_text(path.read_text() * 2)


def duplicate(path: Path) -> None:
    """Give a line twice."""
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[2])


def cut_in_the_middle(path: Path) -> None:
    """Lose the end of a line with more behind it."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[3][:50] + "\n", *lines[4:]]))


def changed(number: int, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change a line, with the right checksums."""
    return lambda path: rewrite(path, number, change)


def said(number: int, old: str, new: str) -> Callable[[Path], None]:
    """Change a line's text, with the right checksums."""
    return lambda path: replace_line(path, number, lambda line: line.replace(old, new, 1))


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (cut_header, ", line 1: there is no header, only a part of a line"),
    (lambda path: path.write_bytes(b""), ", line 1: there is no header"),
    (lambda path: path.unlink(), " cannot be read: No such file or directory"),
    (flip_a_bit, ", line 3: the checksum does not fit the line: it was changed, or belongs to another table"),
    (cut_in_the_middle, ", line 4: the checksum does not fit the line"),
    (mix_keys, ", line 8: the checksum does not fit the line: it was changed, or belongs to another table"),
    (append_table, ", line 8: another table begins here; join tables with: edgekd table merge"),
    (duplicate, ", line 8: attempt 1 at conv_2d"),
    (
        changed(ROW, lambda e: e.update(samples_ns=[1, -2, 3])),
        ", line 2: samples_ns holds something else than integers",
    ),
    (changed(ROW, lambda e: e.update(samples_ns=[10**16] * 3)), ", line 2: samples_ns holds something else"),
    (changed(ROW, lambda e: e.update(temperatures_c=[1e300])), ", line 2: temperatures_c holds a number that is not"),
    (said(ROW, "41.5", "NaN"), ", line 2: no JSON (NaN is no number)"),
    (said(CAL, ":0.9", ":-Infinity"), ", line 6: no JSON (-Infinity is no number)"),
    (said(CAL, ":0.9", ":1e999"), ", line 6: scale holds a number that is not finite or absurdly large: inf"),
    (said(NET, '"op_keys":[', '"op_keys":' + "[" * 100_000), ", line 5: no JSON (maximum recursion depth exceeded"),
    (changed(1, lambda e: e.update(version=99)), ", line 1: version 99 is not 1 to 9, those that this edgekd reads"),
    (changed(NET, lambda e: e.update(type="layer")), ", line 5: unknown entry type 'layer'"),
    (lambda path: path.write_bytes(b"\x80\x04\x95\n"), ", line 1: no JSON"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_check_refuses_with_file_line_and_reason(refuses: Says, damage: Callable[[Path], None], reason: str) -> None:
    """Every command that reads a table does, and none changes the file."""
    path = Path("a.jsonl")
    damage(path)
    before = path.read_bytes() if path.exists() else None
    for command in (["check", "a.jsonl"], ["show", "a.jsonl"], ["diff", "b.jsonl", "a.jsonl"]):
        assert f"edgekd: a.jsonl{reason}" in refuses(*command)
    assert f"edgekd: a.jsonl{reason}" in refuses("merge", "out.jsonl", "b.jsonl", "a.jsonl")
    assert (path.read_bytes() if path.exists() else None) == before
    assert not Path("out.jsonl").exists()


def test_what_a_file_says_does_not_command_the_terminal(says: Says) -> None:
    """Escape sequences in texts are shown as marks."""
    row = measurement(conv(99).key, source="imported:\x1b[2J", flags=("\x1b]0;title\x07",))
    TableFile(Path("b.jsonl"), KEY).add_row(row)
    for command in ("check", "show"):
        text = says(command, "b.jsonl")
        assert "imported" in text
        assert text.replace("\n", "").isprintable()


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_lists_rows_slowest_first_or_by_name(says: Says, gives: Gives) -> None:
    """Times, spread, samples, attempts, source and flags; networks too."""
    lines = says("show", "b.jsonl").splitlines()
    assert lines[0].split() == ["ms", "median", "spread", "samples", "attempts", "source", "subject,", "flags"]
    assert lines[1].split() == ["0.003000", "0.003010", "0.5", "%", "3", "1", "measured", OPS[0].key]
    assert lines[2].endswith(f"{conv(24).key}  [throttled]")
    rows = gives("show", "a.jsonl")["rows"]
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    named = gives("show", "a.jsonl", "--sort", "name")["rows"]
    assert [row["subject"] for row in named] == sorted(row["subject"] for row in rows)
    assert rows[1]["spread"] == pytest.approx(1.4826 * 10 / 2510)


def test_show_picks_a_kind(gives: Gives, refuses: Says) -> None:
    """Operators of a kind, or the networks; an unknown one gets a suggestion."""
    assert [row["subject"] for row in gives("show", "a.jsonl", "--kind", "network")["rows"]] == ["network:a"]
    assert len(gives("show", "a.jsonl", "--kind", "conv_2d")["rows"]) == 3
    assert "unknown kind 'conv2d': did you mean 'conv_2d'? known: conv_2d, network" in refuses(
        "show", "a.jsonl", "--kind", "conv2d"
    )


# --- diff and merge ---------------------------------------------------------------------------------------------------


def test_diff_says_in_what_two_tables_differ_and_ends_well(says: Says, gives: Gives) -> None:
    """Whatever they differ in: keys, rows of one alone, medians beyond the noise, and the ratios of all."""
    filled(Path("c.jsonl"), replace(KEY, threads=4))
    text = says("diff", "a.jsonl", "b.jsonl")
    assert "the keys are equal" in text
    assert "3 only in A" in text
    assert "1 only in B" in text
    assert "1 in both; B takes 2.980 × A's time in the geometric mean" in text
    assert f"  2.980 ×  0.001010 → 0.003010 ms ± 0.000067  {OPS[0].key}" in text
    assert "key: threads: 1 / 4" in says("diff", "a.jsonl", "c.jsonl")
    result = gives("diff", "a.jsonl", "c.jsonl")
    assert (result["both"], result["beyond_noise"], result["only_a"]) == (4, [], [])
    assert result["ratios"]["geometric_mean"] == 1.0


def test_merge_joins_tables_of_one_key(says: Says, gives: Gives, refuses: Says) -> None:
    """Shared subjects get the samples of both; the new file reads as any, and is never written over another."""
    text = says("merge", "out.jsonl", "a.jsonl", "b.jsonl")
    assert "out.jsonl: 4 operators, 1 whole networks" in text
    assert "1 were in more than one table" in text
    assert "! too few networks to calibrate float32: complete it with edgekd profile" in text
    assert len(load_table(Path("out.jsonl")).rows[OPS[0].key].samples_ns) == 6
    before = Path("out.jsonl").read_bytes()
    assert "out.jsonl exists and is never overwritten" in refuses("merge", "out.jsonl", "a.jsonl")
    assert Path("out.jsonl").read_bytes() == before
    assert gives("merge", "again.jsonl", "out.jsonl", "a.jsonl")["rows"] == 4


def test_merge_refuses_tables_of_two_keys_by_what_differs(refuses: Says) -> None:
    """Nothing is written."""
    filled(Path("c.jsonl"), replace(KEY, runtime_version="9.9"))
    line = refuses("merge", "out.jsonl", "a.jsonl", "c.jsonl")
    assert "a.jsonl and c.jsonl were not measured under the same key (runtime_version: '2.3.0' / '9.9')" in line
    assert not Path("out.jsonl").exists()


# --- export and import ------------------------------------------------------------------------------------------------

CITED = ("--citation", "ProxylessNAS (Cai 2019), mobile_trim.yaml", "--device", "pixel1")


@pytest.mark.parametrize("form", ["ofa-yaml", "fbnet", "csv"])
def test_a_table_goes_out_and_comes_back(says: Says, gives: Gives, form: str) -> None:
    """What comes back is marked as imported wherever it is shown, and its key answers for no device of ours."""
    assert f"out: 3 rows as {form}\n  1 whole networks and the calibrations have no place there" in says(
        "export", "a.jsonl", "--to", form, "out"
    )
    text = says("import", "out", "--from", form, *CITED, "back.jsonl")
    warning = "! not measured on this device: 3 rows are imported:ProxylessNAS (Cai 2019), mobile_trim.yaml"
    assert warning in text
    for command in (["check", "back.jsonl"], ["show", "back.jsonl"], ["diff", "a.jsonl", "back.jsonl"]):
        assert warning in says(*command)
    result = gives("check", "back.jsonl")
    assert (result["key"]["device"], result["key"]["engine"]) == ("pixel1", "imported")
    assert list(result["unmeasured"].values()) == [3]
    assert load_table(Path("back.jsonl")).rows.keys() == load_table(Path("a.jsonl")).rows.keys()


def test_an_import_takes_the_rest_of_the_key_from_its_options(says: Says) -> None:
    """What is not given is unknown."""
    Path("in.csv").write_text(f"key,mean_ms\n{OPS[0].key},1.5\n")
    options = ["--runtime", "tflite", "--runtime-version", "1.13", "--threads", "4", "--delegate", "none"]
    says("import", "in.csv", "--from", "csv", *CITED, *options, "out.jsonl")
    key = load_table(Path("out.jsonl")).key
    assert (key.runtime, key.runtime_version, key.threads, key.delegate) == ("tflite", "1.13", 4, "none")
    assert (key.build_fingerprint, key.clock) == ("unknown", "wall")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--citation", " ", "--device", "d"], "--citation must be a text of 1 to 300 characters"),
        (["--citation", "x" * 301, "--device", "d"], "--citation must be"),
        (["--citation", "a\x1b", "--device", "d"], "--citation must be"),
        (["--citation", "a", "--device", ""], "--device '' must be a name"),
        (["--citation", "a", "--device", "d", "--threads", "0"], "--threads 0 at least 1"),
        (["--citation", "a", "--device", "d", "--dtype", "int4"], "unknown dtype 'int4': did you mean 'int8'"),
        (["--citation", "a", "--device", "d"], "in.csv, line 2: 'fast' is not a number"),
    ],
)
def test_an_import_refuses_in_one_line(refuses: Says, options: list[str], reason: str) -> None:
    """Options and foreign lines alike; no table is begun."""
    Path("in.csv").write_text(f"key,mean_ms\n{OPS[0].key},fast\n")
    assert reason in refuses("import", "in.csv", "--from", "csv", *options, "out.jsonl")
    assert not Path("out.jsonl").exists()


def test_an_export_never_overwrites(refuses: Says) -> None:
    """Not even the table itself."""
    before = Path("a.jsonl").read_bytes()
    assert "a.jsonl exists and is never overwritten" in refuses("export", "a.jsonl", "--to", "csv", "a.jsonl")
    assert Path("a.jsonl").read_bytes() == before


def test_without_pyyaml_the_extra_is_named(refuses: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one of the formats needs it."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    line = refuses("export", "a.jsonl", "--to", "ofa-yaml", "out.yaml")
    assert line == "edgekd: PyYAML is not installed; install it with: pip install 'edgekd[formats]'\n"


def test_simulate_is_there() -> None:
    """Its options come from where it is made."""
    command = [sys.executable, "-m", "edgekd", "table", "simulate", "--help"]
    assert "--space" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
