"""Draws a comparison of runs as one HTML page that needs nothing else.

It reads no files and reckons nothing: comparison.py does. Next: page.py, whose pieces it is made of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean

from edgekd.report import analysis, compare_text, formats, page, svg
from edgekd.report.comparison import ComparedRun, Comparison, all_samples
from edgekd.report.fields import clean
from edgekd.report.html import marginals_table
from edgekd.report.scene import MOST_MARKS, Figure, Legend
from edgekd.report.svg import element, escape
from edgekd.report.where import TIMES, projection_axes, time_of
from edgekd.search.study_file import Sample

COLOURS = 6  # of groups, then again from the first with another shape
_SHAPES = ("dot", "triangle")


def render(comparison: Comparison) -> str:
    """Return the page of a comparison, a complete HTML document."""
    title = f"{len(comparison.runs)} searches of {clean(comparison.runs[0].study.header.space)} compared"
    header = (
        element("p", "edgekd comparison", class_="eyebrow"),
        element("h1", escape(title)),
        element("p", page.prose(compare_text.outcome(comparison)), class_="lead"),
    )
    return page.document(
        title,
        element("header", *header, page.notes(comparison.notes)),
        _tiles(comparison),
        _runs(comparison),
        _plots(comparison),
        _distances(comparison),
        _decisions(comparison),
        element("footer", "Made by edgekd."),
    )


def _tiles(comparison: Comparison) -> str:
    test, last = comparison.test, f"of the last {comparison.last} samples of each run"
    if test is None:
        return ""
    how = f"{'all' if test.exact else 'random'} {test.labellings} labellings of whole runs"
    shown = (
        page.tile("distance between groups", f"{test.between:.3f}", last),
        page.tile("distance within groups", f"{test.within:.3f}", last),
        page.tile("difference", f"{test.difference:+.3f}".replace("-", "\N{MINUS SIGN}"), "0 to 1, of all decisions"),
        page.tile("p of the permutation test", compare_text.p_text(test.p_value), how),
    )
    return element("dl", *shown, class_="tiles")


def _runs(comparison: Comparison) -> str:
    rows = []
    for place, run in enumerate(comparison.runs):
        name, *cells = compare_text.run_row(comparison, place)
        head = element("th", page.key(*_look(run.group)), escape(name), scope="row", class_="w")
        rows.append(element("tr", head, *(element("td", escape(cell)) for cell in cells)))
    heads = [(name, "") for name in compare_text.HEADINGS]
    return page.section("Runs", page.table("Runs in groups of equal settings but the seed", heads, rows))


def _look(group: int) -> tuple[str, str]:
    """Choose the shape and class of a group."""
    return _SHAPES[group // COLOURS % len(_SHAPES)], f"g{group % COLOURS}"


def _plots(comparison: Comparison) -> str:
    marked = _marked(comparison)
    note = "" if len(marked) == len(all_samples(comparison)) else (
        f"Of {len(all_samples(comparison))} samples {len(marked)} are drawn as marks, evenly from each run."
    )  # fmt: skip
    hint = (
        "A mark is one network, the darker the later it was tried. Point at one to see it; click on a name in a legend "
        "to hide it; drag over a plot to zoom in, and double-click to see all of it again."
    )
    shown = (element("p", escape(said), class_="soft") for said in (hint, note) if said)
    drawn = (page.figure(figure) for figure in (_projection(comparison, marked), _bests(comparison)))
    return page.section("Searches", *shown, element("div", *drawn, class_="plots"))


def _marked(comparison: Comparison) -> list[int]:
    """Choose the rows of the projection that get a mark: all, or evenly from each run."""
    every = max(1, math.ceil(len(all_samples(comparison)) / MOST_MARKS))
    samples = enumerate(all_samples(comparison))
    return [row for row, (_, sample) in samples if sample.index % every == 0]


def _projection(comparison: Comparison, marked: Sequence[int]) -> Figure:
    x, y = projection_axes(comparison.projection)
    at, samples = svg.place_of(x, y), all_samples(comparison)
    layers: dict[tuple[int, int], list[str]] = {}
    for row in marked:
        run, sample = samples[row]
        first, second = map(float, comparison.projection.coordinates[row])
        shape, _ = _look(run.group)
        layer = layers.setdefault((time_of(sample.index, len(run.study.samples)), run.group), [])
        layer.append(svg.mark(shape, at(first, second), f"p{row}", _title(run, sample)))
    groups = [
        svg.element("g", *layers[time, group], class_=f"marks {_look(group)[1]} t{time}")
        for time, group in itertools.product(range(TIMES), range(len(comparison.groups)))
        if (time, group) in layers
    ]
    shares = comparison.projection.shares
    insight = (
        f"The two directions in which the networks differ most hold {100 * sum(shares):.0f} % of their variance. "
        "Groups that went to different regions part with time."
    )
    title = "Where the searches went"
    layered = svg.Layers(x, y, "".join(groups))
    return Figure(title, insight, _legend(comparison), svg.plot("plot-where", title, insight, layered))


def _title(run: ComparedRun, sample: Sample) -> str:
    accuracy = f"failed: {sample.failure}" if sample.failure else formats.percent(sample.proxy_accuracy)
    return (
        f"{run.name} sample {sample.index}\n{formats.ms(run.target.latency_ms(sample))} ms · {accuracy}\n{sample.arch}"
    )


def _bests(comparison: Comparison) -> Figure:
    """Draw the best accuracy so far under each run's own target."""
    steps = [analysis.running_best(run.study.samples, run.target) for run in comparison.runs]
    values = [100 * best for run in steps for _, best in run]
    longest = max(len(run.study.samples) for run in comparison.runs)
    x = svg.horizontal(0, max(longest - 1, 5), "sample")
    y = svg.vertical(*svg.padded(values), "best proxy accuracy so far under the target (%)")
    at, drawn = svg.place_of(x, y), []
    for run, of_run in zip(comparison.runs, steps, strict=True):
        line = svg.staircase([at(sample.index, 100 * best) for sample, best in of_run])
        drawn.append(svg.path(svg.corners(line), f"trend {_look(run.group)[1]}"))
    insight = _bests_insight(comparison, steps)
    title, layers = "Accuracy over the search", svg.Layers(x, y, "".join(drawn))
    legend = tuple(("line", class_, name) for _, class_, name in _legend(comparison))
    return Figure(title, insight, legend, svg.plot("plot-best", title, insight, layers))


