"""Writes a table's rows as other tools read them, the inverse of importers.py (formats: see there).

A mean is that of all samples. What a row does not know is left out: an imported row has no variance and no
percentiles. Networks and calibrations have no place in these formats and stay behind.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from latency_tables.errors import NotExportable
from latency_tables.foreign import fbnet_fields, ofa_name
from latency_tables.importers import CSV_COLUMNS
from latency_tables.journal import write_new
from latency_tables.op_spec import OpSpec
from latency_tables.schema import Measurement
from latency_tables.store import LatencyTable


def export_table(table: LatencyTable, form: str, out: Path) -> int:
    """Write a table's rows into a new file of another format; give how many.

    Raises:
        NotExportable: a row has no spelling of its own in that format.
        FileExists, FileNotWritable: the file cannot be written.
        ModuleNotFoundError: PyYAML is not installed, for ofa-yaml.

    """
    write_new(out, WRITERS[form](table))
    return len(table.rows)


def mean_ms(row: Measurement) -> float:
    """Give the mean of one inference in ms over all samples."""
    return statistics.fmean(row.samples_ns) / 1e6


def _ofa(table: LatencyTable) -> str:
    import yaml

    blocks: dict[str, dict[str, float]] = {}
    for subject, row in table.rows.items():
        name = ofa_name(OpSpec.parse(subject))
        if name in blocks:  # the format says no dtype
            raise NotExportable(subject, "ofa-yaml", "another row has the same name there")
        blocks[name] = {"count": row.inferences_per_sample * len(row.samples_ns), "mean": mean_ms(row)}
        if len(row.samples_ns) > 1:
            blocks[name]["var"] = statistics.pvariance([sample / 1e6 for sample in row.samples_ns])
    return str(yaml.dump(blocks, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, width=1000))


def _fbnet(table: LatencyTable) -> str:
    lines = []
    for subject, row in table.rows.items():
        times = {f"runtime_us_p{percent}": value for percent, value in _percentiles_us(row.samples_ns).items()}
        lines.append(json.dumps({**fbnet_fields(OpSpec.parse(subject)), **times, "device": table.key.device}) + "\n")
    return "".join(lines)


def _percentiles_us(samples_ns: Sequence[int]) -> dict[int, float]:
    """Give the percentiles that the format has; of a single sample only the middle one."""
    ordered = sorted(samples_ns)
    middle = statistics.median(ordered) / 1e3
    if len(ordered) == 1:
        return {50: middle}
    outer = {percent: ordered[round(percent / 100 * (len(ordered) - 1))] / 1e3 for percent in (0, 10, 90, 100)}
    return dict(sorted((outer | {50: middle}).items()))


def _csv(table: LatencyTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for subject, row in table.rows.items():
        times = (mean_ms(row), row.median_ms, min(row.samples_ns) / 1e6, max(row.samples_ns) / 1e6)
        counts = (len(row.samples_ns), row.inferences_per_sample * len(row.samples_ns), row.attempt)
        writer.writerow([subject, *times, *counts, row.started_at, row.source, " ".join(row.flags)])
    return text.getvalue()


WRITERS: dict[str, Callable[[LatencyTable], str]] = {"ofa-yaml": _ofa, "fbnet": _fbnet, "csv": _csv}
