"""The commands that measure, profile and bench, and the options by which every command names a device.

Parsing is cli.py's; what is done, profile.py's and bench.py's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.cli_output import print_result
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from device_agents.connect import ConnectOptions
    from edgekd.bench import DeviceChoice
    from edgekd.graph.model_file import ModelFile
    from edgekd.profile import Order
    from latency_tables.store import LatencyTable

_ALL = "all"
_ONNX_ENGINE = "onnxruntime"
_FEW = 5


def add_device(target: argparse.ArgumentParser) -> None:
    """Add the options that choose a device."""
    target.add_argument("--device", default="host", help="device that is meant: its name, serial or address")
    target.add_argument(
        "--device-engine",
        default="",
        metavar="ENGINE",
        help="what runs models there: python, native, benchmark_model, onnxruntime",
    )
    target.add_argument("--serial", default="", help="which one, where several devices of that name are attached")
    add_trust(target)


def add_trust(target: argparse.ArgumentParser) -> None:
    """Add the option to trust a host that was never met before."""
    target.add_argument("--accept-new-host-key", action="store_true", help="trust an SSH host that is not known yet")


def add_profile(target: argparse.ArgumentParser) -> None:
    """Add the options of `edgekd profile`."""
    target.add_argument("--table", type=Path, help="table to begin or complete (default: tables/DEVICE-SPACE.jsonl)")
    target.add_argument("--dtype", choices=(_ALL, "float32", "int8"), default=_ALL, help="dtypes of the operators")
    target.add_argument(
        "--model",
        type=Path,
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        dest="models",
        help="measure what this .tflite or .onnx file needs and the table lacks, not a space; may be repeated",
    )
    target.add_argument(
        "--whole",
        action="store_true",
        help="measure the --model files whole, too; with eight of them they calibrate the table",
    )
    target.add_argument("--quick", action="store_true", help="fewer samples and networks: a rough table, much sooner")
    target.add_argument("--all", action="store_true", dest="share", help="let all devices of that name share the work")


def add_bench(target: argparse.ArgumentParser) -> None:
    """Add the options of `edgekd bench`."""
    target.add_argument("models", type=Path, nargs="+", metavar="FILE", help=".tflite or .onnx files")
    target.add_argument("--nodes", action="store_true", help="measure the nodes inside each network instead")


def choice_of(options: argparse.Namespace) -> DeviceChoice:
    """Give the device choice that the options make."""
    from edgekd.bench import DeviceChoice

    return DeviceChoice(options.device, options.device_engine, options.serial, connection_of(options))


def connection_of(options: argparse.Namespace) -> ConnectOptions:
    """Give how to connect; on a terminal a person is asked about a host that is not known yet."""
    from device_agents.connect import ConnectOptions

    ask = _ask if sys.stdin.isatty() and sys.stderr.isatty() else None
    return ConnectOptions(accept_new_host_key=options.accept_new_host_key, ask=ask)


def default_table(options: argparse.Namespace) -> Path:
    """Say where the table of a device and a space lies unless the user says; a user's space is told with its hash."""
    from edgekd.spaces.mnasnet import space_named

    name = "".join(char if char.isalnum() or char in "._-" else "-" for char in options.device)
    engine = f"-{options.device_engine}" if options.device_engine else ""
    quick = "-quick" if getattr(options, "quick", False) else ""  # which a full profile must not build on
    return Path("tables") / f"{name}{engine}-{space_named(options.space).name}{quick}.jsonl"


def print_doubts(table: LatencyTable, path: Path, dtypes: Iterable[str]) -> None:
    """Tell on stderr, each once, what a reader of a table's predictions in these dtypes should know."""
    import datetime as dt

    from edgekd.predict import doubts

    now = dt.datetime.now(dt.UTC)
    for doubt in dict.fromkeys(doubt for dtype in dtypes for doubt in doubts(table, dtype, now)):
        print(f"edgekd: {path}: {doubt}", file=sys.stderr)


