"""Who is not beaten on both counts: the Pareto front of latency (less is better) and accuracy (more is better)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def unbeaten(items: Sequence[T], latency_ms: Callable[[T], float], accuracy: Callable[[T], float]) -> list[T]:
    """Give the items that no other beats, fastest first; of equals, the first."""
    front: list[T] = []
    for item in sorted(items, key=lambda i: (latency_ms(i), -accuracy(i))):
        if not front or accuracy(item) > accuracy(front[-1]):
            front.append(item)
    return front
