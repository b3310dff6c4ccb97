"""What the evaluation of one candidate brought, and when a candidate is hopeless.

The seam between the study, which asks, and the workers, which train. The floor under which a candidate is ended early
is a pure function of what earlier batches brought, so it does not depend on how many workers there are. Does not train
(proxy.py), does not import torch, and knows no rewards (study.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgekd.search.errors import InvalidSetting
from edgekd.spaces.arch import Arch

_LEAST_KNOWN = 8  # a share of fewer candidates says nothing about the rest of a space


@dataclass(frozen=True, slots=True)
class Rated:
    """One candidate's evaluation. A candidate that was ended early is no failure; it has fewer `epochs`."""

    accuracy: float  # on the validation split, 0–1; 0 where there is a failure
    seconds: float
    failure: str = ""  # why there is no accuracy: diverged, out of memory, worker lost …; one line
    epochs: int = 0  # trained to their end
    host: str = ""  # the machine that trained it
    measured_ms: float | None = None  # on the device, where the study measures each candidate
    early_accuracy: float | None = None  # where hopeless candidates were looked for: the accuracy at that point


@dataclass(frozen=True, slots=True)
class Hopeless:
    """End a candidate whose validation accuracy after `after_epochs` epochs is below `floor`; below 0 none is."""

    after_epochs: int
    floor: float


Evaluate = Callable[[Sequence[Arch], Hopeless | None], Iterator[Rated]]  # lazily, in the order of the architectures


def early_epochs(epochs: int) -> int:
    """Say after how many of `epochs` epochs hopeless candidates are looked for: a third, at least one; 0 is never."""
    after = max(1, epochs // 3)
    return after if after < epochs else 0


def hopeless_after(early_accuracies: Sequence[float | None], stop_share: float, epochs: int) -> Hopeless | None:
    """Give the rule for the next batch from the `early_accuracy` of all candidates of earlier batches.

    The floor is the stop_share-quantile of those known, from 0 to below 1, taken without interpolation: at most that
    share of them is below it. With fewer than eight known the floor is 0: all are looked at and none is ended. None
    means that nobody is looked at: the share is 0, or the training too short to be cut.

    Raises:
        InvalidSetting: the share is out of range.

    """
    if not 0 <= stop_share < 1:
        raise InvalidSetting(f"proxy stop_share is {stop_share!r}; it must be at least 0 and below 1")
    after = early_epochs(epochs)
    if stop_share == 0 or after == 0:
        return None
    known = sorted(accuracy for accuracy in early_accuracies if accuracy is not None)
    if len(known) < _LEAST_KNOWN:
        return Hopeless(after, 0.0)
    return Hopeless(after, known[math.floor(stop_share * len(known))])
