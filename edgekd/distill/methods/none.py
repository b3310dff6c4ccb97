"""No teacher: plain cross entropy, the baseline and the way teachers themselves are trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods.base import LogitMethod, Need, zero_of


@dataclass(frozen=True)
class NoTeacher(LogitMethod):
    """Cross entropy alone."""

    needs = frozenset[Need]()
    needs_teacher = False
    hard_weight: float = 1.0

    def guidance(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, progress: float) -> Tensor:  # noqa: ARG002 - the form of every method
        """Give nothing."""
        return zero_of(student_logits)

    def loss(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,  # noqa: ARG002 - the form of every method
        target: Tensor,
        progress: float = 1.0,  # noqa: ARG002 - the form of every method
    ) -> Tensor:
        """Ignore the teacher."""
        return losses.cross_entropy(student_logits, target)
