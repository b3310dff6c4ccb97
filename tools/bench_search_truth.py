"""The two benchmarks that search engines are compared on: what an architecture's accuracy and latency are.

NAS-Bench-Macro is a table of all 6,561 vectors. Accel-NASBench holds 5,138 of some 10^11 vectors, so boosted trees are
fitted to it; they know one truth for every vector, and how well they match the data is printed by cross-validation.

Read next: bench_search_regret.py, which lets the engines loose on them.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.search.engines import Choices

MACRO_FILE = "nas-bench-macro_cifar10.json"
ACCEL_FILE = "accel_nasbench_imagenet_mnasspace.csv.gz"
ACCEL_DECISIONS = tuple(f"block{block}_{what}" for block in range(7) for what in ("e", "k", "l", "se"))
LEAST_LATENCY = 0.1  # ms; a quarter of nothing: the fastest of the data takes 1.7
FOLDS = 5
# Chosen by cross-validation: more trees, deeper ones and other learners (ridge, kernels) match no better.
ACCURACY_TREES = {"n_estimators": 800, "max_depth": 3, "subsample": 0.5}
LATENCY_TREES = {"n_estimators": 600, "max_depth": 4, "subsample": 0.5, "max_features": 0.5}

Ratings = list[tuple[float, float]]  # accuracy 0–1 and latency, in the unit of the target


@dataclass(frozen=True)
class Truth:
    """A benchmark: its decisions, the latency target, the budget of a study, and what each vector is worth."""

    name: str
    sizes: tuple[int, ...]
    target: float
    budget: int
    rate: Callable[[Sequence[Choices]], Ratings]
    everything: tuple[Choices, ...] = ()  # all vectors, where they can be listed: the best is then known


def macro_truth(data: Path) -> Truth:
    """Read NAS-Bench-Macro: mean accuracy of three trainings, and MFLOPs in place of a latency, target 40."""
    entries: dict[str, Any] = json.loads((data / MACRO_FILE).read_text(encoding="utf-8"))
    table = {
        tuple(map(int, key)): (entry["mean_acc"] / 100, entry["flops"] / 1e6) for key, entry in sorted(entries.items())
    }
    return Truth(
        "nas_bench_macro", (3,) * 8, 40.0, 400, lambda vectors: [table[choices] for choices in vectors], tuple(table)
    )


@dataclass(frozen=True)
class AccelData:
    """Accel-NASBench as arrays: option indices (N, 28), accuracy (N,) and ZCU102 latency in ms (N,), NaN if missing."""

    sizes: tuple[int, ...]
    choices: np.ndarray
    accuracy: np.ndarray
    latency: np.ndarray

    @classmethod
    def read(cls, data: Path) -> AccelData:
        """Read the compressed table."""
        with gzip.open(data / ACCEL_FILE, "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        options = [sorted({row[name] for row in rows}) for name in ACCEL_DECISIONS]
        choices = [
            [known.index(row[name]) for name, known in zip(ACCEL_DECISIONS, options, strict=True)] for row in rows
        ]
        return cls(
            tuple(map(len, options)),
            np.array(choices),
            np.array([float(row["val_top1"]) / 100 for row in rows]),
            np.array([float(row["latency_zcu102"] or "nan") for row in rows]),
        )


def accel_truth(data: Path) -> Truth:
    """Fit boosted trees to Accel-NASBench: ImageNet proxy accuracy and latency on a ZCU102, target 5 ms."""
    known = AccelData.read(data)
    there = np.isfinite(known.latency)
    accuracy = _trees(ACCURACY_TREES).fit(known.choices, known.accuracy)
    latency = _trees(LATENCY_TREES).fit(known.choices[there], known.latency[there])

    def rate(vectors: Sequence[Choices]) -> Ratings:
        rows = np.array(vectors)
        milliseconds = np.maximum(latency.predict(rows), LEAST_LATENCY)
        return list(zip(accuracy.predict(rows).tolist(), milliseconds.tolist(), strict=True))

    return Truth("accel_nasbench", known.sizes, 5.0, 1000, rate)


def accel_fit(data: Path) -> dict[str, float]:
    """Cross-validate the surrogates: R² and Kendall τ over held-out fifths, of accuracy and of latency."""
    known = AccelData.read(data)
    there = np.isfinite(known.latency)
    result: dict[str, float] = {}
    for name, trees, rows, values in (
        ("accuracy", ACCURACY_TREES, known.choices, known.accuracy),
        ("latency", LATENCY_TREES, known.choices[there], known.latency[there]),
    ):
        r2, tau = _cross_validated(trees, rows, values)
        result |= {f"surrogate.{name}.r2": r2, f"surrogate.{name}.kendall_tau": tau}
    return result


def _cross_validated(trees: dict[str, Any], rows: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    from scipy.stats import kendalltau
    from sklearn.model_selection import KFold

    predicted = np.empty_like(values)
    for train, test in KFold(FOLDS, shuffle=True, random_state=0).split(rows):
        predicted[test] = _trees(trees).fit(rows[train], values[train]).predict(rows[test])
    unexplained = float(np.mean((values - predicted) ** 2) / values.var())
    return 1 - unexplained, float(kendalltau(predicted, values).statistic)


def _trees(settings: dict[str, Any]) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(learning_rate=0.1, random_state=0, **settings)


TRUTHS: dict[str, Callable[[Path], Truth]] = {"nas_bench_macro": macro_truth, "accel_nasbench": accel_truth}


@cache
def truth_of(name: str, data: Path) -> Truth:
    """Load a benchmark once a process."""
    return TRUTHS[name](data)
