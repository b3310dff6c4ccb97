"""Reads times as of the usual speed of the machine that a table was measured on, told by the sentinel beside them.

A clock that is held down or boosted changes the sentinel, a fixed small model, and other operators by one factor: seen
for factors of 0.91 to 1.14, give or take 3 %. What was measured on a slow clock is measured again (builder.py); what
stays at another speed is scaled here. Time that goes to memory does not follow the clock, and is scaled too much. No
measurement itself is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from latency_tables.schema import Measurement

SLOW = 1.04  # × the sentinel's usual time; the sentinel itself repeats to 1 to 2 %
_MOST_BOOSTED = 0.9  # likewise; nothing faster was seen for long, and a moment's boost is not that of times beside it


@dataclass(frozen=True, slots=True)
class Speed:
    """A machine's usual speed: what its sentinel usually takes; 0 is unknown, and then no speed is unusual."""

    usual_sentinel_ns: int

    def slowdown(self, measurement: Measurement) -> float:
        """Give how many times slower than usual the machine was; 1.0 where either speed is unknown."""
        known = measurement.sentinel_ns and self.usual_sentinel_ns
        return measurement.sentinel_ns / self.usual_sentinel_ns if known else 1.0

    def quiet_ms(self, measurement: Measurement) -> float:
        """Give `Measurement.quiet_ms` as of the usual speed.

        Less than SLOW off is the sentinel's own scatter, for which no time is changed.
        """
        slowdown = self.slowdown(measurement)
        is_believed = _MOST_BOOSTED <= slowdown < 1 / SLOW or slowdown > SLOW
        return measurement.quiet_ms / (slowdown if is_believed else 1.0)


AS_MEASURED = Speed(0)
