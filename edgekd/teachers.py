"""Where a teacher comes from: the embedded one, or a safetensors file of an architecture known here.

A file's metadata names its architecture, classes, input shape and recipe. A teacher is given frozen and in eval mode.
Training one is tools/train_teacher.py; using one is distill/.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, UnknownName

EMBEDDED = Path(__file__).with_name("data") / "teacher.safetensors"
_RESNET_DEPTHS = {"resnet8": 1, "resnet14": 2, "resnet20": 3, "resnet56": 9}  # blocks a stage; depth = 6·n + 2


@dataclass(frozen=True, slots=True)
class Teacher:
    """A frozen network and where it came from; `module` takes (B, C, H, W) and gives logits (B, classes)."""

    name: str
    sha256: str
    module: nn.Module
    record: dict[str, str]  # the file's metadata: architecture, recipe, accuracy …


class CifarResNet(nn.Module):
    """The ResNet of He et al. (arXiv 1512.03385, section 4.2): three stages of 16, 32, 64 channels, option A."""

    def __init__(self, name: str, in_channels: int, classes: int) -> None:
        super().__init__()
        if name not in _RESNET_DEPTHS:
            raise UnknownName("teacher architecture", name, _RESNET_DEPTHS)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, channels = _RESNET_DEPTHS[name], 16
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


def load(source: str, data: DataSet) -> Teacher:
    """Load `embedded` or a safetensors file, and check that it fits the data.

    Raises:
        DataError: the file is missing, damaged, or made for other classes or image shapes.

    """
    path = EMBEDDED if source == "embedded" else Path(source)
    record, tensors = _read(path)
    _check_fit(path, record, data)  # before the network is made: a damaged size could ask for terabytes
    module = CifarResNet(record["architecture"], int(record["in_channels"]), int(record["classes"]))
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"teacher {path}: weights do not fit {record['architecture']} ({reason})") from error
    module.eval().requires_grad_(requires_grad=False)
    return Teacher(source, hashlib.sha256(path.read_bytes()).hexdigest(), module, record)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            record = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise DataError(f"teacher {path}: no such file; give `embedded` or a safetensors file") from error
    except (OSError, SafetensorError) as error:
        raise DataError(f"teacher {path}: not a readable safetensors file ({error})") from error
    missing = [key for key in ("architecture", "classes", "in_channels", "input_shape") if key not in record]
    if missing or not all(record[key].isdecimal() for key in ("classes", "in_channels")):
        raise DataError(f"teacher {path}: its metadata does not name {', '.join(missing) or 'numbers of classes'}")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise DataError(f"teacher {path}: a weight is not finite")
    return record, tensors


def _check_fit(path: Path, record: dict[str, str], data: DataSet) -> None:
    shape = list(data.train.images.shape[1:])
    if int(record["classes"]) != data.classes:
        raise DataError(f"teacher {path} knows {record['classes']} classes, the data {data.name} has {data.classes}")
    if record["input_shape"] != json.dumps(shape) or int(record["in_channels"]) != shape[-1]:
        raise DataError(f"teacher {path} takes images {record['input_shape']}, the data {data.name} has {shape}")
