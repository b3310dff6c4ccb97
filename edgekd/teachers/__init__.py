"""Where a teacher comes from: the embedded one, or a file of an architecture known here, given frozen.

A file is safetensors whose metadata name architecture, classes and input shape, a TOML file that describes one
(files.py), or a finished student of a run. Training one is tools/train_teacher.py; using one is distill/.

Read next: loading.py.
"""

from __future__ import annotations

from edgekd.teachers.base import Build, Shape, Teacher
from edgekd.teachers.families import FAMILIES, names_of, new_teacher
from edgekd.teachers.loading import EMBEDDED, load, path_of
from edgekd.teachers.resnet import CifarResNet

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "Build",
    "CifarResNet",
    "Shape",
    "Teacher",
    "load",
    "names_of",
    "new_teacher",
    "path_of",
]
