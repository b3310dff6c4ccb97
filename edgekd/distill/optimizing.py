"""Optimizers of a recipe over the student and what a method itself learns."""

from __future__ import annotations

import torch
from torch import nn

from edgekd.distill.methods.base import Guide
from edgekd.distill.recipe import Recipe, learning_rate_at


def optimizer_for(student: nn.Module, guide: Guide, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer; norms and biases do not decay unless the recipe says so (He et al., arXiv 1812.01187)."""
    settings = recipe.optimizer
    groups = [*_groups(student, recipe, 1.0), *(group for group in _groups(guide, recipe, guide.rate))]
    groups = [group for number, group in enumerate(groups) if group["params"] or number == 0]
    # a fused step takes the scale off float16's gradients itself, which comes too late for cutting them
    fused = not (recipe.precision == "float16" and recipe.clip_norm)
    if settings.name == "adamw":
        betas = (settings.momentum, 0.999)
        return torch.optim.AdamW(groups, settings.learning_rate, betas, fused=fused)
    nesterov = settings.nesterov and settings.momentum > 0
    optimizer = torch.optim.SGD(groups, settings.learning_rate, settings.momentum, nesterov=nesterov, fused=fused)
    if settings.momentum:
        _begin_at_rest(optimizer)
    return optimizer


def _begin_at_rest(optimizer: torch.optim.SGD) -> None:
    """Give every parameter a momentum of 0, which makes the same first step as none.

    The fused kernel takes momenta of all or of none, and a method may reach some parameters later than others.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _groups(module: nn.Module, recipe: Recipe, rate: float) -> list[dict[str, object]]:
    decay, every = recipe.optimizer.weight_decay, recipe.optimizer.decay_all
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in learnt if parameter.ndim > 1 or every]
    others = [parameter for parameter in learnt if not (parameter.ndim > 1 or every)]
    return [
        {"params": weights, "weight_decay": decay, "rate": rate},
        {"params": others, "weight_decay": 0.0, "rate": rate},
    ]


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, progress: float) -> None:
    """Set every group's learning rate at a share of the training, from 0 to 1."""
    rate = learning_rate_at(progress, recipe)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
