"""A .tflite file as a teacher, float or quantised: LiteRT runs it, image by image as on a device.

Its first output counts. Quantised inputs and outputs are put into numbers and back by the file's own scales. A
damaged file can end the runtime's process: it is run once in another before it is opened here (tflite_trial.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError
from edgekd.teachers.base import Teacher
from edgekd.teachers.pixels import Sight
from edgekd.teachers.runtimes import Array, Runtime, content_of, runtime_teacher

_TRIAL_S = 300  # to start, open the file and run it once; a teacher that is so slow teaches nobody


def load(text: str, sight: Sight, data: DataSet) -> Teacher:
    """Load a file.

    Raises:
        DataError: it is missing or damaged, or does not fit the data.

    """
    content = content_of(Path(text))
    _try_elsewhere(text, content)
    return runtime_teacher(text, content, _LITERT, sight, data)


def _try_elsewhere(text: str, content: bytes) -> None:
    """See in another process that the file does not end the one that runs it; other failures are found later."""
    # -P: of the modules beside the program one is called onnx, as a library that it may need
    command = [sys.executable, "-P", str(Path(__file__).with_name("tflite_trial.py"))]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=_TRIAL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"teacher {text}: LiteRT takes over {_TRIAL_S} s for an image; choose a smaller one") from error
    if done.returncode < 0:
        raise DataError(f"teacher {text}: it ends the process that runs it (signal {-done.returncode}); export it anew")


class LiteRunner:
    """An open .tflite file."""

    def __init__(self, content: bytes) -> None:
        """Open it. Raises ValueError or RuntimeError, of the runtime, and DataError."""
        import torch
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=torch.get_num_threads())
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1:
            raise DataError(f"it takes {len(inputs)} inputs; a teacher takes one, images")
        signature = inputs[0].get("shape_signature", inputs[0]["shape"])
        self.shape = (None, *(None if size < 0 else int(size) for size in signature[1:]))
        self._allocated: tuple[int, ...] = ()
        self._input, self._output = inputs[0], self._interpreter.get_output_details()[0]
        self.step = _step(self._output)

    def run(self, images: Array) -> Array:
        """Give the answers (N, classes) to images (N, …)."""
        one = (1, *images.shape[1:])
        if one != self._allocated:
            self._interpreter.resize_tensor_input(self._input["index"], one)
            self._interpreter.allocate_tensors()
            self._allocated = one
        return np.concatenate([self._answer(images[i : i + 1]) for i in range(len(images))])

    def _answer(self, image: Array) -> Array:
        self._interpreter.set_tensor(self._input["index"], quantised(image, self._input))
        self._interpreter.invoke()
        return numbers_of(self._interpreter.get_tensor(self._output["index"]), self._output)


_LITERT = Runtime("LiteRT", LiteRunner, channels_last=True)


def _step(details: dict[str, Any]) -> float:
    scales = details["quantization_parameters"]["scales"]
    return float(scales[0]) if len(scales) else 0.0


def _zero(details: dict[str, Any]) -> int:
    return int(details["quantization_parameters"]["zero_points"][0])


def quantised(image: Array, details: dict[str, Any]) -> Array:
    """Put real numbers into those of a tensor, as its `details` say; beyond its range they are cut off.

    Raises:
        DataError: it takes whole numbers and has no scale.

    """
    dtype, step = np.dtype(details["dtype"]), _step(details)
    if dtype.kind == "f":
        return image.astype(dtype)
    if not step:
        raise DataError(f"it takes {dtype} images without a scale; export it with a quantised or a float input")
    limits = np.iinfo(dtype)
    numbers: Array = np.clip(np.rint(image / step) + _zero(details), limits.min, limits.max).astype(dtype)
    return numbers


def numbers_of(answers: Array, details: dict[str, Any]) -> Array:
    """Give the real numbers, float32, of a tensor's own."""
    step = _step(details)
    numbers: Array = answers.astype(np.float32)
    return (numbers - _zero(details)) * np.float32(step) if step else numbers
