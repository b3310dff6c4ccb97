"""Where searches went: what they chose at each decision, how far apart they are, and their projection to a plane.

Architectures are rows of option indices, one a decision. Pure functions over arrays; no files, no drawing, no tests
of significance (permutation.py). Next: comparison.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of a space: its name and the names of its options."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Projection:
    """Principal components: `coordinates` (N, 2), and the share of the variance that each of the two holds."""

    coordinates: Floats
    shares: tuple[float, float]


def one_hot(choices: Ints, sizes: Sequence[int]) -> Floats:
    """Encode option indices (N, D) as zeros and ones, (N, sum of sizes)."""
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    encoded = np.zeros((len(choices), int(sum(sizes))))
    np.put_along_axis(encoded, choices + starts, 1.0, axis=1)
    return encoded


def marginals(choices: Ints, sizes: Sequence[int]) -> Floats:
    """Give the share of each option of each decision, (sum of sizes,); all zeros for no architectures."""
    total: Floats = one_hot(choices, sizes).sum(axis=0)
    return total / max(1, len(choices))


def distances_between(shares: Sequence[Floats], decisions: int) -> Floats:
    """Give the mean normalised Hamming distance of all pairs of each two sets, (R, R), from the sets' marginals.

    A pair differs at a decision with probability 1 − Σ p·q, so the mean over all pairs needs no pairs.
    """
    stacked = np.stack(shares)  # (R, E)
    distances: Floats = 1.0 - stacked @ stacked.T / decisions
    return distances


def distance_within(shares: Floats, count: int, decisions: int) -> float | None:
    """Give the mean normalised Hamming distance of the pairs of different places of one set; None of fewer than 2."""
    if count < 2:
        return None
    return max(0.0, (1.0 - float(shares @ shares) / decisions) * count / (count - 1))


def variation(shares: Sequence[Floats], sizes: Sequence[int]) -> list[float]:
    """Give, for each decision, the largest total variation distance (0–1) of two of the sets of shares."""
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    largest = []
    for start, stop in itertools.pairwise(bounds):
        parts = [s[start:stop] for s in shares]
        gaps = [float(np.abs(a - b).sum()) / 2 for i, a in enumerate(parts) for b in parts[i + 1 :]]
        largest.append(max(gaps, default=0.0))
    return largest


def project(encoded: Floats) -> Projection:
    """Project encodings (N, E) to their first two principal components.

    The sign of a component is such that its largest weight (of equals the first) is positive; so the same
    architectures always give the same picture, in whatever order.
    """
    centred = encoded - encoded.mean(axis=0) if len(encoded) else encoded
    # of the scatter matrix, (E, E): the same components as of the encodings, in a hundredth of the time
    _, variances, components = np.linalg.svd(centred.T @ centred)
    coordinates = np.zeros((len(encoded), 2))
    total = float(variances.sum())
    shares = [0.0, 0.0]
    for axis, component in enumerate(components[:2]):
        if total <= 0 or variances[axis] <= 1e-12 * total:
            continue
        largest = int(np.argmax(np.abs(component) > np.abs(component).max() - 1e-9))
        coordinates[:, axis] = centred @ component * np.sign(component[largest])
        shares[axis] = float(variances[axis]) / total
    return Projection(coordinates, (shares[0], shares[1]))
