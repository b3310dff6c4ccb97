"""Tables joined: all samples of all files, once each, under one key and never over another file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CALIBRATION, KEY, conv, measurement
from table_files import NETWORK, OPS, filled, older, replace_line

from latency_tables.builder import fit_networks
from latency_tables.calibrate import MIN_NETWORKS
from latency_tables.entries import Row
from latency_tables.errors import FileDamaged, FileExists, FileNotWritable, NotMergeable
from latency_tables.merge import merge
from latency_tables.schema import Measurement, Network
from latency_tables.store import TableFile, load_table, read_table

pytestmark = pytest.mark.whole  # whole tables

times = st.lists(st.tuples(st.integers(1, 3), st.integers(1000, 9000)), max_size=6)


def write_rows(path: Path, rows: list[Measurement]) -> Path:
    """Write a table of these measurements, attempts counted as they come."""
    file = TableFile(path, KEY)
    for row in rows:
        before = file.table.rows.get(row.subject)
        file.add_row(replace(row, attempt=before.attempt + 1 if before else 1))
    return path


@settings(max_examples=50, deadline=None)
@given(st.lists(times, min_size=1, max_size=3))
def test_every_sample_of_every_table_is_in_the_whole_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, int]]]
) -> None:
    """Whatever subjects and attempts the tables share, and the result reads back as what was said of it."""
    folder = tmp_path_factory.mktemp("merge")
    paths, expected = [], Counter[tuple[str, int]]()
    for number, part in enumerate(parts):
        rows = [
            measurement(conv(channels).key, ns, started_at=f"{number} {i}") for i, (channels, ns) in enumerate(part)
        ]
        expected.update((row.subject, sample) for row in rows for sample in row.samples_ns)
        paths.append(write_rows(folder / f"{number}.jsonl", rows))
    merged = merge(folder / "out.jsonl", paths)
    whole = load_table(folder / "out.jsonl")
    assert whole == merged.table
    assert Counter((row.subject, s) for row in whole.rows.values() for s in row.samples_ns) == expected
    shared = Counter(subject for part in parts for subject in {channels for channels, _ in part})
    assert merged.joined == sum(count > 1 for count in shared.values())


def test_what_two_tables_share_is_taken_once(tmp_path: Path) -> None:
    """A copy that went on has the first part of its rows from the other: those do not count twice."""
    first = filled(tmp_path / "a.jsonl").path
    copy = tmp_path / "b.jsonl"
    copy.write_bytes(first.read_bytes())
    file = TableFile(copy, KEY)
    file.add_row(measurement(OPS[0].key, 900, attempt=2))
    for paths in ([first, copy], [copy, first], [copy, copy]):
        out = tmp_path / "out.jsonl"
        merge(out, paths)
        assert load_table(out).rows == load_table(copy).rows
        out.unlink()


def test_attempts_are_counted_on_and_disturbed_ones_give_way(tmp_path: Path) -> None:
    """A throttled attempt of one table loses its samples to another table's that was not, as within one table."""
    op = conv().key
    a = write_rows(tmp_path / "a.jsonl", [measurement(op, 5000, flags=("throttled",))])
    b = write_rows(tmp_path / "b.jsonl", [measurement(op, 1000), measurement(op, 1001)])
    row = merge(tmp_path / "out.jsonl", [a, b]).table.rows[op]
    assert (row.attempt, row.quiet_ms, len(row.samples_ns), row.flags) == (3, 0.001, 6, ())
    lines = read_table(tmp_path / "out.jsonl").lines
    assert [line.measurement.attempt for line in lines if isinstance(line, Row)] == [1, 2, 3]


def test_tables_of_two_keys_are_never_joined(tmp_path: Path) -> None:
    """The message names the files and what differs; nothing is written."""
    a = filled(tmp_path / "a.jsonl").path
    b = filled(tmp_path / "b.jsonl", replace(KEY, runtime_version="2.4.0", threads=4)).path
    with pytest.raises(
        NotMergeable, match=r"a\.jsonl and .*b\.jsonl .* key \(runtime_version: '2\.3\.0' / '2\.4\.0'; thr"
    ):
        merge(tmp_path / "out.jsonl", [a, b])
    assert not (tmp_path / "out.jsonl").exists()


