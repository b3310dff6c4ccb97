"""A network in another runtime's hands, asked as a torch network is: batches (B, C, H, W) in, logits (B, classes) out.

It has no modules to tap. Many exported networks end in a softmax; as logits their probabilities would be far too flat,
so their logarithm is taken, which gives back the logits but for a number that all classes share. Which runtime it is
and what its files may hold is sources/onnx.py's and sources/tflite.py's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, EdgekdError
from edgekd.teachers.base import LOGITS, Teacher, freeze
from edgekd.teachers.fitting import ask, check_channels, reason, shape_of, speaking_of
from edgekd.teachers.pixels import Sight, Size, see

Array = npt.NDArray[Any]
_SUM_TOLERANCE = 1e-3  # of probabilities in float32, or in float16 before they were put out
_MAX_BYTES = 1 << 31  # what a flatbuffer or a protocol buffer can hold
_LEAST = float(np.finfo(np.float32).tiny)  # whose logarithm is still a number


class Runner(Protocol):
    """An open file."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Give the shape of the images that it takes, (N, H, W, C) or (N, C, H, W); None is free."""
        ...

    @property
    def step(self) -> float:
        """Give by how much two of its answers differ at least where they are quantised; 0 where they are not."""
        ...

    def run(self, images: Array) -> Array:
        """Give the answers (N, classes), float32, to images (N, …), float32."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime: what it is called, what opens a file's content (and may raise anything), and its own layout."""

    name: str
    opens: Callable[[bytes], Runner]
    channels_last: bool  # where a shape does not tell


class RuntimeNetwork(nn.Module):
    """Runs a file's content; a copy in another process opens it again."""

    def __init__(self, content: bytes, runtime: Runtime) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # where it lies, as of networks with weights
        self.channels_last = runtime.channels_last
        self.gives_probabilities = False
        self._content, self._opens = content, runtime.opens
        self._runner: Runner | None = None
        self._threads = 0  # that the open file works with

    @property
    def runner(self) -> Runner:
        """Give the open file; it works with as many threads as torch does now, on which its sums depend."""
        threads = torch.get_num_threads()
        if self._runner is None or self._threads != threads:
            self._runner, self._threads = self._opens(self._content), threads
        return self._runner

    def forward(self, x: Tensor) -> Tensor:
        """Give logits (B, classes)."""
        images = x.permute(0, 2, 3, 1) if self.channels_last else x
        answers = torch.from_numpy(self.runner.run(np.ascontiguousarray(images.detach().float().cpu().numpy())))
        answers = answers.flatten(1) if answers.ndim > 2 else answers  # (B, 1, 1, classes) of some exporters
        if self.gives_probabilities:
            answers = answers.clamp_min(self.runner.step / 2 or _LEAST).log()
        return answers.to(x.device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_runner": None}


def runtime_teacher(name: str, content: bytes, runtime: Runtime, sight: Sight, data: DataSet) -> Teacher:
    """Make a teacher of a file's content; it sees images in the file's own size and layout.

    Raises:
        DataError: the runtime does not take it, or it does not fit the data.

    """
    module = RuntimeNetwork(content, runtime)
    with speaking_of(name):
        try:
            shape = module.runner.shape
        except EdgekdError:
            raise
        except Exception as error:  # a runtime may raise anything at a damaged file
            raise DataError(f"not a file that {runtime.name} runs ({reason(error)})") from error
        module.channels_last = _is_channels_last(shape, runtime, data)
        wanted = Sight(size=_size(shape, sight, module, data)).over(sight)
        see(module, wanted, data)
        answers = ask(module, data)
        module.gives_probabilities = _are_probabilities(answers, module.runner.step)
    record = {
        "runtime": runtime.name,
        "classes": str(data.classes),
        "answers": "probabilities" if module.gives_probabilities else "logits",
        **wanted.record(),
    }
    digest = hashlib.sha256(json.dumps(record).encode() + hashlib.sha256(content).digest()).hexdigest()
    return Teacher(name, digest, freeze(module), record, LOGITS)


def content_of(path: Path) -> bytes:
    """Read a file. Raises DataError where it is not there, or too large for the formats that runtimes read."""
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"teacher {path}: it has {size} bytes; a file has {_MAX_BYTES} at most")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"teacher {path}: it cannot be read ({error.strerror or error})") from error


def _is_channels_last(shape: tuple[int | None, ...], runtime: Runtime, data: DataSet) -> bool:
    """Find the layout by the number of channels."""
    if len(shape) != 4:
        raise DataError(f"it takes {_spelled(shape)}; a teacher takes images (N, H, W, C) or (N, C, H, W)")
    channels = shape_of(data)[2]
    first, last = (count in (channels, None) for count in (shape[1], shape[3]))
    if not first and not last:
        known = min(count for count in (shape[1], shape[3]) if count is not None)  # no image is as small as that
        check_channels(known, data)
    if (shape[1] == channels) != (shape[3] == channels):
        return shape[3] == channels
    return runtime.channels_last if first and last else last


def _size(shape: tuple[int | None, ...], sight: Sight, module: RuntimeNetwork, data: DataSet) -> Size:
    """Give the size in which the file takes images: its own, or else that wanted, or the data's."""
    own = shape[1:3] if module.channels_last else shape[2:4]
    height, width, _ = shape_of(data)
    free = sight.size or (height, width)
    size = (own[0] or free[0], own[1] or free[1])
    if sight.size and size != sight.size:
        raise DataError(f"it takes images {_spelled(shape)} alone, not of size {list(sight.size)}; leave the size out")
    return size


def _spelled(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if count is None else str(count) for count in shape) + "]"


def _are_probabilities(answers: Tensor, step: float) -> bool:
    """Tell whether the answers are not below 0 and sum to 1, as far as they were rounded."""
    tolerance = max(_SUM_TOLERANCE, answers.shape[1] * step / 2)
    return bool((answers >= 0).all()) and bool(((answers.sum(1) - 1).abs() <= tolerance).all())
