"""Distillation losses as pure functions of tensors: any floating dtype, no state, no schedules, scalars come back.

By what they look at: logits.py (kd, dkd, dist), features.py (hint, at, sp, rkd, pkt, reviewkd) and contrast.py (crd
and its memory bank). They take features as they come: what makes shapes fit, which weight a term gets and when it
counts is in methods/; where features come from is in taps.py.
"""

from __future__ import annotations

from edgekd.distill.losses.contrast import Contrast, MemoryBank, crd
from edgekd.distill.losses.features import at, hierarchical_context, hint, pkt, reviewkd, rkd, sp
from edgekd.distill.losses.logits import cross_entropy, dist, dkd, finite, kd, standardized

__all__ = [
    "Contrast",
    "MemoryBank",
    "at",
    "crd",
    "cross_entropy",
    "dist",
    "dkd",
    "finite",
    "hierarchical_context",
    "hint",
    "kd",
    "pkt",
    "reviewkd",
    "rkd",
    "sp",
    "standardized",
]
