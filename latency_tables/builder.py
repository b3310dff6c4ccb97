"""Builds a table: measures the operators and networks that it lacks, then calibrates it.

How anything is measured is the caller's: it gives a `measure` function. Every measurement is in the file before the
next is asked for, so a killed build goes on where it was. What was measured while the machine was slow, told by the
sentinel beside it, or held down, told by its flags, is measured again; what stays slow is read as speed.py says.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

from latency_tables.calibrate import MIN_NETWORKS, Calibration, calibrate, own_ms
from latency_tables.fetching import Work
from latency_tables.fitting import Fitting, Observation
from latency_tables.op_spec import DTYPES, OpSpec, TensorSpec
from latency_tables.schema import Measurement, Network
from latency_tables.speed import Speed
from latency_tables.store import LatencyTable, TableFile

MAX_ATTEMPTS = 3  # a machine that stays slow must not keep a build from ending
_HEAVIEST = "float32"  # the dtype whose weights show best at what rate those of all come back
_SAME = 1e-6  # relative, of two fits; what differs by less changes no prediction that anyone could measure
_PROBED = 32  # slow subjects that are measured again before the others: seconds show whether it is worth it
_SYNC_EVERY = 100  # measurements; a crash of the whole machine may cost so many


# The smallest operator there is: what it takes is the fixed cost of one call of the runtime.
_NOTHING = (TensorSpec((1, 1, 1, 1)), TensorSpec((1, 1, 1, 1)))
FIXED_COST_OPS = {dtype: OpSpec("add", _NOTHING, dtype) for dtype in DTYPES}
ONNX_FIXED_COST_OP = OpSpec("onnx_add", _NOTHING, "float32", out=((1, 1, 1, 1),))
# Their rows say what a call costs and nothing of additions; what other operators are estimated from is without them.
FIXED_COST_KEYS = frozenset(op.key for op in (*FIXED_COST_OPS.values(), ONNX_FIXED_COST_OP))


def fixed_cost_ms(table: LatencyTable, dtype: str, speed: Speed) -> float:
    """Give the fixed cost of a call that a table holds, 0 where it was not measured."""
    known = (table.rows.get(op.key) for op in (FIXED_COST_OPS[dtype], ONNX_FIXED_COST_OP))
    return next((speed.quiet_ms(row) for row in known if row), 0.0)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A whole network to calibrate on; what it is made of, and the name the caller knows it by."""

    name: str
    dtype: str
    ops: tuple[OpSpec, ...]


Subject = OpSpec | NetworkSpec
Measure = Callable[[Sequence[Subject]], Iterator[tuple[Subject, Measurement]]]
OnRow = Callable[[int, int], None]  # done, of how many


@dataclass(frozen=True, slots=True)
class Plan:
    """What a table shall cover, and how often what was measured on a slow machine is tried."""

    ops: tuple[OpSpec, ...]
    networks: tuple[NetworkSpec, ...]
    attempts: int = MAX_ATTEMPTS
    least_networks: int = 0  # with fewer of a dtype in the table it stays without calibration; 0 makes that an error

    def missing(self, table: LatencyTable) -> list[Subject]:
        """List what is not measured yet: networks spread evenly among the operators, so that both see the same
        machine, warm and cold.
        """
        ops = [op for op in self.ops if op.key not in table.rows]
        networks = [network for network in self.networks if network.name not in table.networks]
        return list(_spread(ops, networks))

    def slow(self, table: LatencyTable) -> list[Subject]:
        """List what was measured beside a slow sentinel or disturbed, and may be tried again."""
        speed = table.speed

        def again(subject: Subject) -> bool:
            known = _known(table, subject)
            return known is not None and known.attempt < self.attempts and _is_slow(known, speed)

        return list(_spread(list(filter(again, self.ops)), list(filter(again, self.networks))))


def build(file: TableFile, plan: Plan, measure: Measure, on_row: OnRow) -> LatencyTable:
    """Complete the table and give it. `on_row` is told how many measurements are done, of how many."""
    table = file.table
    if _is_final(table, plan):
        return table  # measuring or fitting again would change what searches have been told
    try:
        _measure(file, plan.missing(table), measure, on_row)
        for _ in range(1, plan.attempts):
            _measure_slow(file, plan.slow(table), measure, on_row)
    except BaseException:
        _calibrate(file, Plan((), ()))  # what was calibrated before must speak for the rows that came since
        raise
    _calibrate(file, plan)
    return table


def _measure_slow(file: TableFile, slow: Sequence[Subject], measure: Measure, on_row: OnRow) -> None:
    """Measure again what is slow, a few first: where the machine is as slow as it was, the rest stays as it is."""
    first, rest = slow[:_PROBED], slow[_PROBED:]
    _measure(file, first, measure, lambda done, _: on_row(done, len(slow)))
    known, speed = [_known(file.table, subject) for subject in first], file.table.speed
    if not all(row is not None and _is_slow(row, speed) for row in known):
        _measure(file, rest, measure, lambda done, _: on_row(_PROBED + done, len(slow)))


def _known(table: LatencyTable, subject: Subject) -> Measurement | None:
    if isinstance(subject, OpSpec):
        return table.rows.get(subject.key)
    network = table.networks.get(subject.name)
    return network.measurement if network else None


def _is_slow(measurement: Measurement, speed: Speed) -> bool:
    return speed.is_slow(measurement) or bool(measurement.disturbances)


