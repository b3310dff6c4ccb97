"""Weights of an architecture that edgekd knows: the embedded teacher, a file of one's own, or a finished student.

What a file may look like is files.py's, which architectures there are families.py's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from torch import nn

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, EdgekdError, UnknownName
from edgekd.teachers.base import Shape, Teacher, freeze
from edgekd.teachers.families import new_teacher
from edgekd.teachers.files import Record, TeacherFile, read
from edgekd.teachers.fitting import check_classes, shape_of, speaking_of
from edgekd.teachers.pixels import Sight, see, see_own_pixels

EMBEDDED = Path(__file__).parents[2] / "data" / "teacher.safetensors"


def load(text: str, sight: Sight, data: DataSet) -> Teacher:
    """Load a safetensors or TOML file; a size that is asked for must be its own.

    Raises:
        DataError: the file is missing, damaged, or made for other classes or image shapes.
        UnknownName: its architecture is not known.

    """
    path = Path(text)
    if sight.mean or sight.std:
        raise DataError(f"teacher {path}: mean and std are its file's to say; describe it in a TOML file")
    height, width, channels = shape_of(data)
    shape = (*(sight.size or (height, width)), channels)
    file = read(path)
    with speaking_of(text):
        _check_fit(file.record, shape, data)  # before the network is made: a damaged size could ask for terabytes
    module = freeze(_network(path, file, shape, data))
    see(module, Sight(size=sight.size), data)
    digest = file.sha256
    if sight.size:
        digest = hashlib.sha256(f"{digest} {sight.size}".encode()).hexdigest()
    return Teacher(text, digest, module, file.record)


def _network(path: Path, file: TeacherFile, shape: Shape, data: DataSet) -> nn.Module:
    record = file.record
    try:
        module = new_teacher(record["architecture"], shape, data.classes, record.get("space", ""))
        module.load_state_dict(file.tensors)
        see_own_pixels(module, record, data)
    except UnknownName:
        raise
    except EdgekdError as error:
        raise DataError(f"teacher {path}: {error}") from error
    except RuntimeError as error:
        last = str(error).splitlines()[-1].strip()
        raise DataError(f"teacher {path}: weights do not fit {record['architecture'][:80]} ({last})") from error
    return module


def _check_fit(record: Record, shape: Shape, data: DataSet) -> None:
    """Compare classes and the shape of the images that it is to see, each named where it differs."""
    check_classes(int(record["classes"]), data)
    channels = record.get("in_channels", str(shape[2]))
    if _spelled(record["input_shape"]) != json.dumps(shape) or channels != str(shape[2]):
        seen = "it is to see images" if shape != shape_of(data) else f"the data {data.name} has"
        raise DataError(
            f"it takes images {record['input_shape'][:80]}, {seen} {list(shape)}; "
            "choose a teacher for this data, or let it see its own size, where only that differs, as FILE,size=N"
        )


def _spelled(shape: str) -> str:
    """Spell a list as JSON does here: other writers leave out the blanks. What is none stays as it is."""
    try:
        return json.dumps(json.loads(shape))
    except (ValueError, RecursionError):
        return shape
