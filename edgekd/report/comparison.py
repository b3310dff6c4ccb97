"""Where several searches went: runs in groups of equal settings but the seed, their distances, and a test over runs.

Teacher A against teacher B against none, engine against engine: what differs names the groups. It looks at the last
samples of each run, and at all samples for the projection. Reckoning is in regions.py and permutation.py.
Source of the analysis: Liu et al., Search to Distill, arXiv 1911.09074, on where searches under other teachers go.
Next: compare_text.py, compare_html.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.report import formats, regions
from edgekd.report.data import SEARCH_FILE, Study, Target
from edgekd.report.decisions import decisions_of
from edgekd.report.errors import NotComparable
from edgekd.report.fields import clean, describe
from edgekd.report.permutation import PermutationTest, permutation_test
from edgekd.report.regions import Decision, Floats, Projection
from edgekd.report.scene import engine_name
from edgekd.report.where import choices_of
from edgekd.runs import load_run
from edgekd.search.study_file import Sample

_LAST_SHARE = 4  # a quarter of the samples are the last ones
# runs of one group may differ in these: how far a run got, and which measurement of the same device it used
_FREE = ("seed", "budget", "budget_epochs", "warm_samples", "table_sha256")
_NAMED = ("teacher_sha256", "engine")  # these have words of their own in a group's name
_METHOD, NO_TEACHER = "proxy.method", "none"
_TEST_SEED = 0
_SHARED_SEEDS = (
    "Groups share seeds: runs of one seed begin alike, so groups seem closer than they are and the test finds "
    "differences less often than it could; give every run its own seed."
)


@dataclass(frozen=True)
class ComparedRun:
    """One run: its names, its study, and the number of its group."""

    name: str
    teacher: str
    study: Study
    group: int

    @property
    def seed(self) -> int:
        """The seed of the search."""
        return self.study.header.settings.seed

    @property
    def target(self) -> Target:
        """The first target of the search."""
        return self.study.targets[0]


@dataclass(frozen=True)
class PairTest:
    """The test of two groups; `test` is None where there are too few runs for one."""

    first: int
    second: int
    test: PermutationTest | None


@dataclass(frozen=True)
class Comparison:
    """Several runs compared.

    `last` samples of each run are looked at; `shares` are their marginals, a row a run. `distances` (R, R) are mean
    normalised Hamming distances of the last samples of two runs; on the diagonal, of the pairs of one run, NaN for a
    single sample. `projection` has the rows of all samples, run after run.
    """

    decisions: tuple[Decision, ...]
    runs: tuple[ComparedRun, ...]
    groups: tuple[str, ...]
    last: int
    shares: tuple[Floats, ...]
    distances: Floats
    projection: Projection
    test: PermutationTest | None
    pair_tests: tuple[PairTest, ...]
    notes: tuple[str, ...]

    @classmethod
    def load(cls, folders: Sequence[Path], last: int | None = None) -> Comparison:
        """Read and compare runs; `last` samples of each are compared, or a quarter of the shortest run's.

        Raises:
            NotComparable: the runs searched different spaces, one is there twice or has no samples.
            DataError, TableError: a run cannot be read.

        """
        runs, groups = _grouped([_Read.of(folder, name) for folder, name in _named(folders)])
        shortest = min(len(run.study.samples) for run in runs)
        looked_at = min(shortest, last or max(2, shortest // _LAST_SHARE))
        sizes = runs[0].study.header.decision_sizes
        decisions = decisions_of([run.study for run in runs])
        shares = tuple(regions.marginals(choices_of(run.study.samples[-looked_at:], sizes), sizes) for run in runs)
        distances = _distances(shares, looked_at, len(sizes))
        chosen = choices_of([s for run in runs for s in run.study.samples], sizes)
        labels = [run.group for run in runs]
        return cls(
            decisions=decisions,
            runs=runs,
            groups=groups,
            last=looked_at,
            shares=shares,
            distances=distances,
            projection=regions.project(regions.one_hot(chosen, sizes)),
            test=permutation_test(distances, labels, _TEST_SEED),
            pair_tests=_pair_tests(distances, labels) if len(groups) > 2 else (),
            notes=_notes(runs, looked_at, last),
        )

    def group_shares(self, group: int) -> Floats:
        """Give the mean shares of the options in the last samples of a group's runs."""
        of_group = [s for s, run in zip(self.shares, self.runs, strict=True) if run.group == group]
        mean: Floats = np.mean(of_group, axis=0)
        return mean

    def group_distance(self, first: int, second: int) -> float | None:
        """Give the mean distance of pairs of different runs, one of each group; None if there is no pair."""
        labels = np.array([run.group for run in self.runs])
        pairs = (labels[:, None] == first) & (labels[None, :] == second) & ~np.eye(len(labels), dtype=bool)
        return float(self.distances[pairs].mean()) if pairs.any() else None

    @property
    def differences(self) -> list[float]:
        """How far the groups' shares differ at each decision: the largest total variation distance of two groups."""
        shares = [self.group_shares(group) for group in range(len(self.groups))]
        return regions.variation(shares, self.runs[0].study.header.decision_sizes)


@dataclass(frozen=True)
class _Read:
    """A run as it was read, not yet in a group; `settings` are what runs of one group share."""

    name: str
    teacher: str
    study: Study
    settings: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, name: str) -> _Read:
        run = load_run(folder)
        study = Study.load(folder / SEARCH_FILE)
        if not study.samples:
            raise NotComparable(f"run {folder} has no samples yet; search first, or leave it out")
        teacher = run.settings.teacher
        settings = _flat({key: value for key, value in study.header.as_json().items() if key not in _FREE})
        return cls(clean(name), clean(Path(teacher).stem or teacher), study, settings)


