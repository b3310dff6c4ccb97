"""Route-constrained optimization: the student follows stored moments of the teacher's own training.

Easy to hard, KD at each for an equal share of the training (Jin et al., arXiv 1904.09149). Who teaches when is
mentors.Anchors; the loss is KD's.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.distill.methods.base import Need
from edgekd.distill.methods.kd import KD


@dataclass(frozen=True)
class RCO(KD):
    """0.1 · cross entropy + 0.9 · KD at temperature 4 with the anchor whose turn it is."""

    needs = frozenset[Need]({"logits", "anchors"})
