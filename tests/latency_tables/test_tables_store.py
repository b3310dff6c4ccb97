"""Table files: what was measured comes back equal, and what cannot be trusted is refused with line and reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CALIBRATION, KEY, conv, measurement, small_disk

from latency_tables.errors import FileDamaged, FileNotWritable, OpSyntaxError, OtherSettings
from latency_tables.schema import Measurement, Network
from latency_tables.store import LatencyTable, TableFile, load_table, table_sha256

OPS = [conv(8), conv(16), conv(8, dtype="int8")]
NETWORK = Network("network:a", "float32", (OPS[0].key, OPS[1].key), measurement("network:a", 2500))
Edit = Callable[[dict[str, Any]], object]


def filled(path: Path) -> TableFile:
    """Write a table of three rows, a network and two calibrations: lines 2 to 7."""
    file = TableFile(path, KEY)
    for number, op in enumerate(OPS, 1):
        file.add_row(measurement(op.key, 1000 * number))
    file.add_network(NETWORK)
    for dtype in ("float32", "int8"):
        file.add_calibration(dtype, CALIBRATION)
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a filled table."""
    return filled(tmp_path / "table.jsonl").path


def rewrite(path: Path, number: int, edit: Edit) -> None:
    """Change one line of a file, as damage or a foreign hand might."""
    lines = path.read_text().splitlines()
    entry = json.loads(lines[number - 1])
    edit(entry)
    lines[number - 1] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")


def test_a_table_reads_back_as_it_was_measured(path: Path) -> None:
    """Key, rows, networks and calibrations are equal, whether a table is loaded or opened to go on."""
    loaded = load_table(path)
    assert loaded == TableFile(path, KEY).table
    assert loaded.key == KEY
    assert loaded.rows == {op.key: measurement(op.key, 1000 * n) for n, op in enumerate(OPS, 1)}
    assert loaded.networks == {"network:a": NETWORK}
    assert loaded.calibrations == {"float32": CALIBRATION, "int8": CALIBRATION}
    assert loaded.measurements == [*loaded.rows.values(), NETWORK.measurement]


