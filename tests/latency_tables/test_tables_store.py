"""Table files: what was measured comes back equal, and what cannot be trusted is refused with line and reason."""

from __future__ import annotations

import cProfile
import dataclasses
import hashlib
import os
import pstats
import random
import subprocess
import sys
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CALIBRATION, KEY, conv, measurement, small_disk
from table_files import CAL, NET, NETWORK, OPS, ROW, Edit, filled, older, plain_lines, replace_line, rewrite

from latency_tables.calibrate import Calibration
from latency_tables.errors import FileDamaged, FileNotWritable, OpSyntaxError, OtherSettings, TableHeld
from latency_tables.schema import Measurement, Network
from latency_tables.store import LatencyTable, TableFile, load_table, read_table, table_sha256, table_text

FLOAT = next(field.name for field in dataclasses.fields(Calibration) if field.type == "float")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a filled table."""
    return filled(tmp_path / "table.jsonl").path


def test_a_table_reads_back_as_it_was_measured(path: Path) -> None:
    """Key, rows, networks and calibrations are equal, whether a table is loaded or opened to go on."""
    loaded = load_table(path)
    assert loaded == TableFile(path, KEY).table
    assert loaded.key == KEY
    assert loaded.rows == {op.key: measurement(op.key, 1000 * n) for n, op in enumerate(OPS, 1)}
    assert loaded.networks == {"network:a": NETWORK}
    assert loaded.calibrations == {"float32": CALIBRATION, "int8": CALIBRATION}
    assert loaded.measurements == [*loaded.rows.values(), NETWORK.measurement]


@pytest.mark.whole  # tries many
@given(
    samples=st.lists(st.tuples(st.integers(1, 10**15), st.integers(1, 10**15)), min_size=1, max_size=9),
    counts=st.lists(st.integers(1, 10**15), min_size=5, max_size=5),
    temperatures=st.lists(st.floats(-50, 150), max_size=3),
    started_at=st.text(),
    source=st.sampled_from(["measured", "simulated"]) | st.text(min_size=1).map("imported:a{}".format),
    flags=st.lists(st.text(), max_size=3),
)
def test_any_measurement_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    samples: list[tuple[int, int]],
    counts: list[int],
    temperatures: list[float],
    started_at: str,
    source: str,
    flags: list[str],
) -> None:
    """Every raw value of a row is kept exactly: no rounding, no lost flag, no changed text."""
    cpu, wall = zip(*samples, strict=True)
    row = Measurement(
        OPS[0].key, cpu, wall, counts[0], counts[1], counts[2], started_at, tuple(temperatures), counts[3], counts[4],
        1, source, tuple(flags),
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
    assert loaded.rows[OPS[0].key].sentinel_ns == 4000


def test_a_later_calibration_replaces_the_earlier(path: Path) -> None:
    """The calibration fitted last is the one that counts."""
    better = replace(CALIBRATION, **{FLOAT: 0.95})
    TableFile(path, KEY).add_calibration("int8", better)
    assert load_table(path).calibrations == {"float32": CALIBRATION, "int8": better}


def test_a_table_without_sentinels_says_so() -> None:
    """0 stands for unknown, in one measurement and in the table."""
    assert LatencyTable(KEY).usual_sentinel_ns == 0
    rows = {"x": measurement("x", sentinel_ns=0), "y": measurement("y", sentinel_ns=7)}
    assert LatencyTable(KEY, rows).usual_sentinel_ns == 7


@pytest.mark.parametrize(
    ("boosted", "slow", "usual_ns"), [(0, 0, 1000), (49, 20, 1000), (51, 0, 900), (20, 49, 1000), (0, 51, 1200)]
)
def test_the_usual_sentinel_is_that_of_most(boosted: int, slow: int, usual_ns: int) -> None:
    """Neither a clock's boost nor a slow phase makes it, but for one that lasts for half of the measurements."""
    times_ns = [900] * boosted + [1200] * slow + [1000] * (100 - boosted - slow)
    rows = {f"{number}": measurement("x", sentinel_ns=ns) for number, ns in enumerate(times_ns)}
    assert LatencyTable(KEY, rows).usual_sentinel_ns == usual_ns


