"""The nouns of this package: a loaded teacher, and what a family of architectures is asked to build.

Does not read files (files.py) and knows no architecture (families.py lists them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Shape = tuple[int, int, int]  # (H, W, C) of one image, as data sets hold it
Build = Callable[[Shape, int], nn.Module]  # image shape and classes → a fresh network, (B, C, H, W) → (B, classes)

LOGITS = frozenset({"logits"})  # what a network in another runtime's hands gives, and a group of networks
EVERYTHING = LOGITS | {"features"}  # what a torch network gives: its modules can be tapped


@dataclass(frozen=True, slots=True)
class Teacher:
    """A frozen network and where it came from; `module` takes (B, C, H, W) and gives logits (B, classes)."""

    name: str
    sha256: str  # of all that its answers depend on
    module: nn.Module
    record: dict[str, str]  # what its file says: architecture, recipe, accuracy …
    gives: frozenset[str] = EVERYTHING


def freeze(module: nn.Module) -> nn.Module:
    """Put a network into eval mode for good, without gradients; give it.

    Activations that write over their input write elsewhere, so that what a tap saw behind any module stays what it was.
    """
    module.eval().requires_grad_(requires_grad=False)
    for part in module.modules():
        if getattr(part, "inplace", None) is True:
            setattr(part, "inplace", False)  # noqa: B010 - of modules in general mypy knows no such attribute
    return module
