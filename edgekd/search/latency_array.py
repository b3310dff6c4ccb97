"""Latency of millions of architectures at once: a table a block of the space, looked up by option indices.

What a block adds depends on its own six choices and on the width of the block before it, so a prediction is one look-up
a block and sum. Made of the operators of spaces/layers.py and their terms in latency_tables/predictor.py, with which it
agrees to rounding. Predictions one at a time, with parts and interval, are latency.py's; fastest.py finds the fastest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import UsageError
from edgekd.graph.ir import graph_in
from edgekd.search.fastest import fastest
from edgekd.spaces.arch import Arch, Block
from edgekd.spaces.builder import Shape
from edgekd.spaces.layers import block_ops, graph_of, head_ops, kinds_of_block, stem_ops
from edgekd.spaces.space import Space
from latency_tables.calibrate import TERMS, Calibration
from latency_tables.op_spec import OpSpec
from latency_tables.predictor import FLOOR_SHARE, Predictor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]
Places = npt.NDArray[np.intp]

_DECISIONS = 6  # a block
_CHUNK = 4096  # architectures; what is computed for so many fits a core's second-level cache


@dataclass(frozen=True, slots=True)
class BlockSums:
    """A sum over operators as a table a block.

    `fixed` is every architecture's: the stem, and the two ends of an int8 file. `blocks` has one array a block,
    (width options of the block before or 1, options of its own six decisions); the last holds the head, too.
    """

    fixed: float
    blocks: tuple[Floats, ...]

    def at(self, places: Sequence[Places]) -> Floats:
        """Add up, given a block each (N,) places in its table, laid out flat → (N,)."""
        total = np.full(len(places[0]), self.fixed)
        for table, found in zip(self.blocks, places, strict=True):
            total += table.ravel().take(found)
        return total

    @property
    def bounds(self) -> tuple[float, float]:
        """Give what no architecture is below, and what none is above."""
        low, high = (sum(float(choose(table)) for table in self.blocks) for choose in (np.min, np.max))
        return self.fixed + low, self.fixed + high


@dataclass(frozen=True, slots=True)
class ArrayLatency:
    """The architectures of one space in one dtype, as option indices; see `Space.arch` and `Space.choices`.

    `sums` are what operators add up to, see `Calibration.terms`; far below the last, their own times, no prediction may
    fall.
    """

    space: Space
    calibration: Calibration
    sums: tuple[BlockSums, ...]

    @staticmethod
    def of(space: Space, predictor: Predictor) -> ArrayLatency:
        """Prepare the tables in the predictor's dtype.

        Raises:
            OpNotInTable: the predictor's table is of another space or incomplete.

        """
        costs = _Costs(space, predictor)
        blocks = list(costs.tables())
        sums = tuple(
            BlockSums(float(fixed), tuple(np.ascontiguousarray(block[..., term]) for block in blocks))
            for term, fixed in enumerate(costs.fixed())
        )
        return ArrayLatency(space, predictor.calibration, sums)

    def predict_ms(self, choices: Integers) -> Floats:
        """Predict many architectures: (N, 6·blocks) option indices → (N,) ms.

        Raises:
            UsageError: not an array of integers, of another shape, or an index out of range.

        """
        self._check_form(choices)
        predicted_ms, needed = np.empty(len(choices)), self._needed()
        for start in range(0, len(choices), _CHUNK):
            part = choices[start : start + _CHUNK]
            columns = part.T.astype(np.intp, order="C")  # (6·blocks, n); what does not fit becomes negative
            self._check_range(part, columns, start)
            sums = self._sums_at(self._places(columns), needed)
            predicted_ms[start : start + _CHUNK] = np.maximum(self.calibration.sum_ms(sums), FLOOR_SHARE * sums[-1])
        return predicted_ms

    def _needed(self) -> tuple[int, ...]:
        """List the terms of which something comes."""
        always, own, fit = self.sums[0], self.sums[-1], self.calibration
        may_sink = always.bounds[0] + fit.offset_ms < FLOOR_SHARE * own.bounds[1]
        from_near, from_far = fit.fetch_gb_per_s > 0, fit.far_gb_per_s > 0
        is_needed = (True, from_near, from_far, from_near or from_far, from_far or may_sink)
        return tuple(term for term, needed in enumerate(is_needed) if needed)

    def _sums_at(self, places: Sequence[Places], needed: Sequence[int]) -> Floats:
        """Add up (5, n) terms; those that are not needed stay 0."""
        sums = np.zeros((TERMS, len(places[0])))
        for term in needed:
            sums[term] = self.sums[term].at(places)
        return sums

    def fastest(self) -> Arch:
        """Find the architecture that is predicted fastest, exactly but for `FLOOR_SHARE`."""
        fixed = np.array([one.fixed for one in self.sums])
        blocks = [np.stack(tables) for tables in zip(*(one.blocks for one in self.sums), strict=True)]
        return self.space.arch(fastest(fixed, blocks, self.calibration.sum_ms))

    def _places(self, columns: Places) -> list[Places]:
        """Find architectures in each block's table, laid out flat: the width before, then the block's own decisions."""
        places, before = [], np.zeros_like(columns[0])
        for number, table in enumerate(self.sums[0].blocks):
            place = before.copy()
            for size, column in zip(table.shape[1:], columns[_DECISIONS * number :], strict=False):
                place *= size
                place += column
            places.append(place)
            before = columns[_DECISIONS * (number + 1) - 1]  # the width is a block's last decision
        return places

    def _check_form(self, choices: object) -> None:
        decisions = len(self.space.decision_sizes)
        wanted = f"an array of integers of shape (N, {decisions}), the option indices of space {self.space.name}"
        if not isinstance(choices, np.ndarray):
            raise UsageError(f"choices must be {wanted}, not {type(choices).__name__}")
        if choices.ndim != 2 or choices.shape[1] != decisions or not np.issubdtype(choices.dtype, np.integer):
            raise UsageError(f"choices must be {wanted}, not {choices.dtype} of shape {choices.shape}")

    def _check_range(self, part: Integers, columns: Places, start: int) -> None:
        sizes = np.array(self.space.decision_sizes)
        if columns.min() >= 0 and (columns.max(axis=1) < sizes).all():
            return
        row, decision = np.argwhere((columns < 0).T | (columns >= sizes[:, None]).T)[0]
        raise UsageError(
            f"choices[{start + row}, {decision}] is {part[row, decision]}, "
            f"but that decision of space {self.space.name} has {sizes[decision]} options"
        )


class _Costs:
    """Adds up operators' terms, see ArrayLatency, block by block; those are the last axis of its arrays."""

    def __init__(self, space: Space, predictor: Predictor) -> None:
        self._space = space
        self._predictor = predictor
        self._known: dict[OpSpec, Floats] = {}  # by the float32 operator; most recur in many blocks

    def fixed(self) -> Floats:
        """Give the stem, and what the dtype's file holds around the plain operators."""
        plain = graph_of(self._space, self._space.arch(self._space.lightest))
        inner = {self._typed(op) for op in plain.ops}
        around = [op for op in graph_in(plain, self._predictor.dtype).ops if op not in inner]
        stem, _ = stem_ops(self._space)
        return sum((self._predictor.terms(op) for op in around), self._sum(stem))

    def tables(self) -> Iterator[Floats]:
        """Give each block's table."""
        starts = [stem_ops(self._space)[1]]
        for number, options in enumerate(self._space.blocks):
            table = np.zeros((len(starts), *map(len, options.decisions), TERMS))
            for block in kinds_of_block(self._space, number):
                table[(slice(None), *self._place(number, block))] = self._block(number, block, starts)
            starts = [self._end(number, filters, starts[0]) for filters in options.filters]
            if number == len(self._space.blocks) - 1:
                table += [self._sum(head_ops(self._space, start)) for start in starts]
            yield table

    def _place(self, number: int, block: Block) -> tuple[int | slice, ...]:
        """Find a block among its options, with all depths."""
        decisions = self._space.blocks[number].decisions
        values = (block.conv_op, block.kernel, block.se_ratio, block.skip_op, None, block.filters)
        return tuple(
            slice(None) if value is None else options.index(value)
            for value, options in zip(values, decisions, strict=True)
        )

    def _block(self, number: int, block: Block, starts: Sequence[Shape]) -> Floats:
        """Give (starts, depths, terms) of a block; its layers after the first are all alike."""
        depths = np.array(self._space.blocks[number].layers)[:, None]
        ones = [block_ops(self._space, number, start, replace(block, layers=1))[0] for start in starts]
        two, _ = block_ops(self._space, number, starts[0], replace(block, layers=2))
        first = np.array([self._sum(ops) for ops in ones])
        again = self._sum(two[len(ones[0]) :] if depths.max() > 1 else ())
        return first[:, None] + (depths - 1) * again

    def _end(self, number: int, filters: float, start: Shape) -> Shape:
        block = replace(next(kinds_of_block(self._space, number)), layers=1, filters=filters)
        return block_ops(self._space, number, start, block)[1]

    def _sum(self, ops: Iterable[OpSpec]) -> Floats:
        return sum((self._terms_of(op) for op in ops), np.zeros(TERMS))

    def _terms_of(self, op: OpSpec) -> Floats:
        """Give the terms of a float32 operator in the predictor's dtype."""
        if op not in self._known:
            self._known[op] = self._predictor.terms(self._typed(op))
        return self._known[op]

    def _typed(self, op: OpSpec) -> OpSpec:
        return replace(op, dtype=self._predictor.dtype)
