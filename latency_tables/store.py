"""Keeps a latency table in one text file: header with the key, then rows, networks and calibrations as measured.

Everything read is checked; a wrong line is refused with its number. What a line may hold is entries.py's, how lines
reach the disk journal.py's. Measuring is builder.py, predicting predictor.py.

Format history: 1, the first (2026); 2, the key names the engine, which was always "python" before (2026); 3, every
line ends with a checksum over itself and the header, so that a digit changed and a row of another table are noticed
(2026); 4, calibrations know the rate at which weights are fetched (2026); 5, they know a second one, for networks that
take longer (2026); 6, they know the speed that they read slow rows at (2026); 7, measurements hold what a network took
beside them (2026); 8, calibrations know while how much of an operator its weights come (2026); 9, and how many of them
come (2026). A file goes on in the version that it was begun in; one of version 3 to 8 that is added to or calibrated
anew is refused by an edgekd that knows no later one.
"""

from __future__ import annotations

import dataclasses
import fcntl
import gc
import hashlib
import os
import statistics
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latency_tables.calibrate import Calibration
from latency_tables.entries import MEASURED, Fit, Line, Row, read_entry, short, write_entry
from latency_tables.errors import FileDamaged, FileNotWritable, OpSyntaxError, TableHeld
from latency_tables.journal import Contents, Journal, read_journal, sealed_lines
from latency_tables.schema import Measurement, Network, TableKey, merged
from latency_tables.speed import Speed

FORMAT, VERSION = "edgekd-table", 9
_SEALED_SINCE = 3
_FITTED_ALIKE_SINCE = 4  # calibrations before had other coefficients
# Left out where they say nothing, so that tables of version 4 to 8 keep their hash.
_SILENT = (
    (", at_hand_mb=0.0)", ")"),
    (", rows_at_once=0.0)", ")"),
    (", beside='', beside_ns=())", ")"),
    (", usual_sentinel_ns=0)", ")"),
    (", far_gb_per_s=0.0, kept_ms=0.0", ""),
)
_RARELY = 0.10
_MAX_REASON = 500  # characters; a damaged line may be megabytes long


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
    def usual_sentinel_ns(self) -> int:
        """Give the median of the micro-models beside the measurements, 0 where none is known: the usual speed.

        The fastest would be a clock's rare boost, at which the device would not measure the others, too.
        """
        known = [m.sentinel_ns for m in self.measurements if m.sentinel_ns and not m.beside]
        return statistics.median_low(known or [0])

    @property
    def beside_ns(self) -> dict[str, int]:
        """Give what each network takes that others were measured beside, on a machine that is rarely as fast.

        It is a quantile of its readings: the fastest would be a clock's rare boost, the median the neighbours'.
        """
        readings: dict[str, list[int]] = {}
        for one in self.measurements:
            if one.beside_ns:
                readings.setdefault(one.beside, []).extend(one.beside_ns)
        return {name: sorted(every)[int(_RARELY * len(every))] for name, every in readings.items()}

    @property
    def speed(self) -> Speed:
        """Give the usual speed; found anew at each call, so keep it for a loop."""
        return Speed(self.usual_sentinel_ns, self.beside_ns)

    @property
    def unmeasured(self) -> dict[str, int]:
        """Count what was not measured here, by its source: simulated, or imported:CITATION."""
        return dict(Counter(m.source for m in self.measurements if m.source != MEASURED))

    def add(self, line: Line) -> None:
        """Put in what a line of a table file says. Raises ValueError as `place`."""
        part, name, value = self.place(line)
        if value is not None:
            part[name] = value

    def place(self, line: Line) -> tuple[dict[str, Any], str, Any]:
        """Give the part that a line belongs to, its name there and its value; None is to be left out.

        Raises:
            ValueError: it does not fit what is there, as an attempt that does not follow the last one.

        """
        if isinstance(line, Row):
            subject = line.measurement.subject
            return self.rows, subject, _after(self.rows.get(subject), line.measurement)
        if isinstance(line, Network):
            return self.networks, line.name, _again(self.networks.get(line.name), line)
        return self.calibrations, line.dtype, line.calibration


