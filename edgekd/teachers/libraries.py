"""What libraries of networks have in common: NAME, NAME@FILE.safetensors and NAME@random.

Weights that learnt see what they learnt from: the library's mean, deviation and size, unless others are asked for.
Random weights see the data as it is. Which network is which is sources/timm.py's and sources/torchvision.py's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgekd.errors import DataError, UnknownName
from edgekd.teachers.fitting import reason

RANDOM = "random"
OTHER_CLASSES = "train it on this data, and give the weights as @FILE.safetensors behind its name"
_NEAREST = 8  # names that are offered of a thousand


def parted(text: str) -> tuple[str, str]:
    """Part NAME@WEIGHTS; without weights they are those that the library has."""
    name, at, weights = text.partition("@")
    if at and not weights:
        raise DataError(f"teacher {text}: nothing stands behind its @; give a safetensors file, or {RANDOM}")
    return name, weights


def unknown(library: str, name: str, known: Iterable[str]) -> UnknownName:
    """Make the error of a name that the library does not have, with those next to it."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.3)
    return UnknownName(f"network of {library} ({len(names)} are known)", name, near or names[:_NEAREST])


def untrained(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network whose random weights are the same every time. Raises DataError where the library does not."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make()
    except Exception as error:  # a library may raise anything
        raise DataError(f"the library does not make it for this data ({reason(error)}); choose another") from error


def pretrained(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network with the library's own weights, which may have to be downloaded. Raises DataError."""
    try:
        return make()
    except Exception as error:  # of the library, the network and the disk
        raise DataError(
            f"its weights cannot be had ({reason(error)}); give @FILE.safetensors behind its name, or @{RANDOM}"
        ) from error


def put_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network. Raises DataError where it is not one, or of another network."""
    try:
        module.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise DataError(f"weights {path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise DataError(f"weights {path}: not a readable safetensors file ({reason(error)})") from error
    except RuntimeError as error:
        last = str(error).splitlines()[-1].strip()
        raise DataError(f"weights {path} do not fit it, made for this data's classes ({last})") from error
