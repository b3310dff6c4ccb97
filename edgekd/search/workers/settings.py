"""How many workers, where, and what each may use. None of it changes what a study finds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.search.workers.errors import BadWorkers

_MOST = 10_000  # more is a slip of the hand, and each is a process


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where candidates are rated; one worker without an address is this process, without Ray."""

    workers: int = 1
    ray_address: str = ""  # HOST:PORT of a Ray head node, or auto for the cluster of this machine; empty is none
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0  # below 1 several workers share one; above 0 the candidates train there
    wait_s: float = 120.0  # for workers to start, or to come back, before it is given up

    def __post_init__(self) -> None:
        """See that the numbers can be meant. Raises BadWorkers."""
        if not 1 <= self.workers <= _MOST:
            raise BadWorkers(f"workers is {self.workers}; it must be from 1 to {_MOST}")
        for name in ("cpus_per_worker", "gpus_per_worker", "wait_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise BadWorkers(f"{name} is {value!r}; it must be a number of 0 or more")
        if self.gpus_per_worker > 1 and self.gpus_per_worker != round(self.gpus_per_worker):
            raise BadWorkers(f"gpus_per_worker is {self.gpus_per_worker}; above 1 it must be a whole number")

    @property
    def is_inline(self) -> bool:
        """Tell whether this process rates the candidates itself."""
        return self.workers == 1 and not self.ray_address
