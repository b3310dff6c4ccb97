"""What each distillation method is, in words for people: its loss with the published weights, and its source.

The methods themselves are the other files of this folder.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.distill.methods import METHODS


@dataclass(frozen=True, slots=True)
class Described:
    """A method as it is listed."""

    name: str
    needs: tuple[str, ...]  # of base.Need, in alphabetical order; () is no teacher at all
    loss: str
    source: str  # "" is nobody's


# by name: the loss with its weights (CE is the cross entropy, T a temperature), and where both are from
_WORDS = {
    "none": ("CE", ""),
    "kd": ("0.1 CE + 0.9 KD at T = 4", "arXiv 1503.02531"),
    "kd-ls": ("0.1 CE + 9 KD of standardized logits at T = 2", "arXiv 2403.01427"),
    "dist": ("CE + 2 inter + 2 intra at T = 4", "arXiv 2205.10536"),
    "dkd": ("CE + 1 TCKD + 8 NCKD at T = 4, warmed up over 1/12", "arXiv 2203.08679"),
    "dkd-ls": ("CE + 9 TCKD + 72 NCKD of standardized logits at T = 2, warmed up over 1/12", "arXiv 2403.01427"),
    "hint": ("CE + 100 hint at the middle stage", "arXiv 1412.6550, one stage"),
    "fitnet": ("hint alone for 1/8 of the training, then kd", "arXiv 1412.6550"),
    "at": ("CE + 1000 attention transfer of all stages", "arXiv 1612.03928"),
    "sp": ("CE + 3000 similarity of samples, deepest stage", "arXiv 1907.09682"),
    "rkd": ("CE + 25 distances + 50 angles of embeddings", "arXiv 1904.05068"),
    "pkt": ("CE + 30000 PKT of embeddings", "arXiv 1803.10837"),
    "crd": ("CE + 0.8 contrast with a memory bank", "arXiv 1910.10699"),
    "reviewkd": ("CE + 5 review of all stages, warmed up over 1/12", "arXiv 2104.09044"),
    "rco": ("kd with one anchor after the other", "arXiv 1904.09149"),
    "cooperative": ("kd with a teacher whose logits adapt lightly", "arXiv 2205.15308"),
}


def catalogue() -> list[Described]:
    """Describe every method, in the order of METHODS."""
    return [Described(name, tuple(sorted(make().needs)), *_WORDS[name]) for name, make in METHODS.items()]
