"""Runs finished artifacts with their own runtimes on the host: what a user would do with the file alone.

No torch here: accuracy and parity come from the file and the runtime, nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.errors import MissingExtra
from edgekd.graph.ir import FloatArray


def run_tflite(content: bytes, images: FloatArray) -> FloatArray:
    """Give the logits (N, classes) of preprocessed images (N, H, W, C), one at a time as on a device."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    image, logits = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for i in range(len(images)):
        interpreter.set_tensor(image, images[i : i + 1])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(logits))
    return np.concatenate(rows)


def run_onnx(path: Path, images: FloatArray, batch_size: int = 100) -> FloatArray:
    """Give the logits (N, classes) of preprocessed images (N, H, W, C).

    Raises:
        MissingExtra: onnxruntime is not installed.

    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    chunks = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    return np.concatenate([session.run(None, {name: chunk})[0] for chunk in chunks])


def share_right(logits: FloatArray, labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    """Give the share of rows whose largest logit is the label's, from 0 to 1."""
    return float((logits.argmax(1) == labels).mean())
