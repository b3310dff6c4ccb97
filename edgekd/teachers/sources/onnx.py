"""An .onnx file as a teacher: onnxruntime runs it, on the processor, wherever the training is (extra `onnx`).

So its logits are the same on every device, as the name of their cache promises. Its first output counts. Weights in
files beside it are read too, as far as 2 GB hold all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.dataset import DataSet
from edgekd.errors import DataError
from edgekd.teachers.base import Teacher
from edgekd.teachers.fitting import imported, reason
from edgekd.teachers.pixels import Sight
from edgekd.teachers.runtimes import Array, Runtime, content_of, runtime_teacher

_ERRORS_ALONE = 3  # of onnxruntime's own log levels; it warns of every graph that it would have liked otherwise


def load(text: str, sight: Sight, data: DataSet) -> Teacher:
    """Load a file.

    Raises:
        DataError: it is missing or damaged, or does not fit the data.
        MissingExtra: onnxruntime is not installed.

    """
    imported("onnxruntime", "onnx")
    content = content_of(Path(text))
    return runtime_teacher(text, _whole(Path(text), content), _ONNXRUNTIME, sight, data)


def _whole(path: Path, content: bytes) -> bytes:
    """Give the content with the weights that lie in other files, if any."""
    onnx = imported("onnx", "onnx")
    try:
        model = onnx.load_model_from_string(content)
        if b"location" not in content:  # the key of every tensor that lies elsewhere, wherever it is used
            return content
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf and onnx raise errors of many kinds
        raise DataError(f"teacher {path}: not a readable ONNX file ({reason(error)})") from error


class OnnxRunner:
    """An open .onnx file."""

    step = 0.0  # its answers are float32

    def __init__(self, content: bytes) -> None:
        """Open it. Raises errors of the runtime's own, and DataError."""
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = _ERRORS_ALONE
        self._session: Any = onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it would tell of its failures on stdout
        )
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            kinds = ", ".join(f"{one.name}: {one.type}" for one in inputs)
            raise DataError(f"it takes {kinds[:80] or 'nothing'}; a teacher takes one tensor(float), images")
        self._name = inputs[0].name
        batch, *image = (size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape)
        self.shape = (batch, *image)
        self._output = self._session.get_outputs()[0].name

    def run(self, images: Array) -> Array:
        """Give the answers (N, classes) to images (N, …), in batches of the file's own size if it has one."""
        batch = self.shape[0] or len(images)
        missing = -len(images) % batch
        whole = np.concatenate([images, *[images[-1:]] * missing])
        answers = [self._answer(whole[i : i + batch]) for i in range(0, len(whole), batch)]
        return np.concatenate(answers)[: len(images)]

    def _answer(self, images: Array) -> Array:
        answers = self._session.run([self._output], {self._name: images})[0]
        if not isinstance(answers, np.ndarray):  # a sequence, or a map of classes
            raise DataError(
                f"its first output is a {type(answers).__name__}; a teacher gives a tensor, (images, classes)"
            )
        return answers.astype(np.float32, copy=False)


_ONNXRUNTIME = Runtime("onnxruntime", OnnxRunner, channels_last=False)
