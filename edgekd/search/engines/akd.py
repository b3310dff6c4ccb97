"""The AKD agent: one LSTM actor-critic that writes a decision vector step by step and learns by PPO.

Sources: Search to Distill (Liu et al., arXiv 1911.09074) for the agent, PPO (Schulman et al., arXiv 1707.06347)
for its update. It takes rewards as told: accuracy, latency and teachers are the study's business.

The same seed with the same asks and tells gives the same proposals, bit for bit, on one machine and torch version:
all randomness comes from one generator of its own, and all arithmetic runs on one thread.

Read next: base.py for the protocol, the settings and the ledger that keeps proposals distinct.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, pstdev

import torch
from torch import Tensor, nn

from edgekd.search.engines.base import AkdSettings, Choices, Ledger, Told

RESAMPLES = 8  # rounds of sampling before mutation; a policy that repeats itself 8 times will go on doing so
REWARD_CLIP = 3.0  # deviations; one broken measurement must not outweigh a batch
IMPOSSIBLE = -1e4  # logit of an option that a decision lacks: its probability is exactly 0, its entropy not NaN


@dataclass(frozen=True)
class UpdateReport:
    """What one PPO update saw: losses and gradient norm of its last epoch, and how far policies had drifted."""

    rewards_told: int
    first_ratio_gap: float  # largest |new/old probability - 1| before the first step; 0 up to rounding if on-policy
    policy_loss: float
    value_loss: float
    entropy: float  # nats a decision
    grad_norm: float  # before clipping


class AkdEngine:
    """Propose decision vectors with a learned policy that PPO improves after every ``settings.batch`` rewards.

    Proposals are distinct from all vectors proposed or told before: repeats are sampled again for up to
    RESAMPLES rounds, then a sampled vector is mutated decision by decision until it is fresh. An exhausted space
    yields fewer proposals, at last none.

    A vector told without having been asked for (an earlier study's, say) is learned from with the log-probabilities
    of the policy at that moment.
    """

    def __init__(self, decision_sizes: tuple[int, ...], settings: AkdSettings, seed: int) -> None:
        self.last_update: UpdateReport | None = None
        self._ledger = Ledger(decision_sizes)
        self._settings = settings
        self._generator = torch.Generator().manual_seed(seed)
        self._policy = PolicyNetwork(self._ledger.sizes, settings, self._generator)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=settings.learning_rate)
        self._asked: dict[Choices, Tensor] = {}  # log-probabilities at ask time, each (D,)
        self._pending: list[tuple[Told, Tensor]] = []
        self._rewards: list[float] = []

    def ask(self, count: int) -> list[Choices]:
        """Propose up to ``count`` fresh vectors; fewer once the space is exhausted."""
        count = self._ledger.capped(count)
        proposals: list[Choices] = []
        with _one_thread(), torch.no_grad():
            for _ in range(RESAMPLES):
                if len(proposals) < count:
                    proposals += self._sample_fresh(count, count - len(proposals))
            while len(proposals) < count:
                proposals.append(self._mutate_to_fresh())
        return proposals

    def tell(self, told: Sequence[Told]) -> None:
        """Take rewards and update the policy after every full batch; how they are grouped into calls is irrelevant.

        Raises InvalidReward or InvalidChoices, and then takes none of them.
        """
        self._ledger.check(told)
        with _one_thread():
            for item in told:
                self._ledger.add(item.choices)
                self._pending.append((item, self._behaviour(item.choices)))
                self._rewards.append(item.reward)
                if len(self._pending) == self._settings.batch:
                    self._update()

    def _sample_fresh(self, rows: int, wanted: int) -> list[Choices]:
        choices, log_probs = self._policy.sample(rows, self._generator)
        fresh: list[Choices] = []
        for row, log_prob in zip(choices.tolist(), log_probs, strict=True):
            proposal = tuple(row)
            if proposal not in self._ledger and len(fresh) < wanted:
                self._note(proposal, log_prob)
                fresh.append(proposal)
        return fresh

    def _mutate_to_fresh(self) -> Choices:
        """Walk from a sampled vector, one random change a step; after one step a decision, count on to a fresh one."""
        sampled, _ = self._policy.sample(1, self._generator)
        walk = sampled[0].tolist()
        for position in torch.randperm(len(walk), generator=self._generator).tolist():
            if tuple(walk) not in self._ledger:
                break
            walk[position] = int(torch.randint(self._ledger.sizes[position], (1,), generator=self._generator))
        proposal = self._ledger.successor(tuple(walk))
        self._note(proposal, self._current_log_prob(proposal))
        return proposal

    def _note(self, proposal: Choices, log_prob: Tensor) -> None:
        self._ledger.add(proposal)
        self._asked[proposal] = log_prob

    def _behaviour(self, choices: Choices) -> Tensor:
        asked = self._asked.pop(choices, None)
        return self._current_log_prob(choices) if asked is None else asked

    def _current_log_prob(self, choices: Choices) -> Tensor:
        with torch.no_grad():
            log_probs, _ = self._policy(torch.tensor([choices]))
        return _chosen(log_probs, torch.tensor([choices]))[0]  # (D,)

    def _update(self) -> None:
        batch = _Batch(
            choices=torch.tensor([item.choices for item, _ in self._pending]),
            old_log_probs=torch.stack([log_prob for _, log_prob in self._pending]),
            returns=self._normalised([item.reward for item, _ in self._pending]),
        )
        self._pending.clear()
        first_ratio_gap = math.nan
        for epoch in range(self._settings.epochs):
            loss = self._loss(batch)
            if epoch == 0:
                first_ratio_gap = loss.ratio_gap
            grad_norm = self._step(loss.total)
        self.last_update = UpdateReport(
            len(self._rewards), first_ratio_gap, loss.policy, loss.value, loss.entropy, grad_norm
        )

    def _normalised(self, rewards: list[float]) -> Tensor:
        """Scale rewards by the mean and deviation of all told so far, within REWARD_CLIP deviations; shape (B,)."""
        mean, deviation = fmean(self._rewards), pstdev(self._rewards)
        if deviation == 0:  # every reward was the same: nothing is to be learned from it
            return torch.zeros(len(rewards))
        return torch.tensor([(reward - mean) / deviation for reward in rewards]).clamp(-REWARD_CLIP, REWARD_CLIP)

    def _loss(self, batch: _Batch) -> _Loss:
        """Form the clipped surrogate with value and entropy terms (Source: PPO, equations 7 and 9).

        The reward is terminal and undiscounted, so it is the return of every decision of its vector.
        """
        settings = self._settings
        log_probs, values = self._policy(batch.choices)  # (B, D, O), (B, D)
        returns = batch.returns[:, None]  # (B, 1)
        advantages = returns - values.detach()  # (B, D)
        ratios = (_chosen(log_probs, batch.choices) - batch.old_log_probs).exp()  # (B, D)
        clipped = ratios.clamp(1 - settings.clip, 1 + settings.clip)
        policy = -torch.minimum(ratios * advantages, clipped * advantages).mean()
        value = (values - returns).square().mean()
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1).mean()
        total = policy + settings.value_weight * value - settings.entropy_weight * entropy
        gap = float((ratios.detach() - 1).abs().max())
        return _Loss(total, gap, policy.item(), value.item(), entropy.item())

    def _step(self, loss: Tensor) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = nn.utils.clip_grad_norm_(self._policy.parameters(), self._settings.max_grad_norm)
        self._optimizer.step()
        return float(norm)


@dataclass(frozen=True)
class _Batch:
    choices: Tensor  # (B, D)
    old_log_probs: Tensor  # (B, D)
    returns: Tensor  # (B,)


@dataclass(frozen=True)
class _Loss:
    total: Tensor  # ()
    ratio_gap: float
    policy: float
    value: float
    entropy: float


class PolicyNetwork(nn.Module):
    """One LSTM step a decision: from the choice before it and its position to its options' probabilities and a value.

    The heads start at 0, so that the untrained policy is uniform.
    """

    mask: Tensor
    offsets: Tensor

    def __init__(self, decision_sizes: tuple[int, ...], settings: AkdSettings, generator: torch.Generator) -> None:
        super().__init__()
        sizes = torch.tensor(decision_sizes)
        decisions, most_options = len(decision_sizes), max(decision_sizes)
        existing = torch.arange(most_options) < sizes[:, None]  # (D, O)
        self.register_buffer("mask", torch.where(existing, 0.0, IMPOSSIBLE))
        self.register_buffer("offsets", 1 + sizes.cumsum(0) - sizes)  # (D,); token 0 starts every vector
        # Built without storage and filled below: torch's own initialisation would draw from the global generator.
        self.choice_embedding = nn.Embedding(1 + sum(decision_sizes), settings.embedding, device="meta")
        self.position_embedding = nn.Embedding(decisions, settings.embedding, device="meta")
        self.lstm = nn.LSTM(settings.embedding, settings.hidden, batch_first=True, device="meta")
        for module in (self.choice_embedding, self.position_embedding, self.lstm):
            module.to_empty(device="cpu")
        self.policy_weight = nn.Parameter(torch.zeros(decisions, settings.hidden, most_options))
        self.policy_bias = nn.Parameter(torch.zeros(decisions, most_options))
        self.value_weight = nn.Parameter(torch.zeros(settings.hidden))
        self.value_bias = nn.Parameter(torch.zeros(()))
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(self.lstm.hidden_size)  # torch's own bound for recurrent weights
        with torch.no_grad():
            self.choice_embedding.weight.normal_(generator=generator)
            self.position_embedding.weight.normal_(generator=generator)
            for parameter in self.lstm.parameters():
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Rate vectors (B, D): log-probabilities of all options (B, D, O), and the value before each choice (B, D)."""
        previous = nn.functional.pad(choices[:, :-1] + self.offsets[:-1], (1, 0))  # (B, D)
        hidden, _ = self.lstm(self.choice_embedding(previous) + self.position_embedding.weight)  # (B, D, H)
        logits = torch.einsum("bdh,dho->bdo", hidden, self.policy_weight) + self.policy_bias + self.mask  # (B, D, O)
        return logits.log_softmax(dim=-1), hidden @ self.value_weight + self.value_bias

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``rows`` vectors; return their choices and the choices' log-probabilities, both (rows, D)."""
        previous, state = torch.zeros(rows, dtype=torch.long), None
        choices, log_probs = [], []
        for position, offset in enumerate(self.offsets):
            embedded = self.choice_embedding(previous) + self.position_embedding.weight[position]  # (rows, E)
            hidden, state = self.lstm(embedded[:, None], state)  # (rows, 1, H)
            logits = hidden[:, 0] @ self.policy_weight[position] + self.policy_bias[position] + self.mask[position]
            options = logits.log_softmax(dim=-1)  # (rows, O)
            choice = torch.multinomial(options.exp(), 1, generator=generator)  # (rows, 1)
            choices.append(choice)
            log_probs.append(options.gather(1, choice))
            previous = choice[:, 0] + offset
        return torch.cat(choices, dim=1), torch.cat(log_probs, dim=1)


def _chosen(log_probs: Tensor, choices: Tensor) -> Tensor:
    """Pick the chosen options' entries: (B, D, O) and (B, D) to (B, D)."""
    return log_probs.gather(2, choices[..., None])[..., 0]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: sums then have one order, and matrices this small are faster without hand-over."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
