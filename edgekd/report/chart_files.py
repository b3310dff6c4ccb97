"""Writes charts as files: NAME.csv with exactly what is plotted, NAME.png as a picture. Each is there whole or not.

Next: png.py, which draws the pictures.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgekd.files import make_folder, write_atomic
from edgekd.report.charts import Cell, Chart, Table

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would take a text cell that begins so for


def write_csv(folder: Path, charts: Sequence[Chart]) -> tuple[Path, ...]:
    """Write the table of each chart.

    Raises:
        UsageError: the folder cannot be written.
        CannotWrite: the disk is full.

    """
    make_folder(folder)
    return tuple(_write(folder / f"{chart.table.name}.csv", csv_text(chart.table)) for chart in charts)


def write_png(folder: Path, charts: Sequence[Chart]) -> tuple[Path, ...]:
    """Write a picture of each chart.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        UsageError: the folder cannot be written.
        CannotWrite: the disk is full.

    """
    from edgekd.report.png import picture

    make_folder(folder)
    return tuple(_write(folder / f"{chart.table.name}.png", picture(chart)) for chart in charts)


def csv_text(table: Table) -> str:
    """Spell a table as CSV (RFC 4180), numbers in full precision."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.columns)
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    return text.getvalue()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "'" + value if value.startswith(_FORMULA) else value
    return repr(value)


def _write(path: Path, content: str | bytes) -> Path:
    write_atomic(path, content)
    return path
