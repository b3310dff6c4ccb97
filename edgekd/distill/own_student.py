"""A user's own network as a student: MODULE:CALLABLE, which is called without arguments and gives a torch module.

It is seen to fit the data before anything is trained, and its weights are written so that it can load them again. It is
the user's code: nothing is guessed about it. Training it is student.py's; exporting foreign networks is nobody's here.
"""

from __future__ import annotations

import copy
import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from edgekd.data.dataset import DataSet, Split
from edgekd.data.sources.callables import called, find
from edgekd.distill.views import samples_of
from edgekd.errors import DataError
from edgekd.files import write_atomic

FORMAT = "edgekd-own-student-1"
_LEVELS = 100  # of an answer; two computers' rounding hardly ever makes two levels of one
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")  # in what a module says of itself; another in every process


@dataclass(frozen=True, slots=True)
class OwnStudent:
    """A fresh network, and a word that tells it from others: its name, and a hash of form, weights and answers."""

    module: nn.Module
    identity: str


def own_student(text: str, data: DataSet, seed: int) -> OwnStudent:
    """Import MODULE, call its CALLABLE with all generators set to the seed, and see that the network fits the data.

    Raises:
        DataError: it cannot be imported or made, or does not take the data's images or give its classes.

    """
    make = find(text, "student")
    with _seeded(seed):
        module = called(make, f"student {text}: ")
        if not isinstance(module, nn.Module):
            raise DataError(f"student {text}: it gives {type(module).__name__}; return a torch.nn.Module")
        _see_state(text, module)
        answers = _see_fit(text, module, data)  # lazy layers draw their weights here
    return OwnStudent(module, f"{text}#{_digest(module, answers)}")


def unlike(before: str, now: str) -> str:
    """Say why two identities of one function may differ, in brackets; "" where they are of two functions, or equal."""
    if before == now or before.partition("#")[0] != now.partition("#")[0] or "#" not in before:
        return ""
    return " (the function gives another network each time, or was changed; what it draws must come from the seed)"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set torch's, numpy's and Python's generators to a seed, and put them back behind the block."""
    drawn, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(drawn)
            np.random.set_state(numbers)


def _see_state(text: str, module: nn.Module) -> None:
    """See that the network holds what can be written and learnt."""
    odd = next((name for name, value in module.state_dict().items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        raise DataError(
            f"student {text}: its state holds {odd!r}, which is no tensor and cannot be written; leave it out"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise DataError(f"student {text}: none of its parameters asks for gradients, so there is nothing to train")


def _see_fit(text: str, module: nn.Module, data: DataSet) -> Tensor:
    """Let the network look at two images in eval mode, and a copy of it in train mode, where it may go other ways.

    The answers in eval mode are given back, (2, classes).
    """
    images = samples_of(data, Split(data.train.images[:2], data.train.labels[:2])).images
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        answers = _see_answer(text, module, images, data)
    finally:
        for part, mode in modes.items():
            part.training = mode
    try:
        copied = copy.deepcopy(module)
    except Exception:  # noqa: BLE001 - what a user's module holds may refuse to be copied, and need not be
        return answers
    _see_answer(f"{text} in train mode", copied.train(), images, data)
    return answers


def _see_answer(text: str, module: nn.Module, images: Tensor, data: DataSet) -> Tensor:
    try:
        with torch.no_grad():
            logits = module(images)
    except Exception as error:  # a user's network may raise anything
        reason = " ".join(str(error).split())[:200]
        shape = list(images.shape[1:])
        raise DataError(
            f"student {text}: it does not take images {shape} (channels, height, width) of data {data.name}: {reason}"
        ) from error
    if not isinstance(logits, Tensor):
        raise DataError(f"student {text}: it gives {type(logits).__name__}; return logits, a tensor (B, classes)")
    if logits.shape != (len(images), data.classes):
        raise DataError(
            f"student {text}: it gives logits {list(logits.shape)} for {len(images)} images, and the data {data.name} "
            f"has {data.classes} classes; let its last layer have {data.classes} outputs"
        )
    return logits


def _digest(module: nn.Module, answers: Tensor) -> str:
    """Hash what the network says of itself, its weights, and its answers, by which a changed `forward` is seen."""
    digest = hashlib.sha256(_ADDRESS.sub("", repr(module)).encode())
    largest = answers.abs().max().clamp_min(torch.finfo(answers.dtype).tiny)
    coarse = (answers / largest * _LEVELS).nan_to_num().round().to(torch.int16)  # alike whatever the rounding of sums
    digest.update(coarse.cpu().numpy().tobytes())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_weights(path: Path, module: nn.Module, record: Mapping[str, str]) -> None:
    """Write a network's state under its own names; `record` goes beside it as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    write_atomic(path, to_bytes(tensors, {"format": FORMAT, **record}))
