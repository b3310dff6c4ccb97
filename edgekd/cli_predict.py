"""The command `edgekd predict`: what model files will take on a device, from its table.

Parsing is cli.py's; what is predicted, predict.py's.
"""

from __future__ import annotations

import argparse
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.cli_measure import choice_of, default_table, print_doubts, read_models
from edgekd.cli_output import print_result
from edgekd.errors import DataError, UsageError

if TYPE_CHECKING:
    from edgekd.graph.model_file import ModelFile
    from latency_tables.schema import Part, Prediction

_SLOWEST = 10  # operators in the text; the JSON holds all


def add_predict(target: argparse.ArgumentParser) -> None:
    """Add the options of `edgekd predict`."""
    target.add_argument("models", type=Path, nargs="+", metavar="FILE", help=".tflite or .onnx files")
    target.add_argument("--table", type=Path, help="table to predict from (default: the one that profile writes)")
    target.add_argument("--quick", action="store_true", help="predict from the table that profile --quick writes")
    target.add_argument(
        "--verify", action="store_true", help="ask the device whether it still has the table's build and runtime"
    )
    target.add_argument(
        "--ops", type=int, default=_SLOWEST, metavar="N", help="how many operators to list (default 10)"
    )


def predict(options: argparse.Namespace) -> None:
    """Run `edgekd predict`."""
    from edgekd.predict import check_device, predict_model, verify_device
    from latency_tables.store import load_table

    if options.ops < 0:
        raise UsageError(f"--ops is {options.ops}, must be 0 or more operators to list")
    models = read_models(options)
    choice, path = choice_of(options), options.table or _table_there(options)
    table = load_table(path)
    (verify_device if options.verify else check_device)(table, path, choice)
    print_doubts(table, path, [model.dtype for model in models])
    if options.verify:
        print(f"edgekd: {options.device} has the build and runtime of {path}; no time was compared", file=sys.stderr)
    found = [(model, predict_model(table, model, _where(options, path))) for model in models]
    result = {str(model.path): _result(prediction) for model, prediction in found}
    text = [line for model, prediction in found for line in _text(model, prediction, options)]
    print_result({"table": str(path), "device": table.key.device, "models": result}, text, options.format)


def _where(options: argparse.Namespace, path: Path) -> str:
    engine = f" --device-engine {options.device_engine}" if options.device_engine else ""
    return f"--device {options.device}{engine} --table {path}"


def _table_there(options: argparse.Namespace) -> Path:
    """Give the table that profile writes by default. Raises DataError, with what to do, where it is not there."""
    path = default_table(options)
    if path.exists():
        return path
    options.quick = not options.quick
    other, flag = default_table(options), " with --quick" if options.quick else " without --quick"
    command = f"edgekd profile {_where(options, path)} --model {options.models[0]}"
    hint = f"; {other} is there: predict from it{flag}" if other.exists() else _slip_hint(path, options.device)
    raise DataError(f"table {path} does not exist; measure it with: {command}, or name one with --table{hint}")


def _slip_hint(path: Path, device: str) -> str:
    """Name the device with nearly that name that is known, or whose table of the same engine and space is there."""
    from device_agents import catalogue

    if catalogue.named(device):
        return ""
    name, ending = path.name[: len(device)], path.name[len(device) :]  # the name's characters may have been replaced
    others = [found.name.removesuffix(ending) for found in path.parent.glob(f"*{ending}")]
    known = [entry.name for entry in catalogue.CATALOGUE]
    return "".join(f"; did you mean --device {near}?" for near in get_close_matches(name, [*others, *known], n=1))


def _result(prediction: Prediction) -> dict[str, Any]:
    return {
        "total_ms": prediction.total_ms,
        "low_ms": prediction.low_ms,
        "high_ms": prediction.high_ms,
        "covered": prediction.covered,
        "parts": [{"op": part.op.key, "ms": part.ms, "how": part.how} for part in prediction.parts],
    }


def _text(model: ModelFile, prediction: Prediction, options: argparse.Namespace) -> list[str]:
    if not prediction.total_ms:
        return [f"{model.path}: 0 ms on {options.device}: nothing is computed in an inference"]
    shares = ", ".join(f"{100 * share:.0f} % {how}" for how, share in prediction.covered.items() if share)
    folded = sum(part.how == "folded" for part in prediction.parts)
    count = f"{len(prediction.parts)} operators" + (
        f", {folded} of them folded when the model is loaded" if folded else ""
    )
    slowest = sorted(prediction.parts, key=lambda part: -part.ms)[: options.ops]
    interval = f"90 % interval {prediction.low_ms:.4g} to {prediction.high_ms:.4g} ms"
    return [
        f"{model.path}: {prediction.total_ms:.4g} ms on {options.device}, {interval}",
        f"  {count}; of the time: {shares}",
        *(_line(part, prediction.total_ms) for part in slowest),
    ]


def _line(part: Part, total_ms: float) -> str:
    how = "" if part.how == "table" else f"  ({part.how})"
    return f"  {part.ms:9.4f} ms {100 * part.ms / total_ms:5.1f} %  {part.op.key}{how}"
