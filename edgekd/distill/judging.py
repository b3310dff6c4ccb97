"""What a network says, and how often it is right; it never changes one."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distill.loader import Source, parts

Module = torch.nn.Module


@torch.no_grad()
def accuracy(network: Module, samples: Source, batch_size: int = 500) -> float:
    """Give the share of samples classified right, from 0 to 1; the module is left in the mode it was in."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        found = [(network(images).argmax(1) == labels).sum() for images, labels in parts(samples, batch_size, device)]
    finally:
        network.train(was_training)
    return int(torch.stack(found).sum()) / len(samples)


@torch.no_grad()
def predict(network: Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Give logits (N, classes) in eval mode; the module is left in the mode it was in."""
    was_training = network.training
    network.eval()
    try:
        return torch.cat([network(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
    finally:
        network.train(was_training)
