"""Your own Python function as a teacher's maker: MODULE:CALLABLE, found as Python finds modules, the current folder
first.

It is called without arguments and gives a torch network that takes (B, C, H, W), normalised as the data is, and gives
logits (B, classes). It is your code: nothing is guessed about it, and it runs with your rights. What teaches is
a copy of that network, so that one which is used elsewhere, too, stays as it is.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from edgekd.data.dataset import DataSet
from edgekd.data.sources.callables import called, find
from edgekd.errors import DataError
from edgekd.teachers.base import Teacher
from edgekd.teachers.fitting import ask, code_of, reason, speaking_of, torch_teacher
from edgekd.teachers.pixels import Sight

_SAME = 1e-3  # of the largest answer: what two answers to the same images differ by at most


def load(text: str, sight: Sight, data: DataSet) -> Teacher:
    """Call the function, and see that the network fits; weights that it draws at random are the same every time.

    Raises:
        DataError: it cannot be imported, fails, gives no network, or one that does not fit the data.

    """
    function = find(text, "teacher")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with speaking_of(text):
            made = _made(function)
            module = _own(made, function)
        teacher = torch_teacher(text, module, sight, data, _record(text, function, made))
        with speaking_of(text):
            answers = _answers(teacher.module, data)
    return replace(teacher, sha256=hashlib.sha256(teacher.sha256.encode() + answers).hexdigest())


def _made(function: Callable[[], Any]) -> nn.Module:
    made = called(function)
    if not isinstance(made, nn.Module):
        raise DataError(f"it gives {type(made).__name__}; return a torch.nn.Module")
    return made


def _own(made: nn.Module, function: Callable[[], Any]) -> nn.Module:
    """Give a network that may be changed here: a copy, or what nobody else has."""
    try:
        with torch.no_grad():  # a ScriptModule's copy would have a history
            return copy.deepcopy(made)
    except Exception as error:  # of open files, and of tensors that are computed of others
        if _made(function) is made:
            raise DataError(
                f"it cannot be copied ({reason(error)}), and the function gives the same network each time; "
                "let it make a new one"
            ) from error
        return made


def _record(text: str, function: Callable[[], Any], made: nn.Module) -> dict[str, str]:
    places = (text.partition(":")[0], getattr(function, "__module__", ""))  # where it is named, and where it is made
    code = " ".join(map(code_of, places))
    return {"architecture": type(made).__name__, "callable": text, "code_sha256": code}


def _answers(module: nn.Module, data: DataSet) -> bytes:
    """Ask twice, and give the bytes of what it answers, to which all counts that code and weights do not show.

    On one thread: sums of several may end in other digits, and these digits identify the teacher.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _all_frozen():
            first, second = ask(module, data), ask(module, data)
    finally:
        torch.set_num_threads(threads)
    if not torch.allclose(first, second, rtol=_SAME, atol=_SAME * float(first.abs().max())):
        raise DataError(
            "it answers the same images in two ways; let it draw nothing (dropout?) and keep nothing in mind"
        )
    return first.detach().float().contiguous().numpy().tobytes()


@contextmanager
def _all_frozen() -> Iterator[None]:
    """Refuse parts in train mode that run though the network does not know them, such as those in a plain list."""

    def see(part: nn.Module, inputs: Any) -> None:  # noqa: ARG001 - a hook's form
        if part.training:
            raise DataError(
                f"a part that it does not name as its own runs in train mode ({type(part).__name__}); keep parts in a "
                "torch.nn.ModuleList and not a list, or call their eval()"
            )

    hook = register_module_forward_pre_hook(see)
    try:
        yield
    finally:
        hook.remove()
