"""Two tables compared: equal ones do not differ, noise is no difference, and a slower machine shows in the ratios."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import KEY, conv, measurement
from table_files import NETWORK

from latency_tables.diff import compare, spread_ms
from latency_tables.store import LatencyTable

tables = st.dictionaries(st.integers(1, 9), st.integers(1, 10**12), max_size=6).map(
    lambda times: LatencyTable(KEY, {conv(c).key: measurement(conv(c).key, ns) for c, ns in times.items()})
)


@given(tables)
def test_a_table_does_not_differ_from_itself(table: LatencyTable) -> None:
    """No key, no row, no ratio but 1."""
    difference = compare(table, table)
    assert difference.key == difference.only_a == difference.only_b == difference.beyond_noise == ()
    assert len(difference.both) == len(table.rows)
    assert (difference.ratios is None) == (not table.rows)
    if difference.ratios:
        assert difference.ratios.least == difference.ratios.most == 1.0


@given(tables, tables)
def test_the_other_way_round_is_the_same_difference(a: LatencyTable, b: LatencyTable) -> None:
    """Every subject is in one table or in both, ratios are inverse and the same rows differ."""
    there, back = compare(a, b), compare(b, a)
    assert (there.only_a, there.only_b) == (back.only_b, back.only_a)
    assert len(there.only_a) + len(there.both) == len(a.rows)
    assert {p.subject for p in there.beyond_noise} == {p.subject for p in back.beyond_noise}
    ratios = {p.subject: p.ratio for p in back.both}
    assert all(p.ratio * ratios[p.subject] == pytest.approx(1) for p in there.both)


def test_a_difference_within_the_noise_is_none() -> None:
    """Twice the spread of both; a spread is at least 1 %, since fresh processes differ by that much."""
    op = conv().key
    a = LatencyTable(KEY, {op: measurement(op, samples_ns=(10_000,))})

    def beyond(*samples_ns: int) -> bool:
        return bool(compare(a, LatencyTable(KEY, {op: measurement(op, samples_ns=samples_ns)})).beyond_noise)

    assert not beyond(10_280)
    assert beyond(10_290)
    assert not beyond(9_000, 11_000, 13_000)


def test_key_and_subjects_that_differ_are_listed_and_the_largest_ratio_comes_first() -> None:
    """Networks count as rows do."""
    one, two, three = (conv(c).key for c in (1, 2, 3))
    a = LatencyTable(KEY, {key: measurement(key, 10_000) for key in (one, two)}, {"network:a": NETWORK})
    slower = replace(NETWORK, measurement=measurement("network:a", 5000))
    rows = {two: measurement(two, 2_500), three: measurement(three)}
    difference = compare(a, LatencyTable(replace(KEY, threads=2), rows, {"network:a": slower}))
    assert difference.key == ("threads: 1 / 2",)
    assert (difference.only_a, difference.only_b) == ((one,), (three,))
    assert [pair.subject for pair in difference.beyond_noise] == [two, "network:a"]
    assert difference.beyond_noise[0].ratio == pytest.approx(0.25, rel=0.01)
    assert difference.ratios is not None
    assert difference.ratios.geometric_mean == pytest.approx((0.25 * 2) ** 0.5, rel=0.01)
    assert (difference.ratios.least, difference.ratios.most) == pytest.approx((0.25, 2.0), rel=0.01)


def test_the_spread_is_a_standard_deviation_that_a_few_outliers_do_not_move() -> None:
    """1.4826 × the median absolute deviation; one sample has none."""
    samples = (*range(90_000, 110_001, 100), 10**9, 10**9)
    assert spread_ms(measurement("x", samples_ns=samples)) == pytest.approx(1.4826 * 0.005, rel=0.02)
    assert spread_ms(measurement("x", samples_ns=(7,))) == 0
