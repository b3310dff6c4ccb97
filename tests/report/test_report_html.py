"""The page: its structure, its plots, and that nothing from a file becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from report_pages import Node, Page
from report_runs import OPTIONS, SETTINGS, TARGET_MS, make_sample, make_samples, rewrite, write_run, write_study

from edgekd.report.analysis import pareto_front, points_of
from edgekd.report.data import ReportData, Target
from edgekd.report.html import render
from edgekd.report.scene import MOST_MARKS
from edgekd.report.svg import Scale
from edgekd.search.study_file import arch_id_of

pytestmark = pytest.mark.whole  # draws whole pages

MakeRun = Callable[..., Path]
PLOTS = ("plot-histogram", "plot-scatter", "plot-latency", "plot-accuracy", "plot-macs", "plot-where")
HOSTILE = "</script></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'><b onclick=x>&amp;"


def read(data: ReportData) -> Node:
    """Render and read a report."""
    return Page(render(data)).root


def scale_of_ticks(plot: Node) -> Scale:
    """Recover the x scale from what a reader sees: the first and the last tick."""
    ticks = plot.all("text", "x-tick")
    first, last = ticks[0], ticks[-1]
    return Scale(float(first.text), float(last.text), first.number("x"), last.number("x"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """Load a finished run of 120 + 120 samples; one for all tests, which only look at it."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return ReportData.load(folder)


@pytest.fixture(scope="module")
def root(data: ReportData) -> Node:
    """Read the page of that run."""
    return read(data)


def test_the_page_is_well_formed_and_in_order(root: Node) -> None:
    """All elements are closed, ids are unique, and the parts come in their order."""
    ids = [n.attributes["id"] for n in root.all() if "id" in n.attributes]
    assert len(ids) == len(set(ids))
    assert [n.text for n in root.all("h2")] == ["Result", "Search", "Decisions", "Networks", "Provenance"]
    assert tuple(n.attributes["id"] for n in root.all("svg", "plot")) == PLOTS
    assert root.all("html")[0].attributes["lang"] == "en"
    assert len(root.all("h1")) == 1


def test_the_page_needs_nothing_from_elsewhere(data: ReportData) -> None:
    """No address, no import, no source; links go to shapes of the page itself."""
    page = render(data)
    assert not re.search(r"https?:|url\(|@import|//[a-z]|\bsrc=", page)
    hrefs = {n.attributes["href"] for n in Page(page).root.all() if "href" in n.attributes}
    assert {h for h in hrefs if not h.startswith("#")} == {"data:,"}
    defined = {n.attributes["id"] for n in Page(page).root.all("defs")[0].children}
    assert {h[1:] for h in hrefs if h.startswith("#")} <= defined


def test_the_content_policy_allows_the_page_s_script_only(root: Node) -> None:
    """The policy names the digest of the one script."""
    (script,) = root.all("script")
    (policy,) = [n.attributes["content"] for n in root.all("meta") if "http-equiv" in n.attributes]
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'")


def test_the_outcome_is_one_sentence(root: Node) -> None:
    """The first paragraph says what came out, with a badge."""
    (lead,) = root.all("p", "lead")
    sentence = lead.text.replace("\u00a0", " ").strip()
    assert sentence == "int8 student: 0.123 ms measured, target 0.150 ms, 87.6 % (teacher 89.5 %)"
    assert lead.all("span", "badge")[0].text == "target met"


def test_the_final_table_shows_each_artifact(root: Node) -> None:
    """Cells hold the manifest's figures; the row of the target's dtype stands out."""
    rows = root.all("tr", "result")
    cells = [[r.all("th")[0].text, *(c.text or c.all("span")[0].text for c in r.all("td"))] for r in rows]
    assert cells[1] == [
        "int8",
        "132 kB",
        "87.6 %",
        "0.127 (0.122\N{EN DASH}0.134)",
        "0.123",
        "0.127",
        "yes, 18 % below",
    ]
    assert [row[0] for row in cells] == ["float32", "int8", "onnx"]
    assert ["chosen" in row.classes for row in rows] == [False, True, False]
    assert cells[0][-1] == "no, 54 % above"


