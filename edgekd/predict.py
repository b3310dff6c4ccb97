"""Predicts model files from a device's table, after seeing that the table speaks of that device.

The arithmetic is latency_tables/predictor.py's; measuring what a table lacks is profile.py's.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from device_agents import catalogue
from device_agents.device import Device
from device_agents.engines import ENGINES, engine_named
from edgekd.bench import Bench, DeviceChoice
from edgekd.errors import DataError, UsageError
from edgekd.graph.model_file import ModelFile, model_of_op
from latency_tables.errors import OpNotInTable, OtherKey
from latency_tables.op_spec import OpSpec
from latency_tables.predictor import Predictor
from latency_tables.schema import Prediction, TableKey
from latency_tables.simulate import SIMULATED
from latency_tables.store import LatencyTable

_OLD_DAYS = 180  # an operating system's update or two
_BRIEF_S = 30.0  # neighbours come and go in less; a table of one moment has their share in every row, and none tells
_POOR_ERROR = 0.05  # relative, of networks left out of a calibration: seen on busy machines; 0.005 to 0.02 on calm ones
# By engine: what it may run models with, and the packages that bring it. The first found measures, as runners choose.
_RUNTIMES: dict[str, Mapping[str, tuple[str, ...]]] = {
    "python": {
        "ai_edge_litert": ("ai-edge-litert", "ai-edge-litert-nightly"),
        "tflite_runtime": ("tflite-runtime",),
        "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64"),
    },
    "onnxruntime": {"onnxruntime": ("onnxruntime",)},
    "native": {"litert_c": ()},
    "benchmark_model": {"benchmark_model": ()},
}
_SITES = {"python": "site", "onnxruntime": "site-onnxruntime"}  # where `devices setup` puts a runtime, if need be
_ON_THE_WALL = ("benchmark_model",)  # engines that tell no thread's own clock


class CannotBeMeasured(OpNotInTable):
    """An operator has no row and never will, because no model can be made of it alone."""

    def __init__(self, model: Path, op_key: str, reason: str) -> None:
        words = f"model {model}: the table has no row for an operator that cannot be measured alone"
        Exception.__init__(self, f"{words}: {reason}")
        self.op_key = op_key


def predict_model(table: LatencyTable, model: ModelFile, where: str) -> Prediction:
    """Predict one model file; operators that were never measured are estimated where their family allows it.

    `where` are the options by which a profile meets the same device and table.

    Raises:
        OpNotInTable: an operator has neither a row nor relatives; the message has the command that measures it, or as
            CannotBeMeasured the reason why none does.

    """
    predictor = Predictor(table, model.dtype, with_estimates=True)
    try:
        return predictor.predict(model.ops)
    except OpNotInTable as error:
        try:
            model_of_op(OpSpec.parse(error.op_key))
        except DataError as reason:
            raise CannotBeMeasured(model.path, error.op_key, str(reason)) from reason
        command = f"edgekd profile {where} --model {model.path}"
        raise OpNotInTable(error.op_key, table.rows, command) from error


def check_device(table: LatencyTable, path: Path, choice: DeviceChoice, *, ask: bool = False) -> None:
    """See that a table was measured on the device and by the engine that are named.

    Of this machine all is compared that can be told without measuring. Another device's name and engine are; with `ask`
    it is found, and what it is compared, too. `verify_device` even starts its runtime. A simulated table speaks only of
    the device of its own name, which is never looked for.

    Raises:
        OtherKey: it speaks of something else; the message says what differs.
        UsageError: it is simulated, and another device is named.
        DeviceError: the device cannot be found.

    """
    if table.key.engine == SIMULATED and is_simulated(table.key.device):
        if choice.name != table.key.device:
            raise UsageError(f"table {path} is simulated: predict from it with --device {table.key.device}")
        wanted = replace(table.key, engine=choice.engine or SIMULATED)
    elif ask or choice.name == catalogue.HOST.name:
        wanted = _key_of(table.key, choice.find())
    else:
        _see_engine(table.key, path)
        wanted = replace(_key_by(choice.engine or table.key.engine, table.key), device=choice.name)
    _compare(table, path, wanted)


def verify_device(table: LatencyTable, path: Path, choice: DeviceChoice) -> None:
    """Ask the device itself whether it still is what the table was measured on. Raises OtherKey, DeviceError."""
    _see_engine(table.key, path)
    engine = choice.engine or table.key.engine
    with Bench(replace(choice, engine=engine).find(), lambda warning: None) as bench:
        _compare(table, path, bench.key)


def is_simulated(device_name: str) -> bool:
    """Tell whether a name is that of a simulated table's device, which can be neither found nor measured."""
    return device_name.startswith(f"{SIMULATED}-")