def _named(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Name each run by its folder, with what is above where two folders bear one name."""
    full = [folder.resolve() for folder in folders]
    if len(set(full)) < len(full):
        raise NotComparable("a run folder is named twice; name each once")
    names = [folder.name for folder in full]
    return [(f, n if names.count(n) == 1 else str(f)) for f, n in zip(folders, names, strict=True)]


def _grouped(read: Sequence[_Read]) -> tuple[tuple[ComparedRun, ...], tuple[str, ...]]:
    """Put runs into groups of equal settings but the seed, in order of appearance."""
    for other in read[1:]:
        _same_space(read[0], other)
    kinds: list[_Read] = []
    for run in read:
        if all(run.settings != kind.settings for kind in kinds):
            kinds.append(run)
    numbers = [next(n for n, kind in enumerate(kinds) if kind.settings == run.settings) for run in read]
    for (a, i), (b, j) in itertools.combinations(zip(read, numbers, strict=True), 2):
        if i == j and a.study.header.settings.seed == b.study.header.settings.seed:
            raise NotComparable(
                f"runs {a.name} and {b.name} have the same settings and seed {a.study.header.settings.seed}, so they "
                "are one search; leave one out"
            )
    runs = tuple(ComparedRun(r.name, r.teacher, r.study, n) for r, n in zip(read, numbers, strict=True))
    return runs, _group_names(kinds)


def _same_space(first: _Read, other: _Read) -> None:
    one, two = first.study.header, other.study.header
    if (one.space_sha256, one.decision_sizes) != (two.space_sha256, two.decision_sizes):
        raise NotComparable(
            f"run {other.name} searched space {clean(two.space)}, run {first.name} {clean(one.space)}"
            f"{' of other content' if one.space == two.space else ''}; compare runs of one space"
        )


def _group_names(kinds: Sequence[_Read]) -> tuple[str, ...]:
    """Name each group by its teacher, and by all else in which it differs from another."""
    keys = dict.fromkeys(key for kind in kinds for key in kind.settings)
    differing = [key for key in keys if len({str(kind.settings.get(key)) for kind in kinds}) > 1]
    if len({str(kind.settings.get(_METHOD)) for kind in kinds if kind.teacher != NO_TEACHER}) < 2:
        differing = [key for key in differing if key != _METHOD]  # that there is no teacher says it already
    names = []
    for kind in kinds:
        words = ["no teacher" if kind.teacher == NO_TEACHER else f"teacher {kind.teacher}"]
        words += [engine_name(kind.study.engine)] if "engine" in differing else []
        words += [f"{clean(k)} {describe(kind.settings.get(k))[:60]}" for k in differing if k not in _NAMED]
        names.append(", ".join(words))
    hashes = [clean(str(kind.settings.get("teacher_sha256"))[:6]) for kind in kinds]
    return tuple(f"{n} ({h})" if names.count(n) > 1 else n for n, h in zip(names, hashes, strict=True))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Spread nested settings out, as proxy.epochs."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _distances(shares: Sequence[Floats], count: int, decisions: int) -> Floats:
    distances = regions.distances_between(shares, decisions)
    for place, own in enumerate(shares):
        within = regions.distance_within(own, count, decisions)
        distances[place, place] = np.nan if within is None else within
    return distances


def _pair_tests(distances: Floats, labels: Sequence[int]) -> tuple[PairTest, ...]:
    tests = []
    for first, second in itertools.combinations(range(max(labels) + 1), 2):
        places = [place for place, label in enumerate(labels) if label in (first, second)]
        inner = distances[np.ix_(places, places)]
        tests.append(PairTest(first, second, permutation_test(inner, [labels[p] for p in places], _TEST_SEED)))
    return tuple(tests)


def _notes(runs: Sequence[ComparedRun], looked_at: int, asked: int | None) -> tuple[str, ...]:
    notes = []
    lengths = sorted({len(run.study.samples) for run in runs})
    if len(lengths) > 1:
        notes.append(f"The runs have {lengths[0]} to {lengths[-1]} samples; the last {looked_at} of each are compared.")
    if asked and asked > looked_at:
        notes.append(f"Only {looked_at} last samples are compared, not {asked}: the shortest run has no more.")
    targets = sorted({(t.ms, t.dtype) for run in runs for t in run.study.targets})
    if len(targets) > 1:
        listed = ", ".join(f"{formats.ms(ms)} ms ({dtype})" for ms, dtype in targets)
        notes.append(f"The searches have several targets, {listed}: where they went depends on these, too.")
    for key, what in (("table_sha256", "latency tables"), ("data_sha256", "data sets")):
        if len({str(run.study.header.identity.get(key)) for run in runs}) > 1:
            notes.append(f"The searches used different {what}.")
    by_seed = {run.seed: {other.group for other in runs if other.seed == run.seed} for run in runs}
    if any(len(groups) > 1 for groups in by_seed.values()):
        notes.append(_SHARED_SEEDS)
    notes += [
        f"{run.name} took over {run.study.header.warm_samples} samples from another study."
        for run in runs
        if run.study.header.warm_samples
    ]
    return tuple(notes)


def all_samples(comparison: Comparison) -> list[tuple[ComparedRun, Sample]]:
    """List the samples of all runs in the order of the projection's rows."""
    return [(run, sample) for run in comparison.runs for sample in run.study.samples]