@pytest.mark.parametrize("plot", PLOTS[1:])
def test_every_sample_is_drawn_once(data: ReportData, root: Node, plot: str) -> None:
    """Each plot of samples has one mark a sample, under the key that links the plots."""
    marks = root.by_id(plot).all("use", "mark")
    assert sorted(m.attributes["data-s"] for m in marks) == sorted(p.key for p in points_of(data))


def test_marks_of_the_scatter_stand_where_their_samples_are(data: ReportData, root: Node) -> None:
    """Reading a mark's place back through the ticks gives the sample's latency."""
    plot = root.by_id("plot-scatter")
    scale = scale_of_ticks(plot)
    tolerance = 0.2 * (scale.invert(1) - scale.invert(0))
    places = {m.attributes["data-s"]: m.number("x") for m in plot.all("use", "mark")}
    for point in points_of(data):
        assert scale.invert(places[point.key]) == pytest.approx(point.sample.predicted_ms["int8"], abs=tolerance)


@pytest.mark.parametrize("name", ["plot-histogram", "plot-scatter"])
def test_the_target_line_stands_at_the_target(root: Node, name: str) -> None:
    """Reading the line's place back through the ticks gives the target."""
    plot = root.by_id(name)
    (line,) = plot.all("line", "target")
    scale = scale_of_ticks(plot)
    assert line.attributes["x1"] == line.attributes["x2"]
    assert scale.invert(line.number("x1")) == pytest.approx(0.150, abs=0.2 * (scale.invert(1) - scale.invert(0)))


def test_the_histogram_counts_every_sample_and_parts_at_the_target(data: ReportData, root: Node) -> None:
    """Tooltips of the bins add up to all samples; those left of the target line to the ones under it."""
    plot = root.by_id("plot-histogram")
    line = plot.all("line", "target")[0].number("x1")
    columns = [(c.number("x"), c.all("title")[0].text) for c in plot.all("rect", "column")]
    counted = [(x, [int(n) for n in re.findall(r"(?:AKD|random) (\d+)", text)]) for x, text in columns]
    under = [sum(Target(0.150, "int8").met_by(s) for s in study.samples) for study in data.studies]
    assert [sum(c) for c in zip(*(n for _, n in counted), strict=True)] == [120, 120]
    assert [sum(c) for c in zip(*(n for x, n in counted if x < line - 0.2), strict=True)] == under


def test_the_front_and_the_best_are_listed(data: ReportData, root: Node) -> None:
    """The tables hold the ten best under the target and the whole front, each with its architecture."""
    best, front = root.all("div", "networks")
    expected = pareto_front(points_of(data), Target(0.150, "int8"))
    assert len(best.all("code")) == 10
    assert [c.text for c in front.all("code")] == [p.sample.arch for p in expected]
    assert len(best.all("tr", "chosen")) == 1


def test_a_tooltip_names_architecture_latency_and_accuracy(data: ReportData, root: Node) -> None:
    """Without the script the title of a mark says it all."""
    first = data.search.samples[0]
    plot = root.by_id("plot-scatter")
    (mark,) = [m for m in plot.all("use", "mark") if m.attributes["data-s"] == "s0"]
    text = mark.all("title")[0].text
    assert first.arch in text
    assert f"{100 * first.proxy_accuracy:.1f} %" in text
    assert f"{first.predicted_ms['int8']:.3f} ms" in text


def test_plots_and_tables_are_named_for_those_who_cannot_see_them(root: Node) -> None:
    """Each plot has a title and a description by id; each table region has a name; headers have a scope."""
    for plot in root.all("svg", "plot"):
        named = [root.by_id(name) for name in plot.attributes["aria-labelledby"].split()]
        assert all(node.text for node in named)
    assert all(region.attributes["aria-label"] for region in root.all("div", "scroll"))
    assert all(head.attributes["scope"] in {"row", "col"} for head in root.all("th"))


