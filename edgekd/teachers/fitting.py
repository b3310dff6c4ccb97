"""Whether a network of unknown making fits the data, found by asking it; and what identifies it.

It is asked once, about a few training images, when it is loaded: a teacher that fails, or speaks of other classes, is
refused then and not in the middle of a training. Files of edgekd's own kind say what they are for (sources/file.py).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, EdgekdError, MissingExtra
from edgekd.files import sha256_of
from edgekd.teachers.base import EVERYTHING, LOGITS, Shape, Teacher, freeze
from edgekd.teachers.pixels import Sight, see

_ASKED = 4  # images; enough to tell probabilities from other numbers
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of an object without a name, another in every process
_PLAIN = (bool, int, float, str, tuple)  # values of settings; others hold parts, or have no one spelling
# another size may put right what speaks of these
_OF_SIZE = re.compile(r"\b(sizes?|shapes?|dim(ension)?s?|height|width|columns?|rows?)\b")
_NOT_OF_SIZE = re.compile(r"channel|implement")  # what no other size puts right
_FAULTS = (AttributeError, ImportError, LookupError, NameError, NotImplementedError, TypeError)  # nor these
_REASON_LENGTH = 300  # what another project says of its failure may be a page


def torch_teacher(name: str, module: nn.Module, sight: Sight, data: DataSet, record: Mapping[str, str]) -> Teacher:
    """Make a teacher of a torch network: frozen, seeing what it wants to see, asked once.

    Raises:
        DataError: it does not fit the data, or cannot be frozen, or a weight is not finite.

    """
    told = {**record, "classes": str(data.classes), **sight.record()}
    known = {key: value for key, value in told.items() if key != "weights"}  # whose values count, not their place
    with speaking_of(name), _wary():
        is_script = any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())
        if is_script:
            module = nn.Sequential(module)  # a ScriptModule takes no hooks, its surroundings do
        freeze(module)
        see(module, sight, data)
        ask(module, data)
        digest = sha256_of_module(module, json.dumps(known))
    return Teacher(name, digest, module, told, LOGITS if is_script else EVERYTHING)


@contextmanager
def _wary() -> Iterator[None]:
    """Make an error of edgekd's own of whatever a module of unknown making raises."""
    try:
        yield
    except EdgekdError:
        raise
    except Exception as error:
        raise DataError(f"it cannot be frozen and hashed ({reason(error)}); give a plain torch.nn.Module") from error


@contextmanager
def speaking_of(name: str) -> Iterator[None]:
    """Name the teacher in what is said of it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"teacher {name}: {error}") from error


def shape_of(data: DataSet) -> Shape:
    """Give (H, W, C) of the data's images."""
    height, width, channels = data.train.images.shape[1:]
    return height, width, channels


def check_classes(classes: int, data: DataSet, advice: str = "choose a teacher for this data") -> None:
    """Raise DataError unless a teacher knows as many classes as the data has."""
    if classes != data.classes:
        raise DataError(f"it knows {classes} classes, the data {data.name} has {data.classes}; {advice}")


def check_channels(channels: int, data: DataSet) -> None:
    """Raise DataError unless a teacher takes images of as many channels as the data has."""
    own = shape_of(data)[2]
    if channels != own:
        raise DataError(
            f"it takes images of {channels} channels, the data {data.name} has {own}; choose a teacher for this data"
        )


def ask(module: nn.Module, data: DataSet) -> Tensor:
    """Ask a network about the first training images; give its logits (N, classes).

    Raises:
        DataError: it fails, or what it gives are no finite logits of the data's classes.

    """
    pixels = data.preprocess(data.train.images[:_ASKED])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).clone()  # (N, C, H, W), aligned as torch does it
    try:
        with torch.no_grad():
            logits = module(images)
    except EdgekdError:
        raise
    except Exception as error:  # a network of unknown making may raise anything
        shape, advice = list(shape_of(data)), _advice(module, images, error)
        raise DataError(f"it fails on images {shape} ({reason(error)}); {advice}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        what = f"a tensor {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise DataError(f"for {len(images)} images it gives {what}; a teacher gives logits (images, classes)")
    check_classes(logits.shape[1], data)
    if not bool(torch.isfinite(logits).all()):
        raise DataError("its logits of the first training images are not finite; choose another teacher")
    return logits


def _advice(module: nn.Module, images: Tensor, error: Exception) -> str:
    """Say what may help a network that failed on several images at once."""
    try:
        with torch.no_grad():
            module(images[:1])
    except Exception:  # noqa: BLE001 - as before it may raise anything, and was told already
        words = str(error).lower()
        if isinstance(error, _FAULTS) or _NOT_OF_SIZE.search(words) or not _OF_SIZE.search(words):
            return "choose a teacher that takes such images, (B, C, H, W)"
        return "where another size helps, `,size=N` behind its name resizes"
    return f"it takes one image at a time, and not {len(images)}: make or export it for any number"


def reason(error: BaseException) -> str:
    """Give an error of another project in one short line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:_REASON_LENGTH]}" if words else type(error).__name__


def imported(package: str, extra: str) -> ModuleType:
    """Import a library whose networks are wanted.

    Raises:
        MissingExtra: it, or what it needs, is not installed.
        DataError: it is installed and cannot be imported.

    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or package, extra) from error
    except Exception as error:  # such as of a torchvision that was built for another torch
        raise DataError(f"{package} cannot be imported ({reason(error)}); install one that fits your torch") from error


# --- identity ---------------------------------------------------------------------------------------------------------


def sha256_of_module(module: nn.Module, known: str) -> str:
    """Hash all that a network's answers depend on: what is known of it, its code, its settings and its numbers.

    Raises:
        DataError: a weight is not finite.

    """
    digest = hashlib.sha256()
    for text in (known, _ADDRESS.sub("", repr(module)), *_settings(module), *_code(module)):
        digest.update(hashlib.sha256(text.encode()).digest())
    for name, tensor in sorted(chain(module.named_parameters(), module.named_buffers()), key=lambda item: item[0]):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"its weight {name} is not finite; train it anew")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(module: nn.Module) -> Iterator[str]:
    """Spell the plain attributes of the network's parts, many of which its own words leave out."""
    for path, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN)}
        yield _ADDRESS.sub("", f"{path} {sorted(plain.items())}")


def _code(module: nn.Module) -> Iterator[str]:
    """Hash the source files of the network's classes; torch's own count as settled."""
    names = {type(part).__module__ for part in module.modules()}
    return (code_of(name) for name in sorted(names) if name.partition(".")[0] != "torch")


def code_of(name: str) -> str:
    """Hash the source file of an imported module; "" is one without a file."""
    path = getattr(sys.modules.get(name), "__file__", None)
    return sha256_of(Path(path)) if isinstance(path, str) and Path(path).is_file() else ""