@pytest.mark.whole  # opens a table for every byte of a line
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
        file.close()


def test_what_something_was_measured_beside_is_kept(tmp_path: Path) -> None:
    """Of a network and of an operator; the table tells what that one takes by what few of its readings are below."""
    readings = tuple(range(1500, 1560))
    network, row, alone = (
        measurement("network:a", 3000, beside="n float32", beside_ns=(1700, 1701, 1702), sentinel_ns=1400),
        measurement(OPS[0].key, samples_ns=readings, wall_samples_ns=readings, beside="n float32", beside_ns=readings),
        measurement("network:c", 5000),
    )
    with closing(TableFile(tmp_path / "t.jsonl", KEY)) as file:
        file.add_row(row)
        for one in (network, alone):
            file.add_network(Network(one.subject, "float32", (OPS[0].key,), one))
    table = load_table(tmp_path / "t.jsonl")
    assert [network.measurement for network in table.networks.values()] == [network, alone]
    assert table.rows == {OPS[0].key: row}
    assert table.beside_ns == {"n float32": 1506}
    assert table.usual_sentinel_ns == alone.sentinel_ns
    assert (tmp_path / "t.jsonl").read_text().count('"beside"') == 2


WRONG_LINES: list[tuple[int, Edit, str]] = [
    (ROW, lambda e: e.update(samples_ns=[1000, -1, 1000]), "samples_ns holds something else than integers from 0"),
    (ROW, lambda e: e.update(samples_ns=[1000, 0, 1000]), "not above 0"),
    (ROW, lambda e: e.update(wall_samples_ns=[0, 1, 1]), "not above 0"),
    (ROW, lambda e: e.update(samples_ns=[1000, 1.5, 1000]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[1000, True, 1000]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[1000, 2.0, 1000]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[1000, [], 1000]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[1000, "2", None]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[10**16] * 3), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[10**15 + 1, 2, 2]), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns="1000"), "samples_ns"),
    (ROW, lambda e: e.update(samples_ns=[]), "0 samples and 3 wall samples"),
    (ROW, lambda e: e.update(samples_ns=[1, 2]), "2 samples and 3 wall samples"),
    (ROW, lambda e: e.update(inferences_per_sample=0), "count of inferences"),
    (ROW, lambda e: e.update(attempt=None), "attempt is None"),
    (ROW, lambda e: e.update(sentinel_ns="5000"), "sentinel_ns"),
    (ROW, lambda e: e.update(started_at=7), "started_at is 7, not text"),
    (ROW, lambda e: e.update(temperatures_c=["nan"]), "something else than numbers"),
    (ROW, lambda e: e.update(temperatures_c=[10**400]), "not finite or absurdly large"),
    (ROW, lambda e: e.update(temperatures_c=3), "temperatures_c is 3, not a list"),
    (ROW, lambda e: e.update(flags="contended"), "flags"),
    (ROW, lambda e: e.update(flags=[1]), "flags"),
    (ROW, lambda e: e.update(surprise=1), "unknown field 'surprise'"),
    (ROW, lambda e: e.update(source="guessed"), "source 'guessed' is not measured, simulated or imported:CITATION"),
    (ROW, lambda e: e.update(source="imported: "), "source 'imported: ' is not"),
    (ROW, lambda e: e.update(temperatures_c=[nested(900)]), "something else than numbers: ...................."),
    (ROW, lambda e: e.update(started_at="x" * 10**6, surprise="y" * 10**6), "unknown field"),
    (ROW, lambda e: e.update({"z" * 10**6: 1}), "unknown field 'zzz"),
    (ROW, lambda e: e.update(subject="conv_2d;float32;in=" + "x" * 10**6), "expected kind"),
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
    (NET, lambda e: e.update(measurement=3), "measurement is 3, not an object"),
    (NET, lambda e: e["measurement"].update(attempt=2), "has no attempt before it"),
    (NET, lambda e: e["measurement"].update(samples_ns=[0] * 3), "not above 0"),
    (NET, lambda e: e["measurement"].update(beside="a"), "field 'beside_ns' is missing"),
    (NET, lambda e: e["measurement"].update(beside="a", beside_ns=[5, 5]), "3 samples beside 2 of 'a'"),
    (NET, lambda e: e["measurement"].update(beside="a", beside_ns=[]), "3 samples beside 0 of 'a'"),
    (NET, lambda e: e["measurement"].update(beside="a", beside_ns=[0]), "not above 0"),
    (NET, lambda e: e["measurement"].update(beside=7, beside_ns=[5]), "3 samples beside 1 of 7"),
    (ROW, lambda e: e.update(beside="a"), "field 'beside_ns' is missing"),
    (ROW, lambda e: e.update(beside="a", beside_ns=[5, 5]), "3 samples beside 2 of 'a'"),
    (CAL, lambda e: e.update(dtype="float64"), "float64"),
    (CAL, lambda e: e.update({FLOAT: "0.9"}), "something else than numbers"),
    (CAL, lambda e: e.update({FLOAT: True}), "something else than numbers"),
    (CAL, lambda e: e.update({FLOAT: 10**400}), "not finite"),
    (CAL, lambda e: e.update({FLOAT: nested(9)}), "something else than numbers"),
    (CAL, lambda e: e.update(fetch_gb_per_s=-1.0), r"fetch_gb_per_s is -1.0, not 0 or 0.001 to 1e\+06"),
    (CAL, lambda e: e.update(fetch_gb_per_s=1e-9), "fetch_gb_per_s is 1e-09"),
    (CAL, lambda e: e.update(scale=-0.9), "scale is -0.9, not above 0"),
    (CAL, lambda e: e.update(scale=0), "scale is 0.0, not above 0"),
    (CAL, lambda e: e.update(far_gb_per_s=-1.0, kept_ms=1.0), r"far_gb_per_s is -1.0, not 0 or 0.001 to 1e\+06"),
    (CAL, lambda e: e.update(fetch_gb_per_s=2.0, far_gb_per_s=3.0, kept_ms=1.0), "far_gb_per_s is 3.0, above"),
    (CAL, lambda e: e.update(fetch_gb_per_s=4.0, far_gb_per_s=3.0, kept_ms=0.0), "kept_ms is 0.0 at far_gb_per_s 3.0"),
    (CAL, lambda e: e.update(far_gb_per_s=0.3, kept_ms=1e-9), "kept_ms is 1e-09, not 0 or 0.001"),
    (CAL, lambda e: e.update(far_gb_per_s=0.0, kept_ms=2.0), "kept_ms is 2.0 at far_gb_per_s 0.0"),
    (CAL, lambda e: e.update(kept_mb=-0.5), "kept_mb is -0.5, not 0 or more"),
]


