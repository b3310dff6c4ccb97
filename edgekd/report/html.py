"""Draws a run as one HTML page that needs nothing else: no network, no font, no script but its own.

Text of the run's files is escaped everywhere, and a content policy forbids any script but the page's. It reads no files
and reckons nothing: data.py and analysis.py do. Next: plots.py (the drawings), assets.py (style and script).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from edgekd.report import analysis, formats, text
from edgekd.report.analysis import Point, Summary, Target
from edgekd.report.assets import SCRIPT, SHAPES, STYLE
from edgekd.report.data import Manifest, ReportData
from edgekd.report.plots import Figure, Scene, engine_name, figures
from edgekd.report.svg import element, escape

BEST_COUNT = 10


def render(data: ReportData) -> str:
    """Return the page of a run, a complete HTML document."""
    body = (
        _header(data),
        _tiles(data),
        _final_table(data),
        _plots(data),
        _samples(data),
        _provenance(data),
        element("footer", "Made by edgekd. Latencies are of one image on the device named above."),
    )
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            _head(data),
            element("body", SHAPES, element("main", *body), _tooltip(), f"<script>{SCRIPT}</script>"),
            "</html>\n",
        )
    )


def _head(data: ReportData) -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return "\n".join(
        (
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            element("title", escape(f"{_title(data.manifest)} · edgekd")),
            f"<style>{STYLE}</style></head>",
        )
    )


def _tooltip() -> str:
    return '<div id="tip" role="status" aria-live="polite" hidden></div>'


def _title(manifest: Manifest) -> str:
    device = manifest.provenance.device.get("name", "the device")
    return f"{manifest.target_dtype} student for {device} at {formats.ms(manifest.target_ms)} ms"


def _header(data: ReportData) -> str:
    met = text.target_met(data.manifest)
    badge = {True: ("yes", "target met"), False: ("no", "target missed"), None: ("unknown", "not measured yet")}[met]
    notes = element("ul", *(element("li", escape(note)) for note in data.notes), class_="notes") if data.notes else ""
    return element(
        "header",
        element("p", "edgekd report", class_="eyebrow"),
        element("h1", escape(_title(data.manifest))),
        element(
            "p", _prose(text.outcome(data)), " ", element("span", badge[1], class_=f"badge {badge[0]}"), class_="lead"
        ),
        notes,
    )


def _tiles(data: ReportData) -> str:
    manifest, dtype = data.manifest, data.manifest.target_dtype
    artifact = manifest.artifacts.get(dtype)
    accuracy, teacher = manifest.results.accuracy.get(dtype), manifest.teacher_accuracy
    lost = (
        "" if accuracy is None or teacher is None else f"{100 * (accuracy - teacher):+.1f} points against the teacher"
    )
    size = formats.size(artifact.size_bytes if artifact else None)
    made_of = f"{formats.count(manifest.parameters)} parameters, {formats.count(manifest.macs)} MACs"
    tiles = (
        _latency_tile(manifest),
        _tile("accuracy on the test split", formats.percent(accuracy), escape(lost.replace("-", "\N{MINUS SIGN}"))),
        _tile(f"size of the {dtype} file", size, escape(made_of)),
        _reference_tile(manifest),
    )
    return element("dl", *tiles, class_="tiles")


def _tile(name: str, figure: str, below: str) -> str:
    number, _, unit = figure.partition(" ")
    shown = escape(number) + (f" {element('small', escape(unit))}" if unit else "")
    parts = (element("dt", escape(name)), element("dd", shown, class_="figure"), element("dd", below))
    return element("div", *parts, class_="tile card")


def _latency_tile(manifest: Manifest) -> str:
    dtype = manifest.target_dtype
    measured, predicted = manifest.results.measured_ms.get(dtype), manifest.results.predicted_ms.get(dtype)
    value, how = (predicted, "predicted") if measured is None else (measured, "measured")
    if value is None:
        return _tile("latency", formats.DASH, "")
    full = max(value, manifest.target_ms) * 1.1
    bar = f'<i style="width:{100 * value / full:.1f}%"></i><b style="left:{100 * manifest.target_ms / full:.1f}%"></b>'
    against = f"{formats.against(value, manifest.target_ms)} the target of {formats.ms(manifest.target_ms)} ms"
    below = element("div", bar, class_="meter", aria_hidden="true") + _prose(against)
    return _tile(f"latency, {how}", f"{formats.ms(value)} ms", below)


def _reference_tile(manifest: Manifest) -> str:
    dtype, reference = manifest.target_dtype, manifest.reference
    student, other = manifest.results.predicted_ms.get(dtype), reference.predicted_ms.get(dtype) if reference else None
    if student is None or other is None:
        return _tile("speed against the reference", formats.DASH, "")
    below = f"reference network {formats.ms(other)} ms, student {formats.ms(student)} ms (both predicted)"
    return _tile("speed against the reference", f"{other / student:.2f} \N{MULTIPLICATION SIGN}", _prose(below))


def _final_table(data: ReportData) -> str:
    rows = []
    for row in text.result_rows(data):
        name, *middle, verdict = row.cells
        badge = {True: "badge yes", False: "badge no", None: ""}[row.met]
        cells = [element("td", escape(cell), class_="n") for cell in middle]
        cells.append(element("td", element("span", escape(verdict), class_=badge), class_="w"))
        chosen = " chosen" if row.artifact == data.manifest.target_dtype else ""
        rows.append(element("tr", _row_head(name), *cells, class_=f"result{chosen}"))
    first, *middle, last = text.HEADINGS
    heads = [(first, ""), *((name, "n") for name in middle), (last, "")]
    note = (
        "Accuracy is that of the files themselves, on the test split. The CPU clock leaves out what other programs "
        "took; the wall clock is what a user waits. The range of a prediction is where it is expected to lie."
    )
    return _section("Result", _table("Artifacts of this run", heads, rows), element("p", note, class_="soft"))


def _plots(data: ReportData) -> str:
    drawn = [_figure(figure) for figure in figures(data)]
    dtype = data.manifest.target_dtype
    hint = (
        f"Each mark is one network the search tried; its latency is predicted from the table ({dtype}), its "
        "accuracy that of a short training. Point at a mark, or use Tab and the arrow keys, to see the same network "
        "in every plot."
    )
    return _section(
        "Search", element("p", hint, class_="soft"), element("div", *drawn, _comparison(data), class_="plots")
    )


def _figure(figure: Figure) -> str:
    entries = (element("li", _key(shape, class_), escape(name)) for shape, class_, name in figure.legend)
    caption = (element("h3", escape(figure.title)), element("p", _prose(figure.insight)))
    legend = element("ul", *entries, class_="legend")
    return element("figure", element("figcaption", *caption, legend), figure.drawing, class_="card")


def _key(shape: str, class_: str) -> str:
    use = element("use", href=f"#{shape}", class_=f"key {shape} {class_}")
    return element("svg", use, class_="dot-key", viewBox="-8 -7 16 14", aria_hidden="true")


def _comparison(data: ReportData) -> str:
    target = Target.of(data.manifest)
    summaries = [analysis.summarize(study, target) for study in data.studies]
    rows = [
        element(
            "tr", _row_head(name), *(element("td", escape(_summarized(name, s, target)), class_="n") for s in summaries)
        )
        for name in _COMPARED
    ]
    heads = [("", ""), *((engine_name(study.engine), "n") for study in data.studies)]
    names = " and ".join(engine_name(study.engine) for study in data.studies)
    rewards = f"Reward of the search: {data.search.reward}."
    parts = (element("h3", escape(f"{names} in figures")), element("p", escape(rewards), class_="soft"))
    return element("section", *parts, _table("", heads, rows, class_="scroll"), class_="card aside")


_COMPARED = (
    *("samples", "at or under the target", "best accuracy under it", "its latency", "reward, first quarter"),
    *("reward, last quarter", "time for all samples"),
)


def _summarized(name: str, summary: Summary, target: Target) -> str:
    best, first, last = summary.best, summary.first_quarter_reward, summary.last_quarter_reward
    values = {
        "samples": str(summary.samples),
        "at or under the target": f"{summary.under_target} ({formats.share(summary.under_target, summary.samples)})",
        "best accuracy under it": formats.percent(best.proxy_accuracy if best else None),
        "its latency": f"{formats.ms(target.latency_ms(best))} ms" if best else formats.DASH,
        "reward, first quarter": formats.DASH if first is None else f"{first:.4f}",
        "reward, last quarter": formats.DASH if last is None else f"{last:.4f}",
        "time for all samples": formats.seconds(summary.seconds),
    }
    return values[name]


def _samples(data: ReportData) -> str:
    scene, points = Scene.of(data), analysis.points_of(data)
    best = analysis.best_under(points, scene.target, BEST_COUNT)
    front = analysis.pareto_front(points, scene.target)
    return _section(
        "Networks",
        _sample_table(f"Best samples under the target ({len(best)})", best, scene, data.manifest),
        "<br>",
        _sample_table(f"Pareto front of all samples ({len(front)})", front, scene, data.manifest),
    )


def _sample_table(caption: str, points: Sequence[Point], scene: Scene, manifest: Manifest) -> str:
    heads = [
        ("sample", ""),
        (f"{manifest.target_dtype} ms", "n"),
        ("proxy accuracy", "n"),
        ("MACs", "n"),
        ("network", ""),
    ]
    shapes = {series.class_: series for series in scene.series}
    rows = []
    for point in points:
        sample, series = point.sample, shapes[point.study]
        winner = " winner" if sample.arch_id == manifest.arch_id else ""
        cells = (
            element(
                "th",
                _key(series.shape, point.study),
                escape(f"{series.name} {sample.index}{winner}"),
                scope="row",
                class_="w",
            ),
            element("td", formats.ms(scene.target.latency_ms(sample)), class_="n"),
            element("td", formats.percent(sample.proxy_accuracy), class_="n"),
            element("td", formats.count(sample.macs), class_="n"),
            element("td", _code(sample.arch)),
        )
        rows.append(element("tr", *cells, class_="chosen" if winner else "sample"))
    if not rows:
        rows = [element("tr", '<td colspan="5">none</td>')]
    return _table(caption, heads, rows, class_="scroll card networks")


def _provenance(data: ReportData) -> str:
    manifest, origin = data.manifest, data.manifest.provenance
    table = origin.table
    run = {
        "space": origin.space, "method": origin.method, "seed": origin.seed,
        "network": f"{manifest.arch} ({manifest.arch_id})",
        "latency table": f"{table.rows} rows, sha256 {table.sha256}" if table else "unknown",
    }  # fmt: skip
    if manifest.reference:
        run["reference"] = manifest.reference.arch
    artifacts = {n: f"{a.path}, {a.size_bytes} bytes, sha256 {a.sha256}" for n, a in manifest.artifacts.items()}
    parity = {name: f"{value:.3g}" for name, value in manifest.results.parity.items()}
    sections = (
        _facts("Run", run, "card wide"),
        _facts("Device", origin.device),
        _facts("Versions", origin.versions),
        _stages(origin.seconds),
        _facts("Largest difference to the trained network", parity),
        _facts("Files", artifacts, "card wide"),
    )
    return _section("Provenance", element("div", *sections, class_="facts"))


def _facts(title: str, facts: Mapping[str, str], class_: str = "card") -> str:
    items = [element("dt", escape(key)) + element("dd", escape(value)) for key, value in facts.items()]
    body = element("dl", *items) if items else element("p", "nothing recorded", class_="soft")
    return element("section", element("h3", escape(title)), body, class_=class_)


def _stages(seconds: Mapping[str, float]) -> str:
    longest = max(seconds.values(), default=0.0) or 1.0
    items = []
    for stage, value in seconds.items():
        bar = f'<span class="stage" style="width:{60 * value / longest:.1f}%" aria-hidden="true"></span>'
        items.append(element("dt", escape(stage)) + element("dd", bar, escape(formats.seconds(value))))
    total = f"Time, {formats.seconds(sum(seconds.values()))} in all"
    return element("section", element("h3", escape(total)), element("dl", *items), class_="card")


def _prose(sentence: str) -> str:
    """Escape a sentence and keep its numbers and their units on one line."""
    return escape(sentence).replace(" %", "\u00a0%").replace(" ms", "\u00a0ms")


def _code(arch: str) -> str:
    """Escape an architecture and let lines break behind its separators."""
    return element("code", re.sub(r"(?<=[|,/])", "<wbr>", escape(arch)))


def _section(title: str, *parts: str) -> str:
    return element("section", element("h2", escape(title)), *parts)


def _row_head(name: str) -> str:
    return element("th", escape(name), scope="row", class_="w")


def _table(caption: str, heads: Iterable[tuple[str, str]], rows: Sequence[str], class_: str = "scroll card") -> str:
    cells = (element("th", escape(name), scope="col", class_=class_) for name, class_ in heads)
    table = element(
        "table",
        element("caption", escape(caption)) if caption else "",
        element("thead", element("tr", *cells)),
        element("tbody", *rows),
    )
    name = caption or "Comparison"
    return element("div", table, class_=class_, tabindex="0", role="region", aria_label=name)
