"""What it takes that a network fetches its weights again in every run: from where, how fast, and beside how much else.

The weights of an operator measured alone stay in the caches nearest to the core. Those of a network come back in every
run, all but what the core's own cache keeps: from a cache farther off, or from memory where others on the machine have
turned that cache over since the run before, as they have for a network that takes long. An operator computes while its
weights come: fetching costs little where it computes for longer, and else up to the whole of it. They all come while it
computes its first few pixels, and are at hand for the others.

These are the formulas alone; fitting.py finds out which rates a device's networks speak for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latency_tables.features import sizes_of
from latency_tables.op_spec import OpSpec

Floats = npt.NDArray[np.float64]

_TOGETHER = 3.0  # 1 would add computing and fetching up, ∞ hide the shorter behind the longer; 3 and 4 fitted best
# How sharply a cache is lost with time. Reading 4 MB again after 1, 2 and 4 ms on a machine with busy neighbours, 6, 29
# and 83 % of it had to come from memory: an exponent of 2.5 of the time on the wall, and 3 of the operators' own times.
_SHARPNESS = 3.0
_LEAST_MB = 1e-9  # what a network has at least, for shares of it


@dataclass(frozen=True, slots=True)
class Way:
    """How an operator's weights come to it; a rate of 0 is no limit at all."""

    gb_per_s: float
    rows_at_once: float = 0.0  # that a kernel computes with each weight before it takes the next; 0: all
    most_mb: float = 0.0  # of its weights come so that its own time does not hold it; 0: all


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a network's weights come from; a rate of 0 is no limit at all. A megabyte is 10⁶ bytes."""

    near_gb_per_s: float = 0.0  # rate of what is near, and the core's own cache does not keep
    kept_mb: float = 0.0  # of a network's weights, which that cache keeps
    far_gb_per_s: float = 0.0  # rate of what others have driven out since the run before; not above the near one
    kept_ms: float = math.inf  # after how long they have, with most of it; in sums of operators' own times
    rows_at_once: float = 0.0  # as in `Way`
    at_hand_mb: float = 0.0  # of an operator's weights, for which its own time did not wait; 0: all

    @property
    def near(self) -> Way:
        """Say how weights come from near: so came those of a large operator when it was measured alone, too."""
        return Way(self.near_gb_per_s, self.rows_at_once, self.at_hand_mb)

    @property
    def far(self) -> Way:
        """Say how weights come from far, where those of no operator measured again and again had to come from."""
        return Way(self.far_gb_per_s, self.rows_at_once)


@dataclass(frozen=True, slots=True)
class Work:
    """What one operator does in a network: it computes, and waits for its weights meanwhile."""

    own_ms: float  # measured again and again, with its weights at hand, without the fixed cost of a call
    weight_mb: float
    rows: int = 1  # of a matrix product, which all take the same weights: a convolution's pixels

    @staticmethod
    def of(op: OpSpec, own_ms: float) -> Work:
        """Take its weights and their use from an operator."""
        return Work(own_ms, op.weight_bytes / 1e6, sizes_of(op).positions)


def shares(memories: Sequence[Memory], weight_mb: Floats, own_ms: Floats) -> tuple[Floats, Floats]:
    """Give (memories, ...) shares, 0 to 1, of networks' weights that come from near and from far in every run.

    `weight_mb` and `own_ms` are (...) sums over each network's operators.
    """
    shape = (-1, *[1] * np.ndim(weight_mb))
    kept_mb = np.array([one.kept_mb for one in memories]).reshape(shape)
    kept_ms = np.array([one.kept_ms for one in memories]).reshape(shape)
    exceeding = 1.0 - kept_mb / np.maximum(weight_mb, np.maximum(kept_mb, _LEAST_MB))
    lost = -np.expm1(-((own_ms / kept_ms) ** _SHARPNESS))
    return exceeding * (1.0 - lost), exceeding * lost


def columns_of(works: Sequence[Work]) -> Floats:
    """Give (3, N) of operators: their own ms, megabytes of weights, and rows."""
    return np.array([(one.own_ms, one.weight_mb, one.rows) for one in works], np.float64).reshape(-1, 3).T


def fetched_ms(columns: Floats, way: Way) -> Floats:
    """Give the (N,) times of operators whose weights come while they compute their first rows.

    `columns` are those of `columns_of`; megabytes by GB/s are ms.
    """
    own_ms: Floats = columns[0]
    weight_mb, rows = columns[1:]
    if not way.gb_per_s:
        return own_ms
    first_ms = own_ms * np.minimum(1.0, way.rows_at_once / rows) if way.rows_at_once else own_ms
    coming_mb = np.minimum(weight_mb, way.most_mb) if way.most_mb else weight_mb
    both: Floats = first_ms**_TOGETHER + (coming_mb / way.gb_per_s) ** _TOGETHER
    fetched: Floats = own_ms - first_ms + both ** (1 / _TOGETHER)
    return fetched
