"""DIST: match the relations between classes and between samples, not the values (Huang et al., arXiv 2205.10536)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill import losses


@dataclass(frozen=True, slots=True)
class DIST:
    """Cross entropy + 2 · inter + 2 · intra at τ = 4, the paper's setting for small images."""

    beta: float = 2.0
    gamma: float = 2.0
    tau: float = 4.0
    needs_teacher: bool = True

    def loss(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor) -> Tensor:
        """Add both relation terms to the cross entropy."""
        assert teacher_logits is not None  # noqa: S101 - the training loop gives them where needs_teacher
        relations = losses.dist(student_logits, teacher_logits, self.beta, self.gamma, self.tau)
        return losses.cross_entropy(student_logits, target) + relations
