"""Predicts the latency of a network from a table's rows and its calibration.

An operator without a row is estimated from its family's rows where that is allowed, and else an error, never 0 ms; no
prediction is negative. Measuring what is missing is builder.py's work.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from latency_tables.builder import FIXED_COST_KEYS, fixed_cost_ms, usable_networks
from latency_tables.calibrate import TERMS, UNCALIBRATED_ERROR, Calibration, own_ms, uncalibrated
from latency_tables.errors import NotCalibrated, OpNotInTable
from latency_tables.estimate import Estimator
from latency_tables.features import kind_of
from latency_tables.fetching import Floats, Work
from latency_tables.op_spec import OpSpec
from latency_tables.reach import Extent, Reach
from latency_tables.schema import Part, Prediction
from latency_tables.speed import Speed
from latency_tables.store import LatencyTable

_NOTHING = np.zeros(TERMS)
_NOTHING.setflags(write=False)
FLOOR_SHARE = 0.05  # of the plain sum; a fit that goes below it, or below zero, is extrapolating nonsense


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one operator: what it adds to the sums of a network, see `Calibration.terms`, and how."""

    terms: Floats
    how: str
    relative_error: float


class Predictor:
    """Answers for one table and one dtype of networks."""

    def __init__(self, table: LatencyTable, dtype: str, *, with_estimates: bool = False) -> None:
        """Prepare the lookups. `with_estimates` lets operators without a row be interpolated or fitted, and a table
        without calibration be read by what physics says.

        Raises:
            NotCalibrated: the table has no calibration for this dtype.

        """
        if dtype not in table.calibrations and not with_estimates:
            raise NotCalibrated(dtype)
        self.dtype = dtype
        fit = table.calibrations.get(dtype)
        self.calibration: Calibration = fit or uncalibrated(fixed_cost_ms(table, dtype, Speed(0, table.beside_ns)))
        fixed_ms, speed = self.calibration.fixed_ms, Speed(self.calibration.usual_sentinel_ns, table.beside_ns)
        self._row_ms = {key: own_ms(speed.quiet_ms(row), fixed_ms) for key, row in table.rows.items()}
        self._with_estimates = with_estimates
        self._table = table
        self._estimator: Estimator | None = None
        self._known: dict[OpSpec, _Known] = {}

    @functools.cached_property
    def is_outdated(self) -> bool:
        """Tell whether the table would be calibrated on other networks now: a build of it was killed, for one."""
        fitted, held = self.calibration.networks, len(usable_networks(self._table, self.dtype))
        return bool(fitted and held) and fitted != held

    def predict(self, ops: Sequence[OpSpec]) -> Prediction:
        """Predict a network, given its operators.

        The interval is the calibration's, wider for what was estimated and for a network unlike those calibrated on.

        Raises:
            OpNotInTable: an operator has no row, and none can stand in, or so badly that the interval would reach 0;
                the message names it and the nearest one.

        """
        known = [self._lookup(op) for op in ops]
        terms = np.array([one.terms for one in known]).reshape(-1, TERMS)
        sums = terms.sum(axis=0)
        own = float(sums[-1])
        total = max(float(self.calibration.sum_ms(sums)), FLOOR_SHARE * own) if own else 0.0
        weights = np.maximum(self.calibration.each_ms(terms), FLOOR_SHARE * terms[:, -1]).tolist()
        ratio = total / sum(weights) if own else 0.0
        parts = tuple(Part(op, weight * ratio, one.how) for op, weight, one in zip(ops, weights, known, strict=True))
        estimated = sum(part.ms * one.relative_error for part, one in zip(parts, known, strict=True))
        doubts = (estimated / total, self._doubt(parts, sums)) if total else ()
        margin = math.hypot(self.calibration.interval_error, *doubts)
        if margin >= 1 and total and estimated / total > self.calibration.interval_error:
            self._refuse(parts)
        return Prediction(total, total * (1 - min(margin, 1.0)), total * (1 + margin), parts)

    def _refuse(self, parts: Sequence[Part]) -> NoReturn:
        """Name the operator whose estimate is worth least: a time that may as well be 0 tells nothing."""
        worst = max(parts, key=lambda part: part.ms * self._lookup(part.op).relative_error)
        raise OpNotInTable(worst.op.key, self._row_ms)

    def terms(self, op: OpSpec) -> Floats:
        """Give (5,) of what one operator adds to the sums of a network, see `Calibration.terms`.

        Raises:
            OpNotInTable: see `predict`.

        """
        return self._lookup(op).terms

    def missing(self, ops: Sequence[OpSpec]) -> list[OpSpec]:
        """List the distinct operators that cost something and have no row."""
        return [op for op in dict.fromkeys(ops) if not op.is_folded and op.key not in self._row_ms]

    def _lookup(self, op: OpSpec) -> _Known:
        found = self._known.get(op)
        if found is None:
            found = self._known[op] = self._find(op)
        return found

    def _find(self, op: OpSpec) -> _Known:
        if op.is_folded:
            return _Known(_NOTHING, "folded", 0.0)
        ms = self._row_ms.get(op.key)
        if ms is not None:
            return self._in_network(op, ms, "table", 0.0)
        estimate = self._estimates().estimate(op) if self._with_estimates else None
        if estimate is None:
            raise OpNotInTable(op.key, self._row_ms)
        return self._in_network(op, estimate.ms, estimate.how, estimate.relative_error)

    def _in_network(self, op: OpSpec, ms: float, how: str, relative_error: float) -> _Known:
        terms = self.calibration.terms(Work.of(op, ms))
        terms.setflags(write=False)  # it is kept, and shown to others
        return _Known(terms, how, relative_error)

    def _estimates(self) -> Estimator:
        if self._estimator is None:
            rows = {OpSpec.parse(key): ms for key, ms in self._row_ms.items() if key not in FIXED_COST_KEYS}
            self._estimator = Estimator(rows)
        return self._estimator

    def _doubt(self, parts: Sequence[Part], sums: Floats) -> float:
        """Give the relative error that comes of being unlike the networks of the calibration; `sums` are of terms."""
        if self.is_outdated:
            return UNCALIBRATED_ERROR
        reach = self._reach
        if reach is None:
            return 0.0
        operators = sum(not part.op.is_folded for part in parts)
        other_ms = sum(part.ms for part in parts if kind_of(part.op) not in reach.kinds)
        weight_mb, own = map(float, sums[-2:])
        extent = Extent(own / operators, weight_mb, own)
        return reach.doubt(extent, other_ms / sum(part.ms for part in parts))

    @functools.cached_property
    def _reach(self) -> Reach | None:
        return Reach.of(self._table, self.dtype, self.calibration) if self.calibration.networks else None
