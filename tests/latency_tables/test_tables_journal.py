"""Journals: what is appended is kept through kills, full disks and damage, or refused with its line."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import small_disk

from latency_tables.errors import FileDamaged, FileExists, FileNotWritable, OtherSettings
from latency_tables.journal import MAX_LINE_BYTES, Journal, read_bytes, read_journal, sealed_lines, write_new

HEADER = {"format": "test", "version": 1, "name": "Zürich"}
ENTRIES: list[dict[str, Any]] = [{"n": 1, "text": "ä\n"}, {"n": 2, "list": [1.5, None, True]}, {"n": 3}]

texts = st.text(max_size=8)
whole = st.integers(-(1 << 70), 1 << 70)
leaves = st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | texts
values = leaves | st.lists(leaves, max_size=3) | st.dictionaries(texts, st.lists(leaves, max_size=2), max_size=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a journal of three entries and give its path."""
    journal = Journal(tmp_path / "journal.jsonl", HEADER)
    for entry in ENTRIES:
        journal.append(entry)
    return journal.path


def read_all(path: Path) -> list[dict[str, Any]]:
    """Read header and entries."""
    contents = read_journal(path)
    return [contents.header, *contents.entries]


@pytest.mark.whole  # tries many
@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(texts.filter(lambda name: name != "crc"), values, max_size=3), max_size=4), st.booleans()
)
def test_what_was_appended_is_read_again(entries: list[dict[str, Any]], sealed: bool) -> None:
    """Opening gives the entries in order, whatever their text holds, and opening does not change the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        journal = Journal(path, HEADER, sealed=sealed)
        for entry in entries:
            journal.append(entry)
        before = path.read_bytes()
        assert Journal(path, HEADER, sealed=sealed).entries == journal.entries == entries
        assert read_all(path) == [HEADER, *entries]
        assert path.read_bytes() == before
        if sealed:
            assert "".join(sealed_lines(HEADER, entries)).encode() == before


@pytest.mark.parametrize("sealed", [False, True])
def test_whole_numbers_of_any_size_are_read_exactly(tmp_path: Path, sealed: bool) -> None:
    """None becomes the float beside it, even one that a float could hold."""
    numbers = [(1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, (1 << 64) + 1, -(1 << 63) - 1, 10**400]
    journal = Journal(tmp_path / "journal.jsonl", HEADER, sealed=sealed)
    journal.append({"numbers": numbers})
    (found,) = read_journal(journal.path).entries
    assert found == {"numbers": numbers}
    assert set(map(type, found["numbers"])) == {int}


def test_entries_that_were_taken_are_the_takers_own(path: Path) -> None:
    """The journal knows them no longer; it goes on with those appended later, and the file holds all."""
    journal = Journal(path, HEADER)
    taken = journal.taken_entries()
    assert (taken, journal.entries) == (ENTRIES, [])
    taken[0]["n"] = "changed"
    journal.append({"n": 4})
    assert journal.entries == [{"n": 4}]
    assert Journal(path, HEADER).entries == [*ENTRIES, {"n": 4}]


@pytest.mark.whole  # tries many
def test_a_kill_costs_the_line_it_cut_and_nothing_else(path: Path) -> None:
    """Cut at every byte: whole lines are kept, the cut one is dropped, and the journal goes on as if never broken."""
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        journal = Journal(path, HEADER)
        kept = max(whole[:size].count(b"\n") - 1, 0)
        assert journal.entries == ENTRIES[:kept]
        for entry in ENTRIES[kept:]:
            journal.append(entry)
        journal.sync()
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "no JSON"),
        (b"", "no JSON"),
        (b'{"n": NaN}', "NaN is no number"),
        (b'{"n": -Infinity}', "-Infinity is no number"),
        (b"[1]", "no JSON object"),
        (b"7", "no JSON object"),
        (b'{"n": "\xff"}', "no JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"n": 1, "n": 2}', "a field is there twice"),
        (b"{}" + b" " * MAX_LINE_BYTES, "bytes are no line"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else value,
)
def test_damage_in_the_middle_is_refused_with_its_line(path: Path, line: bytes, reason: str) -> None:
    """A line that a kill cannot have left is named with its number and reason, and the file stays as it was."""
    lines = path.read_bytes().split(b"\n")
    damaged = b"\n".join([*lines[:2], line, *lines[3:]])
    path.write_bytes(damaged)
    for read in (lambda: Journal(path, HEADER), lambda: read_all(path)):
        with pytest.raises(FileDamaged, match=reason) as caught:
            read()
        assert f"{path}, line 3: " in str(caught.value)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"n":1,"n":1,', "a field is there twice"),
        ('{"n" :1,"n":2,', "a field is there twice"),
        ('{"in":{"n":1,"n":2},', "a field is there twice"),
        ('{"in":[{"n":1,"n":2}],', "a field is there twice"),
        ('{"n":NaN,', "NaN is no number"),
        ('{"n":1,"crc":"0",', "a field is there twice"),
        ('[{"n":1,', "no JSON"),
    ],
)
def test_a_checksum_that_fits_excuses_nothing(tmp_path: Path, text: str, reason: str) -> None:
    """Whoever can write a line can write its checksum as well; the line is read as strictly."""
    path = tmp_path / "sealed.jsonl"
    Journal(path, HEADER, sealed=True).append({"n": 1})
    seed = zlib.crc32(path.read_bytes().split(b"\n")[0])
    with path.open("a", encoding="utf-8") as file:
        file.write(f'{text}"crc":"{zlib.crc32(text.encode(), seed):08x}"}}\n')
    with pytest.raises(FileDamaged, match=f"line 3: .*{reason}"):
        read_all(path)


def test_every_flipped_byte_is_refused_or_stays_inside_its_entry(path: Path) -> None:
    """A flip never moves or loses another entry: it is refused by line, or changes values of its own line only."""
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    refused: list[tuple[int, str]] = []
    for position in range(start, len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x04]) + whole[position + 1 :])
        number = whole[:position].count(b"\n")
        try:
            found = Journal(path, HEADER).entries
        except FileDamaged as error:
            refused.append((number, str(error)))
        else:
            others = [entry for i, entry in enumerate(ENTRIES) if i != number - 1]
            assert all(entry in found for entry in others)
    assert all(f"line {number + 1}: " in text or f"line {number + 2}: " in text for number, text in refused)
    assert len(refused) > (len(whole) - start) / 3


def test_another_header_is_refused_by_the_setting_that_differs(path: Path) -> None:
    """The message names the setting and both values; nothing is written."""
    before = path.read_bytes()
    with pytest.raises(OtherSettings, match="begun with version 1, not 2"):
        Journal(path, HEADER | {"version": 2})
    with pytest.raises(OtherSettings, match="begun with seed None, not 3"):
        Journal(path, HEADER | {"seed": 3})
    with pytest.raises(OtherSettings, match="name 'Zürich', not None"):
        Journal(path, {"format": "test", "version": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"my notes, without a newline", b"\x00" * 20, b'{"format":"other'])
def test_a_file_of_someone_elses_is_never_emptied(tmp_path: Path, content: bytes) -> None:
    """Only the beginning of this very header counts as a journal cut in its first line."""
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(FileDamaged, match="line 1: "):
        Journal(path, HEADER)
    assert path.read_bytes() == content


def test_an_entry_that_is_no_json_is_refused_before_it_is_written(path: Path) -> None:
    """NaN and infinities never reach a file."""
    before = path.read_bytes()
    journal = Journal(path, HEADER)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append({"n": value})
    assert path.read_bytes() == before
    assert journal.entries == ENTRIES


def test_a_sealed_entry_does_not_bring_its_own_checksum(tmp_path: Path) -> None:
    """It could not be read again."""
    journal = Journal(tmp_path / "sealed.jsonl", HEADER, sealed=True)
    before = journal.path.read_bytes()
    with pytest.raises(ValueError, match="checksum's name, crc"):
        journal.append({"n": 1, "crc": "00000000"})
    assert journal.path.read_bytes() == before


def test_reading_needs_a_file_with_a_header(tmp_path: Path) -> None:
    """A missing file, a folder and an empty file are refused in words."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileDamaged, match=r"No such file|Is a directory"):
            read_journal(path)
    (tmp_path / "empty").touch()
    with pytest.raises(FileDamaged, match="there is no header"):
        read_journal(tmp_path / "empty")


