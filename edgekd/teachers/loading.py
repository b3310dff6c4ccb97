"""Load a teacher: read its file, see that it fits the data, make its network, and freeze it.

What a file may look like is files.py's, which architectures there are families.py's.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, EdgekdError, UnknownName
from edgekd.teachers.base import Teacher
from edgekd.teachers.families import new_teacher
from edgekd.teachers.files import Record, TeacherFile, read
from edgekd.teachers.pixels import see_own_pixels

EMBEDDED = Path(__file__).parents[1] / "data" / "teacher.safetensors"
FILE_PREFIX = "file:"


def load(source: str, data: DataSet) -> Teacher:
    """Load `embedded`, or PATH or file:PATH of a safetensors or TOML file, and check that it fits the data.

    The network is in eval mode and asks for no gradients; it takes images that are normalised as the data's.

    Raises:
        DataError: the file is missing, damaged, or made for other classes or image shapes.
        UnknownName: its architecture is not known.

    """
    path = path_of(source)
    file = read(path)
    _check_fit(path, file.record, data)  # before the network is made: a damaged size could ask for terabytes
    module = _network(path, file, data)
    module.eval().requires_grad_(requires_grad=False)
    return Teacher(source, file.sha256, module, file.record)


def path_of(source: str) -> Path:
    """Say where a teacher that a user names lies."""
    return EMBEDDED if source == "embedded" else Path(source.removeprefix(FILE_PREFIX))


def _network(path: Path, file: TeacherFile, data: DataSet) -> nn.Module:
    record = file.record
    height, width, channels = data.train.images.shape[1:]
    try:
        module = new_teacher(record["architecture"], (height, width, channels), data.classes, record.get("space", ""))
        module.load_state_dict(file.tensors)
        see_own_pixels(module, record, data)
    except UnknownName:
        raise
    except EdgekdError as error:
        raise DataError(f"teacher {path}: {error}") from error
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"teacher {path}: weights do not fit {record['architecture'][:80]} ({reason})") from error
    return module


def _check_fit(path: Path, record: Record, data: DataSet) -> None:
    """Compare classes and image shape, each named where it differs."""
    shape = list(data.train.images.shape[1:])
    if int(record["classes"]) != data.classes:
        raise DataError(
            f"teacher {path} knows {record['classes']} classes, the data {data.name} has {data.classes}; "
            "choose a teacher for this data"
        )
    same = _spelled(record["input_shape"]) == json.dumps(shape) and record.get("in_channels", str(shape[-1])) == str(
        shape[-1]
    )
    if not same:
        raise DataError(
            f"teacher {path} takes images {record['input_shape'][:80]}, the data {data.name} has {shape}; "
            "choose a teacher for this data"
        )


def _spelled(shape: str) -> str:
    """Spell a list as JSON does here: other writers leave out the blanks. What is none stays as it is."""
    try:
        return json.dumps(json.loads(shape))
    except (ValueError, RecursionError):
        return shape
