"""Plain networks: 3x3 convolutions one after the other, without shortcuts.

Source: Simonyan and Zisserman (arXiv 1409.1556), with batch norms and one classifier over the global mean instead of
three, as CIFAR-sized VGGs have it. The name's number counts the layers with weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.errors import UnknownName

# (width, convolutions) of each stage; max pooling halves the image between two stages
STAGES: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg8": ((32, 2), (64, 2), (128, 3)),  # half of VGG's widths: small enough to be trained on a CPU in minutes
    "vgg11": ((64, 2), (128, 2), (256, 3), (512, 3)),
}


class CifarVgg(nn.Module):
    """A stack of stages `stage1`, `stage2`, … and a classifier `linear`; takes images of any size."""

    def __init__(self, name: str, in_channels: int, classes: int) -> None:
        super().__init__()
        if name not in STAGES:
            raise UnknownName("teacher architecture", name, STAGES)
        channels = in_channels
        for number, (width, convolutions) in enumerate(STAGES[name], 1):
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if number > 1 else []
            for index in range(convolutions):
                layers += _convolution(width if index else channels, width)
            self.add_module(f"stage{number}", nn.Sequential(*layers))
            channels = width
        self.stages = len(STAGES[name])
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits (B, classes)."""
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"stage{number}")(x)  # (B, C, H, W)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _convolution(in_channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
