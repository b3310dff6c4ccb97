"""How a network is trained, as data: optimizer, schedule, augmentation, and everything else that its weights depend on.

`RECIPES` are whole trainings with their sources. A checkpoint of another recipe is refused (checkpoint.py), so what
changes no weight (where it runs, how many workers read images) is not in here but in loop.py's Machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from edgekd.distill.augment import Augmentation
from edgekd.errors import UnknownName, UsageError

Precision = Literal["float32", "bfloat16", "float16"]
Keep = Literal["last", "best"]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What makes a step out of gradients."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1  # the peak, after the warm-up
    momentum: float = 0.9  # of SGD; of AdamW the decay of its mean gradient
    weight_decay: float = 5e-4
    nesterov: bool = True  # SGD's alone
    decay_all: bool = False  # also norms and biases; off after He et al., arXiv 1812.01187

    def __post_init__(self) -> None:
        _one_of("optimizer", self.name, ("sgd", "adamw"))
        _within("learning_rate", self.learning_rate, 0, math.inf, exclusive=True)
        _within("momentum", self.momentum, 0, 1)
        _within("weight_decay", self.weight_decay, 0, math.inf)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the learning rate goes: up linearly, then down along a half cosine or in steps."""

    name: Literal["cosine", "step"] = "cosine"
    warmup_share: float = 0.1  # of all steps
    falls: tuple[float, ...] = ()  # shares of the training at which a step schedule falls
    factor: float = 0.1  # that it falls by

    def __post_init__(self) -> None:
        _one_of("schedule", self.name, ("cosine", "step"))
        _within("warmup_share", self.warmup_share, 0, 1)
        for share in self.falls:
            _within("falls", share, 0, 1)

    def rate_at(self, progress: float) -> float:
        """Give the multiple of the peak at a share of the whole training, from 0 to 1."""
        if progress < self.warmup_share:
            return (progress / self.warmup_share + 1e-2) / (1 + 1e-2)  # the first step is not for nothing
        if self.name == "step":
            return float(self.factor ** sum(progress >= share for share in self.falls))
        left = (progress - self.warmup_share) / (1 - self.warmup_share) if self.warmup_share < 1 else 1.0
        return 0.5 * (1 + math.cos(math.pi * left))


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number of the distillation method itself that is not the published one, as methods/parameters.py names it."""

    name: str
    value: float
    must: bool = True  # a method without it is refused; a preset's own says nothing to such a method


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how hard to train, on which looks of the images."""

    epochs: int
    batch_size: int = 128
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mirror: bool = True  # also show images mirrored left to right
    label_smoothing: float = 0.0  # of the classes' own targets; a teacher's are left alone
    ema_decay: float = 0.0  # of the running mean of the weights, which is then what is judged and kept; 0 is off
    clip_norm: float = 0.0  # that gradients are cut down to; 0 is off
    precision: Precision = "float32"  # of the networks' arithmetic; weights are float32 always
    compile: bool = False  # torch.compile, for methods that compare logits alone
    keep: Keep = "last"  # or the epoch that was best on the validation split, never on the test split
    seed: int = 0
    method: tuple[Parameter, ...] = ()  # at most one of a name
    about: str = ""  # who is taught what by whom; a checkpoint about something else is refused

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            _within(name, getattr(self, name), 1, math.inf)
        _within("label_smoothing", self.label_smoothing, 0, 1)
        _within("ema_decay", self.ema_decay, 0, 1)
        _within("clip_norm", self.clip_norm, 0, math.inf)
        _one_of("precision", self.precision, get_args(Precision))
        _one_of("keep", self.keep, get_args(Keep))


def sgd_recipe(
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    *,
    seed: int = 0,
    mirror: bool = True,
    about: str = "",
) -> Recipe:
    """Make the plain recipe of short trainings: SGD with Nesterov momentum, warm-up, cosine, mirrored images."""
    optimizer = Optimizer(learning_rate=learning_rate)
    return Recipe(epochs, batch_size, optimizer, mirror=mirror, seed=seed, about=about)


def plain(recipe: Recipe) -> dict[str, Any]:
    """Give a recipe as values of JSON, as files spell it; without parameters of the method where there are none."""
    found = asdict(recipe)
    if not recipe.method:
        del found["method"]
    return found


def learning_rate_at(progress: float, recipe: Recipe) -> float:
    """Give the learning rate at a share of the whole training, from 0 to 1."""
    return recipe.optimizer.learning_rate * recipe.schedule.rate_at(progress)


@dataclass(frozen=True, slots=True)
class NamedRecipe:
    """A whole training and where it comes from."""

    make: Callable[[], Recipe]
    source: str


def _embedded_quick() -> Recipe:
    return sgd_recipe(epochs=12, batch_size=64, learning_rate=0.1)


def _cifar_240() -> Recipe:
    falls = tuple(epoch / 240 for epoch in (150, 180, 210))
    return Recipe(
        epochs=240,
        batch_size=64,
        optimizer=Optimizer("sgd", 0.05, 0.9, 5e-4, nesterov=False, decay_all=True),
        schedule=Schedule("step", warmup_share=0.0, falls=falls),
        augmentation=Augmentation(crop_padding=4),
    )


def _imagenet_dist_b1() -> Recipe:
    falls = tuple(epoch / 100 for epoch in (30, 60, 90))
    return Recipe(
        epochs=100,
        batch_size=256,
        optimizer=Optimizer("sgd", 0.1, 0.9, 1e-4, decay_all=True),
        schedule=Schedule("step", warmup_share=0.0, falls=falls),
        augmentation=Augmentation(crop_area=0.08),
        method=(Parameter("tau", 1.0, must=False),),  # DIST's own for ImageNet; 4 is for small images
    )


RECIPES: dict[str, NamedRecipe] = {
    "embedded-quick": NamedRecipe(_embedded_quick, "edgekd's own, for small sets on a CPU: 12 epochs, cosine"),
    "cifar-240": NamedRecipe(_cifar_240, "the common CIFAR-100 benchmarks (Tian et al., arXiv 1910.10699, section 4)"),
    "imagenet-dist-b1": NamedRecipe(_imagenet_dist_b1, "baseline strategy B1 of DIST (Huang et al., arXiv 2205.10536)"),
}


def recipe_named(name: str) -> Recipe:
    """Give a preset; change it with dataclasses.replace. Raises UnknownName."""
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return RECIPES[name].make()


def _within(name: str, value: float, low: float, high: float, *, exclusive: bool = False) -> None:
    if not (low < value if exclusive else low <= value) or not value <= high or value == math.inf:
        bound = "above" if exclusive else "at least"
        limit = "" if high == math.inf else f" and at most {high:g}"
        raise UsageError(f"recipe {name} is {value}; it must be {bound} {low:g}{limit}")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownName(name, value, known)
