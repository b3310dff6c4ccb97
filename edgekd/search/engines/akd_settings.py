"""The AKD agent's settings; apart from the agent because reading settings must not import torch.

Read next: akd.py, the agent itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.search.engines.base import EngineSettings, require


@dataclass(frozen=True)
class AkdSettings(EngineSettings):
    """Set the AKD agent; it stands here, not beside the agent, because reading settings must not import torch.

    The defaults are the best of sweeps over studies of 120 noisy rewards in spaces of 28 and 42 decisions, and of 1,000
    evaluations of 28 (docs/search_agent.md). They expect ``batch`` to be the study's own batch: an update between two
    asks of one batch costs a fifth of the gain.
    """

    learning_rate: float = 1e-2  # for 120 rewards; suited_to adapts it to the budget
    epochs: int = 6
    clip: float = 0.3  # wider than PPO's usual 0.2: with a dozen updates in all, each has to count
    value_weight: float = 0.5
    entropy_weight: float = 3e-2  # at 1e-2 one search in four settled early on something worse
    max_grad_norm: float = 0.5
    embedding: int = 32
    hidden: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("learning_rate", "clip", "max_grad_norm"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "above 0 and finite")
        for name in ("value_weight", "entropy_weight"):
            require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "at least 0 and finite")
        for name in ("epochs", "embedding", "hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")

    @classmethod
    def suited_to(cls, settings: EngineSettings) -> AkdSettings:
        """Choose the agent's settings for a study's budget and batch."""
        return cls(settings.budget, settings.batch, settings.feasible_ms, learning_rate_for(settings.budget))


def learning_rate_for(budget: int) -> float:
    """Return the agent's learning rate for a study of ``budget`` rewards: 1e-2 at 120, falling with its square root.

    Short studies must commit early and long ones keep exploring: at 120 rewards 2e-3 gained half as much as 1e-2, at
    1,000 rewards 2e-3 to 5e-3 found equally good vectors and 1e-2 worse ones. Rates above 1.5e-2 were no better. From 8
    to 42 decisions the same rates did well, so their number is not asked for.
    """
    return min(1.5e-2, max(2e-3, 1e-2 * math.sqrt(120 / budget)))