@given(
    samples=st.lists(st.tuples(st.integers(1, 10**15), st.integers(1, 10**15)), min_size=1, max_size=9),
    counts=st.lists(st.integers(1, 10**15), min_size=5, max_size=5),
    temperatures=st.lists(st.floats(-50, 150), max_size=3),
    texts=st.tuples(st.text(), st.text()),
    flags=st.lists(st.text(), max_size=3),
)
def test_any_measurement_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    samples: list[tuple[int, int]],
    counts: list[int],
    temperatures: list[float],
    texts: tuple[str, str],
    flags: list[str],
) -> None:
    """Every raw value of a row is kept exactly: no rounding, no lost flag, no changed text."""
    cpu, wall = zip(*samples, strict=True)
    row = Measurement(
        OPS[0].key, cpu, wall, counts[0], counts[1], counts[2], texts[0], tuple(temperatures), counts[3], counts[4],
        1, texts[1], tuple(flags),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("table") / "table.jsonl"
    TableFile(path, KEY).add_row(row)
    assert load_table(path).rows == {row.subject: row}


def test_further_attempts_are_joined_while_writing_and_while_reading(path: Path) -> None:
    """A second attempt at a row and at a network adds its samples to the first's."""
    file = TableFile(path, KEY)
    file.add_row(measurement(OPS[0].key, 900, attempt=2, sentinel_ns=4000))
    file.add_network(replace(NETWORK, measurement=measurement("network:a", 2400, attempt=2)))
    loaded = load_table(path)
    assert loaded == file.table
    assert loaded.rows[OPS[0].key].quiet_ms == pytest.approx(0.0009)
    assert len(loaded.rows[OPS[0].key].samples_ns) == 6
    assert loaded.networks["network:a"].measurement.attempt == 2
    assert loaded.sentinel_ns == 4000


def test_a_later_calibration_replaces_the_earlier(path: Path) -> None:
    """The calibration fitted last is the one that counts."""
    better = replace(CALIBRATION, scale=0.95)
    TableFile(path, KEY).add_calibration("int8", better)
    assert load_table(path).calibrations == {"float32": CALIBRATION, "int8": better}


def test_a_table_without_sentinels_says_so() -> None:
    """0 stands for unknown, in one measurement and in the table."""
    assert LatencyTable(KEY).sentinel_ns == 0
    rows = {"x": measurement("x", sentinel_ns=0), "y": measurement("y", sentinel_ns=7)}
    assert LatencyTable(KEY, rows).sentinel_ns == 7


def test_a_cut_table_keeps_its_whole_lines(path: Path, tmp_path: Path) -> None:
    """Cut at every byte of its end, a table holds all that came before and takes the lost line again."""
    whole = path.read_bytes()
    complete = load_table(path)
    cut = tmp_path / "cut.jsonl"
    for size in range(whole.rindex(b"\n", 0, -1) + 1, len(whole)):
        cut.write_bytes(whole[:size])
        file = TableFile(cut, KEY)
        assert file.table == replace(complete, calibrations={"float32": CALIBRATION})
        file.add_calibration("int8", CALIBRATION)
        assert cut.read_bytes() == whole


ROW, NET, CAL = 2, 5, 6
WRONG_LINES: list[tuple[int, Edit, str]] = [
    (ROW, lambda e: e.update(samples_ns=[1000, -1, 1000]), "samples_ns holds something else than integers from 0"),
    (ROW, lambda e: e.update(samples_ns=[1000, 0, 1000]), "not above 0"),
    (ROW, lambda e: e.update(wall_samples_ns=[0, 1, 1]), "not above 0"),
    (ROW, lambda e: e.update(samples_ns=[1000, 1.5, 1000]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[1000, True, 1000]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[10**16] * 3), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns="1000"), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[]), "0 samples and 3 wall samples"),
    (ROW, lambda e: e.update(samples_ns=[1, 2]), "2 samples and 3 wall samples"),
    (ROW, lambda e: e.update(inferences_per_sample=0), "count of inferences"),
    (ROW, lambda e: e.update(attempt=None), "attempt"),
    (ROW, lambda e: e.update(sentinel_ns="5000"), "sentinel_ns"),
    (ROW, lambda e: e.update(started_at=7), "started_at is 7, not text"),
    (ROW, lambda e: e.update(temperatures_c=["nan"]), "something else than numbers"),
    (ROW, lambda e: e.update(temperatures_c=[10**400]), "not finite or absurdly large"),
    (ROW, lambda e: e.update(temperatures_c=3), "not iterable"),
    (ROW, lambda e: e.update(flags="contended"), "flags"),
    (ROW, lambda e: e.update(flags=[1]), "flags"),
    (ROW, lambda e: e.update(surprise=1), "surprise"),
    (ROW, lambda e: e.pop("samples_ns"), "field 'samples_ns' is missing"),
    (ROW, lambda e: e.pop("type"), "field 'type' is missing"),
    (ROW, lambda e: e.update(type="raw"), "unknown entry type 'raw'"),
    (ROW, lambda e: e.update(type=["row"]), "unknown entry type"),
    (ROW, lambda e: e.update(subject="conv_2d;float32;in="), "not a tensor"),
    (ROW, lambda e: e.update(subject=5), "subject is 5"),
    (ROW + 1, lambda e: e.update(subject=OPS[0].key), "attempt 1 at .* does not follow attempt 1"),
    (ROW, lambda e: e.update(attempt=2), "attempt 2 at .* has no attempt before it"),
    (ROW, lambda e: e.update(attempt=0), "attempt 0 at .* has no attempt before it"),
    (NET, lambda e: e.update(dtype="int4"), "dtype 'int4' is not one of float32, int8"),
    (NET, lambda e: e.update(dtype=["int8"]), "is not one of"),
    (NET, lambda e: e.update(op_keys=[1]), "op_keys"),
    (NET, lambda e: e.update(op_keys=None), "op_keys"),
    (NET, lambda e: e.update(op_keys=["conv"]), "expected kind"),
    (NET, lambda e: e.update(op_keys=[]), "no operators"),
    (NET, lambda e: e.update(name="network:b"), "another subject"),
    (NET, lambda e: e.update(measurement=3), "not iterable"),
    (NET, lambda e: e["measurement"].update(attempt=2), "has no attempt before it"),
    (NET, lambda e: e["measurement"].update(samples_ns=[0] * 3), "not above 0"),
    (CAL, lambda e: e.update(dtype="float64"), "float64"),
    (CAL, lambda e: e.update(scale="0.9"), "something else than numbers"),
    (CAL, lambda e: e.update(scale=True), "something else than numbers"),
    (CAL, lambda e: e.update(scale=10**400), "not finite"),
    (CAL, lambda e: e.pop("offset_ms"), "offset_ms"),
    (CAL, lambda e: e.update(slope=1.0), "slope"),
]


@pytest.mark.parametrize(("number", "edit", "reason"), WRONG_LINES)
def test_a_wrong_line_is_refused_with_its_number_and_reason(path: Path, number: int, edit: Edit, reason: str) -> None:
    """Loading and opening name the line and what is wrong with it, and do not touch the file."""
    rewrite(path, number, edit)
    before = path.read_bytes()
    for read in (load_table, lambda path: TableFile(path, KEY)):
        with pytest.raises(FileDamaged, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}, line {number}: ")
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize(("line", "field"), [(CAL, '"scale": '), (ROW, '"temperatures_c": [')])
def test_numbers_that_are_none_are_refused(path: Path, number: str, line: int, field: str) -> None:
    """NaN, Infinity and a number too large for a float are damage, also where JSON readers let them pass."""
    rewrite(path, line, lambda entry: None)
    lines = path.read_text().splitlines()
    before, _, after = lines[line - 1].partition(field)
    lines[line - 1] = before + field + number + after[after.index("]" if "[" in field else ",") :]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(FileDamaged, match=f"line {line}: .*(is no number|not finite)"):
        load_table(path)


