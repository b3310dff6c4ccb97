"""The nouns of a latency table: TableKey, Measurement, Network, Prediction. All are frozen values.

Times are integers in ns in files and in Measurement, floats in ms in everything derived. This module does not read or
write files (store.py) and does not predict (predictor.py). Operators are op_spec.py's.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from latency_tables.op_spec import OpSpec

# A thread's clock leaves out what a hypervisor says that it took the CPU away for, and now and then that is too much.
# Where the wall shows so many times as much as the clock, beside what is usual, the wall tells how long a run took.
_STOLEN = 1.05
THROTTLED, CONTENDED = "throttled", "contended"  # flags of a measurement
# A visit was on a calm machine where the network beside it took what it usually takes, give or take this factor: on a
# calm machine its readings scatter by 3 to 5 %, and neighbours slowed it by 30 to 70 % at once.
_CALM = 1.1
_CALM_VISITS = 3  # one may be the moment before others come
# Of what that network is off its usual time meanwhile such a power is everybody's. Three tables predicted six sessions
# of 30 networks, moments to three hours apart: float32 ones to 2.4 % so, to 3.1 % where nothing of it was taken back,
# to 2.5 % where all of it was; int8 ones to 1.4, 1.1 and 2.0 %.
_SHARED = 0.5


@dataclass(frozen=True, slots=True)
class TableKey:
    """Everything that must be equal for two measurements to be comparable."""

    device: str
    build_fingerprint: str
    engine: str  # what ran the models there: "python", "native" or "benchmark_model"
    runtime: str
    runtime_version: str
    delegate: str
    threads: int
    cpu_mask: str  # hexadecimal, or "any"
    clock: str  # "thread_cpu" or "wall"

    def differences(self, other: TableKey) -> list[str]:
        """List the fields that differ, each as `name: mine / theirs`."""
        pairs = (
            (field.name, getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)
        )
        return [f"{name}: {mine!r} / {theirs!r}" for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one subject, an operator or a whole network. Each sample is the time of one inference in ns.

    A subject that was measured while the machine was slow is measured again; `attempt` counts from 1.
    """

    subject: str  # an OpSpec key, or "network:" + name
    samples_ns: tuple[int, ...]  # on the table's clock
    wall_samples_ns: tuple[int, ...]
    inferences_per_sample: int
    warmup_ns: int
    init_ns: int
    started_at: str  # RFC 3339, UTC
    temperatures_c: tuple[float, ...] = ()
    peak_rss_bytes: int = 0
    sentinel_ns: int = 0  # fastest run of a fixed model beside it: how fast the machine was; 0 is unknown
    attempt: int = 1
    source: str = "measured"  # measured | simulated | imported:<citation>
    flags: tuple[str, ...] = ()  # "contended": others took the CPU; "throttled": its clock was held down; "denormal"
    # Where the sentinel was a network its name, and what it took last before each visit; the samples of a visit are as
    # many for each, and in order.
    beside: str = ""
    beside_ns: tuple[int, ...] = ()

    @property
    def disturbances(self) -> frozenset[str]:
        """Give the flags that speak against the samples; those may differ from what the subject takes by itself.

        Others who took the CPU are in times on the wall alone: a thread's own clock stands still meanwhile.
        """
        on_wall = self.samples_ns == self.wall_samples_ns
        return frozenset(self.flags) & ({THROTTLED, CONTENDED} if on_wall else {THROTTLED})

    @property
    def quiet_ms(self) -> float:
        """Give the fastest sample in ms: the time on an undisturbed machine. What a network beside it tells is read by
        `ms_beside` instead.

        What others do to shared caches, sibling threads and clocks only ever adds to a CPU time, and on a busy machine
        it adds to most samples, so their median says more about the neighbours than about the model. Every sample is
        itself a mean over several inferences, so a single lucky reading of the clock cannot decide. One that is far
        longer on the wall counts by the wall, see _STOLEN.
        """
        ns = min(self.samples_ns)
        if self.wall_samples_ns[self.samples_ns.index(ns)] <= _STOLEN * ns:
            return ns / 1e6
        pairs = list(zip(self.samples_ns, self.wall_samples_ns, strict=True))
        usual = statistics.median_low(wall_ns / ns for ns, wall_ns in pairs)
        return min(wall_ns / usual if wall_ns > _STOLEN * usual * ns else ns for ns, wall_ns in pairs) / 1e6

    @property
    def times_beside(self) -> float:
        """Say how many times what the network beside it takes this does, 0 where it was measured beside none.

        A visit's fastest sample is compared with what the other took before it, and the median of all visits counts.
        """
        if not self.beside_ns:
            return 0.0
        visits = zip(self._fastest_ns(), self.beside_ns, strict=True)
        return statistics.median(ns / beside_ns for ns, beside_ns in visits)

    def is_calm(self, level_ns: int) -> bool:
        """Tell whether enough visits were on a calm machine, where the network beside it takes `level_ns`."""
        return _is_enough(self._calm_visits(level_ns))

    def ms_beside(self, level_ns: int) -> float:
        """Give what it takes in ms on a machine on which the network beside it takes `level_ns`.

        The lower quartile of the visits on a calm machine tells it: in hours in which a clock was boosted now and then
        the fastest was another's boost each time, and networks repeated to 4 % by it and to 1 % by the quartile; in
        others by either to the same. Others who share a core or its memory slow networks alike, and single operators
        from hardly to twice as much as networks: where there was no calm, `times_beside` tells it, well of networks,
        and of an operator to some 20 %.
        """
        calm_ns = self._calm_ns(level_ns)
        return (_lower_quartile(calm_ns) if calm_ns else self.times_beside * level_ns) / 1e6

    def scatter_beside(self, level_ns: int) -> float:
        """Say how far the median of the visits on a calm machine is above their lower quartile (.02 is 2 %).

        It is 0 where too few were on one.
        """
        calm_ns = self._calm_ns(level_ns)
        return statistics.median(calm_ns) / _lower_quartile(calm_ns) - 1.0 if calm_ns else 0.0

    def _calm_ns(self, level_ns: int) -> list[float]:
        """List what visits on a calm machine took, as of `level_ns`; none where too few were on one."""
        calm = self._calm_visits(level_ns)
        if not _is_enough(calm):
            return []
        visits = zip(self._fastest_ns(), self.beside_ns, strict=True)
        return [ns * (level_ns / beside_ns) ** _SHARED for ns, beside_ns in itertools.compress(visits, calm)]

    def _fastest_ns(self) -> list[int]:
        """List the fastest sample of each visit."""
        size = _visit_size(self)
        return [min(self.samples_ns[first : first + size]) for first in range(0, len(self.samples_ns), size)]

    def _calm_visits(self, level_ns: int) -> list[bool]:
        return [level_ns / _CALM <= ns <= _CALM * level_ns for ns in self.beside_ns]

    @property
    def median_ms(self) -> float:
        """Give the median of one inference on the table's clock, in ms."""
        return statistics.median(self.samples_ns) / 1e6

    @property
    def wall_median_ms(self) -> float:
        """Give the median of one inference on the wall clock, in ms."""
        return statistics.median(self.wall_samples_ns) / 1e6


