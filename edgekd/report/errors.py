"""The error of the report: a run folder that cannot be read.

    DataError
    └── RunFileError     a file of the run folder is missing, damaged or of an unknown version

Next: fields.py, which raises it.
"""

from __future__ import annotations

from edgekd.errors import DataError


class RunFileError(DataError):
    """Name the file (and line), what is wrong with which value, and what to do."""

    def __init__(self, where: str, problem: str, remedy: str = "run the stage that writes it again") -> None:
        super().__init__(f"{where}: {problem}; {remedy}")
        self.where = where
