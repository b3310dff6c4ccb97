"""No teacher: plain cross entropy, the baseline and the way teachers themselves are trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill import losses


@dataclass(frozen=True, slots=True)
class NoTeacher:
    """Cross entropy alone."""

    needs_teacher: bool = False

    def loss(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor) -> Tensor:  # noqa: ARG002 - the form of every method
        """Ignore the teacher."""
        return losses.cross_entropy(student_logits, target)
