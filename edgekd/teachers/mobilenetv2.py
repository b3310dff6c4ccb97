"""MobileNetV2 at CIFAR's size: depthwise convolutions inside inverted residuals with linear ends.

Source: Sandler et al. (arXiv 1801.04381, table 2); the stem and the second stage keep the resolution, as it is common
for 32x32 images, so that three halvings are left.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.errors import UnknownName

WIDTHS = {"mobilenetv2-cifar": 1.0, "mobilenetv2-cifar-half": 0.5}  # × the paper's channels
_STAGES = (  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _HEAD = 32, 1280


class CifarMobileNetV2(nn.Module):
    """`stem`, `stage1` … `stage7`, `head` and `linear`; takes images of any size."""

    def __init__(self, name: str, in_channels: int, classes: int) -> None:
        super().__init__()
        if name not in WIDTHS:
            raise UnknownName("teacher architecture", name, WIDTHS)
        channels = _scaled(_STEM, WIDTHS[name])
        self.stem = nn.Sequential(*_convolution(in_channels, channels, 3))
        for number, (expansion, full_width, blocks, stride) in enumerate(_STAGES, 1):
            width = _scaled(full_width, WIDTHS[name])
            starts = [(channels, stride)] + [(width, 1)] * (blocks - 1)
            stage = [_InvertedResidual(start, width, expansion, step) for start, step in starts]
            self.add_module(f"stage{number}", nn.Sequential(*stage))
            channels = width
        head = _scaled(_HEAD, WIDTHS[name])
        self.head = nn.Sequential(*_convolution(channels, head, 1))
        self.linear = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits (B, classes)."""
        x = self.stem(x)
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"stage{number}")(x)  # (B, C, H, W)
        logits: Tensor = self.linear(self.head(x).mean((2, 3)))
        return logits


class _InvertedResidual(nn.Module):
    """Expand by a 1x1, filter depthwise, project without activation; add the input where the shapes are equal."""

    def __init__(self, in_channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = nn.Sequential(*(_convolution(in_channels, inner, 1) if expansion > 1 else ()))
        self.depthwise = nn.Sequential(*_convolution(inner, inner, 3, stride, groups=inner))
        self.project = nn.Sequential(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))
        self.adds = stride == 1 and in_channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


def _convolution(in_channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU6()]


def _scaled(channels: int, factor: float) -> int:
    """Scale to a multiple of 8, as the paper's networks do."""
    return max(8, int(channels * factor / 8 + 0.5) * 8)
