"""The distillation methods by name."""

from __future__ import annotations

from collections.abc import Callable

from edgekd.distill.methods.base import Method
from edgekd.distill.methods.dist import DIST
from edgekd.distill.methods.kd import KD
from edgekd.distill.methods.none import NoTeacher
from edgekd.errors import UnknownName

METHODS: dict[str, Callable[[], Method]] = {"none": NoTeacher, "kd": KD, "dist": DIST}


def method_named(name: str) -> Method:
    """Make a method by name.

    Raises:
        UnknownName: there is none; the message names the nearest.

    """
    if name not in METHODS:
        raise UnknownName("distillation method", name, METHODS)
    return METHODS[name]()
