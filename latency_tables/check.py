"""Says what a table file holds, for a person who keeps it: how much, of which sources, how well, since when.

Whether the file can be trusted is store.py's: what it refuses is refused here with the same line and reason. Nothing
is predicted or repaired here.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from latency_tables.calibrate import Calibration
from latency_tables.entries import MEASURED, Fit
from latency_tables.schema import Measurement, TableKey
from latency_tables.store import TableContents, read_table


@dataclass(frozen=True, slots=True)
class Report:
    """What a table file holds."""

    path: Path
    version: int
    sealed: bool  # every line carries a checksum
    size_bytes: int
    cut_bytes: int  # of a last line that a kill cut: dropped when the table is next opened for writing
    key: TableKey
    rows: dict[tuple[str, str], int]  # by kind and dtype
    networks: dict[str, int]  # by dtype
    calibrations: dict[str, Calibration]
    outdated: tuple[str, ...]  # dtypes whose only calibration is of an older form, and so left out
    sources: dict[str, int]  # rows and networks by source
    first_at: str  # RFC 3339; "" where no time is known
    last_at: str
    disturbed: tuple[str, ...]  # subjects that were disturbed whenever they were measured
    attempts: dict[int, int]  # how many subjects were measured so many times

    @property
    def unmeasured(self) -> dict[str, int]:
        """Count rows and networks that were simulated or imported, by source."""
        return {source: count for source, count in self.sources.items() if source != MEASURED}


def inspect(path: Path) -> Report:
    """Read and check a table file.

    Raises:
        FileDamaged: see store.load_table.

    """
    contents = read_table(path)
    table = contents.table
    measurements = table.measurements
    first, last = _span(line.measurement for line in contents.lines if not isinstance(line, Fit))
    return Report(
        path=path,
        version=contents.version,
        sealed=contents.sealed,
        size_bytes=contents.size_bytes,
        cut_bytes=contents.cut_bytes,
        key=table.key,
        rows=dict(sorted(Counter(kind_and_dtype(subject) for subject in table.rows).items())),
        networks=dict(sorted(Counter(network.dtype for network in table.networks.values()).items())),
        calibrations=dict(sorted(table.calibrations.items())),
        outdated=_outdated(contents),
        sources=dict(sorted(Counter(m.source for m in measurements).items())),
        first_at=first,
        last_at=last,
        disturbed=tuple(m.subject for m in measurements if m.disturbances),
        attempts=dict(sorted(Counter(m.attempt for m in measurements).items())),
    )


def kind_and_dtype(op_key: str) -> tuple[str, str]:
    """Give the kind and dtype that an operator key begins with."""
    kind, dtype, *_ = op_key.split(";")
    return kind, dtype


def errors_of(calibration: Calibration) -> dict[str, float]:
    """List what a calibration says of its errors: its fields of that name, as shares (0.01 is 1 %)."""
    fields = dataclasses.asdict(calibration)
    return {name: float(value) for name, value in fields.items() if name.endswith("error")}


def _outdated(contents: TableContents) -> tuple[str, ...]:
    found = {line.dtype for line in contents.lines if isinstance(line, Fit)}
    return tuple(sorted(found - contents.table.calibrations.keys()))


def _span(measurements: Iterable[Measurement]) -> tuple[str, str]:
    """Give when measuring began first and last; what is no time is left out."""
    times = {}
    for measurement in measurements:
        try:
            moment = dt.datetime.fromisoformat(measurement.started_at)
        except ValueError:
            continue
        times[moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)] = measurement.started_at
    return (times[min(times)], times[max(times)]) if times else ("", "")
