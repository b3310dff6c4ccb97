"""Taps: what a network's modules put out during its own forward pass, by module path, the model left as it is.

`stage_ends` finds paths by resolution, `Taps` listens at paths with forward hooks and takes them off again, `pairs`
matches a student's stages with a teacher's. The features' losses are in losses/features.py, what
is done with them in methods/.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgekd.errors import UsageError

Size = tuple[int, int]  # height and width of a feature

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # they group modules, and are no blocks by themselves


class UnknownTap(UsageError):
    """A path that names no module of the network; the message gives the nearest."""

    def __init__(self, path: str, known: Iterable[str]) -> None:
        paths = [name for name in known if name]
        nearest = difflib.get_close_matches(path, paths, n=3, cutoff=0.3) or paths[:3]
        hint = f"the nearest are {', '.join(nearest)}" if nearest else "it has no modules"
        super().__init__(f"no module {path!r} to tap among the network's {len(paths)}: {hint}")


class UntappableModule(UsageError):
    """A module was tapped that gave nothing to use."""


class Taps:
    """Listens at modules while the `with` block lasts: run the network, then `take` what it put out."""

    def __init__(self, network: nn.Module, paths: Sequence[str]) -> None:
        """Find the modules.

        Raises:
            UnknownTap: a path names none.

        """
        self.paths = tuple(paths)
        self._modules = [_module_at(network, path) for path in self.paths]
        self._handles: list[RemovableHandle] = []
        self._taken: dict[str, tuple[Tensor, int | None]] = {}

    def __enter__(self) -> Self:
        for path, module in zip(self.paths, self._modules, strict=True):
            self._handles.append(module.register_forward_hook(self._listener(path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._taken.clear()

    def take(self) -> tuple[Tensor, ...]:
        """Give the features of the last forward pass in the order of the paths, and forget them.

        Raises:
            UntappableModule: a module did not run, or its output was changed in place by another since.

        """
        taken, self._taken = self._taken, {}
        for path in self.paths:
            if path not in taken:
                raise UntappableModule(f"the tapped module {path!r} did not run in the forward pass: tap another")
            feature, version = taken[path]
            if version != _version(feature):
                raise UntappableModule(
                    f"what the tapped module {path!r} gave was changed in place by a later one: tap that one"
                )
        return tuple(taken[path][0] for path in self.paths)

    def _listener(self, path: str) -> Any:
        def listen(module: nn.Module, args: tuple[Any, ...], output: object) -> None:  # noqa: ARG001 - torch's form
            if not isinstance(output, Tensor) or output.ndim not in {2, 4}:
                what = f"a tensor of {output.ndim} dimensions" if isinstance(output, Tensor) else type(output).__name__
                raise UntappableModule(
                    f"the tapped module {path!r} gives {what}: tap one that gives a tensor (B, C, H, W) or (B, D)"
                )
            self._taken[path] = output, _version(output)

        return listen


def _version(feature: Tensor) -> int | None:
    """Count the changes in place, as autograd does; under torch.inference_mode nobody counts."""
    return None if feature.is_inference() else feature._version


def _module_at(network: nn.Module, path: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if path not in modules or not path:
        raise UnknownTap(path, modules)
    return modules[path]


@dataclass(frozen=True, slots=True)
class _Call:
    """One module's run in a forward pass, in the order of completion."""

    path: str
    before: Size  # of its first input
    after: Size  # of its output


def stage_ends(network: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Find the end of each stage, shallow to deep: the last module that puts out a resolution before it shrinks.

    A module inside the very block that shrinks it is no end of a stage: not the expansion of an inverted residual,
    but the block before. 1x1 maps (pooling, squeeze and excitation) count only where nothing else is put out.
    `images` (B, C, H, W) are run once, in eval mode and without gradients; the modes are put back.

    Raises:
        UntappableModule: no module puts out feature maps.

    """
    calls = _calls(network, images)
    sizes = _shrinking(call.after for call in calls if call.after != (1, 1)) or _shrinking(c.after for c in calls)
    if not sizes:
        raise UntappableModule("no module of the network puts out feature maps (B, C, H, W): name the taps")
    blocks = [_changes(path, calls, sizes) for path in _blocks(network)]
    return tuple(_end(size, calls, [path for path, first in blocks if first == size]) for size in sizes)


def _end(size: Size, calls: Sequence[_Call], shrinking: Sequence[str]) -> str:
    found = [call.path for call in calls if call.after == size]
    ends = [path for path in found if not any(_is_inside(path, block) for block in shrinking)]
    return (ends or found)[-1]


def _calls(network: nn.Module, images: Tensor) -> list[_Call]:
    """Run the network once and note which module put out which size; modules outside the forward pass are missing."""
    calls: list[_Call] = []

    def listener(path: str) -> Any:
        def listen(module: nn.Module, args: tuple[Any, ...], output: object) -> None:  # noqa: ARG001 - torch's form
            given = args[0] if args else None
            if isinstance(output, Tensor) and output.ndim == 4:
                before = given if isinstance(given, Tensor) and given.ndim == 4 else output
                calls.append(_Call(path, _size(before), _size(output)))

        return listen

    handles = [module.register_forward_hook(listener(path)) for path, module in network.named_modules() if path]
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode  # each its own: a norm may have been frozen in a network that trains
    return calls


def _size(feature: Tensor) -> Size:
    return (feature.shape[2], feature.shape[3])


def _shrinking(sizes: Iterable[Size]) -> list[Size]:
    """Keep each size that is smaller than all before it; padding for a stride makes others in between."""
    kept: list[Size] = []
    for size in sizes:
        if not kept or size[0] * size[1] < kept[-1][0] * kept[-1][1]:
            kept.append(size)
    return kept


def _blocks(network: nn.Module) -> list[str]:
    """Name the modules of several parts with a forward of their own, and the bare namespaces of modules that run."""
    paths = []
    for path, module in network.named_modules():
        children = list(module.children())
        bare = type(module) is nn.Module and any(type(child) is not nn.Module for child in children)
        custom = type(module) is not nn.Module and not isinstance(module, _CONTAINERS)
        if path and children and (bare or custom):
            paths.append(path)
    return paths


def _changes(path: str, calls: Sequence[_Call], sizes: Sequence[Size]) -> tuple[str, Size | None]:
    """Give a block with the resolution that it begins with, or None unless it shrinks it exactly once."""
    inside = [call for call in calls if _is_inside(call.path, path)]
    seen = {size for call in inside for size in (call.before, call.after) if size in sizes}
    return path, inside[0].before if len(seen) == 2 and inside[0].before != inside[-1].after else None


def _is_inside(path: str, block: str) -> bool:
    return path == block or path.startswith(f"{block}.")


def pairs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Match feature maps (B, C, H, W), shallow to deep: those of one resolution, or else the deepest with the deepest.

    Gives indices into both. Where fewer than two resolutions agree (the teacher may see larger images), the last maps
    of both are matched one by one from the end. What is no map, an embedding (B, D), is passed over.
    """
    students, teachers = _maps(student), _maps(teacher)
    at_size = {_size(teacher[index]): index for index in teachers}
    equal = [(i, at_size[_size(student[i])]) for i in students if _size(student[i]) in at_size]
    count = min(len(students), len(teachers))
    if len(equal) >= min(2, count):
        return tuple(equal)
    return tuple(zip(students[len(students) - count :], teachers[len(teachers) - count :], strict=True))


def _maps(features: Sequence[Tensor]) -> list[int]:
    return [index for index, feature in enumerate(features) if feature.ndim == 4]
