"""Your own Python function as a teacher's maker: MODULE:CALLABLE, found as Python finds modules, the current folder
first.

It is called without arguments and gives a torch network that takes (B, C, H, W), normalised as the data is, and gives
logits (B, classes). It is your code: nothing is guessed about it, and it runs with your rights.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekd.data.dataset import DataSet
from edgekd.data.sources.callables import find
from edgekd.errors import DataError
from edgekd.teachers.base import Teacher
from edgekd.teachers.fitting import code_of, reason, torch_teacher
from edgekd.teachers.pixels import Sight


def load(text: str, sight: Sight, data: DataSet) -> Teacher:
    """Call the function, and see that the network fits; weights that it draws at random are the same every time.

    Raises:
        DataError: it cannot be imported, fails, gives no network, or one that does not fit the data.

    """
    function = find(text, "teacher")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = function()
    except Exception as error:  # a user's function may raise anything
        raise DataError(f"teacher {text}: the function failed ({reason(error)})") from error
    if not isinstance(made, nn.Module):
        raise DataError(f"teacher {text}: it gives {type(made).__name__}; return a torch.nn.Module")
    places = (text.partition(":")[0], getattr(function, "__module__", ""))  # where it is named, and where it is made
    code = " ".join(map(code_of, places))
    record = {"architecture": type(made).__name__, "callable": text, "code_sha256": code}
    return torch_teacher(text, made, sight, data, record)
