"""A latency table without a device: a roofline's times for every operator of a space, loudly marked as simulated.

For trying edgekd out, or a first look at a device that is not at hand. How far such times are from the truth is told by
published latencies of whole networks (published.py); the table's interval is as wide as that. One figure of the model,
the share of the peak in int8, was fitted to those very latencies, so what it would be without the network in question
is what a table's errors speak of. The formula is latency_tables/simulate.py's. Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from device_agents import catalogue
from edgekd.errors import UnknownName
from edgekd.profile import all_ops
from edgekd.published import FIGURES, Figure, operators
from edgekd.spaces.space import Space
from latency_tables.calibrate import Calibration
from latency_tables.op_spec import DTYPES
from latency_tables.processors import PROCESSORS, Processor
from latency_tables.simulate import INT8_SHARE, simulate_rows, simulated_key, simulated_measurement
from latency_tables.store import LatencyTable, TableFile

FITTED_DTYPES = ("int8",)  # all else of the model was set beforehand
_SHARES = tuple(step / 20 for step in range(4, 17))  # what the int8 share was chosen among, 0.2 to 0.8
_UNSEEN = 2.0  # × the largest error of all, for a device of which nothing is published


@dataclass(frozen=True, slots=True)
class SimulationRequest:
    """What to simulate, and where the table goes."""

    processor: Processor
    space: Space
    table_path: Path
    dtypes: tuple[str, ...] = DTYPES


@dataclass(frozen=True, slots=True)
class Compared:
    """A published latency beside the simulated one."""

    figure: Figure
    simulated_ms: float
    left_out_ms: float  # as a model says that was fitted without this network; the same where nothing was fitted

    @property
    def error(self) -> float:
        """Give the simulation's relative error; above 0 it is too slow. In FITTED_DTYPES it is that of a fit."""
        return self.simulated_ms / self.figure.ms - 1

    @property
    def left_out_error(self) -> float:
        """Give the relative error of the model that was fitted without this network."""
        return self.left_out_ms / self.figure.ms - 1


def processor_named(name: str) -> Processor:
    """Find the figures of a device by its name or an alias of it.

    Raises:
        UnknownName: none are known.

    """
    known = catalogue.named(name)
    device = known.name if known and known.name in PROCESSORS else name.casefold()
    if device not in PROCESSORS:
        raise UnknownName("device to simulate", name, PROCESSORS)
    return PROCESSORS[device]


def simulate(request: SimulationRequest) -> LatencyTable:
    """Write the simulated table, or add to it what it lacks.

    Raises:
        TableError: the file holds another table, is damaged or cannot be written.

    """
    file = TableFile(request.table_path, simulated_key(request.processor))
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    missing = [op for op in all_ops(request.space, request.dtypes) if op.key not in file.table.rows]
    for op, ms in simulate_rows(request.processor, missing).items():
        file.add_row(simulated_measurement(op, ms, made_at))
    for dtype in request.dtypes:
        calibration = _calibration(request.processor, dtype)
        if file.table.calibrations.get(dtype) != calibration:
            file.add_calibration(dtype, calibration)
    file.sync()
    return file.table


def compare(dtypes: Sequence[str] = DTYPES) -> list[Compared]:
    """Simulate all published latencies, with the model as it is and with one fitted to the other networks alone."""
    return [
        Compared(figure, _total_ms(figure, INT8_SHARE), _total_ms(figure, _share_without(figure)))
        for figure in FIGURES
        if figure.dtype in dtypes
    ]


def interval_error(processor: Processor, dtype: str) -> float:
    """Give the relative error to expect of a network: the largest against the device's published figures.

    They count as left out of the fit, and as fitted where that was worse. Where nothing is published of the device, it
    is a multiple of the largest of all.
    """
    compared = compare([dtype])
    own = [_worse(c) for c in compared if c.figure.device == processor.device]
    return max(own) if own else _UNSEEN * max(map(_worse, compared))


def _worse(compared: Compared) -> float:
    return max(abs(compared.error), abs(compared.left_out_error))


@cache
def _total_ms(figure: Figure, int8_share: float) -> float:
    ops = operators(figure.network, figure.dtype)
    ms = simulate_rows(PROCESSORS[figure.device], ops, int8_share)
    return sum(ms[op] for op in ops)


@cache
def _share_without(left_out: Figure) -> float:
    """Fit the int8 share to the figures of all other networks; the same network on another device is no other one."""
    if left_out.dtype not in FITTED_DTYPES:
        return INT8_SHARE
    others = [f for f in FIGURES if f.dtype == left_out.dtype and f.network != left_out.network]
    return min(_SHARES, key=lambda share: sum(abs(_total_ms(f, share) / f.ms - 1) for f in others))


def _calibration(processor: Processor, dtype: str) -> Calibration:
    """Make a calibration that changes nothing, with the errors against what is published, left out of the fit."""
    errors = [abs(c.left_out_error) for c in compare([dtype])]
    return Calibration(
        scale=1.0,
        per_op_ms=0.0,
        offset_ms=0.0,
        heldout_mean_error=sum(errors) / len(errors),
        heldout_max_error=max(errors),
        interval_error=interval_error(processor, dtype),
        networks=float(len(errors)),
    )
