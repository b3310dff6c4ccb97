"""A run folder: where everything of one run lies, and what must stay the same when it is resumed.

    run.json             settings, versions and hashes: the run's identity
    table.jsonl          the latency table, unless the settings name another file
    search.jsonl         one sample a line; random.jsonl is the baseline's
    winner.json          the chosen architecture
    student.safetensors  the student's training, epoch by epoch; distil.jsonl its history
    artifacts/           student-float32.tflite, student-int8.tflite, student.onnx
    manifest.json        the results; report.html shows them

It reads and writes no tensors.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.config import Settings, settings_from
from edgekd.errors import ConfigError, DataError, UsageError
from edgekd.files import make_folder, write_atomic
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import space_named

FORMAT, VERSION = "edgekd-run", 1
_PACKAGES = ("torch", "numpy", "ai-edge-litert", "onnx", "onnxruntime", "onnxscript", "flatbuffers", "safetensors")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder with its settings."""

    folder: Path
    settings: Settings

    @property
    def table_path(self) -> Path:
        """Say where the latency table lies."""
        return Path(self.settings.table) if self.settings.table else self.folder / "table.jsonl"

    @property
    def artifacts(self) -> Path:
        """Say where the finished files lie."""
        return self.folder / "artifacts"

    def read_json(self, name: str, made_by: str) -> dict[str, Any]:
        """Read one of the run's JSON files.

        Raises:
            DataError: it is missing (the message says which command makes it) or damaged.

        """
        path = self.folder / name
        if not path.exists():
            raise DataError(f"run {self.folder} has no {name} yet; run {made_by} first")
        return read_json_object(path)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write one of the run's JSON files whole."""
        write_atomic(self.folder / name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def open_run(folder: Path, settings: Settings) -> Run:
    """Begin a run, or go on with the one that lies there.

    Raises:
        ConfigError: the folder holds a run of other settings; the message names the first difference.
        UsageError: the folder cannot be written.

    """
    make_folder(folder)
    run = Run(folder, settings)
    path = folder / "run.json"
    if path.exists():
        found = load_run(folder).settings
        difference = _first_difference(found.as_dict(), settings.as_dict())
        if difference:
            raise ConfigError(f"run {folder} was begun with {difference}; choose another folder or the same settings")
    else:
        content = {"format": FORMAT, "version": VERSION, "settings": settings.as_dict(), "versions": versions()}
        run.write_json("run.json", content)
    return run


def find_or_open_run(folder: Path | None, settings: Settings, parent: Path = Path("runs")) -> Run:
    """Open `folder`, or where none is given the run of these very settings under `parent`, or a new one there."""
    if folder is not None:
        return open_run(folder, settings)
    for path in sorted(parent.glob("*/run.json")):
        if _settings_in(path.parent) == settings:
            return open_run(path.parent, settings)
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return open_run(parent / str(number), settings)


def _settings_in(folder: Path) -> Settings | None:
    """Give a neighbour's settings; one that cannot be read is not the run that is looked for."""
    try:
        return load_run(folder).settings
    except UsageError:
        return None


def load_run(folder: Path) -> Run:
    """Open a run that exists.

    Raises:
        DataError: there is none, or run.json is damaged or of a newer version.

    """
    path = folder / "run.json"
    if not path.exists():
        raise DataError(f"{folder} is no run folder: it has no run.json; give the folder of an edgekd search or run")
    content = read_json_object(path)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise DataError(
            f"{path} is of format {content.get('format')!r} {content.get('version')!r}, not {FORMAT} {VERSION}"
        )
    if not isinstance(content.get("settings"), dict):
        raise DataError(f"{path} holds no settings; restore it or begin a new run")
    return Run(folder, settings_from(content["settings"], str(path)))


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        DataError: it cannot be read or is none.

    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it or begin a new run") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is no JSON object; restore it or begin a new run")
    return content


def versions() -> dict[str, str]:
    """Name the versions that results may depend on."""
    found = {"edgekd": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


@dataclass(frozen=True, slots=True)
class Winner:
    """What the search chose, and under which target."""

    arch: Arch
    target_ms: float
    target_dtype: str


def read_winner(run: Run) -> Winner:
    """Give the architecture that the search chose.

    Raises:
        DataError, UsageError: winner.json is missing or damaged, or names no architecture of the run's space.

    """
    content = run.read_json("winner.json", "edgekd search")
    arch = Arch.parse(str(content.get("arch")))
    space_named(run.settings.space).choices(arch)
    target_ms, target_dtype = content.get("target_ms"), content.get("target_dtype")
    if not isinstance(target_ms, float) or target_dtype != run.settings.search.target_dtype:
        raise DataError(
            f"{run.folder / 'winner.json'} has target {target_ms!r} ms ({target_dtype!r}); remove it and search again"
        )
    return Winner(arch, target_ms, target_dtype)


def _first_difference(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    for name, value in wanted.items():
        if isinstance(value, dict):
            inner = _first_difference(found[name], value, f"{prefix}{name}.")
            if inner:
                return inner
        elif found[name] != value:
            return f"{prefix}{name} {found[name]!r}, not {value!r}"
    return ""