def profile(options: argparse.Namespace) -> None:
    """Run `edgekd profile`."""
    from edgekd.cli_progress import drawn_progress
    from edgekd.files import make_folder
    from edgekd.profile import FULL, QUICK, ProfileRequest, profile

    effort = QUICK if options.quick else FULL
    order = _order(options, effort.networks)  # before the table's name, which an engine is part of
    path = options.table or default_table(options)
    request = ProfileRequest(choice_of(options), path, options.share, effort)
    make_folder(path.parent)
    with drawn_progress() as progress:
        progress.stage("profile")
        table = profile(request, order, progress.step, progress.note)
    errors = {dtype: fit.heldout_mean_error for dtype, fit in table.calibrations.items()}
    flagged = [m.subject for m in table.measurements if m.disturbances]
    counts = {"rows": len(table.rows), "networks": len(table.networks), "disturbed": len(flagged)}
    text = [f"{path}: {counts['rows']} operators, {counts['networks']} whole networks"]
    text += [f"  disturbed whenever it was measured, and flagged so: {subject}" for subject in flagged[:_FEW]]
    text += [f"  and {len(flagged) - _FEW} more"] if len(flagged) > _FEW else []
    text += [
        f"  {dtype}: networks left out are predicted within {100 * e:.1f} % on average" for dtype, e in errors.items()
    ]
    print_doubts(table, path, errors)
    print_result({"table": str(path), **counts, "heldout_mean_error": errors}, text, options.format)


def read_models(options: argparse.Namespace) -> list[ModelFile]:
    """Read the model files of a command, and take the engine that .onnx files need where none was named.

    Raises:
        UsageError: files of two formats, which no engine runs both.

    """
    from edgekd.graph.model_file import read_model

    models = [read_model(path) for path in dict.fromkeys(options.models)]
    if len({model.is_onnx for model in models}) > 1:
        raise UsageError("models of both formats, .tflite and .onnx, need two engines and two tables; give one format")
    if models and models[0].is_onnx and not options.device_engine:
        options.device_engine = _ONNX_ENGINE
    return models


def _order(options: argparse.Namespace, networks: int) -> Order:
    from edgekd.profile import Order
    from edgekd.spaces.mnasnet import space_named
    from latency_tables.op_spec import DTYPES

    if options.whole and not options.models:
        raise UsageError("--whole measures the files of --model whole; name some")
    space = space_named(options.space)
    if options.models:
        return Order.for_models(read_models(options), whole=options.whole)
    dtypes = DTYPES if options.dtype == _ALL else (options.dtype,)
    return Order.for_space(space, dtypes, networks)


def bench(options: argparse.Namespace) -> None:
    """Run `edgekd bench`."""
    from edgekd.bench import Bench, Model
    from edgekd.cli_progress import drawn_progress

    models = [Model(str(path), _read_bytes(path), "network") for path in dict.fromkeys(options.models)]
    for model in models:
        if not model.suffix:
            raise UsageError(
                f"model {model.name} is no .tflite file, and no .onnx file either: its first bytes are neither's"
            )
    if not options.device_engine and {model.suffix for model in models} == {"onnx"}:
        options.device_engine = _ONNX_ENGINE
    with drawn_progress() as progress, Bench(choice_of(options).find(), progress.note) as bench:
        result, text = _nodes(bench, models) if options.nodes else _times(bench, models)
    print_result(result, text, options.format)


def _times(bench: Any, models: list[Any]) -> tuple[Any, list[str]]:
    import dataclasses

    from latency_tables.builder import MAX_ATTEMPTS

    rows = bench.measure_settled(models, attempts=MAX_ATTEMPTS)
    how = {name: getattr(bench.key, name) for name in ("engine", "runtime", "runtime_version", "clock")}
    text = [
        f"{name}: {m.quiet_ms:.4g} ms undisturbed, median {m.median_ms:.4g} ms, on the wall {m.wall_median_ms:.4g} ms"
        + "".join(f", {flag}" for flag in m.flags)
        for name, m in rows.items()
    ]
    times = {name: {**how, "quiet_ms": m.quiet_ms, "median_ms": m.median_ms} for name, m in rows.items()}
    return {name: {**times[name], **dataclasses.asdict(m)} for name, m in rows.items()}, text


_NODE_RUNS = 50  # times come in whole microseconds, which a mean over so many makes finer


def _nodes(bench: Any, models: list[Any]) -> tuple[Any, list[str]]:
    import dataclasses

    result, text = {}, []
    for model in models:
        nodes = bench.nodes(model, _NODE_RUNS)
        result[model.name] = [dataclasses.asdict(node) for node in nodes]
        text += [model.name, *(f"  {node.mean_ns / 1e3:10.1f} µs  {node.kind:8}  {node.name}" for node in nodes)]
        total_us = sum(node.mean_ns for node in nodes) / 1e3
        text.append(f"  {total_us:10.1f} µs  in all; looking costs time: the network's own is told without --nodes")
    return result, text


def _ask(question: str) -> bool:
    print(f"{question} [yes/no] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"model {path} cannot be read: {error.strerror or error}") from error
