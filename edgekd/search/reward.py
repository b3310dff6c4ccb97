"""The reward of a candidate: accuracy against latency, in the three forms of the literature.

Says nothing about who wins: the winner is the best accuracy under the target (outcome.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.errors import UnknownName
from edgekd.search.errors import InvalidReward, InvalidSetting

FORMS = ("soft", "hard", "absolute")
_MIN_RATIO = 1e-3  # latency is clamped this far below the target; nothing real is a thousand times faster
# published weights are above -1; from these on a reward says nothing of accuracy any more, and soon is infinite
_LEAST = {"soft_exponent": -4.0, "hard_exponent": -100.0, "absolute_weight": -100.0}


@dataclass(frozen=True, slots=True)
class Reward:
    """How accuracy and latency are weighed.

    soft       ACC · (LAT/T)^−0.07: twice the latency must buy 5 % of accuracy (MnasNet, arXiv 1807.11626, eq. 2)
    hard       ACC if LAT ≤ T, else ACC · (LAT/T)^−1 (the same, eq. 2 with α = 0, β = −1)
    absolute   ACC + β · |LAT/T − 1| with β = −0.5, which lands on T (TuNAS, arXiv 2008.06120, eq. 2)
    """

    form: str = "soft"
    soft_exponent: float = -0.07
    hard_exponent: float = -1.0
    absolute_weight: float = -0.5

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UnknownName("reward form", self.form, FORMS)
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) <= 0:
                raise InvalidSetting(f"{name} of a reward is {getattr(self, name)}; it must be from {least:g} to 0")

    def __call__(self, accuracy: float, latency_ms: float, target_ms: float) -> float:
        """Give the reward of an accuracy from 0 to 1 at a latency.

        Raises:
            InvalidReward: a value is NaN, infinite, negative, or the target is not above 0.

        """
        if not (0 <= accuracy < math.inf and 0 <= latency_ms < math.inf and 0 < target_ms < math.inf):
            raise InvalidReward(f"no reward for accuracy {accuracy}, latency {latency_ms} ms, target {target_ms} ms")
        ratio = max(latency_ms / target_ms, _MIN_RATIO)
        if self.form == "absolute":
            return accuracy + self.absolute_weight * abs(ratio - 1)
        if self.form == "hard":
            return accuracy if ratio <= 1 else accuracy * ratio**self.hard_exponent
        return float(accuracy * ratio**self.soft_exponent)


def feasible_first(reward: float, latency_ms: float, target_ms: float) -> tuple[bool, float]:
    """Give a key that sorts whatever is under the target above whatever is not, and either by its reward.

    The hard form alone does not say so: a candidate just above the target that is more accurate than all below it has
    the higher reward. (Source: the first of the three rules of Deb, An Efficient Constraint Handling Method for
    Genetic Algorithms, 2000.)
    """
    return latency_ms <= target_ms, reward
