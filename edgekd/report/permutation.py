"""A permutation test over whole runs, of whether runs of different groups are further apart than those of one.

The samples of a run depend on each other, so a run is the unit: the labels of whole runs are permuted between the
groups, never those of samples. Knows only distances; regions.py has those of searches, comparison.py joins them.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MOST_ENUMERATED = 50_000  # labellings; three groups of four runs have 34,650
DRAWN = 20_000  # permutations where there are more labellings than that
SIGNIFICANT = 0.05
_AT_ONCE = 2_000  # labellings; more at a time take memory and no less time
_ROUNDING = 1e-12  # labellings of equal difference must count as equal; distances are at most 1


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """What a test found; distances are means over pairs of different runs.

    `least_p` is the smallest p-value that any outcome could have had: with few runs it is not below .05.
    """

    between: float
    within: float
    p_value: float
    least_p: float
    labellings: int
    exact: bool

    @property
    def difference(self) -> float:
        """Give the statistic: the mean distance between groups less the one within groups."""
        return self.between - self.within

    @property
    def can_be_significant(self) -> bool:
        """Tell whether so few runs could give p < .05 at all."""
        return self.least_p < SIGNIFICANT


def permutation_test(distances: Floats, groups: Sequence[int], seed: int = 0) -> PermutationTest | None:
    """Test whether runs of different groups are further apart than chance would put them.

    `distances` is symmetric, (R, R); its diagonal is not used. `groups` numbers the group of each run. The p-value is
    one-sided: the share of labellings whose difference is at least the observed one, of all labellings where these
    are few, else (1 + count) / (1 + drawn) of seeded random ones. None if there is no pair of runs within a group, or
    none between groups.
    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010), article 39, for
    the sampled p-value.
    """
    labels = np.unique(np.asarray(groups, dtype=np.int64), return_inverse=True)[1].astype(np.int64)
    sizes = [int(n) for n in np.bincount(labels)] if len(labels) else []
    pairs = _Pairs.of(np.asarray(distances, dtype=np.float64))
    observed = pairs.means(labels[None, :])
    if observed is None:
        return None
    between, within = observed
    exact = _labellings(sizes) <= MOST_ENUMERATED
    others = np.array(list(_every_labelling(sizes)), np.int64) if exact else _drawn_labellings(labels, seed)
    as_far = sum(
        int(np.count_nonzero(found[0] - found[1] >= between - within - _ROUNDING))
        for start in range(0, len(others), _AT_ONCE)
        if (found := pairs.means(others[start : start + _AT_ONCE])) is not None
    )
    least = _least_p(sizes)
    if exact:
        p_value = as_far / len(others)
    else:
        p_value, least = (1 + as_far) / (1 + len(others)), max(least, 1 / (1 + len(others)))
    return PermutationTest(float(between[0]), float(within[0]), p_value, least, len(others), exact)


@dataclass(frozen=True)
class _Pairs:
    """All pairs of different runs and their distances, (P,)."""

    first: Labels
    second: Labels
    distance: Floats

    @classmethod
    def of(cls, distances: Floats) -> _Pairs:
        first, second = np.triu_indices(len(distances), k=1)
        return cls(first.astype(np.int64), second.astype(np.int64), distances[first, second])

    def means(self, labellings: Labels) -> tuple[Floats, Floats] | None:
        """Give the mean distances between and within groups of each labelling, (L, R) → two (L,)."""
        same = labellings[:, self.first] == labellings[:, self.second]  # (L, P)
        count = int(np.count_nonzero(same[0]))
        if count in (0, len(self.distance)):
            return None
        within = same @ self.distance
        between = (~same) @ self.distance
        return between / (len(self.distance) - count), within / count


def _labellings(sizes: Sequence[int]) -> int:
    """Count the ways to deal runs to groups of these sizes."""
    return math.factorial(sum(sizes)) // math.prod(map(math.factorial, sizes))


def _least_p(sizes: Sequence[int]) -> float:
    """Give the share of labellings that are the observed one under other names: groups of one size can swap."""
    swaps = math.prod(math.factorial(count) for count in Counter(sizes).values())
    return swaps / _labellings(sizes)


def _every_labelling(sizes: Sequence[int]) -> Iterator[list[int]]:
    """List each way to deal runs to groups of these sizes once."""

    def deal(group: int, free: tuple[int, ...], labels: list[int]) -> Iterator[list[int]]:
        if group == len(sizes) - 1:
            yield labels  # all that are free bear the last group's number from the beginning
            return
        for chosen in itertools.combinations(free, sizes[group]):
            dealt = labels.copy()
            for run in chosen:
                dealt[run] = group
            yield from deal(group + 1, tuple(run for run in free if run not in chosen), dealt)

    runs = sum(sizes)
    return deal(0, tuple(range(runs)), [len(sizes) - 1] * runs)


def _drawn_labellings(labels: Labels, seed: int) -> Labels:
    draw = np.random.default_rng(seed)
    return draw.permuted(np.tile(labels, (DRAWN, 1)), axis=1)
