"""Your own Python function as a source: MODULE:CALLABLE, found as Python finds modules, the current folder first.

It is called without arguments and gives a mapping of the six arrays that an npz file would hold (npz.py), which are
checked in the same way. It is your code: nothing is guessed about it, and it runs with your rights.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.dataset import SPLITS, DataSet
from edgekd.data.pictures import Wanted
from edgekd.data.sources.npz import checked
from edgekd.errors import DataError

_MOST_SAID = 300  # characters of what a function says of its failure
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_name(text: str) -> bool:
    """Tell whether a text has the form MODULE:CALLABLE."""
    return _NAME.fullmatch(text) is not None


def find(text: str, what: str) -> Callable[..., Any]:
    """Import MODULE and give its CALLABLE; `what` says in errors what it is for.

    Raises:
        DataError: there is no such module or callable, or importing it failed.

    """
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: the user's own module lies where they work
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise DataError(f"{what} {text}: cannot import {module_name} ({type(error).__name__}: {error})") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise DataError(f"{what} {text}: module {module_name} has no callable {name!r}")
    return found  # type: ignore[no-any-return] # whatever it is, it can be called


def called(function: Callable[[], Any], whose: str = "") -> Any:
    """Call a user's function; `whose` begins the message where it fails. Raises DataError, of one line."""
    try:
        return function()
    except Exception as error:  # a user's function may raise anything
        words = " ".join(str(error).split())[:_MOST_SAID]
        reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
        raise DataError(f"{whose}the function failed ({reason})") from error


def load(text: str, wanted: Wanted) -> DataSet:  # noqa: ARG001 - every source has this form
    """Call the function and check what it gives.

    Raises:
        DataError: it cannot be imported, fails, or does not give six fitting arrays.

    """
    given = called(find(text, "data"), f"data {text}: ")
    if not isinstance(given, Mapping):
        raise DataError(f"data {text}: it gives {type(given).__name__}; return a dict of six arrays, as an npz holds")
    try:
        arrays = {str(name): np.asarray(value) for name, value in given.items()}
        digest = _sha256(arrays)
    except ValueError as error:  # lists of unequal length; dates, which have no bytes
        raise DataError(f"data {text}: what it gives cannot be made arrays of numbers ({error})") from error
    return checked(text, arrays, digest)


def _sha256(arrays: Mapping[str, Any]) -> str:
    """Hash what the function gave: its code may change without its name."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for name in (f"{split}_images", f"{split}_labels"):
            if name in arrays:
                digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
                digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
