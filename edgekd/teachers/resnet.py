"""CIFAR's residual networks: the family of the embedded teacher."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edgekd.errors import UnknownName

DEPTHS = {"resnet8": 1, "resnet14": 2, "resnet20": 3, "resnet56": 9}  # blocks a stage; depth = 6·n + 2


class CifarResNet(nn.Module):
    """The ResNet of He et al. (arXiv 1512.03385, section 4.2): three stages of 16, 32, 64 channels, option A."""

    def __init__(self, name: str, in_channels: int, classes: int) -> None:
        super().__init__()
        if name not in DEPTHS:
            raise UnknownName("teacher architecture", name, DEPTHS)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, channels = DEPTHS[name], 16
        for number, width in enumerate((16, 32, 64)):
            stage = [_ResBlock(channels if i == 0 else width, width) for i in range(blocks)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*stage))
            channels = width
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits (B, classes)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        for number in (1, 2, 3):
            x = self.get_submodule(f"layer{number}")(x)  # (B, C, H, W)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class _ResBlock(nn.Module):
    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if in_channels == width else 2
        self.conv1 = nn.Conv2d(in_channels, width, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.extra = width - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.extra:  # option A: zero channels, half before and half behind
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return functional.relu(y + shortcut)