def test_hostile_text_stays_text(make_run: MakeRun) -> None:
    """Text from any field of any file shows as it is and adds no element, attribute or script."""
    run = make_run(search=4, random=2)
    manifest = json.loads((run / "manifest.json").read_text())
    for key in ("arch", "arch_id", "space", "method", "seed"):
        manifest[key] = HOSTILE
    for key in ("device", "versions"):
        manifest[key] = {"name": HOSTILE, HOSTILE: HOSTILE}
    manifest["seconds"], manifest["parity"] = {HOSTILE: 1.0}, {HOSTILE: 0.1}
    manifest["reference"]["arch"] = manifest["artifacts"]["int8"]["path"] = HOSTILE
    (run / "manifest.json").write_text(json.dumps(manifest))
    hostile = [replace(s, arch=HOSTILE, arch_id=arch_id_of(HOSTILE)) for s in make_samples(4, learns=True)]
    hostile[3] = replace(hostile[3], failure=HOSTILE, host=HOSTILE, proxy_accuracy=0.0, reward=0.0)
    identity = {"proxy": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE}
    write_study(run / "search.jsonl", hostile, replace(SETTINGS, engine=HOSTILE), identity)
    for name in ("search.jsonl", "random.jsonl"):
        rewrite(run / name, lambda lines: lines[0].update(space=HOSTILE, space_sha256=HOSTILE))
    page = render(ReportData.load(run))
    root = Page(page).root
    assert len(root.all("script")) == 1
    assert not root.all("img") + root.all("b")[1:]  # the one <b> is the target's tick in the meter
    assert not [n for n in root.all() if any(name.startswith("on") for name in n.attributes)]
    assert any(HOSTILE in node.text for node in root.all("dd"))
    assert HOSTILE not in page


@pytest.mark.parametrize("shape", [
    {"search": 0, "random": 0}, {"search": 1, "random": 0}, {"search": 1, "random": 3},
    {"search": 30, "random": 0}, {"search": 2, "random": 500},
])  # fmt: skip
def test_small_and_uneven_studies_are_drawn(make_run: MakeRun, shape: dict[str, int]) -> None:
    """Nothing, one sample, or one study alone: the page keeps its form and has a mark a sample."""
    data = ReportData.load(make_run(**shape))
    root = read(data)
    assert len(root.by_id("plot-scatter").all("use", "mark")) == shape["search"] + shape["random"]
    assert "nan" not in {part for plot in root.all("svg", "plot") for n in plot.all() for part in n.attributes.values()}


def test_an_empty_search_alone_is_drawn(make_run: MakeRun) -> None:
    """A run that was stopped before its first sample, without random search, still has its page."""
    root = read(ReportData.load(make_run(search=0, random=None)))
    assert [len(root.by_id(plot).all("use", "mark")) for plot in PLOTS] == [0] * 6
    assert root.by_id("plot-macs").all("text", "x-tick")


def test_a_search_without_a_feasible_sample_says_so(make_run: MakeRun) -> None:
    """All samples above the target: no best is claimed, and all lie right of the target line."""
    data = ReportData.load(make_run(slowdown=20.0))
    root = read(data)
    plot = root.by_id("plot-scatter")
    line = plot.all("line", "target")[0].number("x1")
    assert plot.all("desc")[0].text == "No sample is under the target."
    assert root.by_id("plot-accuracy").all("path", "trend") == []
    assert all(mark.number("x") > line for mark in plot.all("use", "mark"))
    assert [n.text for n in root.all("div", "networks")[0].all("td")] == ["none"]