HEADER_EDITS: list[tuple[Edit, str]] = [
    (lambda e: e.update(version=3), "version 3 is not 1 to 2, those that this edgekd reads"),
    (lambda e: e.update(version=None), "version None"),
    (lambda e: e.update(format="edgekd-study"), "format 'edgekd-study' is not edgekd-table"),
    (lambda e: e.pop("format"), "format None"),
    (lambda e: e.pop("key"), "the key must have exactly the fields build_fingerprint, clock"),
    (lambda e: e["key"].pop("clock"), "exactly the fields"),
    (lambda e: e["key"].update(color="red"), "exactly the fields"),
    (lambda e: e["key"].update(threads="1"), "key field threads is '1'"),
    (lambda e: e["key"].update(threads=True), "key field threads is True"),
    (lambda e: e["key"].update(device=None), "key field device is None"),
]


@pytest.mark.parametrize(("edit", "reason"), HEADER_EDITS)
def test_a_wrong_header_is_refused(path: Path, edit: Edit, reason: str) -> None:
    """Another format, a newer version and a key that is not one are named at line 1."""
    rewrite(path, 1, edit)
    with pytest.raises(FileDamaged, match=f"line 1: .*{reason}"):
        load_table(path)


@pytest.mark.parametrize("field", ["version", "format", "key"])
def test_a_file_of_another_kind_is_not_continued(path: Path, field: str) -> None:
    """What was begun by a newer edgekd, or is no table, gets no rows of ours."""
    rewrite(path, 1, lambda header: header.update({field: "other"}))
    with pytest.raises(OtherSettings, match=f"was begun with {field} 'other', not"):
        TableFile(path, KEY)


def test_a_table_of_another_device_is_not_continued(path: Path) -> None:
    """Rows of two runtimes never meet in one file."""
    before = path.read_bytes()
    with pytest.raises(OtherSettings, match="was begun with key"):
        TableFile(path, replace(KEY, runtime_version="2.4.0"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (measurement("nonsense"), OpSyntaxError),
        (measurement(OPS[0].key), ValueError),
        (measurement(conv(24).key, samples_ns=(), wall_samples_ns=()), ValueError),
        (measurement(conv(24).key, samples_ns=(0, 1, 2)), ValueError),
        (measurement(conv(24).key, temperatures_c=(float("nan"),)), ValueError),
    ],
)
def test_nothing_wrong_reaches_the_file(path: Path, row: Measurement, error: type[Exception]) -> None:
    """A row that could not be read again is refused before it is written."""
    before = path.read_bytes()
    file = TableFile(path, KEY)
    with pytest.raises(error):
        file.add_row(row)
    assert path.read_bytes() == before
    assert file.table == load_table(path)


def add_all(file: TableFile, rows: list[Measurement]) -> None:
    """Add rows until the disk is full."""
    for row in rows:
        file.add_row(row)


def test_a_full_disk_changes_neither_table_nor_file(tmp_path: Path) -> None:
    """What the disk did not take is not in the table either, so the same row can be added once there is space."""
    with small_disk(tmp_path / "disk", 16 * 4096) as disk:
        file = filled(disk / "table.jsonl")
        (disk / "ballast").write_bytes(bytes(4096 * 14))
        added = [measurement(conv(channels).key) for channels in range(100, 200)]
        with pytest.raises(FileNotWritable, match="No space left"):
            add_all(file, added)
        assert file.table == load_table(file.path)
        (disk / "ballast").unlink()
        lost = next(row for row in added if row.subject not in file.table.rows)
        file.add_row(lost)
        assert load_table(file.path).rows[lost.subject] == lost


def test_the_hash_is_of_what_predictions_depend_on(path: Path) -> None:
    """It is the same for the same content in any order, and another for any other sample, key or coefficient."""
    table = load_table(path)
    reordered = replace(table, rows=dict(reversed(table.rows.items())))
    assert table_sha256(reordered) == table_sha256(load_table(path)) == table_sha256(table)
    key = OPS[0].key
    others = [
        replace(table, key=replace(KEY, threads=2)),
        replace(table, rows=table.rows | {key: replace(table.rows[key], samples_ns=(1020, 1001, 1010))}),
        replace(table, networks={}),
        replace(table, calibrations=table.calibrations | {"int8": replace(CALIBRATION, per_mb_ms=0.051)}),
    ]
    assert len({table_sha256(other) for other in [table, *others]}) == 5
