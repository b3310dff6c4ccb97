"""How far a calibration reaches: what the networks that it was fitted to are like, and the doubt about those unlike.

Its interval is that of further networks of their kind. Networks made of other operators, or of far larger or smaller
ones, were not among those left out to find it, so nothing measured says how far off they are: the doubts below are set
beforehand, from what isolated rows were seen to miss, and only ever widen an interval. The predictor asks; no time is
changed here. Read next: `predictor.py`.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from latency_tables.builder import observation, usable_networks
from latency_tables.calibrate import Calibration
from latency_tables.features import Family, kind_of
from latency_tables.op_spec import OpSpec
from latency_tables.speed import Speed
from latency_tables.store import LatencyTable

OTHER_KINDS_ERROR = 0.10  # of the time in kinds that no network held: isolated rows were 3 to 10 % off in networks
_FAR = 2.0  # × beyond the calibrated range; networks of one space that were left out of a fit stay within
_DOUBLING_ERROR = 0.05  # for every further doubling
_MOST = 0.25  # as of a table without calibration


@dataclass(frozen=True, slots=True)
class Extent:
    """What a network is like, for the terms of a calibration."""

    mean_row_ms: float  # of its operators, without the fixed cost of a call
    weight_mb: float
    rows_ms: float  # of all of them: long networks lose what the caches keep for shorter ones


@dataclass(frozen=True, slots=True)
class Reach:
    """The kinds that a dtype's calibration networks hold, and the least and most of their extents."""

    kinds: frozenset[Family]
    least: Extent
    most: Extent

    @staticmethod
    def of(table: LatencyTable, dtype: str, fit: Calibration) -> Reach | None:
        """Look at a table's networks; None where it has none, and the interval tells all that is known."""
        networks, speed = usable_networks(table, dtype), Speed(fit.usual_sentinel_ns, table.beside_ns)
        seen = [observation(table.rows, network, fit.fixed_ms, speed) for network in networks]
        extents = [Extent(one.rows_ms / max(1, len(one.works)), one.weight_mb, one.rows_ms) for one in seen]
        if not extents:
            return None
        ops = map(OpSpec.parse, {key for network in networks for key in network.op_keys})
        columns = list(zip(*map(astuple, extents), strict=True))
        least, most = (Extent(*map(choose, columns)) for choose in (min, max))
        return Reach(frozenset(map(kind_of, ops)), least, most)

    def doubt(self, extent: Extent, other_share: float) -> float:
        """Give the relative error to add to the interval's; 0 for a network like those of the calibration.

        `other_share` is the share of its time, 0 to 1, in kinds of operators that are not in `kinds`. Fewer weights
        than calibrated and a shorter time leave less that an isolated row misses, so only more of them are doubted.
        """
        large = max(map(_ratio, astuple(extent), astuple(self.most)))
        beyond = max(large, _ratio(self.least.mean_row_ms, extent.mean_row_ms)) / _FAR
        outside = min(_DOUBLING_ERROR * math.log2(beyond), _MOST) if beyond > 1 else 0.0
        return math.hypot(OTHER_KINDS_ERROR * other_share, outside)


def _ratio(one: float, other: float) -> float:
    if one <= 0:
        return 0.0
    return one / other if other > 0 else math.inf
