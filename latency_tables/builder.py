"""Builds a table: measures the operators and networks that it lacks, then calibrates it.

How anything is measured is the caller's: it gives a `measure` function. Every measurement is in the file before the
next is asked for, so a killed build goes on where it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from latency_tables.calibrate import Calibration, Observation, calibrate
from latency_tables.schema import Measurement, Network, OpSpec
from latency_tables.store import LatencyTable, TableFile

_SYNC_EVERY = 100  # measurements; a crash of the whole machine may cost so many


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A whole network to calibrate on; what it is made of, and the name the caller knows it by."""

    name: str
    dtype: str
    ops: tuple[OpSpec, ...]


Subject = OpSpec | NetworkSpec
Measure = Callable[[Sequence[Subject]], Iterator[tuple[Subject, Measurement]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a table shall cover."""

    ops: tuple[OpSpec, ...]
    networks: tuple[NetworkSpec, ...]

    def missing(self, table: LatencyTable) -> list[Subject]:
        """List what is not measured yet: networks spread evenly among the operators, so that both see the same
        machine, warm and cold.
        """
        ops = [op for op in self.ops if op.key not in table.rows]
        networks = [network for network in self.networks if network.name not in table.networks]
        return list(_spread(ops, networks))


def build(
    file: TableFile, plan: Plan, measure: Measure, on_row: Callable[[int, int], None] = lambda done, total: None
) -> LatencyTable:
    """Complete the table and give it. `on_row` is told how many measurements are done, of how many."""
    missing = plan.missing(file.table)
    for done, (subject, measurement) in enumerate(measure(missing) if missing else (), 1):
        if isinstance(subject, OpSpec):
            file.add_row(measurement)
        else:
            keys = tuple(op.key for op in subject.ops)
            file.add_network(Network(subject.name, subject.dtype, keys, measurement))
        if done % _SYNC_EVERY == 0:
            file.sync()
        on_row(done, len(missing))
    for dtype in sorted({network.dtype for network in plan.networks}):
        fit = fit_networks(file.table, dtype)
        if file.table.calibrations.get(dtype) != fit:
            file.add_calibration(dtype, fit)
    file.sync()
    return file.table


def fit_networks(table: LatencyTable, dtype: str) -> Calibration:
    """Calibrate a dtype on the networks that the table holds.

    Raises:
        ValueError: there are too few of them.

    """
    observations = [
        Observation(sum(table.rows[key].median_ms for key in n.op_keys), len(n.op_keys), n.measurement.median_ms)
        for n in table.networks.values()
        if n.dtype == dtype
    ]
    return calibrate(observations)


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