def test_notes_are_shown(make_run: MakeRun) -> None:
    """A run that is not finished is remarked on the page."""
    run = make_run(search=5)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["measured_ms"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    (notes,) = read(ReportData.load(run)).all("ul", "notes")
    assert "not finished: measured_ms" in notes.children[0].text


def test_a_search_alone_has_its_page(make_run: MakeRun) -> None:
    """Without a student there are no artifacts; the outcome of the search heads the page."""
    root = read(ReportData.load(make_run(finished=False)))
    assert [n.text for n in root.all("h2")] == ["Search", "Decisions", "Networks", "Provenance"]
    assert "best under" in root.all("p", "lead")[0].text
    assert [n.text for n in root.all("h3")][-2:] == ["Search by AKD", "Search by random"]


def test_failed_samples_are_shown_apart(make_run: MakeRun) -> None:
    """They have marks of their own where latencies are drawn, none in the scatter, and a table of reasons."""
    root = read(ReportData.load(make_run(failed=7)))
    for plot, expected in zip(PLOTS[1:], [0, 7, 7, 7], strict=False):
        crosses = [m for m in root.by_id(plot).all("use", "mark") if m.attributes["href"] == "#cross"]
        assert len(crosses) == expected
    assert len(root.by_id("plot-scatter").all("use", "mark")) == 233
    assert "Failures" in [n.text for n in root.all("h2")]
    assert ["7", "out of memory"] in [[c.text for c in row.all("td")] for row in root.all("tr")]


def test_several_targets_are_drawn_and_listed(make_run: MakeRun) -> None:
    """Each target has its line and its table of the best."""
    run = make_run(random=None, finished=False)
    targets = (TARGET_MS, 0.1, 0.3)
    write_study(run / "search.jsonl", make_samples(60, learns=True), replace(SETTINGS, targets_ms=targets))
    root = read(ReportData.load(run))
    plot = root.by_id("plot-scatter")
    scale = scale_of_ticks(plot)
    lines = sorted(scale.invert(n.number("x1")) for n in plot.all("line", "rule") + plot.all("line", "target"))
    assert lines == pytest.approx(sorted(targets), abs=0.2 * (scale.invert(1) - scale.invert(0)))
    captions = [n.text for n in root.all("caption") if "under the target" in n.text]
    assert [caption.split("of ")[1].split(" ms")[0] for caption in captions] == ["0.150", "0.100", "0.300"]


@pytest.mark.slow  # ten thousand samples are written, read and drawn
def test_ten_thousand_samples_stay_usable(make_run: MakeRun) -> None:
    """Marks are thinned, with a remark; the page stays under 5 MB, and counts and the front are of all samples."""
    data = ReportData.load(make_run(search=9000, random=1000, failed=600))
    page = render(data)
    assert len(page.encode()) < 5e6
    root = Page(page).root
    assert "Of 10000 samples" in "".join(n.text for n in root.all("p", "soft"))
    for plot in PLOTS[1:]:
        assert len(root.by_id(plot).all("use", "mark")) <= MOST_MARKS
    keys = {m.attributes["data-s"] for m in root.by_id("plot-scatter").all("use", "mark")}
    assert {p.key for p in pareto_front(points_of(data), data.target)} <= keys
    counted = "".join(c.all("title")[0].text for c in root.by_id("plot-histogram").all("rect", "column"))
    assert sum(int(n) for n in re.findall(r"(?:AKD|random) (\d+)", counted)) == 10_000


def test_legends_name_what_they_toggle(root: Node) -> None:
    """Every entry that the script makes a button of names a class that something in its plot bears."""
    for figure in root.all("figure"):
        drawn = {class_ for node in figure.all("svg", "plot")[0].all() for class_ in node.classes}
        named = [entry.attributes["data-series"] for entry in figure.all("li") if "data-series" in entry.attributes]
        assert named
        assert set(named) <= drawn


@pytest.mark.parametrize("plot", PLOTS[1:])
def test_zooming_knows_the_scales(root: Node, plot: str) -> None:
    """The scales in a plot's attributes are those of its ticks."""
    node = root.by_id(plot)
    low, high, start, end = map(float, node.attributes["data-x"].split())
    scale, ticks = Scale(low, high, start, end), node.all("text", "x-tick")
    assert [scale.at(float(tick.text)) for tick in ticks] == pytest.approx([t.number("x") for t in ticks], abs=0.06)


def test_decisions_have_the_shares_of_their_options(make_run: MakeRun) -> None:
    """The table says, in words, how often each option was chosen in the first and in the last quarter."""
    run = make_run(random=None, finished=False)
    samples = [make_sample(i, 0.1, 0.5, [int(i >= 6), 0, 0, 0, i % 4, 0, i // 4, *([0] * 35)]) for i in range(8)]
    write_study(run / "search.jsonl", samples)
    rows = read(ReportData.load(run)).all("div", "decisions")[0].all("tr")
    cells = {row.all("th")[0].text: row.all("td") for row in rows[1:]}
    first, *_ = OPTIONS[0]
    moved, *bars = cells["block 1 op"]
    assert [moved.text, *(bar.all("span")[0].text for bar in bars)] == ["1.00", f"{first} 100.0 %", "dsconv 100.0 %"]
    assert len(cells) == 42


def test_a_missed_target_is_not_hidden(make_run: MakeRun) -> None:
    """A student measured above the target carries the badge of a miss."""
    run = make_run(search=5)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["measured_ms"]["int8"] = 0.1501
    (run / "manifest.json").write_text(json.dumps(manifest))
    root = read(ReportData.load(run))
    assert root.all("p", "lead")[0].all("span", "no")[0].text == "target missed"