def _bests_insight(comparison: Comparison, steps: Sequence[Sequence[tuple[Sample, float]]]) -> str:
    """Average the last best accuracies of each group's runs."""
    ends: dict[int, list[float]] = {}
    for run, of_run in zip(comparison.runs, steps, strict=True):
        if of_run:
            ends.setdefault(run.group, []).append(of_run[-1][1])
    means = (f"{comparison.groups[group]} {formats.percent(fmean(found))}" for group, found in sorted(ends.items()))
    return f"At the end, on average over runs: {', '.join(means)}." if ends else "No sample is under a target."


def _legend(comparison: Comparison) -> Legend:
    return tuple((*_look(group), name) for group, name in enumerate(comparison.groups))


def _distances(comparison: Comparison) -> str:
    """Show the distances of runs and of groups, and the tests."""
    names = [run.name for run in comparison.runs]
    rows = []
    for a, name in enumerate(names):
        cells = [element("td", _distance(float(comparison.distances[a, b])), class_="n") for b in range(len(names))]
        head = element("th", page.key(*_look(comparison.runs[a].group)), escape(name), scope="row")
        rows.append(element("tr", head, *cells))
    heads = [("", ""), *((name, "n") for name in names)]
    (_, *labels), *groups = compare_text.group_rows(comparison)
    of_groups = [
        element("tr", page.row_head(head), *(element("td", escape(c), class_="n") for c in cells))
        for head, *cells in groups
    ]
    group_heads = [("", ""), *((label, "n") for label in labels)]
    hint = (
        f"Mean share of decisions in which a network of one run's last {comparison.last} samples differs from one of "
        "another's; on the diagonal from another of the same run. The test permutes the groups of whole runs, since "
        f"the samples of a run depend on each other. {compare_text.PAIRS_NOTE}"
    )
    pair_heads, *pairs = compare_text.pair_rows(comparison)
    tests = [element("tr", page.row_head(head), *(element("td", escape(c)) for c in cells)) for head, *cells in pairs]
    of_pairs = page.table("Tests of pairs of groups", [(name, "") for name in pair_heads], tests) if tests else ""
    return page.section(
        "Distances",
        element("p", escape(hint), class_="soft"),
        of_pairs,
        "<br>",
        page.table("Runs", heads, rows, class_="scroll card distances"),
        "<br>",
        page.table("Groups, of pairs of different runs", group_heads, of_groups, class_="scroll card distances"),
    )


def _distance(value: float) -> str:
    return formats.DASH if math.isnan(value) else f"{value:.3f}"


def _decisions(comparison: Comparison) -> str:
    hint = (
        f"The shares of the options in the last {comparison.last} samples of each run, averaged over a group's runs. "
        "Differs: the largest total variation distance of two groups (0: the same shares, 1: nothing in common)."
    )
    columns = [(name, comparison.group_shares(group)) for group, name in enumerate(comparison.groups)]
    shown = marginals_table("Decisions", comparison.decisions, columns, ("differs", comparison.differences))
    return page.section("Decisions", element("p", escape(hint), class_="soft"), shown)
