"""Decoupled KD: the target class and the relations among the others weighed apart (Zhao et al., arXiv 2203.08679).

Also with standardized logits (Sun et al., arXiv 2403.01427).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods.base import LogitMethod, Need, warmed_up


@dataclass(frozen=True)
class DKD(LogitMethod):
    """Cross entropy + 1 · TCKD + 8 · NCKD at temperature 4, warmed up over the first twelfth: 20 of 240 epochs."""

    needs = frozenset[Need]({"logits", "target"})
    alpha: float = 1.0
    beta: float = 8.0
    temperature: float = 4.0
    warmup_share: float = 1 / 12  # of the training, so that short trainings warm up in proportion
    hard_weight: float = 1.0
    standardize: bool = False

    def guidance(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, progress: float) -> Tensor:
        """Weigh both divergences, less at the start."""
        loss = losses.dkd(
            student_logits, teacher_logits, target, self.alpha, self.beta, self.temperature, self.standardize
        )
        return warmed_up(progress, self.warmup_share) * loss


def standardized_dkd() -> DKD:
    """Make DKD of standardized logits: both weights × 9, temperature 2, the paper's setting."""
    return DKD(alpha=9.0, beta=72.0, temperature=2.0, standardize=True)
