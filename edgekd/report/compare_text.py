"""A comparison of runs in words: aligned tables for the terminal, plain values for JSON.

No colour codes and no HTML. The page shows the same. Next: compare_html.py.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from edgekd.report import analysis, formats
from edgekd.report.comparison import ComparedRun, Comparison, PairTest
from edgekd.report.decisions import flat_options
from edgekd.report.permutation import SIGNIFICANT, PermutationTest
from edgekd.report.scene import engine_name
from edgekd.report.text import aligned, figures_of
from edgekd.report.where import shares_text

HEADINGS = ("run", "group", "engine", "seed", "target ms", "samples", "failed", "best under it", "own distance")
_MOST_DECISIONS = 8  # that are listed for the terminal; the page has all


def outcome(comparison: Comparison) -> str:
    """Say in one or two sentences whether the groups went to different regions."""
    return tested(comparison.test, len(comparison.runs), len(comparison.groups))


def tested(test: PermutationTest | None, runs: int, groups: int) -> str:
    """Word a test over runs."""
    if groups < 2:
        return "All runs are of one group, so there is nothing to test: name runs of another teacher or engine, too."
    if test is None:
        return "No test: no group has two runs, so nothing says how far runs of one group are apart; add seeds."
    said = (
        f"Distance between groups {test.between:.3f}, within {test.within:.3f}: difference {test.difference:+.3f}, "
        f"p = {p_text(test.p_value)} ({how_tested(test)} of {runs} runs)"
    )
    if not test.can_be_significant:
        return f"{said}. With so few runs no outcome has p < {SIGNIFICANT:g} (least {p_text(test.least_p)}): add seeds."
    if test.p_value < SIGNIFICANT:
        return f"{said}: runs of different groups are further apart than chance explains."
    return f"{said}: chance alone could explain it."


def how_tested(test: PermutationTest) -> str:
    """Say which labellings were looked at."""
    return f"{'all' if test.exact else 'random'} {test.labellings} labellings"


def p_text(p_value: float) -> str:
    """Word a p-value with two significant digits."""
    return f"{p_value:.2g}"


def run_row(comparison: Comparison, place: int) -> tuple[str, ...]:
    """Word one run."""
    run, own = comparison.runs[place], comparison.distances[place, place]
    summary = analysis.summarize(run.study, run.target)
    best = figures_of(summary.best, run.target) if summary.best else formats.DASH
    return (
        run.name,
        comparison.groups[run.group],
        engine_name(run.study.engine),
        str(run.seed),
        ", ".join(formats.ms(t.ms) for t in run.study.targets),
        str(summary.samples),
        str(sum(summary.failures.values())),
        best,
        formats.DASH if math.isnan(own) else f"{own:.3f}",
    )


def group_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Word the mean distances of the groups, a row and a column a group, with headings."""
    groups = range(len(comparison.groups))
    heads = ("distance", *comparison.groups)
    return [
        heads,
        *((comparison.groups[a], *(_number(comparison.group_distance(a, b)) for b in groups)) for a in groups),
    ]


def _number(value: float | None) -> str:
    return formats.DASH if value is None else f"{value:.3f}"


def compared_table(comparison: Comparison) -> str:
    """Return the outcome, the runs, the distances, the tests and the decisions that differ most, for a terminal."""
    runs = [run_row(comparison, place) for place in range(len(comparison.runs))]
    parts = [outcome(comparison), "", aligned([HEADINGS, *runs])]
    if len(comparison.groups) > 1:
        parts += ["", aligned(group_rows(comparison))]
    parts += ["", aligned(pair_rows(comparison)), PAIRS_NOTE] if comparison.pair_tests else []
    parts += ["", aligned(_decision_rows(comparison))] if len(comparison.groups) > 1 else []
    parts += ["", *(f"note: {note}" for note in comparison.notes)] if comparison.notes else []
    return "\n".join(parts)


PAIRS_NOTE = "Tests of pairs are not corrected for being several."


def pair_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Word the test of each pair of groups, with headings."""
    heads = ("groups", "between", "within", "difference", "p", "least possible p", "labellings")
    return [heads, *(_pair_row(comparison, pair) for pair in comparison.pair_tests)]


def _pair_row(comparison: Comparison, pair: PairTest) -> tuple[str, ...]:
    names, test = f"{comparison.groups[pair.first]} | {comparison.groups[pair.second]}", pair.test
    if test is None:
        return (names, *("too few runs" if place == 0 else formats.DASH for place in range(6)))
    figures = (f"{test.between:.3f}", f"{test.within:.3f}", f"{test.difference:+.3f}")
    return (names, *figures, p_text(test.p_value), p_text(test.least_p), how_tested(test))


def _decision_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    differences, start = comparison.differences, 0
    starts = []
    for decision in comparison.decisions:
        starts.append(start)
        start += len(decision.options)
    order = sorted(range(len(differences)), key=lambda place: -differences[place])[:_MOST_DECISIONS]
    rows: list[tuple[str, ...]] = [("decision", "differs", *comparison.groups)]
    for place in order:
        decision = comparison.decisions[place]
        part = slice(starts[place], starts[place] + len(decision.options))
        groups = (comparison.group_shares(group)[part].tolist() for group in range(len(comparison.groups)))
        rows.append((decision.name, f"{differences[place]:.2f}", *(shares_text(decision, s) for s in groups)))
    return rows


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return runs, distances, tests and marginals as values that json.dumps takes."""
    options = flat_options(comparison.decisions)
    groups = [comparison.group_shares(group).tolist() for group in range(len(comparison.groups))]
    return {
        "format": "edgekd-comparison",
        "version": 1,
        "outcome": outcome(comparison),
        "last_samples": comparison.last,
        "groups": list(comparison.groups),
        "runs": [_run(run) for run in comparison.runs],
        "distances": [[None if math.isnan(d) else float(d) for d in row] for row in comparison.distances],
        "test": _test(comparison.test),
        "pair_tests": [{"first": p.first, "second": p.second, "test": _test(p.test)} for p in comparison.pair_tests],
        "marginals": [
            {"decision": decision, "option": option, "shares": [shares[place] for shares in groups]}
            for place, (decision, option) in enumerate(options)
        ],
        "decision_differences": comparison.differences,
        "notes": list(comparison.notes),
    }


def _run(run: ComparedRun) -> dict[str, object]:
    summary = analysis.summarize(run.study, run.target)
    return {
        "run": run.name, "group": run.group, "teacher": run.teacher, "engine": run.study.engine, "seed": run.seed,
        "targets_ms": [t.ms for t in run.study.targets], "target_dtype": run.target.dtype,
        "samples": summary.samples, "failures": summary.failures,
        "best_accuracy_under_target": summary.best.proxy_accuracy if summary.best else None,
    }  # fmt: skip


def _test(test: PermutationTest | None) -> dict[str, object] | None:
    return None if test is None else asdict(test) | {"difference": test.difference}
