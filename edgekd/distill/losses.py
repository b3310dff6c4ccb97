"""Distillation losses as pure functions of tensors; any floating dtype, no state, no schedules.

How a method weighs them against cross entropy is in methods/.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-8  # keeps the correlation of a constant row finite; far below any real norm


def kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Give T² · KL(softmax(zt / T) ‖ softmax(zs / T)), mean over the batch; logits are (B, C), the result a scalar.

    Source: Hinton et al., arXiv 1503.02531, section 2.
    """
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def dist(student_logits: Tensor, teacher_logits: Tensor, beta: float, gamma: float, tau: float) -> Tensor:
    """Give β·L_inter + γ·L_intra: one minus the mean Pearson correlation over rows and over columns, times τ².

    Logits are (B, C), the result a scalar. Source: Huang et al., arXiv 2205.10536, equations 6 to 10.
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


def cross_entropy(student_logits: Tensor, target: Tensor) -> Tensor:
    """Give the mean cross entropy of logits (B, C) against class indices (B,)."""
    return functional.cross_entropy(student_logits, target)


def finite(loss: Tensor) -> bool:
    """Tell whether a loss is neither NaN nor infinite."""
    return bool(torch.isfinite(loss))
