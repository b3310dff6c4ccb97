"""Losses that compare two networks' logits (B, C); pure functions. Features: features.py."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-8  # keeps the correlation of a constant row finite; far below any real norm
_DEVIATION_EPSILON = 1e-7  # the standardisation's own, part of the published weights' convention


def kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float, standardize: bool = False) -> Tensor:
    """Give T² · KL(softmax(zt / T) ‖ softmax(zs / T)), mean over the batch; logits are (B, C), the result a scalar.

    With standardize, both are standardized (below) before the division by T.
    Source: Hinton et al., arXiv 1503.02531, section 2.
    """
    if standardize:
        student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    alpha: float,
    beta: float,
    temperature: float,
    standardize: bool = False,
) -> Tensor:
    """Give T² · (α · TCKD + β · NCKD), mean over the batch; logits are (B, C), target (B,) classes from 0 to C − 1.

    TCKD is the divergence of the target's probability against all others' sum, NCKD that among the others alone,
    both of softmax(z / T). α = 1 and β = 1 − pt, which differs by sample, would be kd. A single class has no others
    and costs nothing. Source: Zhao et al., arXiv 2203.08679, equations 5 to 7; T² and the mean as in kd.
    """
    if standardize:
        student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
    if student_logits.shape[1] == 1:
        return 0 * student_logits.sum()
    student_binary, student_others = _decoupled(student_logits / temperature, target)
    teacher_binary, teacher_others = _decoupled(teacher_logits / temperature, target)
    tckd = functional.kl_div(student_binary, teacher_binary, reduction="batchmean", log_target=True)
    nckd = functional.kl_div(student_others, teacher_others, reduction="batchmean", log_target=True)
    return temperature**2 * (alpha * tckd + beta * nckd)


def _decoupled(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Give log probabilities of target and not target (B, 2), and those among the other classes (B, C - 1)."""
    is_target = functional.one_hot(target, logits.shape[1]).bool()  # (B, C)
    others = logits[~is_target].view(len(logits), -1)  # (B, C - 1)
    pair = torch.stack((logits[is_target], torch.logsumexp(others, dim=1)), dim=1)  # (B, 2)
    return functional.log_softmax(pair, dim=1), functional.log_softmax(others, dim=1)


def dist(student_logits: Tensor, teacher_logits: Tensor, beta: float, gamma: float, tau: float) -> Tensor:
    """Give β·L_inter + γ·L_intra: one minus the mean Pearson correlation over rows and over columns, times τ².

    Logits are (B, C), the result a scalar. A batch of one has no columns to correlate: its L_intra is τ², without a
    gradient. Source: Huang et al., arXiv 2205.10536, equations 6 to 10.
    """
    student = functional.softmax(student_logits / tau, dim=1)
    teacher = functional.softmax(teacher_logits / tau, dim=1)
    inter = 1 - _pearson(student, teacher).mean()
    intra = 1 - _pearson(student.T, teacher.T).mean()
    return tau**2 * (beta * inter + gamma * intra)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlate row by row: (N, M), (N, M) → (N,)."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    products: Tensor = (a * b).sum(1)
    return products / (norms + _EPSILON)


def standardized(logits: Tensor) -> Tensor:
    """Give (z − mean) / (deviation + 1e-7) a sample, (B, C) → (B, C); the deviation is the sample's, over C − 1.

    Source: Sun et al., arXiv 2403.01427, algorithm 1.
    """
    centred = logits - logits.mean(1, keepdim=True)
    # a norm has a gradient (of 0) where a row is constant, and one class has the deviation 0 instead of NaN
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    deviation = norm / max(logits.shape[1] - 1, 1) ** 0.5
    scaled: Tensor = centred / (deviation + _DEVIATION_EPSILON)
    return scaled


def cross_entropy(student_logits: Tensor, target: Tensor) -> Tensor:
    """Give the mean cross entropy of logits (B, C) against class indices (B,)."""
    return functional.cross_entropy(student_logits, target)


def finite(loss: Tensor) -> bool:
    """Tell whether a loss is neither NaN nor infinite."""
    return bool(torch.isfinite(loss))