def see_real(device_name: str) -> None:
    """See that a device is one that something can be measured on. Raises UsageError for a simulated one."""
    if is_simulated(device_name):
        raise UsageError(
            f"device {device_name} is simulated, and nothing can be measured on it; its table can be searched and "
            "predicted from, for the rest name a device that is there"
        )


def doubts(table: LatencyTable, dtype: str, now: dt.datetime) -> Iterator[str]:
    """Say what a reader of this table's predictions should know, a sentence each."""
    is_measured = not table.unmeasured
    for source in sorted(table.unmeasured):
        if source == SIMULATED:
            yield f"SIMULATED, not measured: {table.unmeasured[source]} rows are a roofline's guesses"
        else:
            yield f"the table holds rows that were not measured on the device: {source}"
    if dtype not in table.calibrations:
        yield f"the table has no {dtype} networks to be calibrated on, so sums are plain and the interval is wide"
    elif Predictor(table, dtype).is_outdated:
        yield f"the {dtype} calibration is of other networks than the table's, so the interval is wide; profile again"
    elif (error := table.calibrations[dtype].heldout_mean_error) > _POOR_ERROR:
        busy = "others who used the machine meanwhile (profile again at a quieter time), or " if is_measured else ""
        why = f"{busy}networks that are few or unlike each other"
        yield f"networks left out of the {dtype} calibration are {100 * error:.0f} % off on average; it is due to {why}"
    moments = [moment for row in table.measurements if (moment := _moment(row.started_at))]
    if is_measured and moments and (span_s := (max(moments) - min(moments)).total_seconds()) < _BRIEF_S:
        meant = "if others used the device just then, every time may be a quarter off, and no interval tells"
        yield f"all was measured within {max(1, round(span_s))} s: {meant}"
    days = (now - statistics.median_low(moments)).days if moments else 0  # one fresh row makes no table young
    if days > _OLD_DAYS:
        yield f"half of the table was measured {days} days ago or before; profile again if the device was updated since"


def _compare(table: LatencyTable, path: Path, wanted: TableKey) -> None:
    if differences := table.key.differences(wanted):
        raise OtherKey(path, differences)


def _see_engine(key: TableKey, path: Path) -> None:
    """Refuse a table that no engine of ours has measured, such as an imported one. Raises OtherKey."""
    if key.engine not in ENGINES:
        raise OtherKey(path, [f"engine: {key.engine!r} / one of {', '.join(ENGINES)}"])


def _key_by(engine_name: str, key: TableKey) -> TableKey:
    """Put into a key what an engine says of itself on whatever device; the version only a device can tell."""
    runtimes = _RUNTIMES[engine_named(engine_name).name]
    is_on_wall = engine_name in _ON_THE_WALL or key.threads != 1 or key.clock == "wall"
    return replace(
        key,
        engine=engine_name,
        runtime=key.runtime if key.runtime in runtimes else next(iter(runtimes)),
        delegate=ENGINES[engine_name].delegate,
        clock="wall" if is_on_wall else "thread_cpu",
    )


def _key_of(key: TableKey, device: Device) -> TableKey:
    """Say under which key a device that was found would be measured now, as far as it is known."""
    mask = device.cpu_mask
    now = _key_by(
        device.engine,
        replace(
            key,
            device=device.name,
            build_fingerprint=device.build_fingerprint,
            threads=device.threads,
            cpu_mask="any" if mask is None else f"{mask:x}",
        ),
    )
    is_here = device.address.kind == "local" and device.python == sys.executable and device.engine in _SITES
    return _with_runtime_here(now, device) if is_here else now


def _with_runtime_here(key: TableKey, device: Device) -> TableKey:
    """Put in the runtime that this machine's Python would load, and its clock."""
    path = [*sys.path, str(Path(device.work_dir) / _SITES[key.engine])]
    is_fine = time.get_clock_info("thread_time").resolution <= 1e-6
    clock = "thread_cpu" if is_fine and key.threads == 1 else "wall"
    for runtime, packages in _RUNTIMES[key.engine].items():
        for package in packages:
            if found := next(iter(importlib.metadata.distributions(name=package, path=path)), None):
                return replace(key, runtime=runtime, runtime_version=found.version, clock=clock)
    return replace(key, runtime_version="not installed", clock=clock)


def _moment(text: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
