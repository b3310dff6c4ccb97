"""What the page says of a finished student: its figures, its artifacts, where they come from.

Next: html.py, which puts it on the page; page.py, whose pieces it is made of.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.report import formats, page, text
from edgekd.report.manifest import Manifest
from edgekd.report.svg import element, escape


def name(manifest: Manifest) -> str:
    """Name the student: dtype, device, target."""
    device = manifest.provenance.device.get("name", "the device")
    return f"{manifest.target_dtype} student for {device} at {formats.ms(manifest.target_ms)} ms"


def lead(manifest: Manifest) -> str:
    """Say what came out, with a badge for the target."""
    met = text.target_met(manifest)
    badge = {True: ("yes", "target met"), False: ("no", "target missed"), None: ("unknown", "not measured yet")}[met]
    said = page.prose(text.student_outcome(manifest))
    return element("p", said, " ", element("span", badge[1], class_=f"badge {badge[0]}"), class_="lead")


def tiles(manifest: Manifest) -> str:
    """Show the figures of the student large."""
    dtype = manifest.target_dtype
    artifact = manifest.artifacts.get(dtype)
    accuracy, teacher = manifest.results.accuracy.get(dtype), manifest.teacher_accuracy
    lost = (
        "" if accuracy is None or teacher is None else f"{100 * (accuracy - teacher):+.1f} points against the teacher"
    )
    size = formats.size(artifact.size_bytes if artifact else None)
    made_of = f"{formats.count(manifest.parameters)} parameters, {formats.count(manifest.macs)} MACs"
    shown = (
        _latency_tile(manifest),
        page.tile("accuracy on the test split", formats.percent(accuracy), escape(lost.replace("-", "\N{MINUS SIGN}"))),
        page.tile(f"size of the {dtype} file", size, escape(made_of)),
        _reference_tile(manifest),
    )
    return element("dl", *shown, class_="tiles")


def _latency_tile(manifest: Manifest) -> str:
    dtype = manifest.target_dtype
    measured, predicted = manifest.results.measured_ms.get(dtype), manifest.results.predicted_ms.get(dtype)
    value, how = (predicted, "predicted") if measured is None else (measured, "measured")
    if value is None:
        return page.tile("latency", formats.DASH, "")
    full = max(value, manifest.target_ms) * 1.1
    bar = f'<i style="width:{100 * value / full:.1f}%"></i><b style="left:{100 * manifest.target_ms / full:.1f}%"></b>'
    against = f"{formats.against(value, manifest.target_ms)} the target of {formats.ms(manifest.target_ms)} ms"
    below = element("div", bar, class_="meter", aria_hidden="true") + page.prose(against)
    return page.tile(f"latency, {how}", f"{formats.ms(value)} ms", below)


def _reference_tile(manifest: Manifest) -> str:
    dtype, reference = manifest.target_dtype, manifest.reference
    student, other = manifest.results.predicted_ms.get(dtype), reference.predicted_ms.get(dtype) if reference else None
    if student is None or other is None:
        return page.tile("speed against the reference", formats.DASH, "")
    below = f"reference network {formats.ms(other)} ms, student {formats.ms(student)} ms (both predicted)"
    return page.tile("speed against the reference", f"{other / student:.2f} \N{MULTIPLICATION SIGN}", page.prose(below))


def result_table(manifest: Manifest) -> str:
    """Show the artifacts with their figures."""
    rows = []
    for row in text.result_rows(manifest):
        artifact, *middle, verdict = row.cells
        badge = {True: "badge yes", False: "badge no", None: ""}[row.met]
        cells = [element("td", escape(cell), class_="n") for cell in middle]
        cells.append(element("td", element("span", escape(verdict), class_=badge), class_="w"))
        chosen = " chosen" if row.artifact == manifest.target_dtype else ""
        rows.append(element("tr", page.row_head(artifact), *cells, class_=f"result{chosen}"))
    first, *middle, last = text.HEADINGS
    heads = [(first, ""), *((heading, "n") for heading in middle), (last, "")]
    note = (
        "Accuracy is that of the files themselves, on the test split. The CPU clock leaves out what other programs "
        "took; the wall clock is what a user waits. The range of a prediction is where it is expected to lie."
    )
    shown = page.table("Artifacts of this run", heads, rows)
    return page.section("Result", shown, element("p", note, class_="soft"))


def provenance(manifest: Manifest) -> tuple[str, ...]:
    """List where the figures come from, as the cards of a section."""
    origin = manifest.provenance
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
    return (
        page.facts("Run", run, "card wide"),
        page.facts("Device", origin.device),
        page.facts("Versions", origin.versions),
        _stages(origin.seconds),
        page.facts("Largest difference to the trained network", parity),
        page.facts("Files", artifacts, "card wide"),
    )


def _stages(seconds: Mapping[str, float]) -> str:
    longest = max(seconds.values(), default=0.0) or 1.0
    items = []
    for stage, value in seconds.items():
        bar = f'<span class="stage" style="width:{60 * value / longest:.1f}%" aria-hidden="true"></span>'
        items.append(element("dt", escape(stage)) + element("dd", bar, escape(formats.seconds(value))))
    total = f"Time, {formats.seconds(sum(seconds.values()))} in all"
    return element("section", element("h3", escape(total)), element("dl", *items), class_="card")
