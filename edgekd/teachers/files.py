"""What a teacher's file says and holds: a safetensors file, a TOML file that describes one, or a finished student.

    weights = "resnet56.safetensors"     # beside the TOML file; what its own metadata says need not be repeated
    architecture = "resnet56"            # families.py; or a space's network, SPACE:BLOCK/…
    classes = 10
    input_shape = [32, 32, 3]
    mean = [0.485, 0.456, 0.406]         # of the pixels that it was trained on, in units of 0–1; optional, with std
    std = [0.229, 0.224, 0.225]
    space = "mine.toml"                  # optional: the file of a space that is not built in

Everything is checked here but whether it fits the data and the weights fit the architecture (loading.py).
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgekd.distill import checkpoint
from edgekd.errors import DataError, EdgekdError, suggest
from edgekd.teachers.families import SPACE_FILE
from edgekd.teachers.from_space import space_and_arch

Record = dict[str, str]

NEEDED = ("architecture", "classes", "input_shape")
_KEYS: dict[str, type] = {
    "weights": str,
    "architecture": str,
    "classes": int,
    "input_shape": list,
    "mean": list,
    "std": list,
    "space": str,
}
_MAX_DIGITS = 18  # of a number of classes; what is longer is damaged
_STUDENTS = ("edgekd-checkpoint-1", checkpoint.FORMAT)  # a run's student, an older or a present one
_SHIPPED = "model."  # before the names of a checkpoint's weights that count; the rest is its training's state


@dataclass(frozen=True, slots=True)
class TeacherFile:
    """What was read; `record` holds at least NEEDED, lists in it are JSON, and `classes` is a number."""

    record: Record
    tensors: dict[str, Tensor]
    sha256: str


def read(path: Path) -> TeacherFile:
    """Read a teacher's file of any of the three forms.

    Raises:
        DataError: it is missing or damaged, or does not say what is needed.

    """
    file = _read_described(path) if path.suffix == ".toml" else _read_weights(path)
    record = file.record
    missing = [key for key in NEEDED if key not in record]
    if missing or not (record["classes"].isdecimal() and len(record["classes"]) < _MAX_DIGITS):
        raise DataError(
            f"teacher {path}: its metadata does not name {', '.join(missing) or 'a number of classes'}; describe it "
            f"in a TOML file ({', '.join(_KEYS)}) and give that"
        )
    if record["architecture"].endswith(SPACE_FILE):  # which may come to say something else than these weights learnt
        raise DataError(
            f"teacher {path}: its architecture is {record['architecture'][:80]!r}; give its text form, SPACE:BLOCK/…, "
            "and the file as `space`"
        )
    _check_finite(path, file.tensors)
    return file


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        try:
            is_finite = bool(torch.isfinite(tensor).all())
        except NotImplementedError as error:  # of eight bits and less
            raise DataError(f"teacher {path}: {name} is {tensor.dtype}; save it as float32") from error
        if not is_finite:
            raise DataError(f"teacher {path}: a weight is not finite; train it anew")


def _read_weights(path: Path) -> TeacherFile:
    try:
        with safe_open(path, framework="pt") as file:
            record = dict(file.metadata() or {})
            is_student = record.get("format") in _STUDENTS
            start = _SHIPPED if is_student else ""
            names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118 - not a mapping
            tensors = {name.removeprefix(start): file.get_tensor(name) for name in names}
        digest = hashlib.sha256(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"teacher {path}: no such file; give `embedded`, a safetensors file, a TOML file that describes one, "
            "timm:NAME, torchvision:NAME, onnx:FILE, tflite:FILE or MODULE:CALLABLE"
        ) from error
    except (OSError, SafetensorError) as error:
        raise DataError(f"teacher {path}: not a readable safetensors file ({error})") from error
    if is_student:
        return _student(path, record, tensors, digest.hexdigest())
    return TeacherFile(record, tensors, digest.hexdigest())


# --- a finished student -----------------------------------------------------------------------------------------------


def _student(path: Path, metadata: Record, tensors: dict[str, Tensor], digest: str) -> TeacherFile:
    """Take a run's student: its recipe says who was taught, and the space what it takes and gives."""
    recipe = _json_object(metadata.get("recipe", ""))
    epochs, done = str(recipe.get("epochs")), metadata.get("epochs_done")
    if epochs != done:
        raise DataError(f"teacher {path} is a student after {done} epochs of {epochs}; run edgekd distil to finish it")
    architecture = str(recipe.get("about", "")).partition(" ")[0]
    place = _space_of_run(path.with_name("run.json"))
    try:
        space, arch = space_and_arch(architecture, place)
    except EdgekdError as error:
        raise DataError(f"teacher {path} is the student of no known space: {error}") from error
    record = {
        "architecture": str(arch),
        "classes": str(space.classes),
        "input_shape": json.dumps(list(space.input_shape[1:])),
        "recipe": metadata["recipe"],
        **({"space": place} if place else {}),
    }
    return TeacherFile(record, tensors, digest)


def _space_of_run(path: Path) -> str:
    """Give the space's file that a run was begun with; a built-in space is told by the architecture itself."""
    settings = _json_object(path.read_text("utf-8", errors="replace") if path.is_file() else "").get("settings")
    space = settings.get("space") if isinstance(settings, dict) else None
    return space if isinstance(space, str) and space.endswith(SPACE_FILE) else ""


def _json_object(text: str) -> dict[str, Any]:
    """Read a JSON object; what is none says nothing."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


# --- a description ----------------------------------------------------------------------------------------------------


def _read_described(path: Path) -> TeacherFile:
    """Join what a TOML file says with what the weights' own metadata say; the TOML file comes first."""
    try:
        text = path.read_bytes()
        content = tomllib.loads(text.decode())
    except FileNotFoundError as error:
        raise DataError(f"teacher {path}: no such file; give `embedded`, a safetensors or a TOML file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"teacher {path}: not a readable TOML file ({error})") from error
    for key, value in content.items():
        _check_entry(path, key, value)
    if "weights" not in content:
        raise DataError(f"teacher {path}: it names no weights; add weights = 'FILE.safetensors'")
    weights = path.parent / content["weights"]
    if weights.suffix == ".toml":
        raise DataError(f"teacher {path}: weights is {content['weights']!r}; it must be a safetensors file")
    file = _read_weights(weights)
    said = {key: value if isinstance(value, str) else json.dumps(value) for key, value in content.items()}
    if "space" in said:
        said["space"] = str(path.parent / said["space"])
    digest = hashlib.sha256(text + file.sha256.encode())
    return TeacherFile(file.record | said, file.tensors, digest.hexdigest())


def _check_entry(path: Path, key: str, value: object) -> None:
    if key not in _KEYS:
        raise DataError(f"teacher {path}: unknown key {key!r}: {suggest(key, _KEYS)}")
    if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
        raise DataError(f"teacher {path}: {key} is {value!r}; it must be of type {_KEYS[key].__name__}")
