"""The architectures that a teacher may have: one small file a family, and one entry here.

An entry takes the image shape (H, W, C) and the number of classes. Beside the entries every network of a search space
is known, by its text form or its space's name. Weights are files.py's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import nn

from edgekd.errors import UnknownName
from edgekd.spaces.mnasnet import SPACES
from edgekd.teachers.base import Build, Shape
from edgekd.teachers.from_space import build_from_space, space_and_arch
from edgekd.teachers.mobilenetv2 import WIDTHS, CifarMobileNetV2
from edgekd.teachers.resnet import DEPTHS, CifarResNet
from edgekd.teachers.vgg import STAGES, CifarVgg


def _named(network: type[nn.Module], name: str, shape: Shape, classes: int) -> nn.Module:
    return network(name, shape[2], classes)


FAMILIES: dict[str, Build] = {
    **{name: partial(_named, CifarResNet, name) for name in DEPTHS},
    **{name: partial(_named, CifarVgg, name) for name in STAGES},
    **{name: partial(_named, CifarMobileNetV2, name) for name in WIDTHS},
}

SPACE_FILE = ".toml"


def new_teacher(architecture: str, shape: Shape, classes: int, space: str = "") -> nn.Module:
    """Make an untrained network for images (H, W, C); `space` is the file of a text form's space, if any.

    Raises:
        UnknownName: no family, space or architecture has that name.
        DataError: the architecture is a space's, and the space is made for other images or classes.

    """
    if architecture in FAMILIES:
        return FAMILIES[architecture](shape, classes)
    if ":" in architecture or architecture in SPACES or architecture.endswith(SPACE_FILE):
        return build_from_space(architecture, shape, classes, space)
    raise UnknownName("teacher architecture", architecture, [*FAMILIES, *SPACES])


def names_of(architecture: str) -> dict[str, str]:
    """Give what a teacher's record says of its architecture: the one form of its name, and its space's file if any.

    Raises:
        UnknownName, UsageError: there is no such space, or it has no such architecture.

    """
    if architecture in FAMILIES:
        return {"architecture": architecture}
    _, arch = space_and_arch(architecture)
    place = {"space": str(Path(architecture).resolve())} if architecture.endswith(SPACE_FILE) else {}
    return {"architecture": str(arch), **place}
