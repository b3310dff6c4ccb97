"""Training checkpoints: weights, optimiser state, epoch and thread count in one safetensors file, written atomically.

Order and augmentation are functions of the seed, so no generator is stored. A checkpoint of another recipe, or a
damaged one, is refused and never half used.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from edgekd.errors import DataError
from edgekd.files import write_atomic

if TYPE_CHECKING:
    from edgekd.distill.train import Recipe

_FORMAT = "edgekd-checkpoint-1"


def save(
    path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, epochs_done: int
) -> None:
    """Write the state after a whole epoch."""
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.contiguous()
    metadata = {
        "format": _FORMAT,
        "recipe": _spelled(recipe),
        "epochs_done": str(epochs_done),
        "threads": str(torch.get_num_threads()),
    }
    write_atomic(path, to_bytes(tensors, metadata))


def restore(path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe) -> int:
    """Load a checkpoint if there is one; give the number of epochs done.

    Raises:
        DataError: the file is damaged, or of another recipe or thread count.

    """
    if not path.exists():
        return 0
    metadata, tensors = _read(path)
    _check(path, metadata, {"recipe": _spelled(recipe), "threads": str(torch.get_num_threads())})
    epochs_done = metadata.get("epochs_done", "")
    if not epochs_done.isdecimal() or not 0 < int(epochs_done) <= recipe.epochs:
        raise DataError(f"checkpoint {path} holds {epochs_done!r} epochs of {recipe.epochs}; remove it")
    _apply(path, tensors, network, optimizer)
    return int(epochs_done)


def load_weights(path: Path, network: torch.nn.Module, recipe: Recipe) -> None:
    """Load only the weights of a finished training, for export.

    Raises:
        DataError: the file is missing, damaged, of another training, or of an unfinished one.

    """
    if not path.exists():
        raise DataError(f"checkpoint {path} does not exist; run edgekd distil first")
    metadata, tensors = _read(path)
    _check(path, metadata, {"recipe": _spelled(recipe)})
    epochs_done, epochs = metadata.get("epochs_done", ""), recipe.epochs
    if epochs_done != str(epochs):
        raise DataError(f"checkpoint {path} holds {epochs_done!r} epochs of {epochs}; run edgekd distil to finish it")
    _load_model(path, tensors, network)


def _spelled(recipe: Recipe) -> str:
    return json.dumps(dataclasses.asdict(recipe))


def _check(path: Path, metadata: dict[str, str], wanted: dict[str, str]) -> None:
    for name, value in wanted.items():
        if metadata.get(name) != value:
            raise DataError(f"checkpoint {path} was made with {name} {metadata.get(name)}, not {value}; remove it")


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise DataError(f"checkpoint {path} cannot be read ({error}); remove it to train anew") from error
    if metadata.get("format") != _FORMAT:
        raise DataError(f"checkpoint {path} is of format {metadata.get('format')!r}, not {_FORMAT}; remove it")
    return metadata, tensors


def _load_model(path: Path, tensors: dict[str, Tensor], network: torch.nn.Module) -> None:
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"checkpoint {path} is of another network ({reason}); remove it") from error


def _apply(path: Path, tensors: dict[str, Tensor], network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    _load_model(path, tensors, network)
    for name, parameter in network.named_parameters():
        momentum = tensors.get(f"momentum.{name}")
        if momentum is None or momentum.shape != parameter.shape:
            raise DataError(f"checkpoint {path} lacks the optimiser state of {name}; remove it to train anew")
        # the strides decide the order of sums inside the kernels: keep the parameter's, as in the undisturbed run
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
