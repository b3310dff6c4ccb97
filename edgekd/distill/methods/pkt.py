"""Probabilistic knowledge transfer: the teacher's neighbours of a sample (Passalis and Tefas, arXiv 1803.10837)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekd.distill import losses
from edgekd.distill.methods.base import Guide, Need, Probe
from edgekd.distill.methods.relations import RelationGuide, embedding_of


@dataclass(frozen=True, slots=True)
class PKT:
    """Cross entropy + 30000 · PKT of the embeddings, the common CIFAR-100 benchmarks' weight of a mean over B²."""

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})
    weight: float = 30000.0
    hard_weight: float = 1.0

    def bind(self, probe: Probe) -> Guide:
        """Take the embeddings; nothing is learnt."""
        return RelationGuide(probe, embedding_of, lambda s, t: self.weight * losses.pkt(s, t), self.hard_weight)
