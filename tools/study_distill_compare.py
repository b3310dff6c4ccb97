"""What a study of distillation found: means and deviations over seeds, gains seed by seed, and their table.

A part of study_distill.py, which trains.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench_parts import Result

NONE = "none"  # the label of no teacher, and of the method without one


def compared(records: Sequence[Result]) -> list[Result]:
    """Give each teacher's and method's mean and deviation over seeds, and its differences to no teacher by seed."""
    alone = {record["seed"]: record["test_accuracy"] for record in records if record["teacher"] == NONE}
    groups = dict.fromkeys((record["teacher"], record["method"]) for record in records)
    return [_compared(group, records, alone) for group in groups]


def _compared(group: tuple[str, str], records: Sequence[Result], alone: dict[int, float]) -> Result:
    own = [record for record in records if (record["teacher"], record["method"]) == group]
    shares = [record["test_accuracy"] for record in own]
    gains = [record["test_accuracy"] - alone[record["seed"]] for record in own] if group[0] != NONE else []
    return {
        "teacher": group[0],
        "method": group[1],
        "seeds": len(own),
        **_spread("test_accuracy", shares),
        **(_spread("gain", gains) | {"better": sum(gain > 0 for gain in gains)} if gains else {}),
    }


def _spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Give the mean and the sample deviation, which one value does not have."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {f"{name}_mean": statistics.fmean(values), f"{name}_deviation": deviation}


def table(comparison: Sequence[Result]) -> str:
    """Write the comparison for a terminal, in percent."""
    rows = [("teacher", "method", "test accuracy", "gain over none, seed by seed", "better")]
    for row in comparison:
        gain = _percent(row, "gain", "+") if "gain_mean" in row else ""
        better = f"{row['better']} of {row['seeds']}" if "better" in row else ""
        rows.append((row["teacher"], row["method"], _percent(row, "test_accuracy", ""), gain, better))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _percent(row: Result, name: str, sign: str) -> str:
    deviation = row[f"{name}_deviation"]
    more = f" ± {100 * deviation:.2f}" if deviation is not None else ""
    return f"{100 * row[f'{name}_mean']:{sign}.2f}{more}"
