"""The outcome of a run in words, as an aligned table for the terminal and as plain values for JSON.

Of a finished student, or of a search alone, which has an outcome a target.

No colour codes and no HTML. The page shows the same rows. Next: html.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekd.report import analysis, formats
from edgekd.report.analysis import Point
from edgekd.report.data import ReportData, Study, Target
from edgekd.report.fields import clean, describe
from edgekd.report.manifest import ARTIFACTS, Manifest
from edgekd.report.scene import engine_name
from edgekd.search.study_file import Sample

HEADINGS = (
    "artifact",
    "size",
    "accuracy",
    "predicted ms",
    "measured ms (CPU)",
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
    """Say in one sentence what came out of a run."""
    return student_outcome(data.manifest) if data.manifest else search_outcome(data)


def student_outcome(manifest: Manifest) -> str:
    """Say what the student is like in the target's dtype: latency, target and accuracy."""
    dtype = manifest.target_dtype
    measured, predicted = manifest.results.measured_ms.get(dtype), manifest.results.predicted_ms.get(dtype)
    latency = f"{formats.ms(predicted)} ms predicted" if measured is None else f"{formats.ms(measured)} ms measured"
    accuracy = formats.percent(manifest.results.accuracy.get(dtype))
    teacher = formats.percent(manifest.teacher_accuracy)
    return f"{dtype} student: {latency}, target {formats.ms(manifest.target_ms)} ms, {accuracy} (teacher {teacher})"


def search_name(data: ReportData) -> str:
    """Name a search: dtype, space, targets."""
    targets = ", ".join(formats.ms(target.ms) for target in data.search.targets)
    return f"search of {clean(data.search.header.space)} for {data.target.dtype} at {targets} ms"


def search_outcome(data: ReportData) -> str:
    """Say what a search found under its target, and how many samples it took."""
    summary, study = analysis.summarize(data.search, data.target), data.search
    found = f"{engine_name(study.engine)}, {summary.samples} of {study.budget} samples"
    if summary.best is None:
        return f"{found}: none is under the target of {formats.ms(data.target.ms)} ms"
    return f"{found}: best under {formats.ms(data.target.ms)} ms is {figures_of(summary.best, data.target)}"


def figures_of(sample: Sample, target: Target) -> str:
    """Word the accuracy and latency of a sample."""
    return f"{formats.percent(sample.proxy_accuracy)} at {formats.ms(target.latency_ms(sample))} ms"


def study_facts(study: Study) -> dict[str, str]:
    """List what a study's header says of it."""
    header = study.header
    settings = {key: value for key, value in asdict(header.settings).items() if key not in ("reward", "budget")}
    facts = {"engine": study.engine, "reward": study.reward, "budget": str(study.budget), **settings}
    facts |= {"space": header.space, "space_sha256": header.space_sha256, "warm_samples": header.warm_samples}
    return {clean(key): describe(_plain(value)) for key, value in (facts | dict(header.identity)).items()}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def target_met(manifest: Manifest) -> bool | None:
    """Tell whether the student was measured at the target or below; None if it was not measured."""
    measured = manifest.results.measured_ms.get(manifest.target_dtype)
    return None if measured is None else measured <= manifest.target_ms


def result_rows(manifest: Manifest) -> tuple[ResultRow, ...]:
    """List the artifacts of a run that have a figure or a file, float32 first."""
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
    """Return the outcome, an aligned table of artifacts or of what a search found, and the notes, for a terminal."""
    if data.manifest:
        table = aligned([HEADINGS, *(row.cells for row in result_rows(data.manifest))])
    else:
        table = aligned([SEARCH_HEADINGS, *search_rows(data)])
    notes = [f"note: {note}" for note in data.notes]
    return "\n".join([outcome(data), "", table, *([""] if notes else []), *notes])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Align the columns of a table and rule off its first row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in ruled
    )


SEARCH_HEADINGS = (
    "search",
    "target ms",
    "samples",
    "under it",
    "failed",
    "best under it",
    "best reward",
    "on the front",
)


def search_rows(data: ReportData) -> list[tuple[str, ...]]:
    """List what each search of a run found, a row a target."""
    rows = []
    for study in data.studies:
        for target in study.targets:
            summary = analysis.summarize(study, target)
            front = analysis.pareto_front([Point("search", s) for s in study.samples], target)
            best = (figures_of(s, target) if s else formats.DASH for s in (summary.best, summary.best_reward))
            counts = map(str, (summary.samples, summary.under_target, sum(summary.failures.values())))
            rows.append((engine_name(study.engine), formats.ms(target.ms), *counts, *best, str(len(front))))
    return rows


def as_json(data: ReportData) -> dict[str, Any]:
    """Return outcome, results, fronts, best samples and comparison as values that json.dumps takes."""
    points = analysis.points_of(data)
    manifest = asdict(data.manifest) if data.manifest else None
    return {
        "format": "edgekd-report",
        "version": 2,
        "outcome": outcome(data),
        "target_met": target_met(data.manifest) if data.manifest else None,
        "manifest": manifest and {key: _plain(value) for key, value in manifest.items()},
        "targets": [_target(points, target) for target in data.search.targets],
        "studies": {
            key: {"engine": study.engine, "reward": study.reward, **_summary(study, data.target)}
            for key, study in zip(("search", "baseline"), data.studies, strict=False)
        },
        "notes": list(data.notes),
    }


def _target(points: Sequence[Point], target: Target) -> dict[str, object]:
    return {
        "target_ms": target.ms,
        "target_dtype": target.dtype,
        "best_under_target": [_point(p) for p in analysis.best_under(points, target, 10)],
        "pareto_front": [_point(p) for p in analysis.pareto_front(points, target)],
    }


def _summary(study: Study, target: Target) -> dict[str, object]:
    summary = analysis.summarize(study, target)
    samples = {"best": summary.best, "best_reward": summary.best_reward}
    return asdict(summary) | {name: sample and _sample(sample) for name, sample in samples.items()}


def _point(point: Point) -> dict[str, object]:
    return {"study": point.study, **_sample(point.sample)}


def _sample(sample: Sample) -> dict[str, object]:
    return sample.as_json() | {"choices": list(sample.choices)}
