"""The outcome of a run in words, as an aligned table for the terminal and as plain values for JSON.

No colour codes and no HTML. The page shows the same rows. Next: html.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from edgekd.report import analysis, formats
from edgekd.report.analysis import Point, Target
from edgekd.report.data import ARTIFACTS, Manifest, ReportData

HEADINGS = (
    "artifact",
    "size",
    "accuracy",
    "predicted ms",
    "measured ms (CPU, fastest)",
    "wall ms (median)",
    "target met",
)


@dataclass(frozen=True)
class ResultRow:
    """One artifact as it is shown; `met` is None where nothing was measured on the device."""

    artifact: str
    size: str
    accuracy: str
    predicted: str
    measured: str
    wall: str
    verdict: str
    met: bool | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells in order of HEADINGS."""
        return (self.artifact, self.size, self.accuracy, self.predicted, self.measured, self.wall, self.verdict)


def outcome(data: ReportData) -> str:
    """Say in one sentence what came out: latency, target and accuracy of the student in the target's dtype."""
    manifest, dtype = data.manifest, data.manifest.target_dtype
    measured, predicted = manifest.results.measured_ms.get(dtype), manifest.results.predicted_ms.get(dtype)
    latency = f"{formats.ms(predicted)} ms predicted" if measured is None else f"{formats.ms(measured)} ms measured"
    accuracy = formats.percent(manifest.results.accuracy.get(dtype))
    teacher = formats.percent(manifest.teacher_accuracy)
    return f"{dtype} student: {latency}, target {formats.ms(manifest.target_ms)} ms, {accuracy} (teacher {teacher})"


def target_met(manifest: Manifest) -> bool | None:
    """Tell whether the student was measured at the target or below; None if it was not measured."""
    measured = manifest.results.measured_ms.get(manifest.target_dtype)
    return None if measured is None else measured <= manifest.target_ms


def result_rows(data: ReportData) -> tuple[ResultRow, ...]:
    """List the artifacts of a run that have a figure or a file, float32 first."""
    manifest = data.manifest
    known = {*manifest.artifacts, *manifest.results.accuracy, *manifest.results.predicted_ms}
    return tuple(_row(manifest, name) for name in ARTIFACTS if name in known)


def _row(manifest: Manifest, name: str) -> ResultRow:
    results, artifact = manifest.results, manifest.artifacts.get(name)
    measured = results.measured_ms.get(name)
    met = None if measured is None else measured <= manifest.target_ms
    verdict = formats.DASH
    if measured is not None:
        verdict = f"{'yes' if met else 'no'}, {formats.against(measured, manifest.target_ms)}"
    return ResultRow(
        artifact=name,
        size=formats.size(artifact.size_bytes if artifact else None),
        accuracy=formats.percent(results.accuracy.get(name)),
        predicted=_predicted(manifest, name),
        measured=formats.ms(measured),
        wall=formats.ms(results.measured_wall_ms.get(name)),
        verdict=verdict,
        met=met,
    )


def _predicted(manifest: Manifest, name: str) -> str:
    low, high = manifest.results.predicted_low_ms.get(name), manifest.results.predicted_high_ms.get(name)
    middle = formats.ms(manifest.results.predicted_ms.get(name))
    return middle if low is None or high is None else f"{middle} ({formats.ms(low)}{formats.DASH}{formats.ms(high)})"


def final_table(data: ReportData) -> str:
    """Return the outcome, the aligned table of artifacts and the notes, as lines for a terminal."""
    rows = [HEADINGS, *(row.cells for row in result_rows(data))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "  ".join("-" * width for width in widths)
    notes = [f"note: {note}" for note in data.notes]
    return "\n".join([outcome(data), "", lines[0], rule, *lines[1:], *([""] if notes else []), *notes])


def as_json(data: ReportData) -> dict[str, object]:
    """Return outcome, results, front, best samples and comparison as values that json.dumps takes."""
    target, points = Target.of(data.manifest), analysis.points_of(data)
    manifest = asdict(data.manifest)
    return {
        "format": "edgekd-report",
        "version": 1,
        "outcome": outcome(data),
        "target_met": target_met(data.manifest),
        "manifest": {key: list(value) if isinstance(value, tuple) else value for key, value in manifest.items()},
        "pareto_front": [_point(p) for p in analysis.pareto_front(points, target)],
        "best_under_target": [_point(p) for p in analysis.best_under(points, target, 10)],
        "studies": {
            key: {"engine": study.engine, "reward": study.reward, **asdict(analysis.summarize(study, target))}
            for key, study in zip(("search", "random"), data.studies, strict=False)
        },
        "notes": list(data.notes),
    }


def _point(point: Point) -> dict[str, object]:
    return {"study": point.study, **asdict(point.sample)}
