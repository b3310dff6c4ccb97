"""Which proxy setting can be trusted: each is tried on the same architectures as a longer training with the teacher.

The longer training is the truth that counts, for the winner will be trained so. A setting's worth is Kendall's τ of its
accuracies against the truth; the cheapest setting that is not significantly below the best is chosen. Every training is
in a journal first, so that a calibration goes on where it was stopped, and to more architectures or settings. How
candidates are trained is the caller's `open_rater` (workers/); the statistics are rank_correlation.py's.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.search.errors import InvalidSetting, SearchError
from edgekd.search.rank_correlation import Interval, interval, kendall_tau, resampled_taus
from edgekd.search.rated import Evaluate, Rated
from edgekd.spaces.arch import Arch
from edgekd.spaces.space import Space
from latency_tables.errors import FileDamaged
from latency_tables.journal import Journal

FORMAT, VERSION = "edgekd-proxy-calibration", 1
LEAST_ARCHS = 4  # of fewer there are hardly any pairs to order
_ABSURD = 1e12  # 30,000 years of seconds, more images than there are


@dataclass(frozen=True, slots=True)
class ProxySetting:
    """A way to train: by which method, how long, on how many images of which size, and how hard."""

    method: str
    epochs: int
    images: int
    resolution: int  # pixels; 0 is the space's own
    batch_size: int
    learning_rate: float
    seed: int
    weights: str = ""  # of the method's parts


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """The architectures, how the truth is trained, and the settings to try."""

    archs: tuple[Arch, ...]
    truth: ProxySetting
    grid: tuple[ProxySetting, ...]

    def __post_init__(self) -> None:
        if not self.grid:
            raise InvalidSetting("a calibration of no proxy setting was asked for; give at least one to try")

    @property
    def trainings(self) -> int:
        """Count all trainings, those that are in the journal already among them."""
        return len(self.archs) * (1 + len(self.grid))


OpenRater = Callable[[ProxySetting], AbstractContextManager[Evaluate]]
OnRated = Callable[[int, ProxySetting, Rated], None]  # how many trainings are known by now, and the newest
Results = Mapping[ProxySetting, Sequence[Rated]]  # one an architecture, in the plan's order


@dataclass(frozen=True, slots=True)
class SettingResult:
    """What one setting is worth, and what it costs."""

    setting: ProxySetting
    tau: Interval
    behind_best: Interval  # the best setting's τ less this one's; significant where its low end is above 0
    seconds: float  # mean of a candidate
    failures: int  # candidates that could not be trained; they rank last


@dataclass(frozen=True, slots=True)
class TeacherEffect:
    """τ with the teacher less τ without, all else equal."""

    guided: ProxySetting
    gain: Interval


@dataclass(frozen=True, slots=True)
class CalibrationOutcome:
    """All settings in the order tried, the one to take, and what the teacher changed."""

    archs: int  # that the truth knows; one whose longer training failed says nothing
    truth_seconds: float  # mean of a candidate
    settings: tuple[SettingResult, ...]
    chosen: SettingResult
    teacher: tuple[TeacherEffect, ...]

    @property
    def is_above_chance(self) -> bool:
        """Tell whether some setting ranks significantly better than a guess."""
        return any(result.tau.low > 0 for result in self.settings)


def sampled_archs(space: Space, count: int, seed: int) -> tuple[Arch, ...]:
    """Draw distinct architectures uniformly; those of a smaller count are the first of a larger one's.

    Raises:
        InvalidSetting: fewer than four are asked for, or the space has fewer.

    """
    count = min(count, space.size)
    if count < LEAST_ARCHS:
        raise InvalidSetting(f"a calibration needs at least {LEAST_ARCHS} architectures; it has {count}")
    rng = random.Random(seed)  # noqa: S311 - no secret
    found: dict[Arch, None] = {}
    while len(found) < min(count, space.size // 2 + 1):  # bounded: at least every second draw of a half is new
        found[space.arch([rng.randrange(size) for size in space.decision_sizes])] = None
    for choices in itertools.product(*map(range, space.decision_sizes)):
        if len(found) >= count:
            break
        found[space.arch(choices)] = None
    return tuple(found)


def calibrate(
    plan: CalibrationPlan,
    path: Path,
    identity: Mapping[str, Any],
    open_rater: OpenRater,
    on_rated: OnRated = lambda known, setting, rated: None,
) -> CalibrationOutcome:
    """Train what the journal at `path` does not know yet, and judge the settings.

    Raises:
        FileDamaged: the journal is damaged.
        OtherSettings: it is of other data, another teacher or another space.
        SearchError: fewer than four architectures could be trained long.

    """
    journal = Journal(path, {"format": FORMAT, "version": VERSION, **identity}, sealed=True)
    known = dict(_read(path, journal))
    done = 0
    for setting in (plan.truth, *plan.grid):
        for rated in _rated(setting, plan.archs, known, journal, open_rater):
            done += 1
            on_rated(done, setting, rated)
    return judged(plan, {s: [known[s, str(arch)] for arch in plan.archs] for s in (plan.truth, *plan.grid)})


def _rated(
    setting: ProxySetting,
    archs: Sequence[Arch],
    known: dict[tuple[ProxySetting, str], Rated],
    journal: Journal,
    open_rater: OpenRater,
) -> Iterator[Rated]:
    """Give what is known of a setting, then train the rest; each is in the journal before it is given."""
    yield from (known[setting, str(arch)] for arch in archs if (setting, str(arch)) in known)
    missing = [arch for arch in archs if (setting, str(arch)) not in known]
    if not missing:
        return
    with open_rater(setting) as evaluate:
        for arch, rated in zip(missing, evaluate(missing, None), strict=True):
            journal.append(_entry(setting, arch, rated))
            journal.sync()
            known[setting, str(arch)] = rated
            yield rated


def judged(plan: CalibrationPlan, results: Results) -> CalibrationOutcome:
    """Compare every setting with the truth.

    Raises:
        SearchError: fewer than four architectures could be trained long.

    """
    kept = [i for i, rated in enumerate(results[plan.truth]) if not rated.failure]
    if len(kept) < LEAST_ARCHS:
        failures = sorted({rated.failure for rated in results[plan.truth] if rated.failure})
        raise SearchError(
            f"only {len(kept)} of {len(plan.archs)} architectures could be trained for {plan.truth.epochs} epochs "
            f"({'; '.join(failures)[:200]}); lower distil.learning_rate or take more architectures"
        )
    truth = [results[plan.truth][i].accuracy for i in kept]
    tried = [[results[setting][i] for i in kept] for setting in plan.grid]
    accuracies = [[rated.accuracy for rated in column] for column in tried]
    taus = [kendall_tau(truth, column) for column in accuracies]
    draws = resampled_taus(truth, accuracies)
    best = max(range(len(taus)), key=taus.__getitem__)
    found = tuple(
        SettingResult(
            setting,
            interval(taus[i], draws[i]),
            interval(taus[best] - taus[i], draws[best] - draws[i]),
            _mean_seconds(column),
            sum(bool(rated.failure) for rated in column),
        )
        for i, (setting, column) in enumerate(zip(plan.grid, tried, strict=True))
    )
    good = [result for result in found if result.behind_best.low <= 0]
    chosen = min(good, key=lambda result: (result.seconds, -result.tau.value))
    guided = tuple(
        TeacherEffect(plan.grid[i], interval(taus[i] - taus[j], draws[i] - draws[j])) for i, j in _pairs(plan.grid)
    )
    return CalibrationOutcome(len(kept), _mean_seconds(results[plan.truth]), found, chosen, guided)


def _pairs(grid: Sequence[ProxySetting]) -> Iterator[tuple[int, int]]:
    """Give the places of settings that differ in the teacher alone: guided, unguided."""
    place = {setting: i for i, setting in enumerate(grid)}
    for i, setting in enumerate(grid):
        alone = ProxySetting(**asdict(setting) | {"method": "none", "weights": ""})
        if setting.method != "none" and alone in place:
            yield i, place[alone]


def _mean_seconds(rated: Sequence[Rated]) -> float:
    return sum(one.seconds for one in rated) / len(rated)


def _entry(setting: ProxySetting, arch: Arch, rated: Rated) -> dict[str, Any]:
    found = {"accuracy": rated.accuracy, "seconds": rated.seconds, "epochs": rated.epochs}
    return {"setting": asdict(setting), "arch": str(arch), **found, "failure": rated.failure, "host": rated.host}


_SETTING_TYPES = {name: type(value) for name, value in asdict(ProxySetting("", 0, 0, 0, 0, 0.0, 0)).items()}
_ENTRY_TYPES = {
    "setting": dict,
    "arch": str,
    "accuracy": float,
    "seconds": float,
    "epochs": int,
    "failure": str,
    "host": str,
}


def _read(path: Path, journal: Journal) -> Iterator[tuple[tuple[ProxySetting, str], Rated]]:
    """Read what was trained before, strictly."""
    known: set[tuple[ProxySetting, str]] = set()
    for number, entry in enumerate(journal.entries, 2):
        _check_types(path, number, entry, _ENTRY_TYPES)
        _check_types(path, number, entry["setting"], _SETTING_TYPES)
        rated = Rated(entry["accuracy"], entry["seconds"], entry["failure"], entry["epochs"], entry["host"])
        if rated.accuracy > 1 or (rated.failure and rated.accuracy):
            raise FileDamaged(path, number, f"accuracy {rated.accuracy!r} with failure {rated.failure!r:.80} cannot be")
        key = ProxySetting(**entry["setting"]), entry["arch"]
        if key in known:
            raise FileDamaged(path, number, f"{entry['arch']} was trained in this way before")
        known.add(key)
        yield key, rated


def _check_types(path: Path, number: int, found: Mapping[str, Any], wanted: Mapping[str, type]) -> None:
    """See that an object has exactly the fields wanted, of their types; JSON may spell 1.0 as 1."""
    if found.keys() != wanted.keys():
        raise FileDamaged(path, number, f"its fields are {', '.join(sorted(found))}, not {', '.join(sorted(wanted))}")
    for name, kind in wanted.items():
        allowed = (float, int) if kind is float else (kind,)
        value = found[name]
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise FileDamaged(path, number, f"{name} is {value!r:.80}, not of type {kind.__name__}")
        if isinstance(value, float | int) and not 0 <= value < _ABSURD:
            raise FileDamaged(path, number, f"{name} is {value!r:.80}, which none can be")
