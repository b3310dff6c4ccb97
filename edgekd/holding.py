"""A context manager that takes several things and gives all of them back, also when a later one cannot be had.

It knows neither devices nor files. Read next: `bench.py`, which holds a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Self


class Holding(ABC):
    """Holds what `_take` took until the end of the block."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Take all of it, or give back what was taken and raise what `_take` raised."""
        with ExitStack() as stack:
            self._take(stack)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give all of it back, the last one first."""
        self._held.__exit__(kind, error, trace)

    @abstractmethod
    def _take(self, stack: ExitStack) -> None:
        """Open what is to be held, each on the stack."""
