"""Several teachers that speak with one voice: the mean of their probabilities, given as its logarithm.

Probabilities are averaged and not logits: logits of two networks have different scales and zeros, so that the loudest
would speak alone, while each network's probabilities sum to 1. The logarithm of a probability is a logit of it:
softmax(log p) = p, and a temperature softens it as it would any other.
Source: Hinton et al. (arXiv 1503.02531), section 1, of ensembles as teachers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.teachers.base import LOGITS, Teacher, freeze


class Ensemble(nn.Module):
    """Log of the members' mean probabilities, (B, classes)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits (B, classes)."""
        said = [functional.log_softmax(member(x).float(), 1) for member in self.members]
        return torch.logsumexp(torch.stack(said), 0) - math.log(len(said))


def ensemble_of(name: str, members: Sequence[Teacher]) -> Teacher:
    """Make one teacher of several, which see the same images each in its own way."""
    digest = hashlib.sha256(" ".join(["ensemble", *(member.sha256 for member in members)]).encode()).hexdigest()
    record = {"members": json.dumps([{"name": member.name} | member.record for member in members])}
    return Teacher(name, digest, freeze(Ensemble([member.module for member in members])), record, LOGITS)
