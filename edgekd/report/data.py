"""What a report is made of: the manifest of a run and the journals of its searches, read strictly from its folder.

A journal whose last line was cut off by a kill is read without that line and a note says so; any other damage is an
error with its line number. A manifest of a run that has not finished may lack results; `missing` names them.
It computes nothing: analysis.py does. Next: html.py, which draws it; fields.py, which checks each value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.report.errors import RunFileError
from edgekd.report.fields import Fields, clean, describe

DTYPES = ("float32", "int8")
ARTIFACTS = ("float32", "int8", "onnx")
FILE_LIMIT_BYTES = 256 * 2**20  # a journal line is about 400 bytes: half a million samples
REWARD_LIMIT = 1e9


@dataclass(frozen=True)
class ReportData:
    """Everything one page shows. `notes` are remarks about the files, one sentence each."""

    manifest: Manifest
    search: Study
    random: Study | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, run_dir: Path) -> ReportData:
        """Read manifest.json, search.jsonl and, if they are there, random.jsonl and winner.json.

        Raises: RunFileError if a file is missing, damaged, of an unknown version or of another run.
        """
        manifest = _read_manifest(run_dir / "manifest.json")
        search, search_notes = _read_study(run_dir / "search.jsonl", manifest)
        random: Study | None = None
        random_notes: tuple[str, ...] = ()
        if (run_dir / "random.jsonl").exists():
            random, random_notes = _read_study(run_dir / "random.jsonl", manifest)
        unfinished = (f"This run is not finished: {', '.join(manifest.missing)} not in the manifest yet.",)
        notes = (unfinished if manifest.missing else ()) + _unmeasured_notes(run_dir / "winner.json")
        return cls(manifest, search, random, notes + search_notes + random_notes)

    @property
    def studies(self) -> tuple[Study, ...]:
        """The search first, then random if it ran."""
        return (self.search,) if self.random is None else (self.search, self.random)


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


@dataclass(frozen=True)
class Study:
    """One search: its header and its samples in order of their index."""

    engine: str
    reward: str
    budget: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Sample:
    """One architecture that a search tried. `proxy_accuracy` is a fraction after the short proxy training."""

    index: int
    arch: str
    arch_id: str
    predicted_ms: Mapping[str, float]
    proxy_accuracy: float
    reward: float
    seconds: float
    macs: int


def _read_manifest(path: Path) -> Manifest:
    fields = Fields.parse(path.name, _decode(path.name, _read_bytes(path)))
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


def _unmeasured_notes(path: Path) -> tuple[str, ...]:
    """Say how much of the table that chose the winner was not measured on the device."""
    if not path.exists():
        return ()
    fields = Fields.parse(path.name, _decode(path.name, _read_bytes(path)))
    if "unmeasured" not in fields.values:
        return ()
    sources = fields.nested("unmeasured")
    return tuple(
        f"{sources.integer(source)} rows of the latency table were not measured on the device: {clean(source)}."
        for source in sources.values
    )


def _read_study(path: Path, manifest: Manifest) -> tuple[Study, tuple[str, ...]]:
    lines, note = _complete_lines(path)
    if not lines:
        raise RunFileError(path.name, "holds no complete header line", "delete it or run the search again")
    header = lines[0]
    header.expect_format("edgekd-study", 1)
    _same_target(header, manifest)
    samples: dict[int, Sample] = {}
    for fields in lines[1:]:
        sample = _read_sample(fields)
        if sample.index in samples:
            raise RunFileError(fields.where, f"index {sample.index} is there twice")
        samples[sample.index] = sample
    ordered = tuple(samples[index] for index in sorted(samples))
    return Study(header.text("engine"), _describe_reward(header), header.integer("budget"), ordered), note


def _complete_lines(path: Path) -> tuple[list[Fields], tuple[str, ...]]:
    """Parse a journal line by line; a last one that was cut off (no line end, not valid JSON) is noted and left out."""
    raw = _read_bytes(path).split(b"\n")
    tail = raw.pop()
    parsed: list[Fields] = []
    for number, line in enumerate(raw, start=1):
        where = f"{path.name} line {number}"
        parsed.append(Fields.parse(where, _decode(where, line)))
    where = f"{path.name} line {len(raw) + 1}"
    try:
        return parsed + ([Fields.parse(where, _decode(where, tail))] if tail else []), ()
    except RunFileError:
        return parsed, (f"{where} was cut off while it was written; it is left out.",)


def _same_target(header: Fields, manifest: Manifest) -> None:
    target = (header.positive("target_ms"), header.choice("target_dtype", DTYPES))
    if target != (manifest.target_ms, manifest.target_dtype):
        wanted = f"{manifest.target_ms:g} ms {manifest.target_dtype}"
        raise RunFileError(
            header.where,
            f"target is {target[0]:g} ms {target[1]}, the manifest's is {wanted}",
            "the files are of different runs: use one folder a run",
        )


def _describe_reward(header: Fields) -> str:
    reward = header.nested("reward")
    form = reward.text("form")
    rest = [f"{key} {value}" for key, value in reward.described().items() if key != "form"]
    return f"{form} ({', '.join(rest)})" if rest else form


def _read_sample(fields: Fields) -> Sample:
    predicted = fields.nested("predicted_ms")
    return Sample(
        index=fields.integer("index"),
        arch=fields.text("arch"),
        arch_id=fields.text("arch_id"),
        predicted_ms={dtype: predicted.positive(dtype) for dtype in DTYPES},
        proxy_accuracy=fields.number("proxy_accuracy", 0, 1),
        reward=fields.number("reward", -REWARD_LIMIT, REWARD_LIMIT),
        seconds=fields.number("seconds"),
        macs=fields.integer("macs"),
    )


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT_BYTES:
            raise RunFileError(path.name, f"is {size} bytes long, more than {FILE_LIMIT_BYTES}")
        return path.read_bytes()
    except OSError as error:
        problem = f"cannot be read from {path.parent} ({error.strerror})"
        raise RunFileError(path.name, problem, "name the folder of a run") from error


def _decode(where: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunFileError(where, f"is not UTF-8 text at byte {error.start}") from error
