"""What makes steps: plain torch, or Lightning Fabric where precision is mixed or devices are several.

On one device in float32 nothing but torch is imported. Fabric's processes are started by several.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from edgekd.distill.recipe import Precision
from edgekd.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Forward = Callable[..., Tensor]
_MIXED = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


class Engine(Protocol):
    """How one training's steps are made; `set_up` comes first."""

    rank: int  # of this process, 0 keeps the files
    ranks: int

    def set_up(self, exercise: nn.Module, optimizer: torch.optim.Optimizer) -> Forward:
        """Give the exercise as it is to be called."""
        ...

    def step(self, loss: Tensor, clip_norm: float) -> None:
        """Go back from a loss and change the weights; gradients above a norm are cut down to it, 0 cuts nothing."""
        ...

    def autocast(self) -> AbstractContextManager[None]:
        """Give the block in which a network computes in the engine's precision."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """Give a scalar's mean over all processes."""
        ...

    def state(self) -> dict[str, float]:
        """Give what must be kept beside weights and optimizer: the scale of float16's losses."""
        ...

    def load(self, state: dict[str, float]) -> None:
        """Go on from a kept state."""
        ...


class Plain:
    """One device, float32."""

    rank, ranks = 0, 1

    def __init__(self) -> None:
        self._optimizer: torch.optim.Optimizer | None = None
        self._parameters: list[nn.Parameter] = []

    def set_up(self, exercise: nn.Module, optimizer: torch.optim.Optimizer) -> Forward:
        """Take both as they are."""
        self._optimizer = optimizer
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        return exercise

    def step(self, loss: Tensor, clip_norm: float) -> None:
        """Make a step."""
        if self._optimizer is None:
            raise RuntimeError("step() before set_up()")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        if clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, clip_norm)
        self._optimizer.step()

    def autocast(self) -> AbstractContextManager[None]:
        """Give a block that changes nothing."""
        return nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """Give the value."""
        return value

    def state(self) -> dict[str, float]:
        """Give nothing."""
        return {}

    def load(self, state: dict[str, float]) -> None:
        """Take nothing."""


class Fabrics:
    """Lightning Fabric's way: autocast, scaled losses, gradients averaged over processes."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.rank, self.ranks = fabric.global_rank, fabric.world_size
        self._wrapped: Any = None
        self._optimizer: Any = None

    def set_up(self, exercise: nn.Module, optimizer: torch.optim.Optimizer) -> Forward:
        """Wrap both."""
        self._wrapped, self._optimizer = self._fabric.setup(exercise, optimizer)
        wrapped: Forward = self._wrapped
        return wrapped

    def step(self, loss: Tensor, clip_norm: float) -> None:
        """Make a step; float16 skips one whose gradients overflow, and scales losses down."""
        self._optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        if clip_norm:
            self._fabric.clip_gradients(self._wrapped, self._optimizer, max_norm=clip_norm, error_if_nonfinite=False)
        self._optimizer.step()

    def autocast(self) -> AbstractContextManager[None]:
        """Give Fabric's block."""
        return self._fabric.autocast()

    def mean(self, value: Tensor) -> Tensor:
        """Ask all processes."""
        reduced = self._fabric.all_reduce(value, reduce_op="mean")
        return reduced if isinstance(reduced, Tensor) else value

    def state(self) -> dict[str, float]:
        """Give the scaler's numbers, if there is one."""
        return {name: float(value) for name, value in self._scaler().items()}

    def load(self, state: dict[str, float]) -> None:
        """Set the scaler's numbers."""
        known = self._scaler()
        if known and state:
            precision = self._fabric.strategy.precision
            precision.load_state_dict({name: type(known[name])(state[name]) for name in known})

    def _scaler(self) -> dict[str, float]:
        return self._fabric.strategy.precision.state_dict()


def engine_for(precision: Precision, device: torch.device) -> Engine:
    """Give the engine of one device.

    Raises:
        UsageError: the device does not compute in that precision.
        MissingExtra: Fabric is needed and not installed.

    """
    if precision == "float32":
        return Plain()
    return Fabrics(fabric_for(precision, device, 1))


def fabric_for(precision: Precision, device: torch.device, devices: int, *, find_unused: bool = False) -> Fabric:
    """Make the Fabric of so many devices of a kind; several wait for their processes. Raises as engine_for."""
    if precision == "float16" and device.type == "cpu":
        raise UsageError("precision float16 needs a GPU; on a CPU choose bfloat16 or float32")
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ModuleNotFoundError as error:
        raise MissingExtra("lightning-fabric", "gpu") from error
    if devices == 1:
        chosen = 1 if device.type == "cpu" else [device.index or 0]
        return Fabric(accelerator=device.type, devices=chosen, precision=_MIXED[precision])  # type: ignore[arg-type]  # a literal of many forms
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=find_unused)
    return Fabric(accelerator=device.type, devices=devices, strategy=strategy, precision=_MIXED[precision])  # type: ignore[arg-type]  # as above
