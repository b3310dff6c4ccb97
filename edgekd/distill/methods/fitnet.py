"""Hints: the student's middle feature, through a regressor, equals the teacher's (Romero et al., arXiv 1412.6550)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods.base import Answers, Guide, Moment, Need, Probe, Term
from edgekd.distill.methods.kd import KD
from edgekd.distill.methods.regressors import Regressor, seeded


@dataclass(frozen=True, slots=True)
class Hint:
    """Cross entropy + 100 · hint all along, the one-stage form of the common CIFAR-100 benchmarks."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    weight: float = 100.0
    hard_weight: float = 1.0

    def bind(self, probe: Probe) -> Guide:
        """Make the regressor of the middle level."""
        return _HintGuide(self, probe)


class _HintGuide(Guide):
    def __init__(self, method: Hint, probe: Probe) -> None:
        super().__init__()
        self.method = method
        levels = probe.levels()
        self.student_index, self.teacher_index = levels[(len(levels) - 1) // 2]
        with seeded(probe.seed):
            self.regressor = Regressor(
                probe.student.features[self.student_index], probe.teacher.features[self.teacher_index]
            )

    def hint(self, student: Answers, teacher: Answers) -> Tensor:
        return losses.hint(*self.regressor(student.features[self.student_index], teacher.features[self.teacher_index]))

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:  # noqa: ARG002 - the form of every guide
        return Term(self.method.weight * self.hint(student, teacher), self.method.hard_weight)


@dataclass(frozen=True, slots=True)
class FitNet:
    """The original's two stages: first hints alone, up to the middle level, then KD alone."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features", "logits"})
    hint_share: float = 1 / 8  # of the training; 30 of 240 epochs in the common CIFAR-100 benchmarks
    kd: KD = field(default_factory=KD)

    def bind(self, probe: Probe) -> Guide:
        """Make the regressor of the middle level."""
        return _FitNetGuide(self, probe)


class _FitNetGuide(Guide):
    def __init__(self, method: FitNet, probe: Probe) -> None:
        super().__init__()
        self.method = method
        # alone, a weight would only scale the learning rate
        self.hints = _HintGuide(Hint(weight=1.0, hard_weight=0.0), probe)
        self.soft = method.kd.bind(probe)

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:
        stage = self.hints if moment.progress < self.method.hint_share else self.soft
        term: Term = stage(student, teacher, moment)
        return term
