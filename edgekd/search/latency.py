"""Latency of architectures from a table, in every dtype, and the fastest architecture of a space.

Predicts only; what is measured is profile.py's. Many architectures at once are latency_array.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekd.errors import InfeasibleTarget
from edgekd.graph.ir import graph_in
from edgekd.search.latency_array import ArrayLatency
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.space import Space
from latency_tables.op_spec import DTYPES
from latency_tables.predictor import Predictor
from latency_tables.schema import Prediction
from latency_tables.store import LatencyTable


@dataclass(frozen=True)
class LatencyModel:
    """A table asked about the architectures of one space."""

    space: Space
    predictors: dict[str, Predictor]
    _arrays: dict[str, ArrayLatency] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def of(space: Space, table: LatencyTable) -> LatencyModel:
        """Prepare predictors for every dtype.

        Raises:
            NotCalibrated: the table is incomplete.

        """
        return LatencyModel(space, {dtype: Predictor(table, dtype) for dtype in DTYPES})

    def predict(self, arch: Arch, dtype: str) -> Prediction:
        """Predict one architecture in one dtype.

        Raises:
            OpNotInTable: the table is of another space or incomplete.

        """
        return self.predictors[dtype].predict(graph_in(graph_of(self.space, arch), dtype).ops)

    def predicted_ms(self, arch: Arch) -> dict[str, float]:
        """Predict one architecture in every dtype."""
        return {dtype: self.predict(arch, dtype).total_ms for dtype in self.predictors}

    def arrays(self, dtype: str) -> ArrayLatency:
        """Give what predicts many architectures at once; it is prepared when first asked for. Raises as `predict`."""
        if dtype not in self._arrays:
            self._arrays[dtype] = ArrayLatency.of(self.space, self.predictors[dtype])
        return self._arrays[dtype]

    def fastest(self, dtype: str) -> tuple[Arch, float]:
        """Find the fastest architecture and its ms; see ArrayLatency.fastest."""
        arch = self.arrays(dtype).fastest()
        return arch, self.predict(arch, dtype).total_ms

    def check_target(self, target_ms: float, dtype: str) -> None:
        """See that some architecture meets a target.

        Raises:
            InfeasibleTarget: none does; the message names the fastest and its ms.

        """
        arch, fastest_ms = self.fastest(dtype)
        if fastest_ms > target_ms:
            raise InfeasibleTarget(target_ms, dtype, str(arch), fastest_ms)