def _measure(file: TableFile, todo: Sequence[Subject], measure: Measure, on_row: OnRow) -> None:
    for done, (subject, measurement) in enumerate(measure(todo) if todo else (), 1):
        _add(file, subject, measurement)
        if done % _SYNC_EVERY == 0:
            file.sync()
        on_row(done, len(todo))


def _calibrate(file: TableFile, plan: Plan) -> None:
    for dtype, fit in _refits(file.table, plan).items():
        file.add_calibration(dtype, fit)
    file.sync()


def _is_final(table: LatencyTable, plan: Plan) -> bool:
    """Tell whether the table covers the plan and was calibrated after its last measurement."""
    return not plan.missing(table) and not _refits(table, plan)


def _refits(table: LatencyTable, plan: Plan) -> dict[str, Calibration]:
    """Fit those dtypes whose calibration is lacking or does not speak for the rows and networks as they are now.

    A dtype that the plan has no networks of is among them: its rows may have been measured again all the same.

    Raises:
        TooFewNetworks: the plan calls for a calibration, and the table has too few networks for one.

    """
    counts = {dtype: len(usable_networks(table, dtype)) for dtype in DTYPES}
    planned = {n.dtype for n in plan.networks if counts[n.dtype] >= plan.least_networks}
    held = {dtype for dtype in table.calibrations if counts[dtype] >= MIN_NETWORKS}
    fits = {dtype: fit_networks(table, dtype) for dtype in sorted(planned | held)}
    return {dtype: fit for dtype, fit in fits.items() if not _is_same(table.calibrations.get(dtype), fit)}


def _is_same(known: Calibration | None, fit: Calibration) -> bool:
    """Tell whether two fits are one, give or take what another machine's linear algebra rounds otherwise."""
    pairs = zip(astuple(known), astuple(fit), strict=True) if known else ()
    return known is not None and all(math.isclose(a, b, rel_tol=_SAME, abs_tol=_SAME**2) for a, b in pairs)


def _add(file: TableFile, subject: Subject, measurement: Measurement) -> None:
    before = _known(file.table, subject)
    again = replace(measurement, attempt=before.attempt + 1 if before else 1)
    if isinstance(subject, OpSpec):
        file.add_row(again)
    else:
        file.add_network(Network(subject.name, subject.dtype, tuple(op.key for op in subject.ops), again))


def fit_networks(table: LatencyTable, dtype: str) -> Calibration:
    """Calibrate a dtype on the networks that the table holds with all their operators.

    Networks of another space, whose build was ended before its operators were measured, are left out.

    Raises:
        TooFewNetworks: there are too few of them.

    """
    # Times on the wall are slow beside others as well, and their sentinel scatters more than a clock drifts.
    speed = table.speed if table.key.clock == "thread_cpu" else Speed(0, table.beside_ns)
    near_gb_per_s = 0.0 if dtype == _HEAVIEST else _near_gb_per_s(table, speed)
    fit = calibrate(*_seen(table, dtype, speed), near_gb_per_s)
    return replace(fit, usual_sentinel_ns=speed.usual_sentinel_ns)


def _near_gb_per_s(table: LatencyTable, speed: Speed) -> float:
    """Give the rate at which weights come by the networks that have most of them, 0 where those show none."""
    observations, fixed_ms = _seen(table, _HEAVIEST, speed)
    few = len(observations) < MIN_NETWORKS
    return 0.0 if few else Fitting.of(observations, fixed_ms).fitted().memory.near_gb_per_s


def _seen(table: LatencyTable, dtype: str, speed: Speed) -> tuple[list[Observation], float]:
    """Sum up a dtype's networks, and give the fixed cost of a call that they are freed of."""
    fixed_ms = fixed_cost_ms(table, dtype, speed)
    return [observation(table.rows, network, fixed_ms, speed) for network in usable_networks(table, dtype)], fixed_ms


def observation(rows: Mapping[str, Measurement], network: Network, fixed_ms: float, speed: Speed) -> Observation:
    """Sum up a network whose operators all have rows, at a machine's usual speed."""
    ops = [op for op in map(OpSpec.parse, network.op_keys) if not op.is_folded]
    works = tuple(Work.of(op, own_ms(speed.quiet_ms(rows[op.key]), fixed_ms)) for op in ops)
    return Observation(works, speed.quiet_ms(network.measurement), speed.scatter(network.measurement))


def usable_networks(table: LatencyTable, dtype: str) -> list[Network]:
    """List the networks of a dtype whose operators all have rows, without disturbed ones where enough remain."""
    usable = [n for n in table.networks.values() if n.dtype == dtype and _is_covered(table, n)]
    undisturbed = [network for network in usable if not network.measurement.disturbances]
    return undisturbed if len(undisturbed) >= MIN_NETWORKS else usable


def _is_covered(table: LatencyTable, network: Network) -> bool:
    missing = [key for key in network.op_keys if key not in table.rows]
    return all(OpSpec.parse(key).is_folded for key in missing)


def _spread(ops: Sequence[OpSpec], networks: Sequence[NetworkSpec]) -> Iterator[Subject]:
    if not networks:
        yield from ops
        return
    share = -(-len(ops) // len(networks)) or 1
    pieces = (ops[i : i + share] for i in range(0, max(len(ops), 1), share))
    for piece, network in itertools.zip_longest(pieces, networks):
        yield from piece or ()
        if network is not None:
            yield network
