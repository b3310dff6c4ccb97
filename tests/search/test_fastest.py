"""The fastest architecture is the one that trying all of them finds, whatever the sums and what they come to."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.search.fastest import _undominated, fastest
from latency_tables.calibrate import uncalibrated
from latency_tables.fetching import Work

pytestmark = pytest.mark.whole  # tries every way

Floats = npt.NDArray[np.float64]
FIXED = np.array([0.5, 0.1, 0.2])


def drawn(seed: int, widths: list[int], options: int) -> list[Floats]:
    """Draw (3, widths before, options, 1, 2, 1, 1, widths) sums for each block, the last two of them above 0."""
    rng, before = np.random.default_rng(seed), 1
    blocks = []
    for width in widths:
        sums = rng.normal(1, 1, (3, before, options, 1, 2, 1, 1, width))
        sums[1:] = np.abs(sums[1:])
        blocks.append(sums)
        before = width
    return blocks


def every_way(blocks: list[Floats], fixed: Floats = FIXED) -> dict[tuple[int, ...], Floats]:
    """Add up the sums of all architectures, by their choices."""
    ranges = [range(size) for block in blocks for size in block.shape[2:]]
    found = {}
    for choices in itertools.product(*ranges):
        sums, before = fixed, 0
        for number, block in enumerate(blocks):
            own = choices[6 * number : 6 * number + 6]
            place: Any = (slice(None), before, *own)
            sums, before = sums + block[place], own[-1]
        found[choices] = sums
    return found


@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    options=st.integers(1, 3),
    kept=st.sampled_from([0.0, 1.0, 3.0, 100.0]),
)
def test_it_is_the_least_of_all(seed: int, widths: list[int], options: int, kept: float) -> None:
    """Wherever what is fetched begins to count, the choices found are those of the least total."""

    def total_ms(sums: Floats) -> Floats:
        share: Floats = 1 - kept / np.maximum(sums[2], max(kept, 1e-9))
        total: Floats = sums[0] + share * sums[1]
        return total

    blocks = drawn(seed, widths, options)
    ways = every_way(blocks)
    found = fastest(FIXED, blocks, total_ms)
    least = min(float(total_ms(sums)) for sums in ways.values())
    assert np.isclose(float(total_ms(ways[found])), least, rtol=1e-9, atol=1e-9)


@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    fit=st.sampled_from([
        {"far_gb_per_s": 5.0, "kept_ms": 2.0},
        {"far_gb_per_s": 1.0, "kept_ms": 4.0},
        {"fetch_gb_per_s": 20.0, "kept_mb": 3.0, "far_gb_per_s": 2.0, "kept_ms": 3.0},
    ]),
)  # fmt: skip
def test_it_is_the_least_where_long_networks_lose_their_weights(
    seed: int, widths: list[int], fit: dict[str, float]
) -> None:
    """Terms of made-up operators, summed up as a calibration does, come to no less for any other choices."""
    calibration, rng = replace(uncalibrated(0.0), **fit), np.random.default_rng(seed)
    blocks, before = [], 1
    for width in widths:
        shape = (before, 3, 1, 2, 1, 1, width)
        drawn_ms, drawn_mb = rng.uniform(0.1, 2, shape), rng.uniform(0, 4, shape)
        terms = [calibration.terms(Work(*drawn)) for drawn in zip(drawn_ms.flat, drawn_mb.flat, strict=True)]
        blocks.append(np.array(terms).T.reshape(-1, *shape))
        before = width
    fixed = calibration.terms(Work(0.3, 0.5))
    found = fastest(fixed, blocks, calibration.sum_ms)
    ways = every_way(blocks, fixed)
    least = min(float(calibration.sum_ms(sums)) for sums in ways.values())
    assert np.isclose(float(calibration.sum_ms(ways[found])), least, rtol=1e-9)


def test_ways_that_are_all_alike_are_no_more_work() -> None:
    """A table whose rows are all the same has as many fastest architectures as the space has: one is found at once."""
    blocks = [np.ones((3, 1 if number == 0 else 3, 4, 2, 3, 2, 4, 3)) for number in range(7)]
    found = fastest(FIXED, blocks, lambda sums: sums[0] + sums[1])
    assert len(found) == 6 * 7


@given(
    ways=st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=40),
)
def test_what_another_way_beats_in_all_sums_is_left(ways: list[tuple[int, int, int]]) -> None:
    """Every way is beaten by one that is kept, or kept itself, and none of those that are kept by another."""
    sums = np.array(ways, dtype=float).T
    kept = [ways[index] for index in _undominated(sums)]
    assert len(set(kept)) == len(kept)
    assert all(any(all(a <= b for a, b in zip(one, way, strict=True)) for one in kept) for way in ways)
    for one, other in itertools.permutations(kept, 2):
        assert any(a > b for a, b in zip(one, other, strict=True))


def test_a_large_constant_does_not_hide_the_fastest() -> None:
    """Rounding of what every architecture has must not rule all of them out."""
    blocks = drawn(1, [2, 3, 2], 2)
    ways = every_way(blocks)
    large = FIXED + np.array([1e6, 0, 0])
    found = fastest(large, blocks, lambda sums: sums[0] + sums[1])
    assert np.isclose(ways[found][:2].sum(), min(sums[:2].sum() for sums in ways.values()), atol=1e-6)
