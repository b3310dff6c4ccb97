"""The AKD agent: an LSTM actor-critic that learns by PPO from the ranks of its rewards.

Sources: Search to Distill (Liu et al., arXiv 1911.09074) for the agent, PPO (Schulman et al., arXiv 1707.06347)
for its update. It takes rewards as told: accuracy, latency and teachers are the study's business.

What is not in the papers: a reward counts by its rank among all told so far, so that the differences among the best,
which shrink as a search converges, keep their weight, and one broken rating has none. docs/search_agent.md says what
this gained and what did not help.

Read next: learned.py for proposals and batches, policy.py for the network.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from edgekd.search.engines.akd_settings import AkdSettings
from edgekd.search.engines.base import EngineSettings, Evaluated
from edgekd.search.engines.learned import Batch, LearnedEngine
from edgekd.search.engines.policy import Widths, chosen


@dataclass(frozen=True)
class UpdateReport:
    """What one PPO update saw: losses and gradient norm of its last epoch, and how far policies had drifted."""

    rewards_told: int
    first_ratio_gap: float  # largest |new/old probability - 1| before the first step; 0 up to rounding if on-policy
    policy_loss: float
    value_loss: float
    entropy: float  # nats a decision
    grad_norm: float  # before clipping


class AkdEngine(LearnedEngine):
    """Propose decision vectors with a learned policy that PPO improves after every ``settings.batch`` rewards."""

    def __init__(self, decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> None:
        if not isinstance(settings, AkdSettings):
            settings = AkdSettings.suited_to(settings)
        super().__init__(decision_sizes, settings, Widths(settings.embedding, settings.hidden), seed)
        self.last_update: UpdateReport | None = None
        self._settings = settings
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=settings.learning_rate, fused=True)
        self._told: list[Evaluated] = []  # by rank, ascending

    def _note_result(self, item: Evaluated) -> None:
        insort(self._told, item, key=self._settings.rank)

    def _learn(self, batch: Batch) -> None:
        returns = torch.tensor([self._normal_score(item) for item in batch.items])  # (B,)
        first_ratio_gap = math.nan
        for epoch in range(self._settings.epochs):
            loss = self._loss(batch, returns[:, None])
            if epoch == 0:
                first_ratio_gap = loss.ratio_gap
            grad_norm = self._step(loss.total, self._optimizer, self._settings.max_grad_norm)
        self.last_update = UpdateReport(
            len(self._told), first_ratio_gap, loss.policy, loss.value, loss.entropy, grad_norm
        )

    def _normal_score(self, item: Evaluated) -> float:
        """Turn a result's rank among all told so far into a standard normal deviate; equals share the middle of theirs.

        Of N distinct results the i-th worst gets the quantile of (i - 1/2) / N; of N equal ones each gets 0.
        """
        rank = self._settings.rank(item)
        below = bisect_left(self._told, rank, key=self._settings.rank)
        not_above = bisect_right(self._told, rank, key=self._settings.rank)
        return NormalDist().inv_cdf((below + not_above) / 2 / len(self._told))

    def _loss(self, batch: Batch, returns: Tensor) -> _Loss:
        """Form the clipped surrogate with value and entropy terms (Source: PPO, equations 7 and 9).

        The reward is terminal and undiscounted, so it is the return of every decision of its vector.
        """
        settings = self._settings
        log_probs, values = self._policy(batch.choices)  # (B, D, O), (B, D)
        advantages = returns - values.detach()  # (B, D)
        ratios = (chosen(log_probs, batch.choices) - batch.old_log_probs).exp()  # (B, D)
        clipped = ratios.clamp(1 - settings.clip, 1 + settings.clip)
        policy = -torch.minimum(ratios * advantages, clipped * advantages).mean()
        value = (values - returns).square().mean()
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1).mean()
        total = policy + settings.value_weight * value - settings.entropy_weight * entropy
        gap = float((ratios.detach() - 1).abs().max())
        return _Loss(total, gap, policy.item(), value.item(), entropy.item())


@dataclass(frozen=True)
class _Loss:
    total: Tensor  # ()
    ratio_gap: float
    policy: float
    value: float
    entropy: float
