"""What a run learns from: its data, its teacher and the teacher's logits, loaded and seen to fit each other.

Spaces, tables and studies are elsewhere; where a teacher comes from is teachers/'s. Read next: search_job.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.config import Settings
from edgekd.data.dataset import DataSet
from edgekd.data.loading import load_data
from edgekd.data.pictures import Wanted
from edgekd.errors import DataError
from edgekd.progress import Progress, Silent
from edgekd.runs import Run
from edgekd.spaces.mnasnet import space_named

if TYPE_CHECKING:
    from edgekd.teachers import Teacher


def data_and_teacher(settings: Settings, progress: Progress | None = None) -> tuple[DataSet, Teacher | None]:
    """Load the data, and the teacher unless the settings want none; what is remarkable about the data is noted.

    Raises:
        DataError: one is missing or damaged, or does not fit the other or the space.

    """
    space = space_named(settings.space)
    data = data_for(settings, progress)
    shape = data.train.images.shape[1:]
    if shape != space.input_shape[1:] or data.classes != space.classes:
        raise DataError(
            f"space {space.name} takes images {space.input_shape[1:]} of {space.classes} classes, "
            f"the data {data.name} has {shape} of {data.classes}; choose another space or data set"
        )
    return data, teacher_of(settings, data)


def teacher_of(settings: Settings, data: DataSet) -> Teacher | None:
    """Load the teacher; None where the settings want none. Raises DataError.

    The final training's threads are torch's from here on: a runtime of other networks takes as many when it is opened,
    so that no logits depend on how many cores there are.
    """
    import torch

    from edgekd import teachers

    if not settings.has_teacher:
        return None
    torch.set_num_threads(settings.distil.threads)
    return teachers.load(settings.teacher, data)


def data_for(settings: Settings, progress: Progress | None = None) -> DataSet:
    """Load the data in the shape that the space takes. Raises DataError."""
    return told_data(settings.data, space_named(settings.space).input_shape[1:], progress)


def told_data(source: str, shape: tuple[int, int, int] | None, progress: Progress | None = None) -> DataSet:
    """Load data, pictures in a shape (H, W, C), and note what is remarkable about them. Raises DataError."""
    told = progress or Silent()
    data = load_data(source, Wanted(shape, lambda done, total: told.step(done, total, "images")))
    for note in data.notes:
        told.note(f"data {data.name}: {note}")
    return data


def teacher_sha256(teacher: Teacher | None) -> str:
    """Give what identifies a teacher in files; "" is none."""
    return teacher.sha256 if teacher is not None else ""


def logits_path(run: Run, data: DataSet, teacher: Teacher | None, progress: Progress) -> Path | None:
    """Compute the teacher's logits of the training split, unless they lie in the run folder; None without a teacher."""
    import torch

    from edgekd.distill.logit_cache import cache_logits

    torch.set_num_threads(run.settings.distil.threads)
    if teacher is None:
        return None
    return cache_logits(run.folder, teacher, data, lambda done, total: progress.step(done, total, "teacher's logits"))
