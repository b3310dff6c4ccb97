"""The manifest of a run: results and provenance of its student, read strictly from manifest.json.

A manifest of a run that has not finished may lack results; `missing` names them. It computes nothing.
Next: fields.py, which checks each value; data.py, which reads the rest of a run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.report import formats
from edgekd.report.errors import RunFileError
from edgekd.report.fields import Fields, clean, describe

DTYPES = ("float32", "int8")
ARTIFACTS = ("float32", "int8", "onnx")
FILE_LIMIT_BYTES = 16 * 2**20  # a manifest has some kilobytes


@dataclass(frozen=True)
class Manifest:
    """The results and provenance of a run. Mappings are by dtype or artifact name; a result not there yet is absent."""

    target_ms: float
    target_dtype: str
    arch: str
    arch_id: str
    results: Results
    artifacts: Mapping[str, ArtifactFile]
    provenance: Provenance
    reference: Reference | None
    teacher_accuracy: float | None
    macs: int | None
    parameters: int | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """Figures of the student. Accuracies are fractions from 0 to 1 on the test split; wall is the wall clock."""

    predicted_ms: Mapping[str, float]
    predicted_low_ms: Mapping[str, float]
    predicted_high_ms: Mapping[str, float]
    measured_ms: Mapping[str, float]
    measured_wall_ms: Mapping[str, float]
    accuracy: Mapping[str, float]
    parity: Mapping[str, float]


@dataclass(frozen=True)
class ArtifactFile:
    """One exported file."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Reference:
    """The reference network of the space, for comparison."""

    arch: str
    predicted_ms: Mapping[str, float]


@dataclass(frozen=True)
class TableFile:
    """The latency table that predictions come from."""

    sha256: str
    rows: int


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from; `seconds` is by stage."""

    seed: str
    space: str
    method: str
    versions: Mapping[str, str]
    device: Mapping[str, str]
    table: TableFile | None
    seconds: Mapping[str, float]


def read_manifest(path: Path) -> Manifest:
    """Read manifest.json.

    Raises: RunFileError if it cannot be read, is damaged or of an unknown version.
    """
    fields = _read_fields(path)
    fields.expect_format("edgekd-manifest", 1)
    missing = tuple(key for key in _RESULT_KEYS if key not in fields.values)
    return Manifest(
        target_ms=fields.positive("target_ms"),
        target_dtype=fields.choice("target_dtype", DTYPES),
        arch=fields.text("arch"),
        arch_id=fields.text("arch_id"),
        results=_read_results(fields),
        artifacts=_read_artifacts(fields),
        provenance=_read_provenance(fields),
        reference=_read_reference(fields.nested("reference")) if "reference" in fields.values else None,
        teacher_accuracy=fields.number("teacher_accuracy", 0, 1) if "teacher_accuracy" in fields.values else None,
        macs=fields.integer("macs") if "macs" in fields.values else None,
        parameters=fields.integer("parameters") if "parameters" in fields.values else None,
        missing=missing,
    )


_RESULT_KEYS = (
    *("teacher_accuracy", "predicted_ms", "measured_ms", "measured_wall_ms", "accuracy", "artifacts", "seed"),
    *("versions", "device", "table", "seconds", "macs", "parameters", "parity", "reference", "space", "method"),
)


def _read_results(fields: Fields) -> Results:
    return Results(
        predicted_ms=_milliseconds(fields, "predicted_ms"),
        predicted_low_ms=_milliseconds(fields, "predicted_low_ms"),
        predicted_high_ms=_milliseconds(fields, "predicted_high_ms"),
        measured_ms=_milliseconds(fields, "measured_ms"),
        measured_wall_ms=_milliseconds(fields, "measured_wall_ms"),
        accuracy=_fractions(fields, "accuracy"),
        parity=fields.nested("parity").numbers() if "parity" in fields.values else {},
    )


def _milliseconds(fields: Fields, key: str) -> dict[str, float]:
    if key not in fields.values:
        return {}
    inner = fields.nested(key)
    _refuse_unknown(inner, DTYPES)
    return {name: inner.positive(name) for name in DTYPES if name in inner.values}


def _fractions(fields: Fields, key: str) -> dict[str, float]:
    if key not in fields.values:
        return {}
    inner = fields.nested(key)
    _refuse_unknown(inner, ARTIFACTS)
    return {name: inner.number(name, 0, 1) for name in ARTIFACTS if name in inner.values}


def _read_artifacts(fields: Fields) -> dict[str, ArtifactFile]:
    if "artifacts" not in fields.values:
        return {}
    inner = fields.nested("artifacts")
    _refuse_unknown(inner, ARTIFACTS)
    return {name: _read_artifact(inner.nested(name)) for name in ARTIFACTS if name in inner.values}


def _refuse_unknown(inner: Fields, names: tuple[str, ...]) -> None:
    for name in inner.values:
        if name not in names:
            raise inner.fail(name, "no such name: known are " + ", ".join(names))


def _read_artifact(fields: Fields) -> ArtifactFile:
    return ArtifactFile(fields.text("path"), fields.sha256("sha256"), fields.integer("size_bytes"))


def _read_reference(fields: Fields) -> Reference:
    return Reference(fields.text("arch"), _milliseconds(fields, "predicted_ms"))


def _read_provenance(fields: Fields) -> Provenance:
    def described(key: str) -> dict[str, str]:
        return fields.nested(key).described() if key in fields.values else {}

    table = fields.nested("table") if "table" in fields.values else None
    return Provenance(
        seed=describe(fields.values.get("seed")),
        space=describe(fields.values.get("space")),
        method=describe(fields.values.get("method")),
        versions=described("versions"),
        device=described("device"),
        table=TableFile(table.sha256("sha256"), table.integer("rows")) if table else None,
        seconds=fields.nested("seconds").numbers() if "seconds" in fields.values else {},
    )


def unmeasured_notes(path: Path) -> tuple[str, ...]:
    """Say how much of the table that chose the winner was not measured on the device, as winner.json tells.

    Raises: RunFileError if the file is there and cannot be read.
    """
    if not path.exists():
        return ()
    fields = _read_fields(path)
    if "unmeasured" not in fields.values:
        return ()
    sources = fields.nested("unmeasured")
    return tuple(
        f"{sources.integer(source)} rows of the latency table were not measured on the device: {clean(source)}."
        for source in sources.values
    )


def measured_notes(path: Path) -> tuple[str, ...]:
    """Say that the winner was chosen by what it took on the device, where winner.json tells so.

    Raises: RunFileError if the file is there and cannot be read.
    """
    if not path.exists():
        return ()
    fields = _read_fields(path)
    if fields.values.get("measured_ms") is None:
        return ()
    measured_ms = fields.number("measured_ms")
    return (
        f"The winner, {clean(str(fields.values.get('arch_id')))}, was measured on the device: "
        f"{formats.ms(measured_ms)} ms. It was chosen among architectures that were measured after the search; "
        "latencies here are predicted.",
    )


def _read_fields(path: Path) -> Fields:
    """Read one JSON object from a file."""
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT_BYTES:
            raise RunFileError(path.name, f"is {size} bytes long, more than {FILE_LIMIT_BYTES}")
        raw = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read from {path.parent} ({error.strerror})"
        raise RunFileError(path.name, problem, "name the folder of a run") from error
    try:
        return Fields.parse(path.name, raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RunFileError(path.name, f"is not UTF-8 text at byte {error.start}") from error
