"""The errors of the report.

    DataError
    ├── RunFileError     a file of the run folder is missing, damaged or of an unknown version
    └── NotComparable    runs that say nothing about each other: other spaces, one run twice, no samples

Next: fields.py and comparison.py, which raise them.
"""

from __future__ import annotations

from edgekd.errors import DataError


class RunFileError(DataError):
    """Name the file (and line), what is wrong with which value, and what to do."""

    def __init__(self, where: str, problem: str, remedy: str = "run the stage that writes it again") -> None:
        super().__init__(f"{where}: {problem}; {remedy}")
        self.where = where


class NotComparable(DataError):
    """Runs cannot be compared with each other."""
