"""What a report is made of: the journals of a run's searches and, once there is one, its manifest.

A run of which only the search is done has no manifest. A journal whose last line was cut off by a kill is read
without that line; any other damage is an error. It computes nothing: analysis.py does. Next: manifest.py;
edgekd/search/study_file.py, which reads the journals; html.py, which draws a page.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgekd.report.errors import RunFileError
from edgekd.report.fields import clean, describe
from edgekd.report.manifest import Manifest, measured_notes, read_manifest, unmeasured_notes
from edgekd.search.engines import ENGINES
from edgekd.search.study_file import MEASURED, Sample, StudyHeader, load_study

SEARCH_FILE = "search.jsonl"


@dataclass(frozen=True)
class Target:
    """The latency that a student must meet, and the dtype in which it is counted."""

    ms: float
    dtype: str

    def latency_ms(self, sample: Sample) -> float:
        """Return the sample's latency in the target's dtype, in ms: what the study measured, else what is predicted."""
        return sample.latency_ms(self.dtype)

    def met_by(self, sample: Sample) -> bool:
        """Tell whether the sample's latency is at the target or below."""
        return self.latency_ms(sample) <= self.ms


@dataclass(frozen=True)
class Study:
    """One search: its header, which names things in words where words are shown, and its samples in order."""

    header: StudyHeader
    budget: int
    samples: tuple[Sample, ...]

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read a study's journal.

        Raises:
            RunFileError: it is missing.
            FileDamaged, OtherVersion: it is damaged or of a version that is not read.

        """
        if not path.is_file():
            raise RunFileError(
                path.name, f"cannot be read from {path.parent} (no such file)", "name the folder of an edgekd search"
            )
        record = load_study(path)
        return cls(record.header, record.budget, tuple(map(_cleaned, record.samples)))

    @property
    def engine(self) -> str:
        """The name of the engine."""
        return clean(self.header.settings.engine)

    @property
    def reward(self) -> str:
        """The form of the reward, with its numbers."""
        reward = asdict(self.header.settings.reward)
        rest = ", ".join(f"{key} {describe(value)}" for key, value in reward.items() if key != "form")
        return f"{describe(reward['form'])} ({rest})"

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets in the order in which they were searched for."""
        settings = self.header.settings
        return tuple(Target(float(ms), settings.target_dtype) for ms in settings.targets_ms)

    @property
    def latency_word(self) -> str:
        """Where the latencies come from: predicted or measured."""
        return "measured" if self.header.settings.latency == MEASURED else "predicted"

    @property
    def rated(self) -> tuple[Sample, ...]:
        """The samples that have an accuracy."""
        return tuple(sample for sample in self.samples if not sample.failure)

    @property
    def failed(self) -> tuple[Sample, ...]:
        """The samples whose training failed; their accuracy and reward say nothing."""
        return tuple(sample for sample in self.samples if sample.failure)


@dataclass(frozen=True)
class ReportData:
    """Everything one page shows. `notes` are remarks about the files, one sentence each."""

    name: str
    search: Study
    baseline: Study | None = None
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, run_dir: Path) -> ReportData:
        """Read search.jsonl and, if they are there, the baseline's journal, manifest.json and winner.json.

        Raises:
            RunFileError: a file is missing, damaged, of an unknown version or of another run.
            FileDamaged: a journal is damaged or of an unknown version.

        """
        path = run_dir / "manifest.json"
        manifest = read_manifest(path) if path.exists() else None
        search = Study.load(run_dir / SEARCH_FILE)
        found = next((file for file in (run_dir / f"{name}.jsonl" for name in sorted(ENGINES)) if file.exists()), None)
        baseline = Study.load(found) if found else None
        if manifest:
            _same_target(search, manifest)
        if baseline and found:
            _same_search(found.name, baseline, search)
        notes = _manifest_notes(manifest) + unmeasured_notes(run_dir / "winner.json")
        if search.header.settings.latency != MEASURED:
            notes += measured_notes(run_dir / "winner.json")
        return cls(clean(run_dir.resolve().name), search, baseline, manifest, notes)

    @property
    def studies(self) -> tuple[Study, ...]:
        """The search first, then the baseline if it ran."""
        return (self.search,) if self.baseline is None else (self.search, self.baseline)

    @property
    def target(self) -> Target:
        """The target of the student, which is the search's first."""
        return self.search.targets[0]


def _cleaned(sample: Sample) -> Sample:
    """Take hidden characters out of a sample's texts, so that they show as what they are."""
    if sample.arch.isprintable() and sample.failure.isprintable() and sample.host.isprintable():
        return sample
    return replace(sample, arch=clean(sample.arch), failure=clean(sample.failure), host=clean(sample.host))


def _manifest_notes(manifest: Manifest | None) -> tuple[str, ...]:
    if manifest is None or not manifest.missing:
        return ()
    return (f"This run is not finished: {', '.join(manifest.missing)} not in the manifest yet.",)


def _same_target(study: Study, manifest: Manifest) -> None:
    target = study.targets[0]
    if (target.ms, target.dtype) != (manifest.target_ms, manifest.target_dtype):
        raise RunFileError(
            f"{SEARCH_FILE} line 1",
            f"target is {target.ms:g} ms {target.dtype}, the manifest's is "
            f"{manifest.target_ms:g} ms {manifest.target_dtype}",
            _OTHER_RUN,
        )


def _same_search(name: str, baseline: Study, search: Study) -> None:
    """See that the baseline searched the same space under the same targets."""
    for key in ("space_sha256", "decision_sizes"):
        if getattr(baseline.header, key) != getattr(search.header, key):
            raise RunFileError(f"{name} line 1", f"{key} is not that of {SEARCH_FILE}", _OTHER_RUN)
    if baseline.targets != search.targets:
        raise RunFileError(f"{name} line 1", f"targets are not those of {SEARCH_FILE}", _OTHER_RUN)


_OTHER_RUN = "the files are of different runs: use one folder a run"
