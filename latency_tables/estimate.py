"""Estimates the time of an operator that was never measured, from rows of its family.

A family are the rows that differ in sizes alone. It is fitted together with its kin, which have other windows or
activations, and where those are few with all rows of its kind; never across dtypes. The interval is that of rows that
were left out as the question is: alone, with all of their width, beyond all that remain, or with their whole family.

No row is changed and nothing is measured here. Read next: `surface.py`, which fits, and `features.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from latency_tables.features import Family, Sizes, family_of, kin_of, kind_of, sizes_of
from latency_tables.op_spec import OpSpec
from latency_tables.surface import BYTES, POSITIONS, Floats, Mask, Surface, coordinates

MIN_ROWS = 12  # of an operator's kin; fewer tell too little about a kernel's steps, and all of its kind are asked
_NEW = -1  # a family without rows
_COVERAGE = 0.90
_NORMAL = 1.645  # standard deviations that hold 90 % of normal errors
_FEW = 1.5  # × the largest error, where there are too few to leave a tenth outside
_OUTER = 0.2  # share of a size's values, at either end, that is left out to see how well the rest reaches them
_SAME = 1e-9  # of two logarithms


@dataclass(frozen=True, slots=True)
class Estimate:
    """An operator's time, and how far a held-out row of its family was off in nine of ten cases."""

    ms: float
    relative_error: float  # 0.1 is 10 %
    how: str  # "interpolated" within the sizes measured of its family; "fitted" beyond them or from a wider family


class Estimator:
    """Answers from one table's rows; what is near an operator is prepared when it is first asked for."""

    def __init__(self, rows: Mapping[OpSpec, float]) -> None:
        """Take the rows, in ms.

        Raises:
            ValueError: a row is not above 0.

        """
        wrong = next((op.key for op, ms in rows.items() if not ms > 0), None)
        if wrong is not None:
            raise ValueError(f"the row of {wrong} is not above 0 ms; estimates are made of logarithms")
        self._kinds: dict[Family, dict[OpSpec, float]] = {}
        for op, ms in rows.items():
            self._kinds.setdefault(kind_of(op), {})[op] = ms
        self._fits: dict[Family, _Fit] = {}

    def estimate(self, op: OpSpec) -> Estimate | None:
        """Estimate one operator; None where nothing of its kind was measured in its dtype."""
        kind, kin = kind_of(op), kin_of(op)
        if kind not in self._kinds:
            return None
        if kin not in self._fits:
            rows = self._kinds[kind]
            near = {other: ms for other, ms in rows.items() if kin_of(other) == kin}
            if len(near) < MIN_ROWS and kind not in self._fits:
                self._fits[kind] = _Fit(rows)
            self._fits[kin] = self._fits[kind] if len(near) < MIN_ROWS else _Fit(near)
        return self._fits[kin].estimate(op)


class _Fit:
    """A surface and how far it was off, in standard deviations, for rows left out in several ways."""

    def __init__(self, rows: Mapping[OpSpec, float]) -> None:
        sizes = {op: sizes_of(op) for op in rows}
        ordered = sorted(rows, key=lambda op: (coordinates(sizes[op]), op.key))  # whatever the table's order
        self._numbers = {family: number for number, family in enumerate(dict.fromkeys(map(family_of, ordered)))}
        families = [self._numbers[family_of(op)] for op in ordered]
        self._surface = Surface([sizes[op] for op in ordered], [rows[op] for op in ordered], families)
        self._quantiles: dict[tuple[str, int], float] = {}

    def estimate(self, op: OpSpec) -> Estimate:
        sizes, number = sizes_of(op), self._numbers.get(family_of(op), _NEW)
        ms, sd = self._surface.predict(sizes, number)
        situations = list(self._situations(sizes, number))
        deviations = max(self._quantile(*situation) for situation in situations)
        error = math.expm1(deviations * sd)
        if ("new", POSITIONS) in situations or ("below", POSITIONS) in situations:
            error += self._surface.untold_waste(sizes)
        inside = all(name in ("known", "new") for name, _ in situations)
        return Estimate(ms, error, "interpolated" if inside else "fitted")

    def _situations(self, sizes: Sizes, number: int) -> Iterator[tuple[str, int]]:
        """Name how an operator stands to the rows of its family: ("known", 0), or new to or beyond them in a size."""
        yield ("known", 0)
        of_family = self._surface.families == number
        if of_family.sum() < MIN_ROWS:
            yield ("family", 0)
        places = self._surface.places if number == _NEW else self._surface.places[of_family]
        for axis, place in enumerate(coordinates(sizes)):
            values = places[:, axis]
            if place > values.max() + _SAME:
                yield ("above", axis)
            elif place < values.min() - _SAME:
                yield ("below", axis)
            elif axis != BYTES and np.abs(values - place).min() > _SAME:
                yield ("new", axis)

    def _quantile(self, name: str, axis: int) -> float:
        if (name, axis) not in self._quantiles:
            parts = [self._surface.left_out(mask) for mask in self._masks(name, axis)] if name != "known" else []
            errors = self._surface.each_left_out() if name == "known" else np.concatenate([np.zeros(0), *parts])
            self._quantiles[name, axis] = _quantile(errors)
        return self._quantiles[name, axis]

    def _masks(self, name: str, axis: int) -> Iterator[Mask]:
        """Name the rows to leave out together, family by family, so as to see what a situation does to errors."""
        for number in self._numbers.values():
            of_family = self._surface.families == number
            values = self._surface.places[:, axis]
            distinct = np.unique(values[of_family])
            outer = max(1, round(_OUTER * len(distinct)))
            if name == "family":
                yield of_family
            elif len(distinct) > 1 and name == "above":
                yield of_family & (values >= distinct[-outer])
            elif len(distinct) > 1 and name == "below":
                yield of_family & (values <= distinct[outer - 1])
            elif len(distinct) > 1:
                yield from (of_family & (values == value) for value in distinct)


def _quantile(errors: Floats) -> float:
    """Give the error that covers a further one with the wanted chance (split conformal prediction)."""
    rank = math.ceil((len(errors) + 1) * _COVERAGE)
    if rank <= len(errors):
        return float(np.sort(errors)[rank - 1])
    return _FEW * max(_NORMAL, float(errors.max(initial=0.0)))
