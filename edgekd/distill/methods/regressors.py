"""What makes a student's feature fit a teacher's: a learnt 1x1 convolution for the width, averages for the grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


class Regressor(nn.Module):
    """Maps a student's feature (B, Cs, H, W) onto a teacher's width: 1x1 convolution and batch norm."""

    def __init__(self, student_feature: Tensor, teacher_feature: Tensor) -> None:
        super().__init__()
        student_width, teacher_width = student_feature.shape[1], teacher_feature.shape[1]
        self.conv = nn.Conv2d(student_width, teacher_width, 1, bias=False)
        self.norm = nn.BatchNorm2d(teacher_width)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="linear")

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Give both features in one shape, (B, Ct, H, W) of the coarser grid."""
        mapped: Tensor = self.norm(self.conv(student_feature))
        return on_one_grid(mapped, teacher_feature)


def on_one_grid(student_feature: Tensor, teacher_feature: Tensor) -> tuple[Tensor, Tensor]:
    """Average both features over the coarser of their grids, axis by axis; (B, C, H, W), any widths."""
    height = min(student_feature.shape[2], teacher_feature.shape[2])
    width = min(student_feature.shape[3], teacher_feature.shape[3])
    return _averaged(student_feature, (height, width)), _averaged(teacher_feature, (height, width))


def _averaged(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if feature.shape[2:] == size else functional.adaptive_avg_pool2d(feature, size)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make first weights a function of the seed; torch's global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
