"""The fastest architecture is the one that trying all of them finds, whatever the sums and what they come to."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from edgekd.search.fastest import fastest

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


def every_way(blocks: list[Floats]) -> dict[tuple[int, ...], Floats]:
    """Add up the sums of all architectures, by their choices."""
    ranges = [range(size) for block in blocks for size in block.shape[2:]]
    found = {}
    for choices in itertools.product(*ranges):
        sums, before = FIXED, 0
        for number, block in enumerate(blocks):
            own = choices[6 * number : 6 * number + 6]
            sums, before = sums + block[(slice(None), before, *own)], own[-1]
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
