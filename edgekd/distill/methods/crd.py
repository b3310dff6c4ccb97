"""Contrastive representation distillation: tell the same image from others (Tian et al., arXiv 1910.10699)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill import losses
from edgekd.distill.losses.contrast import normalizer_of
from edgekd.distill.methods.base import Answers, Guide, Moment, Need, Probe, Term
from edgekd.distill.methods.regressors import seeded


@dataclass(frozen=True, slots=True)
class CRD:
    """Cross entropy + 0.8 · both directions' contrast of projected embeddings, the paper's setting.

    One draw of negatives serves a whole batch, without those of a sample's own class.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features", "target", "indices"})
    weight: float = 0.8
    negatives: int = 16384  # or all other samples, where there are fewer
    temperature: float = 0.07
    width: int = 128  # of the projections
    hard_weight: float = 1.0

    def bind(self, probe: Probe) -> Guide:
        """Make both projections and both banks."""
        return _CRDGuide(self, probe)


class _CRDGuide(Guide):
    normalizers: Tensor

    def __init__(self, method: CRD, probe: Probe) -> None:
        super().__init__()
        self.method = method
        self.contrast = losses.Contrast(probe.samples, method.temperature)
        with seeded(probe.seed):
            self.student_head = nn.Linear(probe.student.embedding.shape[1], method.width)
            self.teacher_head = nn.Linear(probe.teacher.embedding.shape[1], method.width)
        self.student_bank = losses.MemoryBank(probe.samples, method.width, 2 * probe.seed)
        self.teacher_bank = losses.MemoryBank(probe.samples, method.width, 2 * probe.seed + 1)
        self.register_buffer("normalizers", torch.zeros(2))  # set by the first batch, 0 until then

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:
        ours = functional.normalize(self.student_head(student.embedding), dim=1)  # (B, D)
        theirs = functional.normalize(self.teacher_head(teacher.embedding), dim=1)  # (B, D)
        drawn = self.student_bank.draw(self.method.negatives, moment.step)  # (K,)
        excluded = self.student_bank.excluded(drawn, moment.indices, moment.target)  # (B, K)
        total = self._direction(0, (ours, theirs), self.teacher_bank.rows[drawn], excluded)
        total = total + self._direction(1, (theirs, ours), self.student_bank.rows[drawn], excluded)
        if self.training:
            self.student_bank.update(moment.indices, moment.target, ours)
            self.teacher_bank.update(moment.indices, moment.target, theirs)
        return Term(self.method.weight * total, self.method.hard_weight)

    def _direction(self, number: int, pair: tuple[Tensor, Tensor], negatives: Tensor, excluded: Tensor) -> Tensor:
        if not self.normalizers[number]:
            self.normalizers[number] = normalizer_of(pair[0], negatives, self.contrast)
        contrast = replace(self.contrast, normalizer=float(self.normalizers[number]))
        return losses.crd(pair[0], pair[1], negatives, contrast, excluded)
