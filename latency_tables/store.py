"""Keeps a latency table in one text file: header with the key, then rows, networks and calibrations as measured.

Everything read is checked; a wrong line is refused with its number. Measuring is builder.py, predicting predictor.py.

Format history: 1, the first (2026); 2, the key names the engine, which was always "python" before (2026).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from latency_tables.calibrate import Calibration
from latency_tables.errors import FileDamaged, OpSyntaxError
from latency_tables.journal import Journal, read_journal
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.schema import Measurement, Network, TableKey, merged

FORMAT, VERSION = "edgekd-table", 2
_MAX_NS = 10**15  # eleven days; no inference takes that long
_MAX_NUMBER = 1e12  # coefficients in ms and temperatures are far below

_Name = TypeVar("_Name")


@dataclass
class LatencyTable:
    """A table in memory: measurements by operator key, calibration networks, and a calibration a dtype."""

    key: TableKey
    rows: dict[str, Measurement] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)

    @property
    def measurements(self) -> list[Measurement]:
        """List everything measured: operators, then whole networks."""
        return [*self.rows.values(), *(network.measurement for network in self.networks.values())]

    @property
    def sentinel_ns(self) -> int:
        """Give the fastest run of the sentinel beside any measurement, 0 where none is known."""
        return min((m.sentinel_ns for m in self.measurements if m.sentinel_ns), default=0)


class TableFile:
    """A table that grows on disk as it is measured; `table` is always what the file holds."""

    def __init__(self, path: Path, key: TableKey) -> None:
        """Open or begin a table file.

        Raises:
            FileDamaged, OtherSettings, FileNotWritable: see journal.Journal.

        """
        self.path = path
        self._journal = Journal(path, _header(key))
        self.table = _load(path, key, self._journal.entries)

    def add_row(self, row: Measurement) -> None:
        """Append one operator's measurement."""
        self._append({"type": "row", **dataclasses.asdict(row)})

    def add_network(self, network: Network) -> None:
        """Append one whole network's measurement."""
        self._append({"type": "network", **dataclasses.asdict(network)})

    def add_calibration(self, dtype: str, calibration: Calibration) -> None:
        """Append a calibration; a later one of the same dtype replaces it."""
        self._append({"type": "calibration", "dtype": dtype, **dataclasses.asdict(calibration)})

    def sync(self) -> None:
        """Force the file to the disk."""
        self._journal.sync()

    def _append(self, entry: Mapping[str, Any]) -> None:
        part, name, value = _place(self.table, entry)  # first, so that nothing wrong reaches the file
        self._journal.append(entry)
        part[name] = value  # last, so that nothing is in the table that a full disk kept from the file


def load_table(path: Path) -> LatencyTable:
    """Read and check a table file.

    Raises:
        FileDamaged: it is missing, no table, of a newer version, or a line is wrong.

    """
    header, *entries = read_journal(path)
    if header.get("format") != FORMAT:
        raise FileDamaged(path, 1, f"format {header.get('format')!r} is not {FORMAT}")
    version, key = header.get("version"), header.get("key")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise FileDamaged(path, 1, f"version {version!r} is not 1 to {VERSION}, those that this edgekd reads")
    if version == 1 and isinstance(key, dict):
        key = {"engine": "python"} | key
    return _load(path, _key(path, key), entries)


def table_sha256(table: LatencyTable) -> str:
    """Hash what predictions depend on: key, rows, networks and calibrations."""
    digest = hashlib.sha256(repr(table.key).encode())
    for part in (table.rows, table.networks, table.calibrations):
        for name in sorted(part):
            digest.update(repr((name, part[name])).encode())
    return digest.hexdigest()


def _header(key: TableKey) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "key": dataclasses.asdict(key)}


def _key(path: Path, fields: object) -> TableKey:
    names = {f.name for f in dataclasses.fields(TableKey)}
    if not isinstance(fields, dict) or set(fields) != names:
        raise FileDamaged(path, 1, f"the key must have exactly the fields {', '.join(sorted(names))}")
    for name, value in fields.items():
        if type(value) is not (int if name == "threads" else str):
            raise FileDamaged(path, 1, f"key field {name} is {value!r}")
    return TableKey(**fields)


