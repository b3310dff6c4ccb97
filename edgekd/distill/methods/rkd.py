"""Relational KD: distances and angles between samples as the teacher has them (Park et al., arXiv 1904.05068)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods.base import Guide, Need, Probe
from edgekd.distill.methods.relations import RelationGuide, embedding_of


@dataclass(frozen=True, slots=True)
class RKD:
    """Cross entropy + 25 · distances + 50 · angles of the embeddings, the paper's weights for classification."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    distance_weight: float = 25.0
    angle_weight: float = 50.0
    hard_weight: float = 1.0

    def bind(self, probe: Probe) -> Guide:
        """Take the embeddings; nothing is learnt."""

        def compare(student: Tensor, teacher: Tensor) -> Tensor:
            return losses.rkd(student, teacher, self.distance_weight, self.angle_weight)

        return RelationGuide(probe, embedding_of, compare, self.hard_weight)