def test_tables_that_contradict_each_other_are_not_joined(tmp_path: Path) -> None:
    """A subject of two sources, or a network of other operators."""
    op = conv().key
    a = write_rows(tmp_path / "a.jsonl", [measurement(op)])
    b = write_rows(tmp_path / "b.jsonl", [measurement(op, source="simulated")])
    with pytest.raises(NotMergeable, match=r"b\.jsonl contradicts .* is measured before and simulated here; leave one"):
        merge(tmp_path / "out.jsonl", [a, b])
    for name, keys in (("c", OPS[:1]), ("d", OPS[1:2])):
        file = TableFile(tmp_path / f"{name}.jsonl", KEY)
        changed = measurement("network:a", started_at=name)
        file.add_network(replace(NETWORK, op_keys=tuple(op.key for op in keys), measurement=changed))
    with pytest.raises(NotMergeable, match="network:a has another dtype or other operators than before"):
        merge(tmp_path / "out.jsonl", [tmp_path / "c.jsonl", tmp_path / "d.jsonl"])


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    """Nor is one of the tables themselves, and a folder that is not there is named."""
    a = filled(tmp_path / "a.jsonl").path
    before = a.read_bytes()
    with pytest.raises(FileExists, match="never overwritten"):
        merge(a, [a, a])
    assert a.read_bytes() == before
    with pytest.raises(FileNotWritable):
        merge(tmp_path / "missing" / "out.jsonl", [a])


def test_a_damaged_part_is_refused_with_its_line(tmp_path: Path) -> None:
    """Nothing is joined then."""
    a, b = filled(tmp_path / "a.jsonl").path, filled(tmp_path / "b.jsonl").path
    b.write_text(b.read_text().replace("2020", "2021", 1))
    with pytest.raises(FileDamaged, match=r"b\.jsonl, line 3: "):
        merge(tmp_path / "out.jsonl", [a, b])


def test_one_table_alone_becomes_a_copy_of_todays_version(tmp_path: Path) -> None:
    """An older file gets its checksums this way; its calibration speaks for the same rows still."""
    a = filled(tmp_path / "a.jsonl").path
    sealed, table = a.read_bytes(), load_table(a)
    older(a)
    merged = merge(tmp_path / "out.jsonl", [a])
    assert (tmp_path / "out.jsonl").read_bytes() == sealed
    assert merged.table == table
    assert (merged.joined, merged.refitted, merged.uncalibrated) == (0, (), ())


def calibrated(path: Path, seed: int) -> Path:
    """Write a table of enough networks to calibrate on, with a calibration."""
    file = TableFile(path, KEY)
    for channels in range(1, 5):
        file.add_row(measurement(conv(channels).key, 1000 * channels + seed))
    for number in range(MIN_NETWORKS + 4):
        keys = tuple(conv(1 + (number >> bit) % 4).key for bit in range(2 + number % 3))
        ns = sum(file.table.rows[key].samples_ns[1] for key in keys) + 17 * number + seed
        file.add_network(Network(f"network:{number}", "float32", keys, measurement(f"network:{number}", ns)))
    file.add_calibration("float32", CALIBRATION)
    return path


def test_a_calibration_is_fitted_again_to_joined_rows(tmp_path: Path) -> None:
    """The old ones speak for a part of them; where there are too few networks none is kept, and that is told."""
    a, b = calibrated(tmp_path / "a.jsonl", 0), calibrated(tmp_path / "b.jsonl", 3)
    merged = merge(tmp_path / "out.jsonl", [a, b])
    assert (merged.refitted, merged.uncalibrated) == (("float32",), ())
    assert load_table(tmp_path / "out.jsonl").calibrations == {"float32": fit_networks(merged.table, "float32")}
    c = filled(tmp_path / "c.jsonl").path
    d = write_rows(tmp_path / "d.jsonl", [measurement(conv(99).key)])
    few = merge(tmp_path / "few.jsonl", [c, d])
    assert (few.refitted, few.uncalibrated, few.table.calibrations) == ((), ("float32", "int8"), {})


def test_a_cut_last_line_stays_behind(tmp_path: Path) -> None:
    """What a kill left of a row is no row; the file itself is not touched."""
    a = filled(tmp_path / "a.jsonl").path
    replace_line(a, 4, lambda line: line)
    a.write_bytes(a.read_bytes()[:-5])
    before = a.read_bytes()
    assert list(merge(tmp_path / "out.jsonl", [a]).table.calibrations) == ["float32"]
    assert a.read_bytes() == before
