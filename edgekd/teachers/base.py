"""The nouns of this package: a loaded teacher, and what a family of architectures is asked to build.

Does not read files (files.py) and knows no architecture (families.py lists them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from edgekd.errors import DataError

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

    Raises:
        DataError: a part stays in train mode, because its train() is its own.

    """
    module.eval()
    for parameter in module.parameters():  # ScriptModules have no requires_grad_
        parameter.requires_grad = False
    for path, part in module.named_modules():
        if part.training:
            raise DataError(
                f"{path or 'it'} ({type(part).__name__}) stays in train mode; let its train() set the mode it is told"
            )
        if getattr(part, "inplace", None) is True and not isinstance(part, torch.jit.ScriptModule):
            setattr(part, "inplace", False)  # noqa: B010 - of modules in general mypy knows no such attribute
    return module