def nested(depth: int) -> list[object]:
    """Nest lists so deep."""
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("number", "edit", "reason"), WRONG_LINES)
def test_a_wrong_line_is_refused_with_its_number_and_reason(
    path: Path, version: int, number: int, edit: Edit, reason: str
) -> None:
    """Loading and opening name the line and what is wrong with it, and do not touch the file, whatever its checksum."""
    if version == 2:
        older(path)
    rewrite(path, number, edit)
    before = path.read_bytes()
    for read in (load_table, lambda path: TableFile(path, KEY)):
        with pytest.raises(FileDamaged, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}, line {number}: ")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert path.read_bytes() == before


@pytest.mark.parametrize(("edit", "reason"), [
    (lambda e: e.pop(FLOAT), f"field '{FLOAT}' is missing"),
    (lambda e: e.update(slope=1.0), "unknown field 'slope'"),
])  # fmt: skip
@pytest.mark.parametrize("version", [2, 3])
def test_a_calibration_of_other_fields_is_left_out_of_an_older_file_only(
    path: Path, edit: Edit, reason: str, version: int
) -> None:
    """How one is fitted has changed since then: its table keeps the rows and is calibrated again when completed."""
    rewrite(path, CAL, edit)
    with pytest.raises(FileDamaged, match=f"line {CAL}: {reason}"):
        load_table(path)
    older(path, version)
    contents = read_table(path)
    assert contents.table.calibrations == {"int8": CALIBRATION}
    assert len(contents.lines) == 6
    TableFile(path, KEY).add_calibration("float32", CALIBRATION)
    assert load_table(path).calibrations == {"int8": CALIBRATION, "float32": CALIBRATION}
    rewrite(path, CAL, lambda e: e.update(slope="steep"))
    with pytest.raises(FileDamaged, match="slope holds something else than numbers"):
        load_table(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize(("line", "field"), [(CAL, f'"{FLOAT}":'), (ROW, '"temperatures_c":[')])
def test_numbers_that_are_none_are_refused(path: Path, number: str, line: int, field: str) -> None:
    """NaN, Infinity and a number too large for a float are damage, also where JSON readers let them pass."""

    def change(text: str) -> str:
        before, _, after = text.partition(field)
        return before + field + number + after[after.index("]" if "[" in field else ",") :]

    replace_line(path, line, change)
    with pytest.raises(FileDamaged, match=f"line {line}: .*(is no number|not finite)"):
        load_table(path)


HEADER_EDITS: list[tuple[Edit, str]] = [
    (lambda e: e.update(version=10), "version 10 is not 1 to 9, those that this edgekd reads"),
    (lambda e: e.update(version=2), "version 2 with a checksum: it was changed"),
    (lambda e: e.update(rows=5), "unknown field 'rows'"),
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
    rewrite(path, 1, lambda header: header.update({field: "other"}))  # and all lines have the right checksums
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


# --- checksums --------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # a table is written 300 times
@settings(max_examples=300, deadline=None)
@given(position=st.floats(0, 1), flip=st.integers(1, 255))
def test_every_changed_byte_is_noticed_and_its_line_named(
    tmp_path_factory: pytest.TempPathFactory, position: float, flip: int
) -> None:
    """Whatever a byte becomes, no number of the table is read as another; at most the last line is taken for cut."""
    path = filled(tmp_path_factory.mktemp("table") / "table.jsonl").path
    whole, complete = path.read_bytes(), load_table(path)
    at = min(int(position * len(whole)), len(whole) - 1)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    number = whole[:at].count(b"\n") + 1
    if at == len(whole) - 1:
        assert load_table(path) == replace(complete, calibrations={"float32": CALIBRATION})
        return
    with pytest.raises(FileDamaged, match=f"line {number}: "):
        load_table(path)
    with pytest.raises(FileDamaged, match=f"line {number}: "):
        TableFile(path, KEY)


def test_a_digit_changed_inside_a_sample_is_noticed(path: Path) -> None:
    """The line would be right in every other way."""
    path.write_text(path.read_text().replace("1020", "1021", 1))
    with pytest.raises(FileDamaged, match="line 2: the checksum does not fit the line: it was changed, or belongs to"):
        load_table(path)


def test_a_row_of_another_key_is_noticed(path: Path, tmp_path: Path) -> None:
    """A line moved into another table does not fit its header; neither does a whole table behind another."""
    other = filled(tmp_path / "other.jsonl", replace(KEY, runtime_version="2.4.0")).path
    lines, others = path.read_text().splitlines(keepends=True), other.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], others[2], *lines[3:]]))
    with pytest.raises(FileDamaged, match=r"line 3: the checksum does not fit the line: .* belongs to another table"):
        load_table(path)
    path.write_text("".join(lines + others))
    with pytest.raises(FileDamaged, match="line 8: the checksum does not fit"):
        load_table(path)
    older(path)
    with pytest.raises(FileDamaged, match="line 8: another table begins here; join tables with: edgekd table merge"):
        load_table(path)


