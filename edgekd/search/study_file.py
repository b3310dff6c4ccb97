"""The file of a study: what is in it (format 2), and reading it back with distrust. Running a study is study.py's.

JSON lines, each with a checksum over itself and the header (latency_tables/journal.py). Line 1 is the header:

    format "edgekd-study", version 2
    space, space_sha256, decision_sizes    where it searches; `choices` of samples are option indices of these decisions
    engine, budget, batch, seed, targets_ms [T, …], …    StudySettings as it was begun, by which its engines are set
    warm_samples                           so many first samples were taken over from another study and cost nothing
    table_sha256, data_sha256, teacher_sha256, proxy {…}, …    the identity: what else accuracies depend on

Every further line is a sample (it has an "index"; see Sample) or {"extended": {"budget", "budget_epochs"}}, by which
the study goes on to a larger budget. Samples are distinct architectures in the order of their first proposal.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgekd.errors import UsageError
from edgekd.search.errors import OtherVersion, SearchError
from edgekd.search.reward import Reward
from edgekd.search.study_columns import MS_LIMIT, SampleReader
from edgekd.search.study_record import (
    FORMAT,
    MEASURED,
    TABLE,
    VERSION,
    WARM,
    Extension,
    Sample,
    StudyHeader,
    StudyRecord,
    StudySettings,
    arch_id_of,
)
from latency_tables.errors import FileDamaged
from latency_tables.journal import Entry, read_journal
from latency_tables.op_spec import DTYPES

_BLOCK = 1000  # lines: many enough to check columns, few enough to stay in the processor's caches

__all__ = [
    "MEASURED",
    "TABLE",
    "WARM",
    "Extension",
    "Sample",
    "StudyHeader",
    "StudyRecord",
    "StudySettings",
    "arch_id_of",
    "check_version",
    "load_study",
    "record_of",
    "uncollected",
]


def load_study(path: Path) -> StudyRecord:
    """Read a study without opening it for writing; a last line that a kill cut is left out.

    Raises:
        FileDamaged: it is missing, or a line is not as its study would have written it.
        OtherVersion: it is of a format that this edgekd does not read.

    """
    contents = read_journal(path)
    check_version(path, contents.header)
    if not contents.sealed:
        raise FileDamaged(path, 1, "the header has no checksum")
    with uncollected():
        return record_of(path, contents.header, contents.entries)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let the garbage collector rest while many values are made that all stay: it would look at each of them again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_version(path: Path, header: Mapping[str, Any]) -> None:
    """See that a file is a study of this format.

    Raises:
        FileDamaged: it is something else.
        OtherVersion: it is of another version.

    """
    if header.get("format") != FORMAT:
        raise FileDamaged(path, 1, f"the format is {header.get('format')!r}, not {FORMAT!r}")
    if type(header.get("version")) is not int or header["version"] != VERSION:
        raise OtherVersion(path, header.get("version"), VERSION)


def record_of(path: Path, header: Entry, entries: Iterable[Entry]) -> StudyRecord:
    """Check the header and lines of a file named `path` and give what they say.

    The entries are used up: they are changed, and those of samples become the samples' own.

    Raises:
        FileDamaged: a line is not as its study would have written it.

    """
    try:
        read = _header_of(header)
    except (KeyError, TypeError, ValueError, OverflowError, SearchError, UsageError) as error:
        raise FileDamaged(path, 1, f"the header is no study's ({error!s:.200})") from error
    reader, extensions, after = SampleReader(path, read), list[Extension](), list[int]()
    numbered = enumerate(entries, 2)
    while block := list(itertools.islice(numbered, _BLOCK)):
        extended = [(number, entry) for number, entry in block if "extended" in entry]
        extensions += [_extension_of(path, number, entry) for number, entry in extended]
        after += [number - 2 - earlier for earlier, (number, _) in enumerate(extended, len(after))]
        reader.read([line for line in block if "extended" not in line[1]])
    return StudyRecord(read, tuple(reader.samples), tuple(extensions), tuple(after))


def _header_of(header: Entry) -> StudyHeader:
    """Build the header; whatever is wrong with it raises one of the errors that record_of maps."""
    names = {item.name for item in fields(StudySettings)}
    own = names | {"format", "version", "space", "space_sha256", "decision_sizes", "warm_samples"}
    reward = Reward(**header["reward"])
    values = {name: header[name] for name in names} | {"reward": reward, "targets_ms": tuple(header["targets_ms"])}
    sizes = tuple(header["decision_sizes"])
    settings, warm = StudySettings(**values), header["warm_samples"]
    checks = {
        "space": all(isinstance(header[name], str) for name in ("space", "space_sha256", "engine", "target_dtype")),
        "decision_sizes": bool(sizes) and all(type(size) is int and 1 <= size < 1 << 31 for size in sizes),
        "targets_ms": bool(settings.targets_ms) and all(map(_is_ms, settings.targets_ms)),
        "target_dtype": settings.target_dtype in DTYPES,
        "latency": settings.latency in (TABLE, MEASURED),
        "stop_share": type(settings.stop_share) in (int, float) and 0 <= settings.stop_share < 1,
        **{name: _is_count(header[name], 1) for name in ("budget", "batch", "epochs_each")},
        **{name: _is_count(header[name], 0) for name in ("seed", "budget_epochs", "warm_samples")},
    }
    for name, holds in checks.items():
        if not holds:
            raise ValueError(f"{name} is {header[name]!r:.80}")
    identity = {name: value for name, value in header.items() if name not in own}
    return StudyHeader(header["space"], header["space_sha256"], sizes, settings, warm, identity)


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 1 << 63


def _is_ms(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= MS_LIMIT  # type: ignore[operator]  # a number by now


def _extension_of(path: Path, number: int, entry: Entry) -> Extension:
    inner = entry["extended"]
    if set(entry) != {"extended"} or not isinstance(inner, dict) or set(inner) != {"budget", "budget_epochs"}:
        raise FileDamaged(path, number, "it is no extension of a study")
    if not (_is_count(inner["budget"], 1) and _is_count(inner["budget_epochs"], 0)):
        raise FileDamaged(path, number, f"{inner!r:.80} is no budget")
    return Extension(inner["budget"], inner["budget_epochs"])