class TableFile:
    """A table that grows on disk as it is measured; `table` is always what the file holds.

    The file is its alone until `close`, or until it is forgotten or its process ends, however that ends. Readers need
    not wait.
    """

    def __init__(self, path: Path, key: TableKey) -> None:
        """Open or begin a table file.

        Raises:
            TableHeld: another TableFile of this path is open, here or in another process.
            FileDamaged, OtherSettings, FileNotWritable: see journal.Journal.

        """
        self.path = path
        self._lock = weakref.finalize(self, os.close, _locked(path))
        try:
            header = _older_header(path, key) or header_of(key)
            self._journal = Journal(path, header, sealed=header["version"] >= _SEALED_SINCE)
            self.table = LatencyTable(key)
            _fill(self.table, path, header["version"], self._journal.entries)
        except BaseException:
            self.close()  # the error's traceback may keep this object for long
            raise

    def add_row(self, row: Measurement) -> None:
        """Append one operator's measurement."""
        self._append(Row(row))

    def add_network(self, network: Network) -> None:
        """Append one whole network's measurement."""
        self._append(network)

    def add_calibration(self, dtype: str, calibration: Calibration) -> None:
        """Append a calibration; a later one of the same dtype replaces it."""
        self._append(Fit(dtype, calibration))

    def sync(self) -> None:
        """Force the file to the disk."""
        self._journal.sync()

    def close(self) -> None:
        """Let others add to the file; this object adds nothing more. Closing again changes nothing."""
        self._lock()

    def _append(self, line: Line) -> None:
        if not self._lock.alive:
            raise ValueError(f"{self.path} was closed; open it again to add to it")
        entry = write_entry(line)
        part, name, value = self.table.place(read_entry(entry))  # first, so that nothing wrong reaches the file
        self._journal.append(entry)
        part[name] = value  # last, so that nothing is in the table that a full disk kept from the file


@dataclass(frozen=True)
class TableContents:
    """A table with what its file says besides."""

    table: LatencyTable
    lines: tuple[Line, ...]  # as they were written: every attempt by itself
    version: int
    cut_bytes: int  # of a last line that a kill cut; the next opening for writing drops them
    size_bytes: int

    @property
    def sealed(self) -> bool:
        """Tell whether every line carries a checksum."""
        return self.version >= _SEALED_SINCE


def load_table(path: Path) -> LatencyTable:
    """Read and check a table file.

    Raises:
        FileDamaged: it is missing, no table, of a newer version, or a line is wrong.

    """
    return read_table(path).table


def read_table(path: Path) -> TableContents:
    """Read and check a table file, and tell what it is as a file. Raises FileDamaged as `load_table`."""
    contents = read_journal(path)
    version, key = _read_header(path, contents)
    table = LatencyTable(key)
    lines = _fill(table, path, version, contents.entries)
    return TableContents(table, tuple(lines), version, contents.cut_bytes, contents.size_bytes)


def table_text(key: TableKey, lines: Iterable[Row | Network | Fit]) -> str:
    """Spell a whole table file.

    Raises:
        ValueError, TypeError, OpSyntaxError: a line could not be read again.

    """
    table, entries = LatencyTable(key), []
    for line in lines:
        entries.append(write_entry(line))
        table.add(read_entry(entries[-1]))
    return "".join(sealed_lines(header_of(key), entries))


def table_sha256(table: LatencyTable) -> str:
    """Hash what predictions depend on: key, rows, networks and calibrations."""
    digest = hashlib.sha256(repr(table.key).encode())
    for part in (table.rows, table.networks, table.calibrations):
        for name in sorted(part):
            text = repr((name, part[name]))
            for silent, instead in _SILENT:
                text = text.replace(silent, instead)
            digest.update(text.encode())
    return digest.hexdigest()


