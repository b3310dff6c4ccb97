"""Append-only files of JSON lines, a header first: the form of tables and of search studies.

A line is with the operating system when `append` returns, so a killed process loses nothing; `sync` forces it to the
disk. A last line without its newline is what a kill left and is cut off on opening; damage elsewhere is refused with
its line number. The lines of a sealed file end with a checksum over themselves and the file's header, so that a
changed digit and a line from another file are noticed; lines may still be left out. What the entries mean is their
owner's business (store.py).
"""

from __future__ import annotations

import errno
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from latency_tables.beside import written_beside
from latency_tables.errors import FileDamaged, FileExists, FileNotWritable, OtherSettings

MAX_LINE_BYTES = 4 << 20  # a longer line is damage, not data
MAX_BYTES = 512 << 20  # half a million rows
_SEAL = b'"crc":"'  # then eight hexadecimal digits, and `"}` ends the line
_SEAL_BYTES = len(_SEAL) + 10
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # as FAT says it

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal's file holds."""

    header: Entry
    entries: Iterator[Entry]  # those of line 2 and on; each is read and checked when it is asked for
    sealed: bool
    cut_bytes: int  # of a last line that a kill cut; it is in no entry
    size_bytes: int


class Journal:
    """One file of entries. `header` says what it is; a file begun with another header is refused."""

    def __init__(self, path: Path, header: Mapping[str, Any], *, sealed: bool = False) -> None:
        """Open or begin a journal.

        Raises:
            FileDamaged: a line cannot be read.
            OtherSettings: the file begins with another header.
            FileNotWritable: the file cannot be written.

        """
        self.path = path
        self.header: Entry = json.loads(to_line(header))
        self.entries: list[Entry] = []
        first = _sealed(to_line(header)) if sealed else to_line(header)
        self._seed = zlib.crc32(first.encode()) if sealed else None
        whole = read_bytes(path) if path.exists() else b""
        content = _whole_lines(whole)
        if not content:
            _check_cut_header(path, whole, first)
            self._write(first, truncate_to=0)
            return
        found = _contents(path, whole)
        if found.sealed != sealed and found.header.items() >= self.header.items():
            raise FileDamaged(path, 1, f"the header has {'a' if found.sealed else 'no'} checksum")
        _check_header(path, found.header, self.header)
        self.entries = list(found.entries)
        self._truncate(len(content))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one entry.

        Raises:
            FileNotWritable: the disk is full, say; the file is as it was before.

        """
        line = to_line(entry)
        if self._seed is not None and "crc" in entry:
            raise ValueError("an entry cannot have a field of the checksum's name, crc")
        self._write(line if self._seed is None else _sealed(line, self._seed))
        self.entries.append(dict(entry))

    def taken_entries(self) -> list[Entry]:
        """Give the entries away, to be changed at will: the journal keeps only those appended from then on."""
        taken, self.entries = self.entries, []
        return taken

    def sync(self) -> None:
        """Force everything appended so far to the disk."""
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise FileNotWritable(self.path, error) from error

    def _write(self, text: str, truncate_to: int | None = None) -> None:
        line = text.encode() + b"\n"
        try:
            with self.path.open("ab", buffering=0) as file:
                if truncate_to is not None:
                    file.truncate(truncate_to)
                start = file.seek(0, os.SEEK_END)
                if file.write(line) != len(line):  # the disk filled up in mid-line
                    file.truncate(start)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 - mapped just below
        except OSError as error:
            raise FileNotWritable(self.path, error) from error

    def _truncate(self, size: int) -> None:
        if self.path.stat().st_size == size:
            return
        try:
            os.truncate(self.path, size)
        except OSError as error:
            raise FileNotWritable(self.path, error) from error


def to_line(entry: Mapping[str, Any]) -> str:
    """Spell a JSON object on one line; NaN and infinities are refused with ValueError."""
    return json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def sealed_lines(header: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Spell a whole sealed journal, each line with its newline."""
    first = _sealed(to_line(header))
    yield first + "\n"
    seed = zlib.crc32(first.encode())
    for entry in entries:
        yield _sealed(to_line(entry), seed) + "\n"


def read_journal(path: Path) -> Contents:
    """Read a journal without opening it for writing.

    Raises:
        FileDamaged: it is missing, empty, or a line cannot be read; for lines after the header, while they are read.

    """
    return _contents(path, read_bytes(path))


