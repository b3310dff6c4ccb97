"""The times of one family of operators as a function of their sizes, fitted to rows.

First comes the work of a kernel: a non-negative sum of a fixed cost, multiply-accumulates in whole tiles of channels
and rows, bytes of activations and of weights. What that sum misses is a Gaussian process over the logarithms of the
sizes, so that near rows correct it and its doubt grows with the distance from them; and rows of equal width share
something of their own, since libraries choose another kernel for some widths. Tiles and the process's settings are
those by which each row is told best from the others.
Source: Gaussian processes and their leave-one-out errors, Rasmussen and Williams, 2006, sections 2.2 and 5.4.2.

It does not choose which rows belong together: that is estimate.py's work, which is the next file to read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latency_tables.features import Sizes

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_ROWS = 600  # of one surface, thinned evenly; an estimate multiplies a square matrix of so many rows
_TUNING_ROWS = 160  # settings are chosen on so many, by some hundred inversions
_SWEEPS = 2
_LEAST_GAIN = 0.01  # in mean log density, below which a setting is not changed
_RIDGE = 1e-3  # towards equal shares of all kinds of work, which decides only where rows are very few
_USUAL_ROWS = 8  # in a tile of matrix products, at most, in most libraries
_CHOSEN = 8  # settings that a family's rows decide, as a rule; the others stay as they begin
_TAIL = 4.0  # degrees of freedom of Student's t, by which settings are judged: a few disturbed rows must not rule


@dataclass(frozen=True, slots=True)
class _Settings:
    """Tiles of the kernel, and standard deviations (in log ms) and reaches (in log size) of the process."""

    channel_tile: int = 8
    in_tile: int = 1
    row_tile: int = 1
    work_sd: float = 0.3  # relative, of each kind of work's coefficient
    local_sd: float = 0.1  # of what is smooth in the sizes
    reach: float = 1.0
    channel_reach: float = 1.0
    out_sd: float = 0.1  # of what all rows of equal output channels share, as another kernel for some of them
    in_sd: float = 0.0
    position_sd: float = 0.0
    family_sd: float = 0.3  # of what all rows of one family share, where a surface holds several
    noise_sd: float = 0.01  # of a measurement, relative
    noise_ms: float = 0.0  # and absolute, which counts where a row is hardly longer than a call of the runtime


_EFFECTS = (0.0, 0.03, 0.1, 0.3)
_CHOICES: dict[str, tuple[float, ...]] = {
    "channel_tile": (1, 4, 8, 16, 32),
    "in_tile": (1, 8),
    "row_tile": (1, 4, 5, 6, 7, 8, 14, 16),
    "work_sd": (0.03, 0.1, 0.3, 1.0),
    "local_sd": (0.02, 0.05, 0.1, 0.2, 0.4),
    "noise_sd": (0.005, 0.01, 0.02, 0.04, 0.08),
    "noise_ms": (0.0, 1e-5, 3e-5, 1e-4),
    "reach": (0.25, 0.5, 1.0, 2.0, 4.0),
    "channel_reach": (0.25, 0.5, 1.0, 2.0, 4.0),
    "out_sd": _EFFECTS,
    "in_sd": _EFFECTS,
    "position_sd": _EFFECTS,
    "family_sd": (0.1, 0.3, 1.0),
}


POSITIONS, IN_CHANNELS, OUT_CHANNELS, REDUCTION, TAPS, BYTES = range(6)  # the coordinates
_INDEPENDENT = 5  # of them, all but the bytes, place an operator; those only tell what is larger than all measured


def coordinates(sizes: Sizes) -> tuple[float, ...]:
    """Place an operator among the others of its kind: the logarithms of its sizes, and of all bytes that it moves."""
    reduction = sizes.in_elements / (sizes.positions * sizes.in_channels)
    moved = (sizes.in_elements + sizes.out_elements) * sizes.element_bytes + sizes.weight_bytes
    places = (sizes.positions, sizes.in_channels, sizes.out_channels, reduction, sizes.taps, moved)
    return tuple(math.log(size) for size in places)


def _work(sizes: Sizes, settings: _Settings) -> tuple[float, ...]:
    """Give how much of each kind of work a kernel has to do."""
    rows = _whole_tiles(sizes.positions, settings.row_tile) if sizes.positions > 1 else 1
    channels = _whole_tiles(sizes.out_channels, settings.channel_tile)
    in_bytes = float(sizes.in_elements * sizes.element_bytes)
    if sizes.group_channels <= 1:  # such kernels go over all channels of a place in the same tiles
        in_bytes *= _whole_tiles(sizes.in_channels, settings.channel_tile) / sizes.in_channels
        macs = rows * channels * sizes.taps * sizes.group_channels
    else:
        macs = rows * channels * sizes.taps * _whole_tiles(sizes.group_channels, settings.in_tile)
    out_bytes = rows * channels * sizes.element_bytes
    return (1.0, macs, in_bytes, out_bytes, sizes.weight_bytes, rows * sizes.taps)


def _whole_tiles(size: int, tile: int) -> int:
    return -(-size // tile) * tile


@dataclass(frozen=True, slots=True)
class _Points:
    """Operators as a kernel function sees them, one a row."""

    places: Floats  # (n, 6), coordinates
    shares: Floats  # (n, kinds of work), of the predicted time; each row sums to 1
    families: Integers  # (n,)


class Surface:
    """A family's times. `families` numbers the exact families where the rows are of several."""

    def __init__(self, sizes: Sequence[Sizes], ms: Sequence[float], families: Sequence[int] | None = None) -> None:
        """Choose settings and fit. `sizes` must come in the same order for the same rows, which thinning depends on."""
        kept = _thin(len(sizes), MAX_ROWS)
        self._sizes = [sizes[i] for i in kept]
        self._ms = np.array([ms[i] for i in kept])
        numbers = families or [0] * len(sizes)
        self.families = np.array([numbers[i] for i in kept], dtype=np.int64)
        self.places = np.array([coordinates(size) for size in self._sizes])  # (n, 6)
        self._settings = self._tuned()
        self._coefficients, points, missed, self._inverse = self._solve(self._settings)
        self._points = points
        # rows on which settings were chosen are told better by the others than a new one is
        self._optimism = math.sqrt(1 + _CHOSEN / len(self._sizes))
        self._weights = self._inverse @ missed

    def predict(self, sizes: Sizes, family: int = 0) -> tuple[float, float]:
        """Give an operator's ms, and the standard deviation of its logarithm."""
        work = np.array(_work(sizes, self._settings))
        plain = float(work @ self._coefficients)
        shares = (work * self._coefficients / plain)[None]
        asked = _Points(np.array([coordinates(sizes)]), shares, np.array([family]))
        likeness = _kernel(asked, self._points, self._settings)[0]
        own = float(_kernel(asked, asked, self._settings)[0, 0])
        ms = plain * math.exp(float(likeness @ self._weights))
        noise = self._settings.noise_sd**2 + (self._settings.noise_ms / ms) ** 2
        variance = max(own - float(likeness @ self._inverse @ likeness), 0.0) + noise
        return ms, math.sqrt(variance) * self._optimism

    def left_out(self, mask: Mask) -> Floats:
        """Give the errors of some rows when all of them are left out together, in their own standard deviations."""
        part = np.linalg.inv(self._inverse[np.ix_(mask, mask)])
        errors: Floats = np.abs(part @ self._weights[mask]) / np.sqrt(np.diag(part))
        return errors

    def each_left_out(self) -> Floats:
        """Give the error of each row when it is left out alone, in standard deviations."""
        errors: Floats = np.abs(self._weights) / np.sqrt(np.diag(self._inverse))
        return errors

    def untold_waste(self, sizes: Sizes) -> float:
        """Give what an operator may take more, relatively, for rows that fill no tile, where no tile could be told.

        Rows of large images say little about tiles, and small images fill them badly.
        """
        if self._settings.row_tile > 1 or sizes.group_channels <= 1 or sizes.positions == 1:
            return 0.0
        return _whole_tiles(sizes.positions, _USUAL_ROWS) / sizes.positions - 1

    def _tuned(self) -> _Settings:
        """Choose the settings one after the other, on some of the rows."""
        kept = _thin(len(self._sizes), _TUNING_ROWS)
        part = self if len(kept) == len(self._sizes) else self._part(kept)
        several = len(set(self.families.tolist())) > 1
        settings = _Settings()
        best = part._doubt(settings)
        for name, values in list(_CHOICES.items()) * _SWEEPS if len(kept) > 2 else []:
            for value in values if several or name != "family_sd" else ():
                changed = replace(settings, **{name: value})  # type: ignore[arg-type]  # tiles are whole in _CHOICES
                doubt = part._doubt(changed) if changed != settings else best
                if doubt < best - _LEAST_GAIN:
                    best, settings = doubt, changed
        return settings

    def _part(self, kept: Sequence[int]) -> Surface:
        part = object.__new__(Surface)
        part._sizes, part._ms = [self._sizes[i] for i in kept], self._ms[list(kept)]
        part.families, part.places = self.families[list(kept)], self.places[list(kept)]
        return part

    def _doubt(self, settings: _Settings) -> float:
        """Give the mean negative log density of each row, as told by the others."""
        _, _, missed, inverse = self._solve(settings)
        variance = 1 / np.diag(inverse)
        squares = (inverse @ missed) ** 2 * variance  # squared errors of rows left out, in their variances
        return float(np.mean(np.log(variance) / 2 + (_TAIL + 1) / 2 * np.log1p(squares / _TAIL)))

    def _solve(self, settings: _Settings) -> tuple[Floats, _Points, Floats, Floats]:
        """Give the coefficients of the work, the rows' points, what the work misses in log ms, and K⁻¹."""
        work = np.array([_work(size, settings) for size in self._sizes])
        coefficients = _non_negative_fit(work / self._ms[:, None])
        plain = work @ coefficients
        points = _Points(self.places, work * coefficients / plain[:, None], self.families)
        noise = settings.noise_sd**2 + (settings.noise_ms / self._ms) ** 2
        kernel = _kernel(points, points, settings) + np.diag(noise)
        missed: Floats = np.log(self._ms / plain)
        inverse: Floats = np.asarray(np.linalg.inv(kernel), dtype=np.float64)
        return coefficients, points, missed, inverse


