"""Any network of a search space as a teacher: a finished student, or a space's reference.

An architecture is named by its text form, `SPACE:BLOCK/…`, or by the space alone, which stands for its reference. A
space of a user's own has its content's hash in its name, so that a text form names no other network.
Does not train (distill/) and does not read teachers' files (files.py).
"""

from __future__ import annotations

from torch import nn

from edgekd.errors import DataError
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network
from edgekd.spaces.space import Space
from edgekd.teachers.base import Shape


def space_and_arch(architecture: str, space: str = "") -> tuple[Space, Arch]:
    """Find the space and the architecture that a text names; `space` is the file of a text form's space, if any.

    Raises:
        UnknownName, UsageError: there is no such space, or it has no such architecture.

    """
    if ":" not in architecture:
        found = space_named(architecture)
        return found, found.reference()
    arch = Arch.parse(architecture)
    found = space_named(space or arch.space)
    found.choices(arch)  # refuses what the space does not hold, absurd widths and depths among it
    return found, arch


def build_from_space(architecture: str, shape: Shape, classes: int, space: str = "") -> nn.Module:
    """Make the network of a space for images (H, W, C) and a number of classes, which must be the space's own.

    Raises:
        UnknownName, UsageError: there is no such space or architecture.
        DataError: the space is made for other images or classes.

    """
    found, arch = space_and_arch(architecture, space)
    if found.input_shape[1:] != shape or found.classes != classes:
        raise DataError(
            f"teacher architecture {architecture[:80]}: its space takes images {list(found.input_shape[1:])} of "
            f"{found.classes} classes, not {list(shape)} of {classes}; choose a space for this data"
        )
    return Network(graph_of(found, arch))
