"""A run folder: where everything of one run lies, and what must stay the same when it is resumed.

    run.json             settings, versions and hashes: the run's identity
    table.jsonl          the latency table, unless the settings name another file
    search.jsonl         the study, one sample a line; random.jsonl is the baseline's
    winner.json          the chosen architecture, and what was found for each target
    student.safetensors  the student's training, epoch by epoch; distil.jsonl its history
    students/            folders like this one, of students that were trained in other ways (students.py)
    artifacts/           student-float32.tflite, student-int8.tflite, student.onnx
    manifest.json        the results; report.html shows them

It reads and writes no tensors.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.config import Settings, settings_from
from edgekd.errors import ConfigError, DataError, UsageError
from edgekd.files import make_folder, write_atomic
from edgekd.progress import Progress
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import space_named

FORMAT, VERSION = "edgekd-run", 1
DERIVED = "students_of"  # in run.json of a student with a folder of its own: the folder of its search
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
    """Begin a run, or go on with the one that lies there: with other workers, say, or a larger budget.

    Raises:
        ConfigError: the folder holds a run of other settings; the message names the first difference.
        UsageError: the folder cannot be written.

    """
    make_folder(folder)
    run = Run(folder, settings)
    path = folder / "run.json"
    if not path.exists():
        content = {"format": FORMAT, "version": VERSION, "settings": settings.as_dict(), "versions": versions()}
        run.write_json("run.json", content)
        return run
    found = load_run(folder).settings
    changed = first_difference(_fixed(found), _fixed(settings))
    difference = f"{changed[0]} {changed[1]!r}, not {changed[2]!r}" if changed else _lowered(found, settings)
    if difference:
        raise ConfigError(f"run {folder} was begun with {difference}; choose another folder or the same settings")
    if found != settings:
        run.write_json("run.json", read_json_object(path) | {"settings": settings.as_dict()})
    return run


# what may be another when a run is gone on with: none of its samples depends on it
_FREE = ("workers", "ray_address", "cpus_per_worker", "measure_top", "tensorboard")
_RAISED = ("budget", "budget_epochs")  # these may grow


def _fixed(settings: Settings, free: Sequence[str] = (*_FREE, *_RAISED)) -> dict[str, Any]:
    """Give the settings without those that may change; of some only whether, or in which of two ways."""
    content = settings.as_dict()
    search = {name: value for name, value in content["search"].items() if name not in free}
    search["measure"] = "all" if settings.search.measure == "all" else "final"  # measured after the search, or never
    search["gpus_per_worker"] = float(settings.search.gpus_per_worker > 0)  # a GPU's sums are not a CPU's
    return content | {"search": search}


def _lowered(found: Settings, wanted: Settings) -> str:
    """Say which part of the budget was larger; 0 epochs are no limit."""
    before, now = found.search, wanted.search
    if now.budget < before.budget:
        return f"search.budget {before.budget}, which can be raised, not {now.budget}"
    if (now.budget_epochs or math.inf) < (before.budget_epochs or math.inf):
        return f"search.budget_epochs {before.budget_epochs}, which can be raised, not {now.budget_epochs}"
    return ""


def find_or_open_run(folder: Path | None, settings: Settings, parent: Path = Path("runs")) -> Run:
    """Open `folder`, or where none is given the run of these very settings under `parent`, or a new one there.

    What no result depends on, such as the number of workers, may differ. Another budget is another run here: give the
    folder to go on with one.
    """
    if folder is not None:
        return open_run(folder, settings)
    for path in sorted(parent.glob("*/run.json")):
        found = _settings_in(path.parent)
        if found is not None and _fixed(found, _FREE) == _fixed(settings, _FREE):
            return open_run(path.parent, settings)
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return open_run(parent / str(number), settings)


def _settings_in(folder: Path) -> Settings | None:
    """Give a neighbour's settings; one that cannot be read, or is a student's, is not the run that is looked for."""
    try:
        return None if DERIVED in read_json_object(folder / "run.json") else load_run(folder).settings
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


# what is made of a winner; a search that goes on may find another
_OF_WINNER = ("student.safetensors", "distil.jsonl", "artifacts", "manifest.json", "report.html")


def set_former_student_aside(run: Run, arch: str, progress: Progress) -> None:
    """Move the student of another winner into a folder of its own, so that the new one can be distilled."""
    try:
        former = str(read_winner(run).arch)
    except UsageError:
        return  # there was no winner yet, or none that says whose the student is
    made = [run.folder / name for name in _OF_WINNER if (run.folder / name).exists()]
    if former == arch or not made:
        return
    name = f"former-{Arch.parse(former).arch_id}"
    numbered = (run.folder / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    aside = next(folder for folder in numbered if not any((folder / path.name).exists() for path in made))
    make_folder(aside)
    for path in made:
        path.rename(aside / path.name)
    progress.note(f"the search found a better architecture than before; the former student is in {aside}")


def first_difference(
    found: dict[str, Any], wanted: dict[str, Any], prefix: str = ""
) -> tuple[str, object, object] | None:
    """Name the first value that is another, by its path in dictionaries of dictionaries: what it is, and was to be."""
    for name in dict.fromkeys([*wanted, *found]):
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            if inner := first_difference(before, now, f"{prefix}{name}."):
                return inner
        elif before != now:
            return prefix + name, before, now
    return None
