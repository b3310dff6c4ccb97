"""Several methods at once: their guidance added up, beside one cross entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.distill.methods.base import Answers, FeatureMethod, Guide, LogitMethod, Moment, Need, Probe, Term


@dataclass(frozen=True, slots=True)
class Part:
    """One of several methods; its published weight is multiplied by the factor."""

    method: FeatureMethod
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Combined:
    """The sum of all parts' guidance; the cross entropy gets the smallest of the weights that they leave to it."""

    parts: tuple[Part, ...]

    @property
    def needs(self) -> frozenset[Need]:
        """Name what any of the parts needs."""
        return frozenset[Need]().union(*(part.method.needs for part in self.parts))

    def bind(self, probe: Probe) -> Guide:
        """Bind every part."""
        return _CombinedGuide(self.parts, probe)


class _CombinedGuide(Guide):
    def __init__(self, parts: Sequence[Part], probe: Probe) -> None:
        super().__init__()
        self.factors = [part.factor for part in parts]
        self.guides = nn.ModuleList(part.method.bind(probe) for part in parts)

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:
        terms: list[Term] = [guide(student, teacher, moment) for guide in self.guides]
        total = _sum([term.guidance for term in terms], self.factors)
        return Term(total, min(term.hard_weight for term in terms))


class CombinedLogits(LogitMethod):
    """The same of methods that compare logits alone, and one of them in turn."""

    def __init__(self, parts: Sequence[tuple[LogitMethod, float]]) -> None:
        self.parts = tuple(parts)
        self.needs = frozenset[Need]().union(*(method.needs for method, _ in self.parts))
        self.hard_weight = min(method.hard_weight for method, _ in parts)

    def guidance(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, progress: float) -> Tensor:
        """Add up the parts'."""
        found = [m.guidance(student_logits, teacher_logits, target, progress) for m, _ in self.parts]
        return _sum(found, [factor for _, factor in self.parts])


def _sum(terms: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    return torch.stack([factor * term for factor, term in zip(factors, terms, strict=True)]).sum()
