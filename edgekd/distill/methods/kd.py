"""Classic knowledge distillation: soft targets beside hard ones (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill import losses


@dataclass(frozen=True, slots=True)
class KD:
    """0.1 · cross entropy + 0.9 · KD at temperature 4, the weights of the common CIFAR-100 benchmarks."""

    temperature: float = 4.0
    hard_weight: float = 0.1
    soft_weight: float = 0.9
    needs_teacher: bool = True

    def loss(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor) -> Tensor:
        """Weigh hard against soft targets."""
        assert teacher_logits is not None  # noqa: S101 - the training loop gives them where needs_teacher
        soft = losses.kd(student_logits, teacher_logits, self.temperature)
        return self.hard_weight * losses.cross_entropy(student_logits, target) + self.soft_weight * soft
