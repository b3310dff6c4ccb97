"""What rates: the two small seams between workers, those who ask them, and the rooms that they open.

A room is opened once a worker, where the data are loaded, and rates one candidate after the other. Imports neither
torch nor Ray, so that it can be sent to any machine that has edgekd.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from edgekd.errors import EdgekdError
from edgekd.search.rated import Hopeless, Rated
from edgekd.search.workers.errors import Refused
from edgekd.spaces.arch import Arch


class Room(Protocol):
    """Rates candidates one at a time, such as proxy.py's Classroom."""

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        """Train and judge one candidate."""
        ...


OpenRoom = Callable[[], Room]  # it can be pickled, and raises EdgekdError for a request that cannot be served


class Workers(Protocol):
    """Rates many candidates; use it as a context manager."""

    def __enter__(self) -> Self:
        """Start."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all that was started."""
        ...

    def evaluate(self, archs: Sequence[Arch], hopeless: Hopeless | None = None) -> Iterator[Rated]:
        """Give each candidate's rating lazily, in the order given."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """An EdgekdError on its way from a worker: every error can be made from text, not every one from a pickle."""

    text: str
    exit_code: int

    @staticmethod
    def of(error: EdgekdError) -> Refusal:
        """Keep what the command line needs of it."""
        return Refusal(str(error), error.exit_code)

    def as_error(self) -> Refused:
        """Give what is to be raised in the process that asked."""
        return Refused(self.text, self.exit_code)


class Rater:
    """What runs in a worker's process."""

    def __init__(self, open_room: OpenRoom, folder: str) -> None:
        """Keep what opens the room; to open it takes seconds and may fail, which a constructor cannot tell."""
        self._open_room = open_room
        self._folder = folder
        self._room: Room | None = None

    def is_here(self) -> None:
        """Say by an answer that there was a place for this worker."""

    def open(self) -> Refusal | None:
        """Open the room, in the folder that relative paths were meant from if this machine has it; once is enough."""
        if self._room is not None:
            return None
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        try:
            self._room = self._open_room()
        except EdgekdError as error:
            return Refusal.of(error)
        return None

    def rate(self, arch: Arch, hopeless: Hopeless | None) -> Rated | Refusal:
        """Rate one candidate; the room is open."""
        if self._room is None:
            raise RuntimeError("a worker was asked before its room was open; please report this")
        try:
            return self._room.rate(arch, hopeless)
        except EdgekdError as error:
            return Refusal.of(error)
