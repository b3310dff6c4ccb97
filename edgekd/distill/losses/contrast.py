"""Contrastive distillation: the loss as a pure function, and the memory bank that it takes its negatives from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_KEPT = 0.5  # of a row when its sample is seen again, as published
_UNKNOWN = -1  # the class of a sample that was not seen yet


@dataclass(frozen=True, slots=True)
class Contrast:
    """The constants of the critic: e^(a·b / τ) / Z against the odds of K negatives out of `samples`."""

    samples: int  # M, the size of the training set, ≥ 1
    temperature: float = 0.07  # τ > 0
    normalizer: float = 1.0  # Z > 0; 1 is the paper's formula, its published runs use M · mean(e^(a·b / τ))


def crd(
    anchor: Tensor, positive: Tensor, negatives: Tensor, contrast: Contrast, excluded: Tensor | None = None
) -> Tensor:
    """Give −log h(positive) − Σ log(1 − h(negative)), mean over the batch; h = e^(a·b/τ)/Z / (e^(a·b/τ)/Z + K/M).

    Projections are of norm 1: one network's (B, D) as anchor, the other's of the same images (B, D) as positive, and
    rows (K, D) of the other's bank as negatives of all. `excluded` (B, K) is true where a negative is of the anchor's
    own sample or class and counts nothing. crd(student, teacher, …) + crd(teacher, student, …) is the method's loss.
    Source: Tian et al., arXiv 1910.10699, equations 10 and 19.
    """
    prior = math.log(contrast.normalizer) + math.log(len(negatives) / contrast.samples)
    # log h and log(1 − h) as log-sigmoids: exact where h is 0 or 1 in floating point
    found = functional.logsigmoid((anchor * positive).sum(1) / contrast.temperature - prior)  # (B,)
    refused = functional.logsigmoid(prior - anchor @ negatives.T / contrast.temperature)  # (B, K)
    if excluded is not None:
        refused = refused.masked_fill(excluded, 0.0)
    return -(found + refused.sum(1)).mean()


def normalizer_of(anchor: Tensor, negatives: Tensor, contrast: Contrast) -> float:
    """Estimate Z = M · mean(e^(a·b / τ)) of projections (B, D) and bank rows (K, D), as the published runs do once.

    Source: Wu et al., arXiv 1805.01978, section 3.2.
    """
    scores = anchor.detach() @ negatives.T / contrast.temperature  # (B, K)
    return contrast.samples * float(scores.double().exp().mean())


class MemoryBank(nn.Module):
    """One projection of norm 1 for each training sample; all of it is buffers, so a checkpoint holds it.

    Rows begin as random directions. Which rows are drawn is a function of (seed, step) alone.
    """

    rows: Tensor
    classes: Tensor

    def __init__(self, samples: int, width: int, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        rows = torch.randn(samples, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("rows", functional.normalize(rows, dim=1))  # (M, D)
        self.register_buffer("classes", torch.full((samples,), _UNKNOWN))  # (M,)

    def draw(self, count: int, step: int) -> Tensor:
        """Draw the indices of `count` different rows, all of them where there are fewer, (K,)."""
        # one generator a step: a resumed training draws what an undisturbed one does
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
        drawn = torch.randperm(len(self.rows), generator=generator)[:count]
        return drawn.to(self.rows.device)

    def excluded(self, drawn: Tensor, indices: Tensor, target: Tensor) -> Tensor:
        """Tell where a drawn row (K,) is of a batch's own sample (B,) or class (B,), (B, K)."""
        own = drawn.unsqueeze(0) == indices.unsqueeze(1)
        return own | (self.classes[drawn].unsqueeze(0) == target.unsqueeze(1))

    @torch.no_grad()
    def update(self, indices: Tensor, target: Tensor, projections: Tensor) -> None:
        """Move the rows of a batch (B,) half way to their new projections (B, D), and note their classes (B,)."""
        moved = _KEPT * self.rows[indices] + (1 - _KEPT) * projections.detach().to(self.rows.dtype)
        self.rows[indices] = functional.normalize(moved, dim=1)
        self.classes[indices] = target
