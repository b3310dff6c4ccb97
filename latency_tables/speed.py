"""Reads times as of the usual speed of the machine that a table was measured on, told by the sentinel beside them.

A clock that is held down or boosted changes the sentinel, a fixed small model, and other operators by one factor: seen
for factors of 0.91 to 1.14, give or take 3 %. What was measured on a slow clock is measured again (builder.py); what
stays at another speed is scaled here. Time that goes to memory does not follow the clock, and is scaled too much.
What was measured beside a network is read by the visits before which that took what it usually takes, or, where there
are too few, by how many times its time it takes (schema.py). No measurement itself is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latency_tables.schema import Measurement

SLOW = 1.04  # × the sentinel's usual time; the sentinel itself repeats to 1 to 2 %
_MOST_BOOSTED = 0.9  # likewise; nothing faster was seen for long, and a moment's boost is not that of times beside it


@dataclass(frozen=True, slots=True)
class Speed:
    """A machine's usual speed: what its sentinel usually takes; 0 is unknown, and then no speed is unusual.

    `beside_ns` is what each network takes, by its name, beside which something was measured.
    """

    usual_sentinel_ns: int
    beside_ns: Mapping[str, int] = field(default_factory=dict)

    def slowdown(self, measurement: Measurement) -> float:
        """Give how many times slower than usual the machine was; 1.0 where either speed is unknown."""
        usual_ns = self.beside_ns.get(measurement.beside, 0) if measurement.beside_ns else self.usual_sentinel_ns
        return measurement.sentinel_ns / usual_ns if measurement.sentinel_ns and usual_ns else 1.0

    def is_slow(self, measurement: Measurement) -> bool:
        """Tell whether measuring again may tell more: beside a network where too few visits were on a calm machine."""
        if measurement.beside_ns:
            level_ns = self.beside_ns.get(measurement.beside)
            return level_ns is not None and not measurement.is_calm(level_ns)
        return self.slowdown(measurement) > SLOW

    def quiet_ms(self, measurement: Measurement) -> float:
        """Give `Measurement.quiet_ms` as of the usual speed.

        Less than SLOW off is the sentinel's own scatter, for which no time is changed.
        """
        if measurement.beside_ns:
            return measurement.ms_beside(self.beside_ns.get(measurement.beside, measurement.sentinel_ns))
        slowdown = self.slowdown(measurement)
        is_believed = _MOST_BOOSTED <= slowdown < 1 / SLOW or slowdown > SLOW
        return measurement.quiet_ms / (slowdown if is_believed else 1.0)

    def scatter(self, measurement: Measurement) -> float:
        """Give `Measurement.scatter_beside`; 0 of what was measured beside no network."""
        return measurement.scatter_beside(self.beside_ns.get(measurement.beside, measurement.sentinel_ns))

    def settled_ms(self, measurement: Measurement) -> float:
        """Give `Measurement.quiet_ms` of what was measured until the machine was at its usual speed.

        Beside a network it need not be: that tells what it takes at the usual speed.
        """
        return self.quiet_ms(measurement) if measurement.beside_ns else measurement.quiet_ms


AS_MEASURED = Speed(0)
