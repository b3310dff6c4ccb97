"""Draws a run as one HTML page that needs nothing else: a finished student, or a search alone.

It reads no files and reckons nothing: data.py and analysis.py do. Next: page.py (the pieces of the page), plots.py (the
drawings), student.py (what is there once a student is finished).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.report import analysis, formats, page, student, text
from edgekd.report.analysis import Point, Summary
from edgekd.report.data import ReportData, Target
from edgekd.report.plots import figures
from edgekd.report.regions import Decision, Floats
from edgekd.report.scene import Scene, engine_name
from edgekd.report.svg import element, escape
from edgekd.report.where import Where, shares_text, where_figure

BEST_COUNT = 10
_COLOURS = 6  # of options in a bar, then again from the first


def render(data: ReportData) -> str:
    """Return the page of a run, a complete HTML document."""
    scene = Scene.of(data)
    where = Where.of(data, scene)
    manifest = data.manifest
    title = student.name(manifest) if manifest else text.search_name(data)
    lead = student.lead(manifest) if manifest else element("p", page.prose(text.outcome(data)), class_="lead")
    device = "named above" if manifest else "that the latency table is of"
    header = (element("p", "edgekd report", class_="eyebrow"), element("h1", escape(title)), lead)
    return page.document(
        title,
        element("header", *header, page.notes(data.notes)),
        student.tiles(manifest) if manifest else _tiles(data),
        student.result_table(manifest) if manifest else "",
        _plots(data, scene, where),
        _where(where),
        _samples(data, scene),
        _failures(data),
        _provenance(data),
        element("footer", f"Made by edgekd. Latencies are of one image on the device {device}."),
    )


def _tiles(data: ReportData) -> str:
    """Show the figures of a search whose student is not made yet."""
    target, summary = data.target, analysis.summarize(data.search, data.target)
    best = summary.best
    latency = f"{formats.ms(target.latency_ms(best))} ms" if best else formats.DASH
    under = f"{summary.under_target} of {summary.samples} samples at or under the target"
    against = ""
    if best:
        against = f"{formats.against(target.latency_ms(best), target.ms)} the target of {formats.ms(target.ms)} ms"
    failed = f"{sum(summary.failures.values())} failed, {summary.early} ended early"
    shown = (
        page.tile(
            "best accuracy under the target",
            formats.percent(best.proxy_accuracy if best else None),
            "of the short training",
        ),
        page.tile(f"its latency, {data.search.latency_word}", latency, page.prose(against)),
        page.tile("samples", str(summary.samples), page.prose(f"{under}; {failed}")),
        page.tile("training time", formats.seconds(summary.seconds), "of all samples"),
    )
    return element("dl", *shown, class_="tiles")


def _plots(data: ReportData, scene: Scene, where: Where) -> str:
    drawn = [page.figure(figure) for figure in (*figures(scene), where_figure(where, scene))]
    hint = (
        f"Each mark is one network the search tried; its latency is {data.search.latency_word} "
        f"({data.target.dtype}), its accuracy that of a short training. Point at a mark, or use Tab and the arrow "
        "keys, to see the same network in every plot. Click on a name in a legend to hide it; drag over a plot to "
        "zoom in, and double-click to see all of it again."
    )
    shown = (element("p", escape(said), class_="soft") for said in (hint, scene.note) if said)
    return page.section("Search", *shown, element("div", *drawn, class_="plots"), "<br>", _comparison(data))


def _comparison(data: ReportData) -> str:
    summaries = [[analysis.summarize(study, target) for study in data.studies] for target in data.search.targets]
    rows = [_compared_row(name, summaries[0], data.target) for name in _COMPARED]
    for target, of_target in zip(data.search.targets[1:], summaries[1:], strict=True):
        heading = f"target {formats.ms(target.ms)} ms"
        rows += [_compared_row(name, of_target, target, f"{heading}: ") for name in _COMPARED_PER_TARGET]
    heads = [("", ""), *((engine_name(study.engine), "n") for study in data.studies)]
    names = " and ".join(engine_name(study.engine) for study in data.studies)
    rewards = f"Reward of the search: {data.search.reward}."
    parts = (element("h3", escape(f"{names} in figures")), element("p", escape(rewards), class_="soft"))
    return element("section", *parts, page.table("", heads, rows, class_="scroll"), class_="card aside")


def _compared_row(name: str, summaries: Sequence[Summary], target: Target, prefix: str = "") -> str:
    cells = (element("td", escape(_summarized(name, s, target)), class_="n") for s in summaries)
    return element("tr", page.row_head(prefix + name), *cells)


_COMPARED_PER_TARGET = ("at or under the target", "best accuracy under it", "its latency", "best reward")
_COMPARED = (
    *("samples", *_COMPARED_PER_TARGET, "reward, first quarter", "reward, last quarter"),
    *("failed", "ended early", "taken over from another study", "time for all samples"),
)


def _summarized(name: str, summary: Summary, target: Target) -> str:
    best, rewarded = summary.best, summary.best_reward
    first, last = summary.first_quarter_reward, summary.last_quarter_reward
    values = {
        "samples": str(summary.samples),
        "at or under the target": f"{summary.under_target} ({formats.share(summary.under_target, summary.samples)})",
        "best accuracy under it": formats.percent(best.proxy_accuracy if best else None),
        "its latency": f"{formats.ms(target.latency_ms(best))} ms" if best else formats.DASH,
        "best reward": formats.DASH if rewarded is None else text.figures_of(rewarded, target),
        "reward, first quarter": formats.DASH if first is None else f"{first:.4f}",
        "reward, last quarter": formats.DASH if last is None else f"{last:.4f}",
        "failed": str(sum(summary.failures.values())),
        "ended early": str(summary.early),
        "taken over from another study": str(summary.taken_over),
        "time for all samples": formats.seconds(summary.seconds),
    }
    return values[name]


def _where(where: Where) -> str:
    hint = (
        "The shares of the options that were chosen, decision by decision. Moved: how far the last quarter of the "
        "search is from its first, as total variation distance (0: the same shares, 1: nothing in common)."
    )
    columns = [(f"{part.name} ({part.samples})", part.shares) for part in where.parts]
    shown = marginals_table("Decisions", where.decisions, columns, ("moved", where.moved))
    return page.section("Decisions", element("p", escape(hint), class_="soft"), shown)


def marginals_table(
    caption: str,
    decisions: Sequence[Decision],
    columns: Sequence[tuple[str, Floats]],
    differing: tuple[str, Sequence[float]],
) -> str:
    """Show the shares of each decision's options as bars, a column a set of samples, and how far these differ."""
    bounds = np.cumsum([0, *(len(decision.options) for decision in decisions)])
    name, differences = differing
    most = sorted(differences, reverse=True)[:5]
    rows = []
    for place, decision in enumerate(decisions):
        cells = (element("td", _bar(decision, s[bounds[place] : bounds[place + 1]].tolist())) for _, s in columns)
        far = element("td", f"{differences[place]:.2f}", class_="n")
        moved = "moved" if differences[place] >= most[-1] and differences[place] > 0 else "same"
        rows.append(element("tr", page.row_head(decision.name), far, *cells, class_=moved))
    heads = [("decision", ""), (name, "n"), *((label, "") for label, _ in columns)]
    return page.table(caption, heads, rows, class_="scroll card decisions")


