"""Where images come from: one small file a source, one entry here. What every source gives is a DataSet (dataset.py).

embedded                      the set that comes with edgekd
FILE.npz                      six arrays in one file
FOLDER, folder:FOLDER         images in folders of classes
torchvision:CLASS:FOLDER      a torchvision set that lies on disk already
datasets:FOLDER               a Hugging Face set saved with save_to_disk
MODULE:CALLABLE               your own Python function
"""

from __future__ import annotations

from collections.abc import Callable

from edgekd.data.dataset import DataSet
from edgekd.data.pictures import Wanted
from edgekd.data.sources import callables, embedded, folder, huggingface, npz, torchvision
from edgekd.errors import DataError

Source = Callable[[str, Wanted], DataSet]

_PREFIXES: dict[str, Source] = {
    "folder": folder.load,
    "torchvision": torchvision.load,
    "datasets": huggingface.load,
}


def source_of(text: str) -> tuple[Source, str]:
    """Find who loads a source, and what it is to load.

    Raises:
        DataError: the text names no source.

    """
    if text == "embedded":
        return embedded.load, text
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _PREFIXES:
        if not rest:
            raise DataError(f"data {text!r} names nothing after its colon; give {prefix}:FOLDER")
        return _PREFIXES[prefix], rest
    if folder.is_folder(text):
        return folder.load, text
    if colon and callables.is_name(text):
        return callables.load, text
    return npz.load, text
