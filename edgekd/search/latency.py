"""Latency of architectures from a table, in every dtype, and the fastest architecture of a space.

Predicts only; what is measured is profile.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgekd.errors import InfeasibleTarget
from edgekd.graph.ir import graph_in
from edgekd.spaces.arch import Arch, Block
from edgekd.spaces.layers import Shape, block_ops, graph_of, head_ops, kinds_of_block, stem_ops
from edgekd.spaces.space import Space
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.predictor import Predictor
from latency_tables.schema import Prediction
from latency_tables.store import LatencyTable


@dataclass(frozen=True)
class LatencyModel:
    """A table asked about the architectures of one space."""

    space: Space
    predictors: dict[str, Predictor]

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

    def fastest(self, dtype: str) -> tuple[Arch, float]:
        """Find the fastest architecture exactly, by dynamic programming over blocks and widths; and its ms."""
        _, start = stem_ops(self.space)
        ways: dict[Shape, tuple[float, tuple[Block, ...]]] = {start: (0.0, ())}
        for number in range(len(self.space.blocks)):
            ways = self._extend(ways, number, dtype)
        finished = ((cost + self._cost(head_ops(self.space, s), dtype), blocks) for s, (cost, blocks) in ways.items())
        arch = Arch(self.space.name, min(finished, key=lambda way: way[0])[1])
        return arch, self.predict(arch, dtype).total_ms

    def check_target(self, target_ms: float, dtype: str) -> None:
        """See that some architecture meets a target.

        Raises:
            InfeasibleTarget: none does; the message names the fastest and its ms.

        """
        arch, fastest_ms = self.fastest(dtype)
        if fastest_ms > target_ms:
            raise InfeasibleTarget(target_ms, dtype, str(arch), fastest_ms)

    def _extend(
        self, ways: dict[Shape, tuple[float, tuple[Block, ...]]], number: int, dtype: str
    ) -> dict[Shape, tuple[float, tuple[Block, ...]]]:
        """Append one block to the cheapest way to each shape; a block's cost depends only on its input's shape."""
        best: dict[Shape, tuple[float, tuple[Block, ...]]] = {}
        for start, (cost, blocks) in ways.items():
            for block, block_cost, end in self._block_costs(number, start, dtype):
                if end not in best or cost + block_cost < best[end][0]:
                    best[end] = (cost + block_cost, (*blocks, block))
        return best

    def _block_costs(self, number: int, start: Shape, dtype: str) -> Iterator[tuple[Block, float, Shape]]:
        for block in kinds_of_block(self.space, number):
            one, end = block_ops(self.space, number, start, replace(block, layers=1))
            first = self._cost(one, dtype)
            again = 0.0
            if block.layers > 1:
                again = self._cost(block_ops(self.space, number, start, block)[0], dtype) - first
            for layers in self.space.blocks[number].layers:
                yield replace(block, layers=layers), first + (layers - 1) * again, end

    def _cost(self, ops: Sequence[OpSpec], dtype: str) -> float:
        return self.predictors[dtype].marginal_ms([replace(op, dtype=dtype) for op in ops])
