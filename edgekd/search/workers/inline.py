"""One worker: this process rates the candidates itself, one after the other. Needs no Ray; many are ray_pool.py's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from edgekd.holding import Holding
from edgekd.search.rated import Hopeless, Rated
from edgekd.search.workers.room import OpenRoom, Room
from edgekd.spaces.arch import Arch


class InlineWorker(Holding):
    """Rates in this process; use it as a context manager. To enter it raises what opening the room raises."""

    def __init__(self, open_room: OpenRoom) -> None:
        super().__init__()
        self._open_room = open_room
        self._room: Room | None = None

    def _take(self, stack: ExitStack) -> None:
        self._room = self._open_room()
        stack.callback(self._leave)

    def _leave(self) -> None:
        self._room = None  # the images need not outlive the study

    def evaluate(self, archs: Sequence[Arch], hopeless: Hopeless | None = None) -> Iterator[Rated]:
        """Give each candidate's rating, in the order given."""
        if self._room is None:
            raise RuntimeError("an inline worker is used outside its `with` block")
        for arch in archs:
            yield self._room.rate(arch, hopeless)
