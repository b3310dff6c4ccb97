"""Reads times as of the usual speed of the machine that a table was measured on, told by the sentinel beside them.

A clock that is held down or boosted changes the sentinel, a fixed small model, and everything else by one factor. What
was measured at another speed than most is measured again where that may help (builder.py); what stays so is scaled
here. Measurements themselves are never changed, and nothing of another key is made comparable.
"""

from __future__ import annotations

from dataclasses import dataclass

from latency_tables.schema import Measurement

SLOW = 1.04  # × the sentinel's usual time; the sentinel itself repeats to 1 to 2 %


@dataclass(frozen=True, slots=True)
class Speed:
    """A machine's usual speed: what its sentinel usually takes; 0 is unknown, and then every speed is usual."""

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
        return measurement.quiet_ms if 1 / SLOW <= slowdown <= SLOW else measurement.quiet_ms / slowdown
