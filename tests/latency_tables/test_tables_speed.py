"""The usual speed: what was measured at another one is read as of it, and a sentinel's scatter changes nothing."""

from __future__ import annotations

import pytest
from synthetic import measurement

from latency_tables.speed import SLOW, Speed

USUAL = Speed(40_000)


@pytest.mark.parametrize(("sentinel_ns", "slowdown"), [(40_000, 1.0), (52_000, 1.3), (36_000, 0.9)])
def test_the_sentinel_tells_how_many_times_slower_the_machine_was(sentinel_ns: int, slowdown: float) -> None:
    """Below 1 is a boosted clock."""
    assert USUAL.slowdown(measurement("x", sentinel_ns=sentinel_ns)) == pytest.approx(slowdown)


@pytest.mark.parametrize("factor", [0.9, 0.95, SLOW + 0.001, 1.1, 1.31, 3.0])
def test_one_factor_on_both_is_taken_back(factor: float) -> None:
    """A subject and the sentinel beside it on another clock tell what the subject takes on the usual one."""
    odd = measurement("x", round(1_000_000 * factor), sentinel_ns=round(40_000 * factor))
    assert USUAL.quiet_ms(odd) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [0.5, 0.89, 1 / SLOW + 0.001, 1.0, 1.01, SLOW - 0.001])
def test_scatter_and_absurd_boosts_of_the_sentinel_change_no_time(factor: float) -> None:
    """They would be put on every row otherwise; so fast no machine was for as long as rows take."""
    row = measurement("x", 1_000_000, sentinel_ns=round(40_000 * factor))
    assert USUAL.quiet_ms(row) == row.quiet_ms == 1.0


@pytest.mark.parametrize(("usual_ns", "sentinel_ns"), [(0, 40_000), (40_000, 0), (0, 0)])
def test_an_unknown_speed_is_taken_for_the_usual_one(usual_ns: int, sentinel_ns: int) -> None:
    """Tables of others, and engines without a sentinel, tell nothing of their machine's speed."""
    row = measurement("x", 1_000_000, sentinel_ns=sentinel_ns)
    assert Speed(usual_ns).slowdown(row) == 1.0
    assert Speed(usual_ns).quiet_ms(row) == 1.0