def test_a_line_may_be_left_out_but_not_given_twice(path: Path) -> None:
    """Every row speaks for itself, so one may be taken out to be measured again; twice it would count twice."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    assert list(TableFile(path, KEY).table.rows) == [OPS[0].key, OPS[2].key]
    path.write_text("".join(lines[:3] + lines[2:]))
    with pytest.raises(FileDamaged, match=r"line 4: attempt 1 at .* does not follow attempt 1"):
        load_table(path)


def test_a_line_without_its_checksum_is_refused(path: Path) -> None:
    """In a file of version 3 or newer every line has one, the header first."""
    lines, plain = path.read_text().splitlines(), plain_lines(path)
    path.write_text("\n".join([*lines[:3], plain[3], *lines[4:]]) + "\n")
    with pytest.raises(FileDamaged, match="line 4: the checksum does not fit"):
        load_table(path)
    path.write_text("\n".join([plain[0], *lines[1:]]) + "\n")
    for read in (load_table, lambda path: TableFile(path, KEY)):
        with pytest.raises(FileDamaged, match=r"line 1: (version 9 without a checksum|the header has no checksum)"):
            read(path)


def test_a_name_that_makes_a_line_end_like_a_checksum_is_refused(path: Path) -> None:
    """The bytes at the end are right, but the field is another."""
    header, row, *_ = path.read_bytes().splitlines()
    body = row[: row.rindex(b'"crc"')] + b'"x' + b"\\"
    crc = zlib.crc32(body, zlib.crc32(header))
    path.write_bytes(header + b"\n" + body + b'"crc":"%08x"}\n' % crc)
    with pytest.raises(FileDamaged, match="line 2: unknown field 'x\"crc'"):
        load_table(path)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7])
def test_an_older_file_reads_as_before_and_goes_on_in_its_version(path: Path, version: int) -> None:
    """Rows are added with or without checksums as before, so the edgekd that began it can still read them."""
    complete = load_table(path)
    older(path, version)
    assert load_table(path) == complete
    before = path.read_bytes()
    file = TableFile(path, KEY)
    assert file.table == complete
    assert path.read_bytes() == before
    file.add_row(measurement(conv(24).key))
    assert load_table(path) == file.table
    assert (b"crc" in path.read_bytes()) == (version >= 3)
    assert read_table(path).version == version
    file.close()
    with pytest.raises(OtherSettings, match="was begun with"):
        TableFile(path, replace(KEY, threads=4))


def test_a_whole_table_is_spelled_as_if_its_lines_had_been_appended(path: Path) -> None:
    """Text made at once and a file grown line by line are the same bytes."""
    contents = read_table(path)
    assert table_text(KEY, contents.lines) == path.read_text()


def test_a_network_does_not_change_its_operators_between_attempts(path: Path) -> None:
    """A second attempt is at the same network, and of the same source."""
    file = TableFile(path, KEY)
    again = replace(NETWORK, measurement=measurement("network:a", attempt=2))
    with pytest.raises(ValueError, match="other operators than before"):
        file.add_network(replace(again, op_keys=(OPS[0].key,)))
    with pytest.raises(ValueError, match="is measured before and simulated here"):
        file.add_network(replace(again, measurement=replace(again.measurement, source="simulated")))


def test_a_table_counts_what_was_not_measured() -> None:
    """Rows and networks by source; a measured table has none."""
    rows = {source: measurement("x", source=source) for source in ("measured", "simulated", "imported:z")}
    assert LatencyTable(KEY, rows).unmeasured == {"simulated": 1, "imported:z": 1}
    assert LatencyTable(KEY, {"m": measurement("m")}, {"network:a": NETWORK}).unmeasured == {}


@pytest.mark.slow  # 1,000 rows are written, and read under a profiler
def test_a_large_table_is_read_in_a_time_that_grows_with_its_size(tmp_path: Path) -> None:
    """Checking 1,000 rows of 64 samples costs few function calls a row: the samples are looked at in C."""
    rng = random.Random(1)
    path = tmp_path / "large.jsonl"
    file = TableFile(path, KEY)
    for channels in range(1, 1001):
        samples = tuple(rng.randrange(1000, 2000) for _ in range(32))
        file.add_row(measurement(conv(channels).key, samples_ns=samples, wall_samples_ns=samples))
    profile = cProfile.Profile()
    assert len(profile.runcall(load_table, path).rows) == 1000
    assert pstats.Stats(profile).total_calls < 1000 * 120  # type: ignore[attr-defined]  # typeshed does not know it


# --- one writer at a time ---------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from table_files import KEY
from latency_tables.store import TableFile
held = TableFile(Path(sys.argv[1]), KEY)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_table_has_one_writer_and_any_readers(path: Path) -> None:
    """A second writer is told so in one line and changes nothing; closed, or forgotten, the file is free again."""
    file = TableFile(path, KEY)
    before = path.read_bytes()
    with pytest.raises(TableHeld, match="is being added to by another edgekd; wait for it to end"):
        TableFile(path, KEY)
    assert path.read_bytes() == before
    assert load_table(path) == file.table
    file.close()
    file.close()
    with pytest.raises(ValueError, match="was closed; open it again"):
        file.add_row(measurement(conv(24).key))
    second = TableFile(path, KEY)
    second.add_row(measurement(conv(24).key))
    del second
    assert conv(24).key in TableFile(path, KEY).table.rows


def test_a_table_that_could_not_be_opened_is_not_held(path: Path) -> None:
    """Also while the error, whose traceback knows the half-made object, is looked at."""
    with pytest.raises(OtherSettings) as caught:
        TableFile(path, replace(KEY, threads=4))
    assert TableFile(path, KEY).table == load_table(path)
    assert caught.value


@pytest.mark.whole  # starts another Python
def test_a_killed_writer_leaves_no_lock(path: Path) -> None:
    """Another process holds the file as long as it lives, and no longer."""
    paths = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"held\n"
        with pytest.raises(TableHeld):
            TableFile(path, KEY)
        writer.kill()
        writer.wait()
    assert TableFile(path, KEY).table == load_table(path)


@pytest.mark.parametrize("name", ["missing/table.jsonl", ""])
def test_a_path_that_cannot_hold_a_table_is_refused(tmp_path: Path, name: str) -> None:
    """A folder that is not there, and a folder in place of a file."""
    with pytest.raises(FileNotWritable, match="cannot write"):
        TableFile(tmp_path / name, KEY)


# --- writing ----------------------------------------------------------------------------------------------------------


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
        file.close()  # or the disk could not be taken away


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
        replace(table, calibrations=table.calibrations | {"int8": replace(CALIBRATION, **{FLOAT: 0.051})}),
    ]
    others.append(replace(table, calibrations={"int8": replace(CALIBRATION, far_gb_per_s=0.1, kept_ms=1.0)}))
    others.append(replace(table, calibrations={"int8": replace(CALIBRATION, usual_sentinel_ns=5000)}))
    others.append(replace(table, calibrations={"int8": replace(CALIBRATION, rows_at_once=12.0)}))
    others.append(replace(table, calibrations={"int8": replace(CALIBRATION, at_hand_mb=1.5)}))
    assert len({table_sha256(other) for other in [table, *others]}) == 9


def test_a_table_keeps_its_hash_when_calibrations_can_say_more() -> None:
    """A study goes on with the table of version 4 that it was begun with."""
    key, fit = KEY, "Calibration(scale=0.9, per_op_ms=-0.0002, offset_ms=0.004, heldout_mean_error=0.01, "
    fit += (
        "heldout_max_error=0.03, interval_error=0.02, networks=24.0, fixed_ms=0.0, fetch_gb_per_s=0.5, kept_mb=0.002)"
    )
    before = hashlib.sha256(repr(key).encode() + f"('int8', {fit})".encode()).hexdigest()
    assert table_sha256(LatencyTable(key, calibrations={"int8": CALIBRATION})) == before