def _is_enough(calm: list[bool]) -> bool:
    return sum(calm) >= max(1, min(_CALM_VISITS, len(calm)))


def _lower_quartile(values_ns: Sequence[float]) -> float:
    return statistics.quantiles(values_ns, n=4, method="inclusive")[0] if len(values_ns) > 1 else values_ns[0]


def _visit_size(measurement: Measurement) -> int:
    return len(measurement.samples_ns) // len(measurement.beside_ns) if measurement.beside_ns else 0


def merged(earlier: Measurement, later: Measurement) -> Measurement:
    """Join two attempts at one subject: all samples are kept, and the better sentinel counts.

    Samples of a disturbed attempt are dropped once there is one that was less so, and those beside the micro-model once
    there are some beside a network. Of two that cannot be compared otherwise the later one is kept.

    Raises:
        ValueError: they are not successive attempts at the same subject.

    """
    if earlier.subject != later.subject or later.attempt != earlier.attempt + 1:
        raise ValueError(
            f"attempt {later.attempt} at {later.subject} does not follow attempt {earlier.attempt} at {earlier.subject}"
        )
    if later.disturbances < earlier.disturbances:
        return later
    is_told = bool(earlier.beside) and not later.beside
    if earlier.disturbances < later.disturbances or is_told:
        return dataclasses.replace(earlier, attempt=later.attempt)
    if earlier.beside != later.beside or _visit_size(earlier) != _visit_size(later):
        return later  # what two sentinels took cannot be compared
    known = [m.sentinel_ns for m in (earlier, later) if m.sentinel_ns]
    return dataclasses.replace(
        later,
        beside_ns=earlier.beside_ns + later.beside_ns,
        samples_ns=earlier.samples_ns + later.samples_ns,
        wall_samples_ns=earlier.wall_samples_ns + later.wall_samples_ns,
        sentinel_ns=min(known, default=0),
        flags=tuple(sorted({*earlier.flags, *later.flags})),
    )


@dataclass(frozen=True, slots=True)
class Network:
    """A whole network that calibrates a table: its operators in execution order and what it measured."""

    name: str
    dtype: str
    op_keys: tuple[str, ...]
    measurement: Measurement


# How a part of a prediction came about: measured; estimated between or beyond measured operators of its family;
# computed once, when the model is loaded.
HOWS = ("table", "interpolated", "fitted", "folded")


@dataclass(frozen=True, slots=True)
class Part:
    """One operator's share of a prediction."""

    op: OpSpec
    ms: float
    how: str  # one of HOWS


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted latency with its 90 % interval and its parts, in execution order."""

    total_ms: float
    low_ms: float
    high_ms: float
    parts: tuple[Part, ...]

    @property
    def covered(self) -> dict[str, float]:
        """Give the share of the total, from 0 to 1, that was predicted in each way."""
        times = {how: sum(part.ms for part in self.parts if part.how == how) for how in HOWS}
        named = {part.how for part in self.parts}
        # parts are added up in another order than the total was: 1 may come out as the next larger number
        return {how: min(1.0, ms / self.total_ms) if ms else 0.0 for how, ms in times.items() if how in named}
