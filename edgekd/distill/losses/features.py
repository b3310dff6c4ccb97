"""Losses that compare two networks' features, (B, C, H, W) or embeddings (B, D); pure functions.

Only hint and reviewkd need equal shapes: the others compare maps over pixels (at), or samples with each other (sp,
rkd, pkt), so the networks may differ in width. The methods make the rest fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_POOLED_SIZES = (4, 2, 1)  # of the hierarchical context loss, as published
_PROBABILITY_EPSILON = 1e-7  # pkt's, part of the published weight's convention


def hint(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Give the mean squared error of two features of one shape, after the method's regressor.

    Source: Romero et al., arXiv 1412.6550, equation 3, as a mean instead of half a sum.
    """
    return functional.mse_loss(student_feature, teacher_feature)


def at(student_feature: Tensor, teacher_feature: Tensor, p: float = 2.0) -> Tensor:
    """Give the mean squared difference of attention maps: mean over channels of |f|^p, of norm 1 a sample.

    Features are (B, C, H, W) of one height and width; p ≥ 1; the mean is over the batch and the H · W pixels. A map
    of zeros stays zero. Source: Zagoruyko and Komodakis, arXiv 1612.03928, equation 2.
    """
    return functional.mse_loss(_attention(student_feature, p), _attention(teacher_feature, p))


def _attention(feature: Tensor, p: float) -> Tensor:
    maps: Tensor = feature.abs().pow(p).mean(1).flatten(1)  # (B, H·W)
    return functional.normalize(maps, dim=1)


def sp(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Give ‖Gt − Gs‖²_F / B² of the row-normalised similarities F·Fᵀ between the samples of a batch.

    Features are (B, …), flattened to F = (B, CHW); they may differ in all but B.
    Source: Tung and Mori, arXiv 1907.09682, equations 1 to 4.
    """
    return (_similarities(student_feature) - _similarities(teacher_feature)).square().mean()


def _similarities(feature: Tensor) -> Tensor:
    flat = feature.flatten(1)  # (B, CHW)
    return functional.normalize(flat @ flat.T, dim=1)  # (B, B)


def rkd(student_embedding: Tensor, teacher_embedding: Tensor, distance_weight: float, angle_weight: float) -> Tensor:
    """Give the weighted smooth-L1 losses between pair distances and between the cosines of triplet angles.

    Embeddings are (B, D), each network with its own D. Distances are divided by the mean of the positive ones; their
    term is the mean over all B² entries, the angles' over all B³. Samples of one embedding have no direction between
    them: cosine 0, no gradient. Needs B² · D and B³ numbers. Source: Park et al., arXiv 1904.05068, equations 3 to 8.
    """
    student, student_norms = _differences(student_embedding)
    teacher, teacher_norms = _differences(teacher_embedding)
    distance = functional.smooth_l1_loss(_relative(student_norms), _relative(teacher_norms))
    angle = functional.smooth_l1_loss(_cosines(student, student_norms), _cosines(teacher, teacher_norms))
    return distance_weight * distance + angle_weight * angle


def _differences(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Give x_j − x_i (B, B, D) and its norms (B, B); subtracting keeps digits that the squares' expansion loses."""
    differences = embedding.unsqueeze(0) - embedding.unsqueeze(1)
    norms: Tensor = torch.linalg.vector_norm(differences, dim=2)
    return differences, norms


def _relative(norms: Tensor) -> Tensor:
    positive = norms[norms > 0]
    return norms / positive.mean() if len(positive) else norms


def _cosines(differences: Tensor, norms: Tensor) -> Tensor:
    """Give the cosine at i between j and k for all triplets, (B, B, B)."""
    apart = (norms > 0).unsqueeze(2)
    # dividing zeros by a tiny number instead would give gradients as large as its inverse
    directions = torch.where(apart, differences / torch.where(apart, norms.unsqueeze(2), 1.0), 0.0)
    return directions @ directions.mT


def pkt(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Give the mean over B² of Pt · log((Pt + 1e-7) / (Ps + 1e-7)), P being similarities as probabilities by row.

    Embeddings are (B, D), each network with its own D; similarities are (cosine + 1) / 2, the diagonal included.
    Source: Passalis and Tefas, arXiv 1803.10837, equations 5 to 8.
    """
    student, teacher = _neighbours(student_embedding), _neighbours(teacher_embedding)
    return (teacher * ((teacher + _PROBABILITY_EPSILON) / (student + _PROBABILITY_EPSILON)).log()).mean()


def _neighbours(embedding: Tensor) -> Tensor:
    unit = functional.normalize(embedding, dim=1)
    similarities = (unit @ unit.T + 1) / 2  # (B, B)
    return similarities / similarities.sum(1, keepdim=True)


def reviewkd(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Add up the hierarchical context losses of the levels; features pairwise (B, C, H, W) of one shape, any order.

    The student's are fused across levels beforehand. Source: Chen et al., arXiv 2104.09044, section 3.3.

    Raises:
        ValueError: there is no level, or not as many of the student as of the teacher.

    """
    pairs = list(zip(student_features, teacher_features, strict=True))
    if not pairs:
        raise ValueError("reviewkd got no features: give at least one level")
    return torch.stack([hierarchical_context(student, teacher) for student, teacher in pairs]).sum()


def hierarchical_context(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Give the mean squared error of two features and of their averages over a 4x4, 2x2 and 1x1 grid, weighted.

    Features are (B, C, H, W) of one shape. Weights are 1 for the feature itself and 1/2, 1/4, 1/8 for those grids
    that are smaller than H, divided by their sum. Source: Chen et al., arXiv 2104.09044, section 3.3.
    """
    total, weight, weights = functional.mse_loss(student_feature, teacher_feature), 1.0, 1.0
    for size in (size for size in _POOLED_SIZES if size < student_feature.shape[2]):
        pooled = [functional.adaptive_avg_pool2d(f, size) for f in (student_feature, teacher_feature)]
        weight /= 2
        total, weights = total + weight * functional.mse_loss(pooled[0], pooled[1]), weights + weight
    return total / weights
