"""A user's own network as a student: MODULE:CALLABLE, which is called without arguments and gives a torch module.

It is seen to fit the data before anything is trained, and its weights are written so that it can load them again. It is
the user's code: nothing is guessed about it. Training it is student.py's; exporting foreign networks is nobody's here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from edgekd.data.dataset import DataSet, Split
from edgekd.data.sources.callables import find
from edgekd.distill.views import samples_of
from edgekd.errors import DataError
from edgekd.files import write_atomic

FORMAT = "edgekd-own-student-1"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")  # in what a module says of itself; another in every process


@dataclass(frozen=True, slots=True)
class OwnStudent:
    """A fresh network, and a word that tells it from others: its name, and a hash of its form and first weights."""

    module: nn.Module
    identity: str


def own_student(text: str, data: DataSet, seed: int) -> OwnStudent:
    """Import MODULE, call its CALLABLE with torch's generator set to the seed, and see that the network fits the data.

    Raises:
        DataError: it cannot be imported or made, or does not take the data's images or give its classes.

    """
    make = find(text, "student")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = make()
        except Exception as error:  # a user's function may raise anything
            raise DataError(f"student {text}: the function failed ({type(error).__name__}: {error})") from error
    if not isinstance(module, nn.Module):
        raise DataError(f"student {text}: it gives {type(module).__name__}; return a torch.nn.Module")
    weights = module.state_dict()
    odd = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        raise DataError(
            f"student {text}: its state holds {odd!r}, which is no tensor and cannot be written; leave it out"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise DataError(f"student {text}: none of its parameters asks for gradients, so there is nothing to train")
    _see_fit(text, module, data)
    return OwnStudent(module, f"{text}#{_digest(module, weights)}")


def _see_fit(text: str, module: nn.Module, data: DataSet) -> None:
    """Let the network look at two images."""
    images = samples_of(data, Split(data.train.images[:2], data.train.labels[:2])).images
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            logits = module(images)
    except Exception as error:  # a user's network may raise anything
        reason = " ".join(str(error).split())[:200]
        shape = list(images.shape[1:])
        raise DataError(
            f"student {text}: it does not take images {shape} (channels, height, width) of data {data.name}: {reason}"
        ) from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    if not isinstance(logits, Tensor):
        raise DataError(f"student {text}: it gives {type(logits).__name__}; return logits, a tensor (B, classes)")
    if logits.shape != (len(images), data.classes):
        raise DataError(
            f"student {text}: it gives logits {list(logits.shape)} for {len(images)} images, and the data {data.name} "
            f"has {data.classes} classes; let its last layer have {data.classes} outputs"
        )


def _digest(module: nn.Module, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_ADDRESS.sub("", repr(module)).encode())
    for name, tensor in weights.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_weights(path: Path, module: nn.Module, record: Mapping[str, str]) -> None:
    """Write a network's state under its own names; `record` goes beside it as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    write_atomic(path, to_bytes(tensors, {"format": FORMAT, **record}))
