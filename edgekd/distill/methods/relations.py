"""What the methods share that compare samples with each other: a loss of two embeddings or features, a weight."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edgekd.distill.methods.base import Answers, Guide, Moment, Probe, Term


class RelationGuide(Guide):
    """Compares what `read` takes of both networks' answers by a loss that is already weighed; learns nothing."""

    def __init__(
        self,
        probe: Probe,
        read: Callable[[Answers], Tensor],
        compare: Callable[[Tensor, Tensor], Tensor],
        hard_weight: float,
    ) -> None:
        super().__init__()
        self.read, self.compare, self.hard_weight = read, compare, hard_weight
        for answers in (probe.student, probe.teacher):
            read(answers)  # what is missing is said now, not in the first step

    def forward(self, student: Answers, teacher: Answers, moment: Moment) -> Term:  # noqa: ARG002 - the form of every guide
        """Give the weighed comparison."""
        return Term(self.compare(self.read(student), self.read(teacher)), self.hard_weight)


def embedding_of(answers: Answers) -> Tensor:
    """Read the embedding (B, D)."""
    return answers.embedding


def deepest_of(answers: Answers) -> Tensor:
    """Read the deepest feature as it is, (B, …)."""
    return answers.features[-1] if answers.features else answers.embedding
