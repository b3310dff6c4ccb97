"""A running mean of a network's weights, which is often better than the last of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMean:
    """Follows a network's weights and statistics: mean ← decay · mean + (1 − decay) · weights after every step.

    The decay begins small, (1 + n) / (10 + n) at step n, so that first weights are soon forgotten. Integers, which
    count batches, are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._network = network
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights in after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self._network.state_dict().items():
            mean = self.tensors[name]
            if mean.is_floating_point():
                mean.lerp_(tensor, 1 - decay)
            else:
                mean.copy_(tensor)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from kept means. Raises KeyError or RuntimeError where they are another network's."""
        for name, mean in self.tensors.items():
            mean.copy_(tensors[name])