def header_of(key: TableKey) -> dict[str, Any]:
    """Give the header of a table file of today's version."""
    return {"format": FORMAT, "version": VERSION, "key": dataclasses.asdict(key)}


def _locked(path: Path) -> int:
    """Open a file, which may be new, and lock it; the lock ends when the descriptor is closed, at the latest by a kill.

    Raises:
        TableHeld: it is locked.
        FileNotWritable: it cannot be opened or begun.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError as error:
        raise FileNotWritable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise TableHeld(path) from error
    except OSError:  # a file system without locks: the file is as safe there as any other
        pass
    return descriptor


# --- the header -------------------------------------------------------------------------------------------------------


def _read_header(path: Path, contents: Contents) -> tuple[int, TableKey]:
    header = contents.header
    if header.get("format") != FORMAT:
        raise FileDamaged(path, 1, f"format {short(header.get('format'))} is not {FORMAT}")
    version = header.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        reason = f"version {short(version)} is not 1 to {VERSION}, those that this edgekd reads"
        raise FileDamaged(path, 1, reason)
    if contents.sealed != (version >= _SEALED_SINCE):
        raise FileDamaged(
            path, 1, f"version {version} with{'' if contents.sealed else 'out'} a checksum: it was changed"
        )
    if unknown := sorted(header.keys() - {"format", "version", "key"}):
        raise FileDamaged(path, 1, f"unknown field {short(unknown[0])}")
    return version, _key(path, version, header.get("key"))


def _key(path: Path, version: int, fields: object) -> TableKey:
    names = {f.name for f in dataclasses.fields(TableKey)}
    if version == 1 and isinstance(fields, dict):
        fields = {"engine": "python"} | fields
    if not isinstance(fields, dict) or set(fields) != names:
        raise FileDamaged(path, 1, f"the key must have exactly the fields {', '.join(sorted(names))}")
    for name, value in fields.items():
        if type(value) is not (int if name == "threads" else str):
            raise FileDamaged(path, 1, f"key field {name} is {short(value)}")
    return TableKey(**fields)


def _older_header(path: Path, key: TableKey) -> dict[str, Any] | None:
    """Give the header of a file that an older edgekd began under this key, for it to go on as it is."""
    try:
        contents = read_journal(path)
        version, found = _read_header(path, contents)
    except FileDamaged:
        return None  # where there is a file, opening it says in what way
    return contents.header if version < VERSION and found == key else None


# --- the lines --------------------------------------------------------------------------------------------------------


def _fill(table: LatencyTable, path: Path, version: int, entries: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Put a file's entries into a table and list its lines. Raises FileDamaged with the number of a wrong one."""
    lines = []
    with _collecting_later():
        for number, entry in enumerate(entries, 2):
            try:
                lines.append(read_entry(entry, old=version < _FITTED_ALIKE_SINCE))
                table.add(lines[-1])
            except (ValueError, TypeError, OpSyntaxError) as error:
                raise FileDamaged(path, number, str(error)[:_MAX_REASON]) from error
    return lines


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Spare the garbage collector a fifth of the time of loading: it would look for cycles among lists of numbers."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _after(before: Measurement | None, measurement: Measurement) -> Measurement:
    """Join a further attempt to what is known; a first attempt must be the first."""
    if before is None:
        if measurement.attempt != 1:
            raise ValueError(f"attempt {measurement.attempt} at {measurement.subject} has no attempt before it")
        return measurement
    if before.source != measurement.source:
        raise ValueError(f"{measurement.subject} is {before.source} before and {measurement.source} here")
    return merged(before, measurement)


def _again(before: Network | None, network: Network) -> Network:
    measurement = _after(before.measurement if before else None, network.measurement)
    if before and (before.dtype, before.op_keys) != (network.dtype, network.op_keys):
        raise ValueError(f"{network.name} has another dtype or other operators than before")
    return replace(network, measurement=measurement)
