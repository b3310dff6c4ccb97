"""Training checkpoints: one safetensors file, written atomically, with all that a training goes on from.

    model.*            what is to be shipped as of now: the weights, their running mean, or the best epoch's
    raw.*              the weights in training, where those are others
    ema.*              their running mean
    guide.*            what the method itself learns or remembers
    optim.model.NAME.KEY, optim.guide.NAME.KEY     the optimizer's state of one parameter
    total              the sum of the losses of an epoch that is not whole

Order and augmentation are functions of the seed, so no generator is stored. A checkpoint of another recipe, or a
damaged one, is refused and never half used. Formats: 1 knew SGD and whole epochs alone; 2 is this one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from edgekd.distill.ema import RunningMean
from edgekd.distill.engine import Engine
from edgekd.distill.recipe import Recipe, plain
from edgekd.errors import DataError
from edgekd.files import write_atomic

FORMAT = "edgekd-checkpoint-2"

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Done:
    """How far a training has come."""

    epochs: int = 0  # whole ones
    steps: int = 0  # of the next
    total: Tensor | None = None  # of those steps' losses
    threads: int = 0  # that it was trained with; 0 is not known

    @property
    def anything(self) -> bool:
        """Tell whether there is something to go on from."""
        return self.epochs > 0 or self.steps > 0


@dataclass(slots=True)
class Best:
    """The best epoch so far, where that is what is kept."""

    accuracy: float = -math.inf
    weights: Weights = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a training that change."""

    network: nn.Module
    guide: nn.Module
    optimizer: torch.optim.Optimizer
    engine: Engine
    mean: RunningMean | None
    best: Best

    def current(self) -> Weights:
        """Give the weights that are judged after an epoch: the running mean, or those in training."""
        return self.mean.tensors if self.mean else dict(self.network.state_dict())

    def shipped(self) -> Weights:
        """Give the weights that count as of now."""
        return self.best.weights or self.current()

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Give what is learnt, by its name in the file."""
        for role, module in (("model", self.network), ("guide", self.guide)):
            for name, parameter in module.named_parameters():
                yield f"{role}.{name}", parameter


def save(path: Path, state: State, recipe: Recipe, done: Done) -> None:
    """Write the state after a whole epoch, or after some steps of one."""
    tensors = _prefixed("model", state.shipped()) | _prefixed("guide", state.guide.state_dict())
    if state.mean or state.best.weights:
        tensors |= _prefixed("raw", state.network.state_dict())
    if state.mean:
        tensors |= _prefixed("ema", state.mean.tensors)
    if done.total is not None:
        tensors["total"] = done.total
    learnt = {
        name: _tensors_of(state.optimizer.state[p]) for name, p in state.parameters() if p in state.optimizer.state
    }
    for name, kept in learnt.items():
        tensors |= {f"optim.{name}.{key}": value for key, value in kept.items()}
    metadata = {
        "format": FORMAT,
        "recipe": _spelled(recipe),
        "epochs_done": str(done.epochs),
        "steps_done": str(done.steps),
        "threads": str(torch.get_num_threads()),
        "engine": json.dumps(state.engine.state()),
        "best": json.dumps(state.best.accuracy if state.best.weights else None),
        "optimizer": json.dumps({name: sorted(kept) for name, kept in learnt.items()}),
    }
    write_atomic(path, to_bytes({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def restore(path: Path, state: State, recipe: Recipe) -> Done:
    """Load a checkpoint if there is one; give how far it had come.

    Raises:
        DataError: the file is damaged, or of another recipe.

    """
    if not path.exists():
        return Done()
    file = _read(path)
    _check(path, file.metadata, recipe)
    done = _done(path, file, recipe)
    raw = file.part("raw") or file.part("model")
    _load_module(path, state.network, raw)
    _load_module(path, state.guide, file.part("guide"))
    try:
        if state.mean:
            state.mean.load(file.part("ema"))
        state.engine.load(_numbers(file.metadata.get("engine", "{}")))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"checkpoint {path} lacks a part of its state ({error}); remove it to train anew") from error
    best = _number(path, file.metadata.get("best", "null"))
    if best is not None:
        state.best.accuracy, state.best.weights = best, file.part("model")
    _load_optimizer(path, file, state)
    return done


def load_weights(path: Path, network: nn.Module, recipe: Recipe) -> None:
    """Load only the weights of a finished training, for export.

    Raises:
        DataError: the file is missing, damaged, of another training, or of an unfinished one.

    """
    if not path.exists():
        raise DataError(f"checkpoint {path} does not exist; run edgekd distil first")
    file = _read(path)
    _check(path, file.metadata, recipe)
    epochs_done, epochs = file.metadata.get("epochs_done", ""), recipe.epochs
    if epochs_done != str(epochs):
        raise DataError(f"checkpoint {path} holds {epochs_done!r} epochs of {epochs}; run edgekd distil to finish it")
    _load_module(path, network, file.part("model"))


# --- the file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    metadata: Mapping[str, str]
    tensors: Weights

    def part(self, role: str) -> Weights:
        start = f"{role}."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


def _read(path: Path) -> _File:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise DataError(f"checkpoint {path} cannot be read ({error}); remove it to train anew") from error
    if metadata.get("format") != FORMAT:
        raise DataError(f"checkpoint {path} is of format {metadata.get('format')!r}, not {FORMAT}; remove it")
    return _File(metadata, tensors)


def _prefixed(role: str, tensors: Mapping[str, Tensor]) -> Weights:
    # copies, since two roles may share a tensor, and a file of safetensors holds none twice
    return {f"{role}.{name}": t.detach().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def _tensors_of(kept: Mapping[str, object]) -> Weights:
    return {key: value for key, value in kept.items() if isinstance(value, Tensor)}  # None is SGD's without momentum


def _spelled(recipe: Recipe) -> str:
    return json.dumps(plain(recipe))


def _check(path: Path, metadata: Mapping[str, str], recipe: Recipe) -> None:
    if metadata.get("recipe") != _spelled(recipe):
        raise DataError(
            f"checkpoint {path} was made with recipe {metadata.get('recipe')}, not {_spelled(recipe)}; remove it"
        )


def _done(path: Path, file: _File, recipe: Recipe) -> Done:
    epochs, steps = (file.metadata.get(name, "") for name in ("epochs_done", "steps_done"))
    threads, total = file.metadata.get("threads", ""), file.tensors.get("total")
    if not all(text.isascii() and text.isdecimal() and len(text) < 10 for text in (epochs, steps, threads)):
        raise DataError(f"checkpoint {path} holds {epochs!r} epochs and {steps!r} steps; remove it")
    done = Done(int(epochs), int(steps), total, int(threads))
    if not done.anything or done.epochs + (done.steps > 0) > recipe.epochs or (done.steps > 0) != (total is not None):
        raise DataError(f"checkpoint {path} holds {epochs} epochs and {steps} steps of {recipe.epochs}; remove it")
    return done


def _numbers(text: str) -> dict[str, float]:
    found = json.loads(text)
    return {str(name): float(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _number(path: Path, text: str) -> float | None:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"checkpoint {path} holds the accuracy {text[:40]!r}; remove it") from error
    return float(found) if isinstance(found, int | float) else None


def _load_module(path: Path, module: nn.Module, weights: Weights) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"checkpoint {path} is of another network ({reason}); remove it") from error


def _load_optimizer(path: Path, file: _File, state: State) -> None:
    """Load what the file says that it has of each parameter; one that had no gradient yet has none."""
    try:
        held = json.loads(file.metadata.get("optimizer", ""))
        kept = {str(name): [str(key) for key in keys] for name, keys in held.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"checkpoint {path} does not say what its optimizer held; remove it to train anew") from error
    for name, parameter in state.parameters():
        for key in kept.get(name, ()):
            value = file.tensors.get(f"optim.{name}.{key}")
            if value is None or (value.ndim > 0 and value.shape != parameter.shape):
                plain = name.partition(".")[2]
                raise DataError(f"checkpoint {path} lacks the optimiser state of {plain}; remove it to train anew")
            # the strides decide the order of sums inside the kernels: keep the parameter's, as in the undisturbed run
            place = torch.empty_like(parameter) if value.ndim else torch.empty_like(value, device=parameter.device)
            state.optimizer.state[parameter][key] = place.copy_(value)
