"""Predicts the latency of a network from a table's rows and its calibration.

An operator without a row is an error, never 0 ms, and no prediction is negative.
Measuring what is missing is builder.py's work.
"""

from __future__ import annotations

from collections.abc import Sequence

from latency_tables.calibrate import Calibration
from latency_tables.errors import NotCalibrated, OpNotInTable
from latency_tables.op_spec import OpSpec
from latency_tables.schema import Part, Prediction
from latency_tables.store import LatencyTable

_FLOOR_SHARE = 0.05  # of the plain sum; a fit that goes below it, or below zero, is extrapolating nonsense


class Predictor:
    """Answers for one table and one dtype."""

    def __init__(self, table: LatencyTable, dtype: str) -> None:
        """Prepare the lookups.

        Raises:
            NotCalibrated: the table has no calibration for this dtype.

        """
        if dtype not in table.calibrations:
            raise NotCalibrated(dtype)
        self.dtype = dtype
        self._calibration: Calibration = table.calibrations[dtype]
        self._row_ms = {key: row.quiet_ms for key, row in table.rows.items()}
        self._ms: dict[OpSpec, float] = {}

    def predict(self, ops: Sequence[OpSpec]) -> Prediction:
        """Predict a network, given its operators in this predictor's dtype.

        Raises:
            OpNotInTable: an operator has no row; the message names it and the nearest one.

        """
        rows = [self._lookup(op) for op in ops]
        total = max(self.marginal_ms(ops) + self._calibration.offset_ms, _FLOOR_SHARE * sum(rows))
        share = total / sum(rows)
        parts = tuple(Part(op, ms * share, "table") for op, ms in zip(ops, rows, strict=True))
        margin = self._calibration.interval_error
        return Prediction(total, total * (1 - min(margin, 1.0)), total * (1 + margin), parts)

    def marginal_ms(self, ops: Sequence[OpSpec]) -> float:
        """Give what some operators add to a network's prediction: without the offset, and so maybe below 0.

        Raises:
            OpNotInTable: see `predict`.

        """
        fit = self._calibration
        weight_mb = sum(op.weight_bytes for op in ops) / 1e6
        return fit.scale * sum(map(self._lookup, ops)) + fit.per_op_ms * len(ops) + fit.per_mb_ms * weight_mb

    def _lookup(self, op: OpSpec) -> float:
        found = self._ms.get(op)
        if found is None:
            key = op.key
            if key not in self._row_ms:
                raise OpNotInTable(key, self._row_ms)
            found = self._ms[op] = self._row_ms[key]
        return found
