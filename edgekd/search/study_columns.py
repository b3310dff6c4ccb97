"""Reads the samples of a study's file, column by column, and believes none that contradicts itself or the header.

Which lines there are is study_file.py's, what a sample is study_record.py's.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from edgekd.search.errors import SearchError
from edgekd.search.study_record import FIELDS, MEASURED, WARM, Sample, StudyHeader, arch_id_of
from edgekd.spaces.space import Choices
from latency_tables.errors import FileDamaged
from latency_tables.journal import Entry
from latency_tables.op_spec import DTYPES

MS_LIMIT = 1e9  # eleven days; more is damage
_COUNT_LIMIT = 10**15  # a thousand times the multiply-accumulates of the largest network ever put on a device
_TEXT_LIMIT = 20_000  # characters; the largest architecture's text form is below 2,000


class SampleReader:
    """Checks samples column by column, which is much sooner done than line by line, and names the first wrong line."""

    def __init__(self, path: Path, header: StudyHeader) -> None:
        self.samples: list[Sample] = []
        self._path, self._header = path, header
        self._known: set[Choices] = set()
        self._numbers: list[int] = []
        self._entries: list[Entry] = []

    def read(self, lines: Sequence[tuple[int, Entry]]) -> None:
        """Check everything that the next lines say against themselves, those before and the header.

        The entries are changed and become the samples' own.
        """
        self._numbers, self._entries = [number for number, _ in lines], [entry for _, entry in lines]
        columns = self._columns()
        for name, values in columns.items():
            form = _FORMS[name]
            if not set(map(type, values)) <= form.kinds or not form.holds(values):
                self._all(name, [type(value) in form.kinds and form.holds([value]) for value in values])
        choices = self._choices(columns["choices"])
        self._all("index", [index == place for place, index in enumerate(columns["index"], len(self.samples))])
        self._all("target", self._targets(columns["target"]))
        self._all("arch_id", list(map(operator.eq, map(arch_id_of, columns["arch"]), columns["arch_id"])))
        self._all("reward", self._rewards(columns))
        for entry, chosen in zip(self._entries, choices, strict=True):
            entry["choices"] = chosen  # in place: a copy of each entry costs as much as checking it
        self.samples += map(Sample.of, self._entries)

    def _columns(self) -> dict[str, list[Any]]:
        """Give the values of every field; each line has all of them and no other."""
        try:
            rows = list(map(operator.itemgetter(*FIELDS), self._entries))
        except KeyError:
            rows = []
        if not rows or set(map(len, self._entries)) != {len(FIELDS)}:
            self._all("fields", [entry.keys() == set(FIELDS) for entry in self._entries])
        values = zip(*rows, strict=True) if rows else ((),) * len(FIELDS)
        return dict(zip(FIELDS, map(list, values), strict=True))

    def _all(self, name: str, right: list[bool]) -> None:
        """See that all is right, or name the first line that is not."""
        if all(right):
            return
        wrong = right.index(False)
        found = self._entries[wrong].get(name, "missing") if name != "fields" else sorted(self._entries[wrong])
        raise FileDamaged(self._path, self._numbers[wrong], f"{name} is {found!r:.120}, which no sample here can have")

    def _choices(self, column: list[list[Any]]) -> list[Choices]:
        sizes = self._header.decision_sizes
        self._all("choices", [len(choices) == len(sizes) for choices in column])
        if not self._are_options(column):
            options = list(map(range, sizes))
            self._all("choices", [set(map(type, choices)) == {int} for choices in column])
            self._all("choices", [all(map(operator.contains, options, choices)) for choices in column])
        found = list(map(tuple, column))
        self._known.update(found)
        if len(self._known) != len(self.samples) + len(found):
            known = {sample.choices for sample in self.samples}
            self._all("choices", [choices not in known and not known.add(choices) for choices in found])  # type: ignore[func-returns-value]  # set.add gives None
        return found

    def _are_options(self, column: list[list[Any]]) -> bool:
        """Tell sooner than one by one that all are option indices; False may be wrong."""
        sizes = self._header.decision_sizes
        try:
            coded = b"".join(map(bytes, column))
        except (TypeError, ValueError, OverflowError):  # no whole number, below 0 or above 255
            return False
        if b"e" in orjson.dumps(column):  # of true and false, which count as 1 and 0
            return False
        rows = np.frombuffer(coded, dtype=np.uint8).reshape(len(column), len(sizes))
        return bool((rows.max(axis=0, initial=0) < np.array(sizes)).all())

    def _targets(self, column: list[int]) -> list[bool]:
        warm, targets = self._header.warm_samples, len(self._header.settings.targets_ms)
        numbered = enumerate(column, len(self.samples))
        return [target == WARM if i < warm else 0 <= target < targets for i, target in numbered]

    def _rewards(self, columns: Mapping[str, list[Any]]) -> list[bool]:
        """Tell of each line whether the reward is what the rest of it says."""
        settings = self._header.settings
        names = ("proxy_accuracy", "predicted_ms", "measured_ms", "target", "failure", "reward")
        dtype, targets, reward_at = settings.target_dtype, settings.targets_ms, settings.reward
        may_measure, isclose = settings.latency == MEASURED, math.isclose
        right: list[bool] = []
        for accuracy, predicted, measured, target, failure, reward in zip(
            *map(columns.__getitem__, names), strict=True
        ):
            latency_ms = predicted[dtype] if measured is None else measured
            try:
                known = reward_at(accuracy, latency_ms, targets[max(0, target)])
            except (SearchError, OverflowError):
                known = math.nan
            sound = (measured is None or may_measure) and not (failure and accuracy)
            right.append(sound and isclose(known, reward, rel_tol=1e-9, abs_tol=1e-12))
        return right


@dataclass(frozen=True, slots=True)
class _Form:
    """What a field may hold: kinds of values, and whether a column of such values is in its range."""

    kinds: AbstractSet[type]
    holds: Callable[[Sequence[Any]], bool]


def _within(low: float, high: float) -> Callable[[Sequence[Any]], bool]:
    """Ask whether numbers are in a range; null is."""

    def holds(values: Sequence[Any]) -> bool:
        found = [value for value in values if value is not None]
        return not found or (low <= min(found) and max(found) <= high)

    return holds


def _short(values: Sequence[str]) -> bool:
    return max(map(len, values), default=0) <= _TEXT_LIMIT


def _printable(values: Sequence[str]) -> bool:
    return _short(values) and min(map(len, values), default=1) > 0 and "".join(values).isprintable()


def _predictions(values: Sequence[Mapping[str, Any]]) -> bool:
    try:
        found = [value[dtype] for dtype in DTYPES for value in values]
    except KeyError:
        return False
    right = set(map(type, found)) <= _NUMBER and set(map(len, values)) <= {len(DTYPES)}
    return right and _within(_LEAST_MS, MS_LIMIT)(found)


_NUMBER, _COUNT, _NULL = {int, float}, {int}, type(None)
_LEAST_MS = 5e-324  # above 0
_FORMS = {
    "index": _Form(_COUNT, _within(0, _COUNT_LIMIT)),
    "choices": _Form({list}, lambda values: True),
    "arch": _Form({str}, _printable),
    "arch_id": _Form({str}, _short),
    "predicted_ms": _Form({dict}, _predictions),
    "measured_ms": _Form(_NUMBER | {_NULL}, _within(_LEAST_MS, MS_LIMIT)),
    "proxy_accuracy": _Form(_NUMBER, _within(0, 1)),
    "reward": _Form(_NUMBER, _within(-1e12, 1e12)),
    "seconds": _Form(_NUMBER, _within(0, 1e12)),
    "macs": _Form(_COUNT, _within(0, _COUNT_LIMIT)),
    "epochs": _Form(_COUNT, _within(0, _COUNT_LIMIT)),
    "early_accuracy": _Form(_NUMBER | {_NULL}, _within(0, 1)),
    "failure": _Form({str}, _short),
    "host": _Form({str}, _short),
    "target": _Form(_COUNT, _within(WARM, 1 << 31)),
}
