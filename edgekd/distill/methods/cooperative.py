"""Cooperative KD: teacher and student learn together, the teacher lightly, by the student's feedback.

The form of PESF-KD (Rao et al., arXiv 2205.15308): all of the teacher stays frozen but an adapter at its end, which
learns the labels and moves towards what the student can follow. Here the adapter is a residual linear map of the
teacher's logits that begins at nothing, so the first guidance is the teacher's own, and a teacher that gives logits
alone (a file of them, a foreign runtime) can cooperate too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from edgekd.distill import losses
from edgekd.distill.methods.base import Answers, Guide, Moment, Need, Probe, Term


@dataclass(frozen=True, slots=True)
class Cooperative:
    """0.1 · cross entropy + 0.9 · KD with the adapting teacher, and the adapter's own loss at a tenth of the rate."""

    needs: ClassVar[frozenset[Need]] = frozenset({"logits", "target"})
    temperature: float = 4.0
    hard_weight: float = 0.1
    soft_weight: float = 0.9
    rate: float = 0.1  # of the adapter's learning rate: lightly

    def bind(self, probe: Probe) -> Guide:
        """Make the adapter."""
        return _CooperativeGuide(self, probe.teacher.logits.shape[1])


class _CooperativeGuide(Guide):
    def __init__(self, method: Cooperative, classes: int) -> None:
        super().__init__()
        self.method, self.rate = method, method.rate
        self.adapter = nn.Linear(classes, classes)
        nn.init.zeros_(self.adapter.weight)  # decay draws it back here, to the teacher as it came
        nn.init.zeros_(self.adapter.bias)

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:
        method, adapted = self.method, teacher.logits + self.adapter(teacher.logits)  # (B, C)
        guidance = losses.kd(student.logits, adapted.detach(), method.temperature)
        feedback = losses.kd(adapted, student.logits.detach(), method.temperature)  # reaches the adapter alone
        taught = method.hard_weight * moment.cross_entropy(adapted) + method.soft_weight * feedback
        return Term(method.soft_weight * guidance + taught, method.hard_weight)
