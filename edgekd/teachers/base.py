"""The nouns of this package: a loaded teacher, and what a family of architectures is asked to build.

Does not read files (files.py) and knows no architecture (families.py lists them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Shape = tuple[int, int, int]  # (H, W, C) of one image, as data sets hold it
Build = Callable[[Shape, int], nn.Module]  # image shape and classes → a fresh network, (B, C, H, W) → (B, classes)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A frozen network and where it came from; `module` takes (B, C, H, W) and gives logits (B, classes)."""

    name: str
    sha256: str  # of all that its answers depend on
    module: nn.Module
    record: dict[str, str]  # what its file says: architecture, recipe, accuracy …
