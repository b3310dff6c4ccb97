"""Where a teacher comes from: the embedded one, a file, another project's network or runtime, or several, given frozen.

`load` takes what a user calls it (sources/__init__.py lists the forms) and checks that it fits the data. Training one
is tools/train_teacher.py; using one is distill/.

Read next: loading.py.
"""

from __future__ import annotations

from edgekd.teachers.base import EVERYTHING, LOGITS, Build, Shape, Teacher
from edgekd.teachers.families import FAMILIES, names_of, new_teacher
from edgekd.teachers.loading import load
from edgekd.teachers.resnet import CifarResNet
from edgekd.teachers.sources.file import EMBEDDED

__all__ = [
    "EMBEDDED",
    "EVERYTHING",
    "FAMILIES",
    "LOGITS",
    "Build",
    "CifarResNet",
    "Shape",
    "Teacher",
    "load",
    "names_of",
    "new_teacher",
]
