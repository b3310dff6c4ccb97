"""Attention-based fusion: each of a student's stages mixed with all deeper ones.

Source: Chen et al., arXiv 2104.09044, figure 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDEST = 512  # channels that are fused, as published


class Fusion(nn.Module):
    """Mixes one stage's feature with what came from the deeper stages, by a learnt attention for each of the two.

    Gives what the teacher's feature is compared with, (B, out_width, H, W), and what the next shallower stage is
    mixed with, (B, fused_width, H, W).
    """

    def __init__(self, in_width: int, fused_width: int, out_width: int, *, is_deepest: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(in_width, fused_width, 1, bias=False), nn.BatchNorm2d(fused_width))
        self.attention = None if is_deepest else nn.Conv2d(2 * fused_width, 2, 1)
        self.widen = nn.Sequential(
            nn.Conv2d(fused_width, out_width, 3, padding=1, bias=False), nn.BatchNorm2d(out_width)
        )

    def forward(self, feature: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Take (B, in_width, H, W) and what the deeper stage gave second, or None at the deepest."""
        fused = self.narrow(feature)  # (B, fused, H, W)
        if self.attention is not None and deeper is not None:
            deeper = functional.interpolate(deeper, fused.shape[2:], mode="nearest")  # (B, fused, H, W)
            weights = self.attention(torch.cat((fused, deeper), dim=1)).sigmoid()  # (B, 2, H, W)
            fused = fused * weights[:, :1] + deeper * weights[:, 1:]
        return self.widen(fused), fused


class Review(nn.Module):
    """Fuses a student's stages, given shallow to deep, and gives them in the teacher's widths, shallow to deep."""

    def __init__(self, student_widths: Sequence[int], teacher_widths: Sequence[int]) -> None:
        super().__init__()
        fused_width, last = min(_WIDEST, student_widths[-1]), len(student_widths) - 1
        self.stages = nn.ModuleList(
            Fusion(ours, fused_width, theirs, is_deepest=i == last)
            for i, (ours, theirs) in enumerate(zip(student_widths, teacher_widths, strict=True))
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Take and give (B, C, H, W) a stage."""
        found: list[Tensor] = []
        deeper: Tensor | None = None
        for stage, feature in zip(reversed(self.stages), reversed(features), strict=True):
            out, deeper = stage(feature, deeper)
            found.insert(0, out)
        return found
