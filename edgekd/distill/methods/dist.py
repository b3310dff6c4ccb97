"""DIST: match the relations between classes and between samples, not the values (Huang et al., arXiv 2205.10536)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods.base import LogitMethod


@dataclass(frozen=True)
class DIST(LogitMethod):
    """Cross entropy + 2 · inter + 2 · intra at τ = 4, the paper's setting for small images."""

    beta: float = 2.0
    gamma: float = 2.0
    tau: float = 4.0
    hard_weight: float = 1.0

    def guidance(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, progress: float) -> Tensor:  # noqa: ARG002 - the form of every method
        """Add both relation terms."""
        return losses.dist(student_logits, teacher_logits, self.beta, self.gamma, self.tau)
