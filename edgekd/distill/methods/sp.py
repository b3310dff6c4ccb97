"""Similarity preservation: samples alike to the teacher are alike to the student (Tung and Mori, arXiv 1907.09682)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekd.distill import losses
from edgekd.distill.methods.base import Guide, Need, Probe
from edgekd.distill.methods.relations import RelationGuide, deepest_of


@dataclass(frozen=True, slots=True)
class SP:
    """Cross entropy + 3000 · the difference of the deepest features' similarity matrices."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    weight: float = 3000.0
    hard_weight: float = 1.0

    def bind(self, probe: Probe) -> Guide:
        """Take the deepest features; nothing is learnt."""
        return RelationGuide(probe, deepest_of, lambda s, t: self.weight * losses.sp(s, t), self.hard_weight)
