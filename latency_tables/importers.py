"""Reads other tools' latency tables into one of ours, every row with the source it is cited by.

ofa-yaml: ProxylessNAS's and Once-for-All's mapping of block name → {count, mean (ms), var}. fbnet: the lookup table
of facebookresearch/mobile-vision (runtime_lut), one JSON object a line with op_type, op_args, input_shapes,
input_dtypes, runtime_us_p0, _p10, _p50, _p90, _p100 and device; the p50 counts, as for its own reader, and further
records of one operator are further attempts. csv: a header line with at least key and mean_ms, as exporters.py writes
it; keys are OpSpec keys. No raw samples come with any of them: a row has one sample, the mean to the nanosecond.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency_tables.entries import IMPORTED, MAX_NS, Row, check_source
from latency_tables.errors import FileDamaged, OpSyntaxError
from latency_tables.foreign import fbnet_op, ofa_op
from latency_tables.journal import read_bytes, read_object, write_new
from latency_tables.op_spec import OpSpec
from latency_tables.schema import Measurement, TableKey
from latency_tables.store import LatencyTable, table_text

_MAX_BYTES = 64 << 20  # the public ones are below ten megabytes
ENGINE = "imported"  # in the key, so that an imported table never answers for what we measure ourselves


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a foreign table comes from and what it was measured on, as its user says."""

    citation: str
    key: TableKey
    dtype: str = "float32"  # of an ofa-yaml file's blocks, which do not say it


@dataclass(frozen=True, slots=True)
class _Record:
    """One foreign row, and the line it is on."""

    line: int
    op: OpSpec
    mean_ms: float
    count: int  # inferences that the mean is of


def import_table(path: Path, form: str, provenance: Provenance, out: Path) -> LatencyTable:
    """Write a foreign file's rows into a new table file.

    Raises:
        FileDamaged: a line of the foreign file cannot be trusted.
        FileExists, FileNotWritable: the table cannot be written.
        ModuleNotFoundError: PyYAML is not installed, for ofa-yaml.

    """
    table = LatencyTable(provenance.key)
    rows = []
    for record in READERS[form](path, provenance.dtype):
        try:
            row = Row(_measurement(record, provenance.citation, table))
            table.add(row)
        except ValueError as error:
            raise FileDamaged(path, record.line, str(error)) from error
        if row.measurement.attempt > 1 and form != "fbnet":
            raise FileDamaged(path, record.line, f"{row.measurement.subject[:200]} is there twice")
        rows.append(row)
    if not rows:
        raise FileDamaged(path, 1, "there are no rows")
    write_new(out, table_text(provenance.key, rows))
    return table


def _measurement(record: _Record, citation: str, table: LatencyTable) -> Measurement:
    if not math.isfinite(record.mean_ms) or not 1 <= record.mean_ms * 1e6 <= MAX_NS:
        raise ValueError(f"a mean of {record.mean_ms} ms is not from 1 ns to {MAX_NS} ns")
    if not 1 <= record.count <= MAX_NS:
        raise ValueError(f"a count of {record.count} is not from 1 to {MAX_NS}")
    source = IMPORTED + citation
    check_source(source)
    samples_ns = (round(record.mean_ms * 1e6),)
    before = table.rows.get(record.op.key)
    return Measurement(
        subject=record.op.key,
        samples_ns=samples_ns,
        wall_samples_ns=samples_ns,
        inferences_per_sample=record.count,
        warmup_ns=0,
        init_ns=0,
        started_at="",
        attempt=before.attempt + 1 if before else 1,
        source=source,
    )


