"""REINFORCE with the AKD agent's own policy: what PPO, the critic and ranks have to be worth.

Source: Williams, Simple Statistical Gradient-Following Algorithms (1992), with a moving average of the rewards as
baseline, as in Zoph and Le (arXiv 1611.01578, section 3.2). Each batch is used once; no critic, no entropy term.

Read next: learned.py for proposals and batches; akd.py for the agent that it is compared with.
"""

from __future__ import annotations

import math

import torch

from edgekd.search.engines.akd_settings import AkdSettings
from edgekd.search.engines.base import EngineSettings, Evaluated
from edgekd.search.engines.learned import Batch, LearnedEngine
from edgekd.search.engines.policy import Widths, chosen

DECAY = 0.95  # of the moving averages, a result: they look about twenty results back
MAX_GRAD_NORM = 0.5
LEAST_DEVIATION = 1e-8  # equal rewards: nothing is to be learned, and nothing divided by zero


class ReinforceEngine(LearnedEngine):
    """Propose decision vectors with a policy that follows the plain policy gradient.

    Rewards are centred and scaled by moving averages, so that one learning rate, the AKD agent's for that budget, fits
    every reward's unit. Failed and infeasible candidates have no treatment of their own.
    """

    def __init__(self, decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> None:
        ours = AkdSettings.suited_to(settings)
        super().__init__(decision_sizes, settings, Widths(ours.embedding, ours.hidden), seed)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=ours.learning_rate, fused=True)
        self._told = 0
        self._mean = self._square = 0.0  # moving averages before the correction for how few they are of

    def _note_result(self, item: Evaluated) -> None:
        self._told += 1
        self._mean = DECAY * self._mean + (1 - DECAY) * item.reward
        self._square = DECAY * self._square + (1 - DECAY) * item.reward**2

    def _learn(self, batch: Batch) -> None:
        """Step once along the gradient of log-probability × (reward − baseline)."""
        weight = 1 - DECAY**self._told
        baseline = self._mean / weight
        deviation = math.sqrt(max(0.0, self._square / weight - baseline**2))
        rewards = torch.tensor([item.reward for item in batch.items], dtype=torch.float64)
        advantages = ((rewards - baseline) / max(deviation, LEAST_DEVIATION)).float()  # (B,)
        if deviation < LEAST_DEVIATION:
            return
        log_probs, _ = self._policy(batch.choices)  # (B, D, O)
        loss = -(chosen(log_probs, batch.choices).mean(dim=1) * advantages).mean()
        self._step(loss, self._optimizer, MAX_GRAD_NORM)