def _load(path: Path, key: TableKey, entries: list[dict[str, Any]]) -> LatencyTable:
    table = LatencyTable(key)
    for number, entry in enumerate(entries, 2):
        try:
            part, name, value = _place(table, entry)
        except KeyError as error:
            raise FileDamaged(path, number, f"field {error} is missing") from error
        except (ValueError, TypeError, OpSyntaxError) as error:
            raise FileDamaged(path, number, str(error)) from error
        part[name] = value
    return table


def _place(table: LatencyTable, entry: Mapping[str, Any]) -> tuple[dict[str, Any], str, Any]:
    """Give the part of the table that an entry belongs to, its name there and its value.

    The table is not changed. ValueError, TypeError, KeyError or OpSyntaxError say what is wrong with the entry.
    """
    fields = {name: value for name, value in entry.items() if name != "type"}
    if entry["type"] == "row":
        row = _measurement(fields)
        OpSpec.parse(row.subject)
        return table.rows, row.subject, _after(table.rows.get(row.subject), row)
    if entry["type"] == "network":
        network = _network(fields)
        before = table.networks.get(network.name)
        measurement = _after(before.measurement if before else None, network.measurement)
        return table.networks, network.name, replace(network, measurement=measurement)
    if entry["type"] == "calibration":
        dtype = _dtype(fields.pop("dtype"))
        return table.calibrations, dtype, Calibration(**_floats(fields))
    raise ValueError(f"unknown entry type {entry['type']!r}")


def _after(before: Measurement | None, measurement: Measurement) -> Measurement:
    """Join a further attempt to what is known; a first attempt must be the first."""
    if before is not None:
        return merged(before, measurement)
    if measurement.attempt != 1:
        raise ValueError(f"attempt {measurement.attempt} at {measurement.subject} has no attempt before it")
    return measurement


def _network(fields: dict[str, Any]) -> Network:
    keys = _texts(fields["op_keys"], "op_keys")
    for key in keys:
        OpSpec.parse(key)
    measurement = _measurement(dict(fields["measurement"]))
    if not keys or fields["name"] != measurement.subject:
        raise ValueError(f"network {fields['name']!r} has no operators or another subject, {measurement.subject!r}")
    return Network(measurement.subject, _dtype(fields["dtype"]), keys, measurement)


def _dtype(value: object) -> str:
    if value not in DTYPES:
        raise ValueError(f"dtype {value!r} is not one of {', '.join(DTYPES)}")
    return str(value)


def _measurement(fields: dict[str, Any]) -> Measurement:
    samples = _times(fields["samples_ns"], "samples_ns")
    wall = _times(fields["wall_samples_ns"], "wall_samples_ns")
    if not samples or len(samples) != len(wall):
        raise ValueError(f"{len(samples)} samples and {len(wall)} wall samples; there must be one of each, and some")
    for name in ("inferences_per_sample", "warmup_ns", "init_ns", "peak_rss_bytes", "sentinel_ns", "attempt"):
        _times([fields[name]], name)
    for name in ("subject", "started_at", "source"):
        if not isinstance(fields[name], str):
            raise TypeError(f"{name} is {fields[name]!r}, not text")
    if min(*samples, *wall, fields["inferences_per_sample"]) <= 0:
        raise ValueError("a time or a count of inferences is not above 0")
    temperatures = dict(enumerate(fields["temperatures_c"]))
    tuples = {
        "samples_ns": samples,
        "wall_samples_ns": wall,
        "temperatures_c": tuple(_floats(temperatures).values()),
        "flags": _texts(fields["flags"], "flags"),
    }
    return Measurement(**(fields | tuples))


def _times(values: object, name: str) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or any(type(v) is not int or not 0 <= v <= _MAX_NS for v in values):
        raise ValueError(f"{name} holds something else than integers from 0 to {_MAX_NS}")
    return tuple(values)


def _texts(values: object, name: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or any(not isinstance(v, str) for v in values):
        raise TypeError(f"{name} is {values!r}, not a list of texts")
    return tuple(values)


def _floats(fields: dict[_Name, Any]) -> dict[_Name, float]:
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in fields.values()):
        raise ValueError(f"something else than numbers: {fields}")
    if not all(abs(v) <= _MAX_NUMBER for v in fields.values()):  # said this way round, it is false for NaN too
        raise ValueError(f"a number that is not finite or absurdly large: {fields}")
    return {name: float(value) for name, value in fields.items()}