def test_a_file_without_end_is_refused(path: Path) -> None:
    """A device, or a file of more bytes than any journal has."""
    with pytest.raises(FileDamaged, match="zero, line 1: more than 999 bytes"):
        read_bytes(Path("/dev/zero"), 999)
    size = path.stat().st_size
    assert len(read_bytes(path, size)) == size
    with pytest.raises(FileDamaged, match=f"line 1: more than {size - 1} bytes are no file of this kind"):
        read_bytes(path, size - 1)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message says which file could not be written and why."""
    with pytest.raises(FileNotWritable, match=r"missing/journal\.jsonl: No such file or directory"):
        Journal(tmp_path / "missing" / "journal.jsonl", HEADER)


def append_all(journal: Journal, entries: list[dict[str, str]]) -> None:
    """Append until the disk is full."""
    for entry in entries:
        journal.append(entry)


def test_what_a_kill_cut_is_told(path: Path) -> None:
    """The bytes of the last line are counted, and a file of a part of its header has no header."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    contents = read_journal(path)
    assert list(contents.entries) == ENTRIES[:-1]
    assert contents.cut_bytes == len(whole.splitlines()[-1]) + 1 - 7
    assert contents.size_bytes == len(whole) - 7
    path.write_bytes(whole[:9])
    with pytest.raises(FileDamaged, match="line 1: there is no header, only a part of a line"):
        read_journal(path)