def _read_text(path: Path) -> str:
    content = read_bytes(path, _MAX_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FileDamaged(path, line, "a byte is not of UTF-8") from error


# --- ProxylessNAS and Once-for-All ------------------------------------------------------------------------------------


def _read_ofa(path: Path, dtype: str) -> Iterator[_Record]:
    """Read the mapping event by event: no object is made of what a file asks for, and no depth is followed."""
    events = _events(path, _read_text(path))
    for wanted in ("StreamStartEvent", "DocumentStartEvent"):
        _next(path, events, wanted)
    for name, line in _names(path, events):
        found = {key: _yaml_number(path, events) for key, _ in _names(path, events)}
        if "mean" not in found or not found.keys() <= {"count", "mean", "var"}:
            raise FileDamaged(path, line, "a block must have mean, and may have count and var")
        count = found.get("count", 1.0)
        try:
            op = ofa_op(name, dtype)
        except (ValueError, OpSyntaxError) as error:
            raise FileDamaged(path, line, str(error)) from error
        yield _Record(line, op, found["mean"], int(count) if count.is_integer() else 0)
    for wanted in ("DocumentEndEvent", "StreamEndEvent"):
        _next(path, events, wanted)


def _events(path: Path, text: str) -> Iterator[Any]:
    import yaml

    try:
        yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or type(error).__name__
        raise FileDamaged(path, mark.line + 1 if mark else 1, f"no YAML ({str(reason)[:200]})") from error


def _next(path: Path, events: Iterator[Any], *wanted: str) -> Any:
    """Give the next event, which must be of a wanted class and plain: neither an alias nor of a type of its own."""
    event = next(events)
    if type(event).__name__ not in wanted or getattr(event, "tag", None):
        raise FileDamaged(path, event.start_mark.line + 1, "this is not a mapping of names to {count, mean, var}")
    return event


def _names(path: Path, events: Iterator[Any]) -> Iterator[tuple[str, int]]:
    """Give a mapping's names and their lines; whoever asks for the next has taken the value from the events."""
    _next(path, events, "MappingStartEvent")
    seen: set[str] = set()
    while hasattr(event := _next(path, events, "ScalarEvent", "MappingEndEvent"), "value"):
        line = event.start_mark.line + 1
        if event.value in seen:
            raise FileDamaged(path, line, f"{event.value[:200]!r} is there twice")
        seen.add(event.value)
        yield event.value, line


def _yaml_number(path: Path, events: Iterator[Any]) -> float:
    event = _next(path, events, "ScalarEvent")
    try:
        return _number(event.value)
    except ValueError as error:
        raise FileDamaged(path, event.start_mark.line + 1, str(error)) from error


_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


def _number(text: str) -> float:
    """Read a decimal number. Raises ValueError for all else, infinities and NaN included."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a number")
    return _finite(float(text))


def _finite(value: object) -> float:
    """Take a number of JSON. Raises ValueError for all else, infinities included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:80]!r} is not a number")  # noqa: TRY004 - one error for whatever a file may hold
    if not abs(value) <= MAX_NS:  # also of an integer of hundreds of digits, which no float can be
        raise ValueError(f"{str(value)[:80]} is not a finite number up to {MAX_NS}")
    return float(value)


# --- FBNet ------------------------------------------------------------------------------------------------------------

_NEEDED = ("op_type", "op_args", "input_shapes", "input_dtypes", "runtime_us_p50")
_KNOWN = {*_NEEDED, "runtime_us_p0", "runtime_us_p10", "runtime_us_p90", "runtime_us_p100", "device"}


def _read_fbnet(path: Path, _dtype: str) -> Iterator[_Record]:
    device = None
    for line, text in enumerate(_read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            record = read_object(text)
            _check_names(record)
            device = _same_device(device, record.get("device", ""))
            yield _Record(line, fbnet_op(record), _finite(record["runtime_us_p50"]) / 1e3, 1)
        except (ValueError, OpSyntaxError) as error:
            raise FileDamaged(path, line, str(error)) from error


def _check_names(record: dict[str, Any]) -> None:
    if missing := [name for name in _NEEDED if name not in record]:
        raise ValueError(f"field {missing[0]!r} is missing")
    if unknown := sorted(record.keys() - _KNOWN):
        raise ValueError(f"unknown field {unknown[0][:80]!r}")


def _same_device(before: str | None, device: object) -> str:
    if not isinstance(device, str) or before not in (None, device):
        raise ValueError(f"device {str(device)[:80]!r} is not that of the first row; a table is of one device")
    return device


# --- CSV --------------------------------------------------------------------------------------------------------------

CSV_COLUMNS = (
    *("key", "mean_ms", "median_ms", "min_ms", "max_ms", "samples", "inferences", "attempts"),
    *("started_at", "source", "flags"),
)


def _read_csv(path: Path, _dtype: str) -> Iterator[_Record]:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        if not {"key", "mean_ms"} <= set(header) <= set(CSV_COLUMNS) or len(set(header)) != len(header):
            raise FileDamaged(
                path, 1, f"the first line must name key and mean_ms, and may name {', '.join(CSV_COLUMNS)}"
            )
        for cells in reader:
            if len(cells) != len(header):
                raise FileDamaged(path, reader.line_num, f"{len(cells)} cells and {len(header)} columns")
            row = dict(zip(header, cells, strict=True))
            count = _number(row.get("inferences") or "1")
            op = OpSpec.parse(row["key"])
            yield _Record(reader.line_num, op, _number(row["mean_ms"]), int(count) if count.is_integer() else 0)
    except (csv.Error, ValueError, OpSyntaxError) as error:
        raise FileDamaged(path, reader.line_num, str(error)) from error


READERS: dict[str, Callable[[Path, str], Iterator[_Record]]] = {
    "ofa-yaml": _read_ofa,
    "fbnet": _read_fbnet,
    "csv": _read_csv,
}
