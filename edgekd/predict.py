"""Predicts model files from a device's table, after seeing that the table speaks of that device.

The arithmetic is latency_tables/predictor.py's; measuring what a table lacks is profile.py's.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from device_agents.device import Device
from edgekd.bench import Bench, DeviceChoice
from edgekd.graph.model_file import ModelFile
from latency_tables.errors import OpNotInTable, OtherKey
from latency_tables.predictor import Predictor
from latency_tables.schema import Prediction, TableKey
from latency_tables.store import LatencyTable

_OLD_DAYS = 180  # an operating system's update or two
# Which package's version a table's runtime names, on this machine.
_PACKAGES = {"ai_edge_litert": "ai-edge-litert", "onnxruntime": "onnxruntime"}


def predict_model(table: LatencyTable, model: ModelFile, device_name: str) -> Prediction:
    """Predict one model file; operators that were never measured are estimated where their family allows it.

    Raises:
        OpNotInTable: an operator has neither a row nor relatives; the message has the command that measures it.

    """
    predictor = Predictor(table, model.dtype, with_estimates=True)
    try:
        return predictor.predict(model.ops)
    except OpNotInTable as error:
        command = f"edgekd profile --device {device_name} --model {model.path}"
        raise OpNotInTable(error.op_key, table.rows, command) from error


def check_device(table: LatencyTable, path: Path, choice: DeviceChoice) -> None:
    """See that a table was measured on the device that is named, as far as this can be told without asking it.

    Of this machine everything is known. Another device's name and engine are compared; `verify_device` asks it.

    Raises:
        OtherKey: it speaks of something else; the message says what differs.

    """
    wanted = replace(table.key, device=choice.name, engine=choice.engine or table.key.engine)
    if choice.name == "host":
        wanted = _host_key(table.key, choice.find())
    _compare(table, path, wanted)


def verify_device(table: LatencyTable, path: Path, choice: DeviceChoice) -> None:
    """Ask the device itself whether it still is what the table was measured on. Raises OtherKey, DeviceError."""
    engine = choice.engine or table.key.engine
    with Bench(replace(choice, engine=engine).find(), lambda warning: None) as bench:
        _compare(table, path, bench.key)


def doubts(table: LatencyTable, dtype: str, now: dt.datetime) -> Iterator[str]:
    """Say what a reader of this table's predictions should know, a sentence each."""
    sources = {measurement.source for measurement in table.measurements} - {"measured"}
    for source in sorted(sources):
        yield f"the table holds rows that were not measured on the device: {source}"
    if dtype not in table.calibrations:
        yield f"the table has no {dtype} networks to be calibrated on, so sums are plain and the interval is wide"
    measured = [_time(measurement.started_at) for measurement in table.measurements]
    days = (now - max(filter(None, measured), default=now)).days
    if days > _OLD_DAYS:
        yield f"the table was last measured {days} days ago; profile again if the device was updated since"


def _compare(table: LatencyTable, path: Path, wanted: TableKey) -> None:
    if differences := table.key.differences(wanted):
        raise OtherKey(path, differences)


def _host_key(key: TableKey, device: Device) -> TableKey:
    package = _PACKAGES.get(key.runtime)
    try:
        version = importlib.metadata.version(package) if package and key.engine != "native" else key.runtime_version
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    mask = device.cpu_mask
    return replace(
        key,
        device=device.name,
        build_fingerprint=device.build_fingerprint,
        runtime_version=version,
        threads=device.threads,
        cpu_mask="any" if mask is None else f"{mask:x}",
    )


def _time(text: str) -> dt.datetime | None:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None