def _bar(decision: Decision, shares: Sequence[float]) -> str:
    parts, start = [], 0.0
    for place, share in enumerate(shares):
        title = element("title", escape(f"{decision.options[place]} {formats.percent(share)}"))
        if share > 0:
            box = {"x": 100 * start, "width": 100 * share, "height": 10, "y": 0}
            parts.append(element("rect", title, class_=f"o{place % _COLOURS}", **box))
        start += share
    said = shares_text(decision, shares)
    bar = element("svg", *parts, class_="mix", viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")
    return bar + element("span", escape(said.partition(",")[0]), title=said)


def _samples(data: ReportData, scene: Scene) -> str:
    parts = []
    for target in data.search.targets:
        of_target = "" if len(data.search.targets) == 1 else f" of {formats.ms(target.ms)} ms"
        best = analysis.best_under(scene.points, target, BEST_COUNT)
        caption = f"Best samples under the target{of_target} ({len(best)})"
        parts += [_sample_table(caption, best, scene, data), "<br>"]
    front = analysis.pareto_front(scene.points, scene.target)
    caption = f"Pareto front of all samples ({len(front)})"
    return page.section("Networks", *parts, _sample_table(caption, front, scene, data))


def _sample_table(caption: str, points: Sequence[Point], scene: Scene, data: ReportData) -> str:
    figures_heads = ((f"{scene.target.dtype} ms", "n"), ("proxy accuracy", "n"), ("MACs", "n"))
    rows = [_sample_row(point, scene, data) for point in points] or [element("tr", '<td colspan="5">none</td>')]
    heads = [("sample", ""), *figures_heads, ("network", "")]
    return page.table(caption, heads, rows, class_="scroll card networks")


def _sample_row(point: Point, scene: Scene, data: ReportData) -> str:
    sample, series = point.sample, next(s for s in scene.series if s.class_ == point.study)
    winner = " winner" if data.manifest and sample.arch_id == data.manifest.arch_id else ""
    named = escape(f"{series.name} {sample.index}{winner}")
    cells = (
        element("th", page.key(series.shape, point.study), named, scope="row", class_="w"),
        element("td", formats.ms(scene.target.latency_ms(sample)), class_="n"),
        element("td", formats.percent(sample.proxy_accuracy), class_="n"),
        element("td", formats.count(sample.macs), class_="n"),
        element("td", page.code(sample.arch)),
    )
    return element("tr", *cells, class_="chosen" if winner else "sample")


def _failures(data: ReportData) -> str:
    counted = [(engine_name(s.engine), analysis.summarize(s, data.target).failures) for s in data.studies]
    rows = [
        element("tr", page.row_head(name), element("td", str(count), class_="n"), element("td", escape(reason)))
        for name, failures in counted
        for reason, count in failures.items()
    ]
    if not rows:
        return ""
    hint = "These networks were proposed and trained, and have no accuracy. They count in latencies only."
    shown = page.table("Failed samples by reason", [("search", ""), ("samples", "n"), ("reason", "")], rows)
    return page.section("Failures", element("p", hint, class_="soft"), shown)


def _provenance(data: ReportData) -> str:
    cards = student.provenance(data.manifest) if data.manifest else ()
    studies = (page.facts(f"Search by {engine_name(s.engine)}", text.study_facts(s)) for s in data.studies)
    return page.section("Provenance", element("div", *cards, *studies, class_="facts"))
