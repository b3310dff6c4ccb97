"""What every search engine shares: the ask/tell protocol, its settings, and the ledger of proposals.

An engine searches vectors of integers, one index a decision; it knows no architectures, latencies or
teachers (the study turns choices into a reward). It keeps no file: a killed study rebuilds an engine by
repeating its asks and tells from the journal.

Read next: akd.py, the learned engine; random.py, the floor that it has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgekd.search.errors import InvalidChoices, InvalidReward, InvalidSetting

Choices = tuple[int, ...]

LARGEST_REWARD = 1e12  # squares and sums of such rewards stay finite; sensible ones are near 1


@dataclass(frozen=True)
class Told:
    """The reward of one decision vector; higher is better."""

    choices: Choices
    reward: float


class Engine(Protocol):
    """Propose decision vectors and learn from their rewards."""

    def ask(self, count: int) -> list[Choices]:
        """Propose ``count`` vectors never proposed or told before; fewer, or none, once the space is exhausted."""
        ...

    def tell(self, told: Sequence[Told]) -> None:
        """Take rewards in the order of the proposals; raise InvalidReward or InvalidChoices and change nothing."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """State what every engine may know of the study: its length and how many proposals are rated together."""

    budget: int = 120  # the length of a demonstration study; the engines' rules start from it
    batch: int = 10

    def __post_init__(self) -> None:
        require(self.budget >= 1, "budget", self.budget, "at least 1")
        require(self.batch >= 1, "batch", self.batch, "at least 1")


@dataclass(frozen=True)
class AkdSettings(EngineSettings):
    """Set the AKD agent; it stands here, not beside the agent, because reading settings must not import torch.

    The defaults are the best of a sweep over studies of 120 noisy rewards in spaces of 28 and 42 decisions. They
    expect ``batch`` to be the study's own batch: an update between two asks of one batch costs a fifth of the gain.
    """

    learning_rate: float = 1e-2  # for 120 rewards; suited_to adapts it to the budget
    epochs: int = 6
    clip: float = 0.3  # wider than PPO's usual 0.2: with a dozen updates in all, each has to count
    value_weight: float = 0.5
    entropy_weight: float = 1e-2
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
        return cls(settings.budget, settings.batch, learning_rate_for(settings.budget))


def learning_rate_for(budget: int) -> float:
    """Return the agent's learning rate for a study of ``budget`` rewards: 1e-2 at 120, falling with its square root.

    Short studies must commit early and long ones keep exploring: at 120 rewards 2e-3 gained half as much as 1e-2, at
    1,000 rewards 2e-3 to 5e-3 found equally good vectors and 1e-2 worse ones. Rates above 1.5e-2 were no better. From 8
    to 42 decisions the same rates did well, so their number is not asked for.
    """
    return min(1.5e-2, max(2e-3, 1e-2 * math.sqrt(120 / budget)))


EngineFactory = Callable[[tuple[int, ...], EngineSettings, int], Engine]


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Raise InvalidSetting, naming the setting, its value and the allowed range, unless ``holds``."""
    if not holds:
        raise InvalidSetting(f"engine setting {name} is {value!r}; it must be {allowed}")


class Ledger:
    """Remember every vector proposed or told, and find a fresh one near any given one."""

    def __init__(self, decision_sizes: Sequence[int]) -> None:
        self.sizes = tuple(decision_sizes)
        if not self.sizes or any(size < 1 for size in self.sizes):
            raise InvalidChoices(f"decision sizes are {self.sizes}; give at least one decision of at least one option")
        self._seen: set[Choices] = set()

    def __contains__(self, choices: Choices) -> bool:
        return choices in self._seen

    @property
    def remaining(self) -> int:
        """Count the vectors of the space that are still fresh."""
        return math.prod(self.sizes) - len(self._seen)

    def capped(self, count: int) -> int:
        """Return how many of ``count`` proposals the space still holds; raise InvalidChoices if it is negative."""
        if count < 0:
            raise InvalidChoices(f"{count} proposals were asked for; ask for 0 or more")
        return min(count, self.remaining)

    def add(self, choices: Choices) -> None:
        """Note that ``choices`` is no longer fresh."""
        self._seen.add(choices)

    def check(self, told: Sequence[Told]) -> None:
        """Raise InvalidReward or InvalidChoices for the first told item that cannot be used."""
        for item in told:
            if not abs(item.reward) <= LARGEST_REWARD:  # said this way round, it is false for NaN too
                raise InvalidReward(
                    f"reward of {item.choices} is {item.reward}; tell finite rewards of at most {LARGEST_REWARD:.0e}"
                )
            self._check_choices(item.choices)

    def _check_choices(self, choices: Choices) -> None:
        if len(choices) != len(self.sizes):
            raise InvalidChoices(f"{choices} has {len(choices)} choices; this space has {len(self.sizes)} decisions")
        for position, (choice, size) in enumerate(zip(choices, self.sizes, strict=True)):
            if not (isinstance(choice, int) and 0 <= choice < size):
                raise InvalidChoices(f"choice {choice!r} of decision {position} is not an integer from 0 to {size - 1}")

    def successor(self, choices: Choices) -> Choices:
        """Return ``choices`` if fresh, else the next fresh vector in counting order, wrapping around.

        It takes at most one step more than there are seen vectors. Raises InvalidChoices on an exhausted space.
        """
        if self.remaining <= 0:
            raise InvalidChoices(f"all {math.prod(self.sizes)} vectors of the space were proposed; end the search")
        while choices in self._seen:
            choices = self._next(choices)
        return choices

    def _next(self, choices: Choices) -> Choices:
        digits = list(choices)
        for position in reversed(range(len(digits))):
            digits[position] = (digits[position] + 1) % self.sizes[position]
            if digits[position]:
                break  # no carry into the next decision
        return tuple(digits)
