"""Classic knowledge distillation: soft targets beside hard ones (Hinton et al., arXiv 1503.02531).

Also with standardized logits, so that only the teacher's relations between classes count (Sun et al., 2403.01427).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods.base import LogitMethod


@dataclass(frozen=True)
class KD(LogitMethod):
    """0.1 · cross entropy + 0.9 · KD at temperature 4, the weights of the common CIFAR-100 benchmarks."""

    temperature: float = 4.0
    hard_weight: float = 0.1
    soft_weight: float = 0.9
    standardize: bool = False

    def guidance(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, progress: float) -> Tensor:  # noqa: ARG002 - the form of every method
        """Weigh the soft targets."""
        return self.soft_weight * losses.kd(student_logits, teacher_logits, self.temperature, self.standardize)


def standardized_kd() -> KD:
    """Make 0.1 · cross entropy + 9 · KD of standardized logits at temperature 2, the paper's setting."""
    return KD(temperature=2.0, soft_weight=9.0, standardize=True)
