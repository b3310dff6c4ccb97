"""Files of other authors, for `bench_tables.py`: which count, and how well `edgekd predict` foretells them.

The runtime says which count: every .tflite file that it runs does, and one that edgekd cannot predict is a miss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bench_errors import both_ms, compared
from bench_families import PX
from bench_parts import Result
from bench_workshop import NetworkFile, Workshop

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph.model_file import ModelFile, read_model
from edgekd.predict import predict_model
from latency_tables.errors import TableError
from latency_tables.op_spec import OpSpec
from latency_tables.schema import Prediction
from latency_tables.store import LatencyTable


def third_party_part(shop: Workshop, folder: Path) -> Result:
    """Predict files of other authors from a space's table, in which the operators that it lacks are measured too.

    The runtime says which files count; one that it runs and edgekd cannot predict is a miss.
    """
    files = {name: NetworkFile(name, path, _ops_in(path)) for name, path in foreign_files(folder).items()}
    refused = shop.refusals(list(files.values()))
    runnable = {name: file for name, file in files.items() if name not in refused}
    table, found, missed = predicted_files(shop, runnable)
    measured = shop.settled([runnable[name] for name in found], table)
    print(f"files of other authors: {len(runnable)}, of which {len(found)} are predicted")
    stats = compared(found, measured.ms, len(missed)) if found else {"within_10": 0.0}
    for heading, reasons in (("missed", missed), ("the runtime refuses", refused)):
        print("".join(f"  {heading} {name}: {reason}\n" for name, reason in reasons.items()), end="")
    counts = {"models": len(runnable), "missed": missed, "refused": refused}
    return {
        "third_party": {**counts, **stats},
        "third_party_ms": both_ms(found, measured.ms),
        "third_party_slowdown": measured.slowdown,
    }


def predicted_files(
    shop: Workshop, files: Mapping[str, NetworkFile]
) -> tuple[LatencyTable, dict[str, Prediction], dict[str, str]]:
    """Predict files as `edgekd predict` does, once a table is completed for them; give also why others cannot be."""
    models: dict[str, ModelFile] = {}
    found: dict[str, Prediction] = {}
    missed: dict[str, str] = {}
    for name, file in files.items():
        try:
            models[name] = read_model(file.path)
        except UsageError as error:
            missed[name] = str(error)
    table = shop.completed(PX, [op for model in models.values() for op in model.ops])
    for name, model in models.items():
        try:
            found[name] = predict_model(table, model, table.key.device)
        except (EdgekdError, TableError) as error:
            missed[name] = str(error)
    return table, found, missed


def _ops_in(path: Path) -> tuple[OpSpec, ...]:
    """List a file's operators, by which it is measured beside a network of its kind; none where it cannot be read."""
    try:
        return tuple(read_model(path).ops)
    except UsageError:
        return ()


def foreign_files(folder: Path) -> dict[str, Path]:
    """List every .tflite file below a folder by a name of its own; of equal files the first."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*.tflite") if path.is_file()):
        found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    return {f"{path.relative_to(folder)}@{digest[:12]}": path for digest, path in found.items()}