def read_header(path: Path) -> Entry | None:
    """Read the first line alone, without its checksum; None where there is no file, or no whole line in it yet.

    Raises:
        FileDamaged: it cannot be read.

    """
    try:
        with path.open("rb") as file:
            line = file.readline(MAX_LINE_BYTES + 2)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileDamaged(path, 0, error.strerror or str(error)) from error
    if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
        return None
    return _parse(path, 1, line.rstrip(b"\n"), 0 if _is_sealed(line.rstrip(b"\n")) else None)


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """Read a file of at most so many bytes.

    Raises:
        FileDamaged: it is missing, cannot be read, or is longer, maybe without end, as a device is.

    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise FileDamaged(path, 0, error.strerror or str(error)) from error
    if len(content) > most:
        raise FileDamaged(path, 1, f"more than {most} bytes are no file of this kind")
    return content


def read_object(line: bytes | str) -> Entry:
    """Read a JSON object strictly: no NaN or infinity, no name twice.

    Raises:
        ValueError: the line is something else, or nested too deep.

    """
    try:
        text = line.decode() if isinstance(line, bytes) else line
        entry, end = _DECODER.raw_decode(text) if text.startswith("{") else (None, 0)  # sooner done than decode
        if end != len(text):
            entry = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error
    if not isinstance(entry, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - one error for whatever a file may hold
    return entry


def write_new(path: Path, content: bytes | str) -> None:
    """Write a whole file beside, force it to the disk and name it: at every moment there is no such file or all of it.

    Raises:
        FileExists: there is a file of that name; it is left as it is.
        FileNotWritable: the disk is full, the folder is missing or not writable.

    """
    if path.exists():
        raise FileExists(path)  # sooner than after the writing
    try:
        with written_beside(path, [content.encode() if isinstance(content, str) else content]) as temporary:
            _name(temporary, path)
    except FileExistsError as error:
        raise FileExists(path) from error
    except OSError as error:
        raise FileNotWritable(path, error) from error


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name; unlike a rename, a link refuses to replace another file."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS or path.exists():
            raise
        temporary.rename(path)


def _sealed(line: str, seed: int = 0) -> str:
    body = line[:-1] + ("" if line == "{}" else ",")
    return f'{body}{_SEAL.decode()}{zlib.crc32(body.encode(), seed):08x}"}}'


def _is_sealed(line: bytes) -> bool:
    return line[-_SEAL_BYTES:].startswith(_SEAL)


def _check_header(path: Path, found: Entry, wanted: Entry) -> None:
    for key in [*wanted, *found]:
        if found.get(key) != wanted.get(key):
            raise OtherSettings(path, key, found.get(key), wanted.get(key))


def _check_cut_header(path: Path, content: bytes, header: str) -> None:
    """See that a file without a whole line is what a kill left of this header, not a file of someone else's."""
    if not header.encode().startswith(content):
        raise FileDamaged(path, 1, "there is no whole line, and no beginning of this file's header either")


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _contents(path: Path, whole: bytes) -> Contents:
    content = _whole_lines(whole)
    lines = io.BytesIO(content)  # gives a line at a time: all at once would leave the processor's caches
    first = lines.readline()[:-1]
    if not content:
        raise FileDamaged(path, 1, "there is no header" + (", only a part of a line" if whole else ""))
    sealed = _is_sealed(first)
    header = _parse(path, 1, first, 0 if sealed else None)
    entries = _entries(path, lines, zlib.crc32(first) if sealed else None)
    return Contents(header, entries, sealed, len(whole) - len(content), len(whole))


def _entries(path: Path, lines: Iterable[bytes], seed: int | None) -> Iterator[Entry]:
    """Read the lines after the header."""
    for number, whole in enumerate(lines, 2):
        line = whole[:-1]
        found = _quickly(line, seed) if seed is not None else None
        yield _parse(path, number, line, seed) if found is None else found


def _quickly(line: bytes, seed: int) -> Entry | None:
    """Read a sealed line in a third of the time; None where anything is not as usual, and _parse is to tell.

    Usual is a line that is spelled again byte by byte: no name is there twice then, and no number lost a digit.
    """
    if len(line) > MAX_LINE_BYTES or not _fits(line, seed):
        return None
    try:
        entry = orjson.loads(line)
        if type(entry) is not dict or orjson.dumps(entry) != line:
            return None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # no JSON, or nested deep
        return None
    entry.pop("crc", None)
    return entry


def _fits(line: bytes, seed: int) -> bool:
    return line[-_SEAL_BYTES:] == b'%b%08x"}' % (_SEAL, zlib.crc32(line[:-_SEAL_BYTES], seed))


def _parse(path: Path, number: int, line: bytes, seed: int | None) -> Entry:
    """Read a line; with a seed, see that it is what was written, and under this very header."""
    if len(line) > MAX_LINE_BYTES:
        raise FileDamaged(path, number, f"{len(line)} bytes are no line of this format")
    if seed is not None and not _fits(line, seed):
        what = "it was changed" + (", or belongs to another table" if number > 1 else "")
        raise FileDamaged(path, number, f"the checksum does not fit the line: {what}")
    try:
        entry = read_object(line)
    except ValueError as error:
        raise FileDamaged(path, number, str(error)) from error
    if seed is not None:
        entry.pop("crc", None)  # hostile text can make the line end so within another name
    return entry


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> Entry:
    entry = dict(pairs)
    if len(entry) != len(pairs):
        raise ValueError("a field is there twice")
    return entry


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
