"""How far predictions are from measurements, shown and counted, and the simplest prediction that is no sum of rows.

Knows lists of milliseconds and operators only. Read next: `bench_tables.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latency_tables.op_spec import OpSpec
from latency_tables.schema import Prediction

Floats = npt.NDArray[np.float64]

_Z_95 = 1.959964  # two-sided 95 % of the normal distribution


def errors_of(predicted_ms: Sequence[float], measured_ms: Sequence[float], misses: int = 0) -> dict[str, float]:
    """Compare predictions with measurements: errors in percent, shares and Spearman's coefficient from 0 to 1.

    So many `misses` have no prediction and count in the shares: they are within nothing. `within_5_high` is the upper
    end of the 95 % interval of the share within ±5 %, given so few networks.
    """
    errors = np.abs(np.array(predicted_ms) / np.array(measured_ms) - 1)
    within_5, count = int((errors <= 0.05).sum()), len(errors) + misses
    return {
        "mean_ape": float(100 * errors.mean()),
        "median_ape": float(100 * np.median(errors)),
        "within_5": within_5 / count,
        "within_5_high": wilson_high(within_5, count),
        "within_10": int((errors <= 0.10).sum()) / count,
        "spearman": spearman(predicted_ms, measured_ms),
    }


def interval_coverage(predictions: Iterable[Prediction], measured_ms: Sequence[float]) -> float:
    """Give the share of measurements, from 0 to 1, that are inside their prediction's interval, its ends included."""
    pairs = zip(predictions, measured_ms, strict=True)
    return statistics.fmean(one.low_ms <= measured <= one.high_ms for one, measured in pairs)


def wilson_high(hits: int, count: int) -> float:
    """Give the upper end of the 95 % score interval of a share.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    share, z2 = hits / count, _Z_95**2
    spread = _Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # without a miss it is 1, but for rounding
    return 1.0 if hits == count else (share + z2 / (2 * count) + spread) / (1 + z2 / count)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Correlate the ranks of two lists; equal values share the mean of their ranks, and equal lists have no order."""
    ranks = [_ranks(np.array(values, np.float64)) for values in (one, other)]
    spreads = [float(r.std()) for r in ranks]
    if min(spreads) == 0.0:
        return 0.0
    products = (ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())
    return float(products.mean()) / (spreads[0] * spreads[1])


def _ranks(values: Floats) -> Floats:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group], np.float64)


def compared(found: Mapping[str, Prediction], measured_ms: Sequence[float], misses: int = 0) -> dict[str, float]:
    """Print each network's times, and give how good the predictions and their intervals are."""
    print_networks(both_ms(found, measured_ms))
    stats = errors_of([one.total_ms for one in found.values()], measured_ms, misses)
    print_stats({"edgekd": stats})
    coverage = interval_coverage(found.values(), measured_ms)
    print(f"  {100 * coverage:.1f} % of {len(found)} measurements are inside their 90 % interval", flush=True)
    return {**stats, "interval_coverage": coverage}


def both_ms(found: Mapping[str, Prediction], measured_ms: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Pair what was measured with what was predicted."""
    return {name: (ms, one.total_ms) for (name, one), ms in zip(found.items(), measured_ms, strict=True)}


def print_networks(ms: Mapping[str, tuple[float, float]]) -> None:
    """Print each network's measured and predicted ms."""
    for name, (measured, predicted) in ms.items():
        print(
            f"  {name:44} {measured:9.3f} ms, predicted {predicted:9.3f} ms {100 * (predicted / measured - 1):+7.2f}%"
        )


def print_stats(stats: Mapping[str, Mapping[str, float]]) -> None:
    """Print the methods side by side."""
    print(f"  {'':14}{'mean':>8}{'median':>8}{'in 5 %':>8}{'(high)':>8}{'in 10 %':>8}{'Spearman':>10}")
    for method, of in stats.items():
        errors = "".join(f"{of[name]:7.2f}%" for name in ("mean_ape", "median_ape"))
        shares = "".join(f"{100 * of[name]:7.1f}%" for name in ("within_5", "within_5_high", "within_10"))
        print(f"  {method:14}{errors}{shares}{of['spearman']:10.4f}", flush=True)


@dataclass(frozen=True, slots=True)
class OpCountFit:
    """A latency from the numbers of operators alone: 1x1 convolutions, larger ones, depthwise ones, the rest, and 1."""

    coefficients: Floats  # (5,), ms

    @staticmethod
    def of(networks: Sequence[Sequence[OpSpec]], measured_ms: Sequence[float]) -> OpCountFit:
        """Fit by least squares on relative errors, as a table's own calibration is."""
        relative = np.array([op_counts(ops) for ops in networks]) / np.array(measured_ms)[:, None]
        return OpCountFit(np.linalg.lstsq(relative, np.ones(len(relative)), rcond=None)[0].astype(np.float64))

    def predict_ms(self, ops: Sequence[OpSpec]) -> float:
        """Predict a network; a fit so simple may give any number."""
        return float(np.array(op_counts(ops)) @ self.coefficients)


def op_counts(ops: Sequence[OpSpec]) -> tuple[int, int, int, int, int]:
    """Count a network's operators for OpCountFit."""
    convs = [op.kernel == (1, 1) for op in ops if op.kind == "conv_2d"]
    small, depthwise = sum(convs), sum(op.kind == "depthwise_conv_2d" for op in ops)
    return small, len(convs) - small, depthwise, len(ops) - len(convs) - depthwise, 1
