"""What every search engine shares: the ask/tell protocol, its settings, and the ledger of proposals.

An engine searches vectors of integers, one index a decision; it knows no architectures, latencies or
teachers (the study turns choices into a reward). It keeps no file: a killed study rebuilds an engine by
repeating its asks and tells from the journal.

Read next: akd.py and learned.py, the agent; evolution.py, tpe.py and nsga2.py, what it is compared with; random.py,
the floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgekd.search.errors import InvalidChoices, InvalidReward, InvalidSetting
from edgekd.search.reward import feasible_first

Choices = tuple[int, ...]

LARGEST_REWARD = 1e12  # squares and sums of such rewards stay finite; sensible ones are near 1


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came of one decision vector; a higher reward is better."""

    choices: Choices
    reward: float
    accuracy: float = 0.0  # 0 to 1
    latency_ms: float = 0.0
    failed: bool = False  # the candidate could not be rated; its reward is a punishment, its accuracy 0


class Engine(Protocol):
    """Propose decision vectors and learn from what came of them.

    An engine is a deterministic function of its sizes, settings and seed, and of what it was asked and told.
    """

    def ask(self, count: int) -> list[Choices]:
        """Propose ``count`` vectors; fewer, or none, once the space is exhausted or the engine can go no further.

        Vectors proposed or told before may come again: the caller has their result and tells it once more.
        """
        ...

    def tell(self, told: Sequence[Evaluated]) -> None:
        """Take results in the order of the proposals; raise InvalidReward or InvalidChoices and change nothing.

        Vectors that were never asked for are taken as well: an earlier study's, or those of another target.
        """
        ...


@dataclass(frozen=True)
class EngineSettings:
    """State what every engine may know of the study: its length and how many proposals are rated together.

    ``feasible_ms`` is the latency above which a candidate loses every comparison with one that is under it, whatever
    their rewards: the target of a study whose reward is hard, else infinite.
    """

    budget: int = 120  # the length of a demonstration study; the engines' rules start from it
    batch: int = 10
    feasible_ms: float = math.inf

    def __post_init__(self) -> None:
        require(self.budget >= 1, "budget", self.budget, "at least 1")
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        require(self.feasible_ms > 0, "feasible_ms", self.feasible_ms, "above 0")

    def rank(self, item: Evaluated) -> tuple[bool, float]:
        """Give the key by which tournaments compare: what is feasible first, then the reward.

        A candidate that failed is not feasible, however fast it would be.
        """
        is_feasible, reward = feasible_first(item.reward, item.latency_ms, self.feasible_ms)
        return is_feasible and not item.failed, reward


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

    def check(self, told: Sequence[Evaluated]) -> None:
        """Raise InvalidReward or InvalidChoices for the first told item that cannot be used."""
        for item in told:
            if not abs(item.reward) <= LARGEST_REWARD:  # said this way round, it is false for NaN too
                raise InvalidReward(
                    f"reward of {item.choices} is {item.reward}; tell finite rewards of at most {LARGEST_REWARD:.0e}"
                )
            if not (math.isfinite(item.accuracy) and 0 <= item.latency_ms < math.inf):
                raise InvalidReward(
                    f"{item.choices} is told with accuracy {item.accuracy} and {item.latency_ms} ms; tell finite ones"
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
