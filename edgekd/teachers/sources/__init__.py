"""Where teachers come from: one small file a source, one entry here. What every source gives is a Teacher (base.py).

embedded                        the network that comes with edgekd
FILE, file:FILE                 weights of an architecture known here: .safetensors, or a .toml that describes them
timm:NAME                       a network of timm with its pretrained weights; @FILE.safetensors takes others
torchvision:NAME                the same of torchvision; @random of both is untrained
onnx:FILE, FILE.onnx            a network in onnxruntime's hands
tflite:FILE, FILE.tflite        a network in LiteRT's hands, float or quantised
MODULE:CALLABLE                 your own Python function
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekd.data.dataset import DataSet
from edgekd.data.sources.callables import is_name
from edgekd.errors import DataError
from edgekd.teachers.base import Teacher
from edgekd.teachers.pixels import Sight
from edgekd.teachers.sources import callables, file, onnx, tflite, timm, torchvision

Load = Callable[[str, Sight, DataSet], Teacher]  # what stands behind the prefix, its pixels if said, what it must fit

_PREFIXES: dict[str, Load] = {
    "file": file.load,
    "onnx": onnx.load,
    "tflite": tflite.load,
    "timm": timm.load,
    "torchvision": torchvision.load,
}


def source_of(text: str) -> tuple[Load, str]:
    """Find who loads a source, and what it is to load.

    Raises:
        DataError: nothing stands behind a prefix.

    """
    if text == "embedded":
        return file.load, str(file.EMBEDDED)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _PREFIXES:
        if not rest:
            raise DataError(f"teacher {text!r} names nothing after its colon; give {prefix}:NAME")
        return _PREFIXES[prefix], rest
    kind = Path(text).suffix.removeprefix(".")
    if kind in ("onnx", "tflite"):
        return _PREFIXES[kind], text
    return (callables.load if is_name(text) else file.load), text
