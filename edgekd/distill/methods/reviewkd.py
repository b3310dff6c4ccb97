"""Knowledge review: deeper stages of the student learn from shallower ones of the teacher (arXiv 2104.09044)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods.base import Answers, Guide, Moment, Need, Probe, Term, warmed_up
from edgekd.distill.methods.fusion import Review
from edgekd.distill.methods.regressors import on_one_grid, seeded


@dataclass(frozen=True, slots=True)
class ReviewKD:
    """Cross entropy + 5 · the hierarchical context losses of all fused stages and the embedding.

    Warmed up over the first twelfth, as published: 20 of 240 epochs.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    weight: float = 5.0
    warmup_share: float = 1 / 12
    hard_weight: float = 1.0

    def bind(self, probe: Probe) -> Guide:
        """Make the fusion of all matched stages."""
        return _ReviewGuide(self, probe)


class _ReviewGuide(Guide):
    def __init__(self, method: ReviewKD, probe: Probe) -> None:
        super().__init__()
        self.method, self.levels = method, probe.levels()
        ours, theirs = self._matched(probe.student, probe.teacher)
        with seeded(probe.seed):
            self.review = Review([f.shape[1] for f in ours], [f.shape[1] for f in theirs])

    def _matched(self, student: Answers, teacher: Answers) -> tuple[list[Tensor], list[Tensor]]:
        ours = [student.features[i] for i, _ in self.levels] + [student.embedding[:, :, None, None]]
        theirs = [teacher.features[j] for _, j in self.levels] + [teacher.embedding[:, :, None, None]]
        return ours, theirs

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:
        ours, theirs = self._matched(student, teacher)
        pairs = [on_one_grid(mine, other) for mine, other in zip(self.review(ours), theirs, strict=True)]
        loss = losses.reviewkd([mine for mine, _ in pairs], [other for _, other in pairs])
        return Term(
            self.method.weight * warmed_up(moment.progress, self.method.warmup_share) * loss, self.method.hard_weight
        )
