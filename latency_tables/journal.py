"""Append-only files of JSON lines, a header first: the form of tables and of search studies.

A line is with the operating system when `append` returns, so a killed process loses nothing; `sync` forces it to the
disk. A last line without its newline is what a kill left and is cut off on opening; damage elsewhere is refused with
its line number. What the entries mean is their owner's business (store.py).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latency_tables.errors import FileDamaged, FileNotWritable, OtherSettings

MAX_LINE_BYTES = 4 << 20  # a longer line is damage, not data

Entry = dict[str, Any]


class Journal:
    """One file of entries. `header` says what it is; a file begun with another header is refused."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open or begin a journal.

        Raises:
            FileDamaged: a line cannot be read.
            OtherSettings: the file begins with another header.
            FileNotWritable: the file cannot be written.

        """
        self.path = path
        self.header: Entry = json.loads(to_line(header))
        self.entries: list[Entry] = []
        whole = _read(path) if path.exists() else b""
        content = _whole_lines(whole)
        lines = list(_parse(path, content))
        if not lines:
            _check_cut_header(path, whole, self.header)
            self._write(self.header, truncate_to=0)
            return
        _check_header(path, lines[0], self.header)
        self.entries = lines[1:]
        self._truncate(len(content))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one entry.

        Raises:
            FileNotWritable: the disk is full, say; the file is as it was before.

        """
        self._write(entry)
        self.entries.append(dict(entry))

    def sync(self) -> None:
        """Force everything appended so far to the disk."""
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise FileNotWritable(self.path, error) from error

    def _write(self, entry: Mapping[str, Any], truncate_to: int | None = None) -> None:
        line = to_line(entry).encode() + b"\n"
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


def read_journal(path: Path) -> list[Entry]:
    """Read a journal without opening it for writing: header first, then entries.

    Raises:
        FileDamaged: it is missing, empty, or a line cannot be read.

    """
    lines = list(_parse(path, _whole_lines(_read(path))))
    if not lines:
        raise FileDamaged(path, 1, "there is no header")
    return lines


def _check_header(path: Path, found: Entry, wanted: Entry) -> None:
    for key in [*wanted, *found]:
        if found.get(key) != wanted.get(key):
            raise OtherSettings(path, key, found.get(key), wanted.get(key))


def _check_cut_header(path: Path, content: bytes, header: Entry) -> None:
    """See that a file without a whole line is what a kill left of this header, not a file of someone else's."""
    if not to_line(header).encode().startswith(content):
        raise FileDamaged(path, 1, "there is no whole line, and no beginning of this file's header either")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileDamaged(path, 1, error.strerror or str(error)) from error


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _parse(path: Path, content: bytes) -> Iterator[Entry]:
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        if len(line) > MAX_LINE_BYTES:
            raise FileDamaged(path, number, f"{len(line)} bytes are no line of this format")
        try:
            entry = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise FileDamaged(path, number, f"no JSON ({error})") from error
        if not isinstance(entry, dict):
            raise FileDamaged(path, number, "no JSON object")
        yield entry


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
