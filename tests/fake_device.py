"""What stands for a device that tables are measured on: held without effect, and networks take what their parts do.

Each test file says by itself what its device measures and refuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import TracebackType
from typing import Self

from synthetic import KEY, synthetic_ns

from edgekd.graph.tflite_reader import read_ops
from latency_tables.builder import FIXED_COST_OPS

CALL_NS = 1000  # what every inference costs the fake device beside its operators


class HeldDevice:
    """The part of a bench that opens and closes it; what measures is its heirs'."""

    key = KEY

    def __init__(self, device: object, on_warning: object) -> None:
        """Nothing is opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""


class FakeClock:
    """Says that the device was held for two seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is listened to."""

    def seconds_for(self, subjects: Iterable[str]) -> float:
        assert set(subjects), "a table without rows"
        return 2.0


@cache
def operators_ns(content: bytes) -> tuple[int, ...]:
    """Give what each of a file's operators takes by itself; the smallest one takes nothing beside the call."""
    nothing = FIXED_COST_OPS.values()
    return tuple(0 if op in nothing else synthetic_ns(op) for op in read_ops(content) if not op.is_folded)