def _kernel(some: _Points, others: _Points, settings: _Settings) -> Floats:
    """Give the covariance in log ms of each of some operators with each of others."""
    reaches = [settings.reach, settings.channel_reach, settings.channel_reach, settings.reach, settings.reach]
    apart = (some.places[:, None, :_INDEPENDENT] - others.places[None, :, :_INDEPENDENT]) / np.array(reaches)
    distance = np.sqrt(3 * (apart**2).sum(axis=-1))
    total: Floats = settings.work_sd**2 * (some.shares @ others.shares.T)
    total += settings.local_sd**2 * (1 + distance) * np.exp(-distance)  # Matérn, 3/2
    equal = np.abs(apart) < 1e-9
    for sd, same in (
        (settings.out_sd, equal[..., OUT_CHANNELS]),
        (settings.in_sd, equal[..., IN_CHANNELS]),
        (settings.position_sd, equal[..., POSITIONS] & equal[..., REDUCTION]),
        (settings.family_sd, some.families[:, None] == others.families[None]),
    ):
        total += sd**2 * same
    return total


def _non_negative_fit(relative: Floats) -> Floats:
    """Solve min ‖A·c − 1‖² for c ≥ 0, leaving out one after the other the columns that come out most negative."""
    scale = relative.mean(axis=0)
    kept = scale > 0
    coefficients = np.zeros(len(scale))
    while True:
        columns = relative[:, kept] / scale[kept]
        count = columns.shape[1]
        gram = columns.T @ columns + _RIDGE * np.eye(count)
        solution = np.linalg.solve(gram, columns.sum(axis=0) + _RIDGE / count)
        if solution.min() >= 0 or count == 1:
            coefficients[kept] = solution / scale[kept]
            return coefficients
        kept[np.flatnonzero(kept)[solution.argmin()]] = False


def _thin(count: int, limit: int) -> list[int]:
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]
