"""Joins tables of one key into one: every attempt of each, numbered anew, and calibrations that hold for the whole.

Measurements that two tables share, as copies of one table do, are taken once. Nothing is measured here; a calibration
is fitted again where the networks allow it (builder.py). One table alone is merged into a copy of today's version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from latency_tables.builder import fit_networks
from latency_tables.calibrate import Calibration
from latency_tables.entries import Fit, Row
from latency_tables.errors import NotMergeable, TooFewNetworks
from latency_tables.journal import write_new
from latency_tables.schema import Measurement, Network, TableKey
from latency_tables.store import LatencyTable, TableContents, read_table, table_text


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge made."""

    table: LatencyTable
    joined: int  # subjects of which more than one table had samples
    refitted: tuple[str, ...]  # dtypes whose calibration was fitted again
    uncalibrated: tuple[str, ...]  # dtypes that some table was calibrated for, but the whole is not


def merge(out: Path, paths: Sequence[Path]) -> Merged:
    """Join table files into a new one.

    Raises:
        NotMergeable: their keys differ, or they contradict each other on a subject.
        FileDamaged: one of them cannot be trusted.
        FileExists, FileNotWritable: the new one cannot be written.

    """
    contents = {path: read_table(path) for path in paths}
    key = _one_key({path: content.table.key for path, content in contents.items()})
    table, lines, joined = LatencyTable(key), list[Row | Network | Fit](), set[str]()
    for path, content in contents.items():
        before = {m.subject for m in table.measurements}
        for line in _new_lines(table, content, lines):
            _add(table, line, path)
            lines.append(line)
            joined |= {_measurement(line).subject} & before
    fits, refitted, uncalibrated = _calibrations(table, list(contents.values()))
    for dtype, fit in fits.items():
        table.add(Fit(dtype, fit))
    write_new(out, table_text(key, [*lines, *(Fit(dtype, fit) for dtype, fit in fits.items())]))
    return Merged(table, len(joined), refitted, uncalibrated)


def _one_key(keys: Mapping[Path, TableKey]) -> TableKey:
    (first, key), *others = keys.items()
    for path, other in others:
        if different := key.differences(other):
            raise NotMergeable(
                f"{first} and {path} were not measured under the same key ({'; '.join(different)}); "
                "rows of different keys are never joined"
            )
    return key


def _new_lines(
    table: LatencyTable, content: TableContents, known: Sequence[Row | Network | Fit]
) -> Sequence[Row | Network]:
    """List the measurements of a file that are not known yet, with their attempts counted on from the table's."""
    seen = {_identity(line) for line in known if not isinstance(line, Fit)}
    attempts = {m.subject: m.attempt for m in table.measurements}
    lines = []
    for line in content.lines:
        if isinstance(line, Fit) or _identity(line) in seen:
            continue
        subject = _measurement(line).subject
        attempts[subject] = attempts.get(subject, 0) + 1
        lines.append(_numbered(line, attempts[subject]))
    return lines


def _add(table: LatencyTable, line: Row | Network, path: Path) -> None:
    try:
        table.add(line)
    except ValueError as error:
        raise NotMergeable(f"{path} contradicts the tables before it: {error}; leave one of them out") from error


def _measurement(line: Row | Network) -> Measurement:
    return line.measurement


def _identity(line: Row | Network) -> Measurement:
    """Give what tells two measurements apart, whatever attempt each is in its file."""
    return replace(line.measurement, attempt=0)


def _numbered(line: Row | Network, attempt: int) -> Row | Network:
    return replace(line, measurement=replace(line.measurement, attempt=attempt))


# --- calibrations -----------------------------------------------------------------------------------------------------

_Fits = tuple[dict[str, Calibration], tuple[str, ...], tuple[str, ...]]


def _calibrations(table: LatencyTable, parts: Sequence[TableContents]) -> _Fits:
    """Give calibrations for the joined table, which were fitted again, and the dtypes that remain without.

    A calibration speaks for the rows that it was fitted to; once others joined them it must be fitted again.
    """
    fits: dict[str, Calibration] = {}
    refitted, uncalibrated = [], []
    wholes = [p.table for p in parts if (p.table.rows, p.table.networks) == (table.rows, table.networks)]
    for dtype in sorted({line.dtype for part in parts for line in part.lines if isinstance(line, Fit)}):
        whole = next((whole for whole in wholes if dtype in whole.calibrations), None)
        if whole:
            fits[dtype] = whole.calibrations[dtype]
            continue
        try:
            fits[dtype] = fit_networks(table, dtype)
            refitted.append(dtype)
        except TooFewNetworks:
            uncalibrated.append(dtype)
    return fits, tuple(refitted), tuple(uncalibrated)
