"""The policy of the engines that learn: an LSTM that writes a decision vector step by step and values it on the way.

Source: Search to Distill (Liu et al., arXiv 1911.09074) for one recurrent step a decision. It is only the network: how
it learns is said in akd.py and reinforce.py.

Read next: learned.py, which proposes vectors with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

IMPOSSIBLE = -1e4  # logit of an option that a decision lacks: its probability is exactly 0, its entropy not NaN


@dataclass(frozen=True, slots=True)
class Widths:
    """State how wide the network is: its embeddings and its hidden state."""

    embedding: int
    hidden: int


class PolicyNetwork(nn.Module):
    """One LSTM step a decision: from the choice before it and its position to its options' probabilities and a value.

    The heads start at 0, so that the untrained policy is uniform.
    """

    mask: Tensor
    offsets: Tensor

    def __init__(self, decision_sizes: tuple[int, ...], widths: Widths, generator: torch.Generator) -> None:
        super().__init__()
        sizes = torch.tensor(decision_sizes)
        decisions, most_options = len(decision_sizes), max(decision_sizes)
        existing = torch.arange(most_options) < sizes[:, None]  # (D, O)
        self.register_buffer("mask", torch.where(existing, 0.0, IMPOSSIBLE))
        self.register_buffer("offsets", 1 + sizes.cumsum(0) - sizes)  # (D,); token 0 starts every vector
        # Built without storage and filled below: torch's own initialisation would draw from the global generator.
        self.choice_embedding = nn.Embedding(1 + sum(decision_sizes), widths.embedding, device="meta")
        self.position_embedding = nn.Embedding(decisions, widths.embedding, device="meta")
        self.lstm = nn.LSTM(widths.embedding, widths.hidden, batch_first=True, device="meta")
        for module in (self.choice_embedding, self.position_embedding, self.lstm):
            module.to_empty(device="cpu")
        self.policy_weight = nn.Parameter(torch.zeros(decisions, widths.hidden, most_options))
        self.policy_bias = nn.Parameter(torch.zeros(decisions, most_options))
        self.value_weight = nn.Parameter(torch.zeros(widths.hidden))
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
        """Draw ``rows`` vectors; return their choices and the choices' log-probabilities, both (rows, D).

        The LSTM is written out: a step of a few rows is ten times faster so than through the module.
        """
        input_weight, state_weight, *biases = self.lstm.parameters()
        tokens = self.choice_embedding.weight @ input_weight.T  # (T, 4H)
        places = self.position_embedding.weight @ input_weight.T + sum(biases)  # (D, 4H)
        hidden = cell = torch.zeros(rows, self.lstm.hidden_size)
        previous = torch.zeros(rows, dtype=torch.long)
        choices, log_probs = [], []
        for position, offset in enumerate(self.offsets):
            gates = tokens[previous] + places[position] + hidden @ state_weight.T  # (rows, 4H)
            take, keep, new, show = gates.chunk(4, dim=1)
            cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
            hidden = show.sigmoid() * cell.tanh()
            logits = hidden @ self.policy_weight[position] + self.policy_bias[position] + self.mask[position]
            options = logits.log_softmax(dim=-1)  # (rows, O)
            choice = torch.multinomial(options.exp(), 1, generator=generator)  # (rows, 1)
            choices.append(choice)
            log_probs.append(options.gather(1, choice))
            previous = choice[:, 0] + offset
        return torch.cat(choices, dim=1), torch.cat(log_probs, dim=1)


def chosen(log_probs: Tensor, choices: Tensor) -> Tensor:
    """Pick the chosen options' entries: (B, D, O) and (B, D) to (B, D)."""
    return log_probs.gather(2, choices[..., None])[..., 0]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: sums then have one order, and matrices this small are faster without hand-over."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