def test_a_sealed_journal_is_not_continued_without_checksums(tmp_path: Path) -> None:
    """Nor the other way round: one file has them in all lines or in none."""
    path = tmp_path / "journal.jsonl"
    for sealed in (True, False):
        path.unlink(missing_ok=True)
        Journal(path, HEADER, sealed=sealed)
        with pytest.raises(FileDamaged, match=f"the header has {'a' if sealed else 'no'} checksum"):
            Journal(path, HEADER, sealed=not sealed)


def test_a_new_file_is_whole_and_takes_no_other_files_place(tmp_path: Path) -> None:
    """An existing file is named and left as it is, and nothing is left beside it."""
    path = tmp_path / "new"
    write_new(path, "whole")
    with pytest.raises(FileExists, match="new exists and is never overwritten; name another file"):
        write_new(path, b"other")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotWritable, match="No such file or directory"):
        write_new(tmp_path / "missing" / "new", "whole")


def test_two_writers_of_one_new_file_do_not_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that comes to the name last is refused, even if there was no such file when it began."""
    path = tmp_path / "new"
    monkeypatch.setattr(Path, "chmod", lambda self, mode: path.write_text("the other's"))  # just before the naming
    with pytest.raises(FileExists):
        write_new(path, "mine")
    assert path.read_text() == "the other's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_links_gets_the_file_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the file is renamed, if there is none of its name."""

    def refuse(*paths: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_new(tmp_path / "new", "whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("new", "whole")]


def test_a_new_file_on_a_full_disk_is_not_there(tmp_path: Path) -> None:
    """The message says why, and no part of it stays."""
    with small_disk(tmp_path / "disk", 4 * 4096) as disk:
        with pytest.raises(FileNotWritable, match="No space left on device"):
            write_new(disk / "new", bytes(1 << 20))
        assert list(disk.iterdir()) == []


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """On a real full file system the append fails in words, the file is as before, and goes on once there is space."""
    with small_disk(tmp_path / "disk", 16 * 4096) as disk:
        journal = Journal(disk / "journal.jsonl", HEADER)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(13 * 4096))
        entries = [{"text": f"{number} " + "x" * 700} for number in range(100)]
        with pytest.raises(FileNotWritable, match="No space left on device; what was there before is unchanged"):
            append_all(journal, entries)
        appended = entries[: len(journal.entries)]
        assert 2 < len(appended) < 100
        assert journal.path.read_bytes().endswith(b"}\n")
        assert Journal(journal.path, HEADER).entries == journal.entries == appended
        ballast.unlink()
        journal.append({"n": 1})
        assert Journal(journal.path, HEADER).entries == [*appended, {"n": 1}]


_LIMITED = """
import json, resource, sys
from pathlib import Path
from latency_tables.errors import FileNotWritable
from latency_tables.journal import Journal
path = Path(sys.argv[1])
journal = Journal(path, json.loads(sys.argv[2]))
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10,) * 2)
try:
    journal.append({"text": "x" * 100})
except FileNotWritable as error:
    print(error)
assert path.read_bytes() == before
assert journal.entries == Journal(path, journal.header).entries
"""


def test_a_write_that_ends_in_mid_line_is_taken_back(path: Path) -> None:
    """Where the system takes only ten bytes of a line, they are removed again."""
    before = path.read_bytes()
    command = [sys.executable, "-c", _LIMITED, str(path), json.dumps(HEADER)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"cannot write {path}: " in done.stdout
    assert path.read_bytes() == before
