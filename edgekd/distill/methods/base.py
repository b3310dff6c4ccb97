"""What a distillation method is. A new one is one file here and one entry in methods/__init__.py."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Method(Protocol):
    """Turns logits (B, C) and targets (B,) into the scalar to minimise."""

    @property
    def needs_teacher(self) -> bool:
        """Tell whether the loss needs the teacher's logits."""
        ...

    def loss(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor) -> Tensor:
        """Give the training loss of one batch; teacher_logits is given where needs_teacher."""
        ...
