"""What the engines with a policy share: fresh proposals drawn from it, and results gathered into batches.

The same seed with the same asks and tells gives the same proposals, bit for bit, on one machine and torch version:
all randomness comes from one generator of its own, and all arithmetic runs on one thread. How a batch changes the
policy is the subclass's business.

Read next: akd.py and reinforce.py, the two ways to learn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.search.engines.base import Choices, EngineSettings, Evaluated, Ledger
from edgekd.search.engines.policy import PolicyNetwork, Widths, chosen, one_thread

RESAMPLES = 7  # vectors drawn for each one missing, before mutation; a policy that repeats itself will go on doing so


@dataclass(frozen=True)
class Batch:
    """Results that the policy learns from together."""

    items: tuple[Evaluated, ...]
    choices: Tensor  # (B, D)
    old_log_probs: Tensor  # (B, D), of the policy that proposed them


class LearnedEngine(ABC):
    """Propose decision vectors with a policy that learns after every ``settings.batch`` results.

    Proposals are distinct from all vectors proposed or told before: for repeats RESAMPLES times as many are drawn once
    more, then drawn vectors are mutated decision by decision until they are fresh. An exhausted space yields fewer
    proposals, at last none.

    A vector told without having been asked for (an earlier study's, say) is learned from with the log-probabilities
    of the policy at that moment.
    """

    def __init__(self, decision_sizes: tuple[int, ...], settings: EngineSettings, widths: Widths, seed: int) -> None:
        self._ledger = Ledger(decision_sizes)
        self._generator = torch.Generator().manual_seed(seed)
        self._policy = PolicyNetwork(self._ledger.sizes, widths, self._generator)
        self._batch = settings.batch
        self._asked: dict[Choices, Tensor] = {}  # log-probabilities at ask time, each (D,)
        self._pending: list[Evaluated] = []

    def ask(self, count: int) -> list[Choices]:
        """Propose up to ``count`` fresh vectors; fewer once the space is exhausted."""
        count = self._ledger.capped(count)
        proposals: list[Choices] = []
        with one_thread(), torch.no_grad():
            for rows in (count, RESAMPLES * count):
                if len(proposals) < count:
                    proposals += self._sample_fresh(rows, count - len(proposals))
            if len(proposals) < count:
                proposals += self._mutate_to_fresh(count - len(proposals))
        return proposals

    def tell(self, told: Sequence[Evaluated]) -> None:
        """Take results and learn from every full batch; how they are grouped into calls is irrelevant.

        Raises InvalidReward or InvalidChoices, and then takes none of them.
        """
        self._ledger.check(told)
        with one_thread():
            for item in told:
                self._ledger.add(item.choices)
                self._note_result(item)
                self._pending.append(item)
                if len(self._pending) == self._batch:
                    self._learn(self._gathered())

    @abstractmethod
    def _note_result(self, item: Evaluated) -> None:
        """Remember what a result says about all others, before a batch is learned from."""

    @abstractmethod
    def _learn(self, batch: Batch) -> None:
        """Change the policy by a batch."""

    def _sample_fresh(self, rows: int, wanted: int) -> list[Choices]:
        choices, log_probs = self._policy.sample(rows, self._generator)
        fresh: list[Choices] = []
        for row, log_prob in zip(choices.tolist(), log_probs, strict=True):
            proposal = tuple(row)
            if proposal not in self._ledger and len(fresh) < wanted:
                self._note_proposal(proposal, log_prob)
                fresh.append(proposal)
        return fresh

    def _mutate_to_fresh(self, count: int) -> list[Choices]:
        """Walk from sampled vectors, a random change a step; after a step a decision, count on to fresh ones."""
        sampled, _ = self._policy.sample(count, self._generator)
        fresh = [self._walked(walk) for walk in sampled.tolist()]
        for proposal, log_prob in zip(fresh, self._log_probs(fresh), strict=True):
            self._note_proposal(proposal, log_prob)
        return fresh

    def _walked(self, walk: list[int]) -> Choices:
        for position in torch.randperm(len(walk), generator=self._generator).tolist():
            if tuple(walk) not in self._ledger:
                break
            walk[position] = int(torch.randint(self._ledger.sizes[position], (1,), generator=self._generator))
        proposal = self._ledger.successor(tuple(walk))
        self._ledger.add(proposal)
        return proposal

    def _note_proposal(self, proposal: Choices, log_prob: Tensor) -> None:
        self._ledger.add(proposal)
        self._asked[proposal] = log_prob

    def _log_probs(self, vectors: Sequence[Choices]) -> Tensor:
        """Rate vectors with the policy of this moment; (B, D)."""
        choices = torch.tensor(vectors)
        with torch.no_grad():
            log_probs, _ = self._policy(choices)
        return chosen(log_probs, choices)

    def _gathered(self) -> Batch:
        """Close the pending batch; since it began the policy has not changed, which rates what was not asked for."""
        vectors = [item.choices for item in self._pending]
        old = self._log_probs(vectors)
        for row, choices in enumerate(vectors):
            if choices in self._asked:
                old[row] = self._asked.pop(choices)
        items = tuple(self._pending)
        self._pending.clear()
        return Batch(items, torch.tensor(vectors), old)

    def _step(self, loss: Tensor, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
        """Descend once; return the gradient's norm before it was clipped."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = nn.utils.clip_grad_norm_(self._policy.parameters(), max_norm)
        optimizer.step()
        return float(norm)
