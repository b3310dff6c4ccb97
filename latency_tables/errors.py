"""The errors of latency_tables.

TableError
├── OpSyntaxError     an operator key cannot be read
├── OpNotInTable      a prediction needs an operator that was never measured
├── NotCalibrated     a table holds no calibration for the dtype that was asked
├── FileDamaged       a file cannot be trusted: names the line and the reason
├── OtherSettings     a file was begun with other settings, or a table under another key
├── OtherKey          a table was asked about a device that it does not speak of
├── FileNotWritable   the disk is full or the folder not writable; nothing is lost
├── TableHeld         another TableFile, of this process or of another, is adding to the file
├── FileExists        a table or export would overwrite a file
├── NotMergeable      tables cannot be joined: other keys, or subjects that contradict each other
└── NotExportable     a row cannot be said in another tool's format
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class TableError(Exception):
    """Say in one line what is wrong with a table or a question put to it."""


class OpSyntaxError(TableError):
    """An operator's text form is not one that OpSpec.key writes."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"operator key {key[:200]!r}: {reason}")


class OpNotInTable(TableError):
    """An operator has no row; nothing is ever counted as 0 ms instead."""

    def __init__(self, op_key: str, known: Iterable[str], command: str = "edgekd profile") -> None:
        nearest = difflib.get_close_matches(op_key, list(known), n=1, cutoff=0.0)
        hint = f"; the nearest row is {nearest[0]}" if nearest else ""
        super().__init__(f"the table has no row for {op_key}{hint}; measure it with: {command}")
        self.op_key = op_key


class NotCalibrated(TableError):
    """The table was not calibrated on whole networks of this dtype."""

    def __init__(self, dtype: str) -> None:
        super().__init__(f"the table is not calibrated for {dtype}; run edgekd profile again to complete it")


class TooFewNetworks(TableError, ValueError):
    """A calibration cannot be fitted to so few networks."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(f"{found} networks are too few to calibrate on; measure at least {needed}, of a larger space")


class FileDamaged(TableError):
    """A file cannot be read or trusted."""

    def __init__(self, path: Path, line_number: int, reason: str) -> None:
        place = f"{path}, line {line_number}" if line_number else f"{path} cannot be read"  # 0 is the file as a whole
        super().__init__(f"{place}: {reason}; restore a good copy or begin anew with another file")


class OtherSettings(TableError):
    """A file was begun with other settings than those asked for now."""

    def __init__(self, path: Path, name: str, found: object, wanted: object) -> None:
        super().__init__(f"{path} was begun with {name} {found!r}, not {wanted!r}; begin anew with another file")


class OtherKey(TableError):
    """A prediction was asked for under another key than the table's."""

    def __init__(self, path: Path, differences: Sequence[str]) -> None:
        listed = "; ".join(differences)
        super().__init__(f"{path} speaks of another device ({listed}: table / now); profile this one into a new table")


class FileNotWritable(TableError):
    """The operating system refused a write."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror or error}; what was there before is unchanged")


class TableHeld(TableError):
    """Two writers would each number attempts as if alone, and leave a file that neither can read."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is being added to by another edgekd; wait for it to end, or name another file")


class FileExists(TableError):
    """A new file would take the place of another."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists and is never overwritten; name another file")


class NotMergeable(TableError):
    """Tables do not belong together."""


class NotExportable(TableError):
    """A row has no spelling in the format that was asked for."""

    def __init__(self, subject: str, form: str, reason: str) -> None:
        super().__init__(f"row {subject[:200]!r} cannot be written as {form}: {reason}; export to csv, which holds all")
