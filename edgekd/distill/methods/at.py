"""Attention transfer: the student looks where the teacher looks (Zagoruyko and Komodakis, arXiv 1612.03928)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from edgekd.distill import losses
from edgekd.distill.methods.base import Answers, Guide, Moment, Need, Probe, Term
from edgekd.distill.methods.regressors import on_one_grid


@dataclass(frozen=True, slots=True)
class AT:
    """Cross entropy + 1000 · the sum over all stages of the attention maps' differences, p = 2."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    weight: float = 1000.0
    p: float = 2.0
    hard_weight: float = 1.0

    def bind(self, probe: Probe) -> Guide:
        """Match the stages; nothing is learnt."""
        return _ATGuide(self, probe)


class _ATGuide(Guide):
    def __init__(self, method: AT, probe: Probe) -> None:
        super().__init__()
        self.method, self.levels = method, probe.levels()

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:  # noqa: ARG002 - the form of every guide
        pairs = [on_one_grid(student.features[i], teacher.features[j]) for i, j in self.levels]
        total = torch.stack([losses.at(ours, theirs, self.method.p) for ours, theirs in pairs]).sum()
        return Term(self.method.weight * total, self.method.hard_weight)
