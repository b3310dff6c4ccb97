"""Rooms for tests of the workers: they rate by a formula at once, wait, kill their own process, or stand still."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import DataError
from edgekd.search.rated import Hopeless, Rated
from edgekd.spaces.arch import Arch


def accuracy_of(arch: Arch) -> float:
    """Give each architecture an accuracy of its own."""
    return int.from_bytes(hashlib.sha256(str(arch).encode()).digest()[:4], "big") / 2**32


@dataclass(frozen=True)
class FormulaRoom:
    """Rates by a formula; what is hopeless by it is ended early."""

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        accuracy = accuracy_of(arch)
        is_ended = hopeless is not None and accuracy < hopeless.floor
        return Rated(accuracy, 0.001, epochs=hopeless.after_epochs if hopeless and is_ended else 9)


class GpuRoom(FormulaRoom):
    """Says as its host which GPUs it may use."""

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        return Rated(accuracy_of(arch), 0.0, host=os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@dataclass(frozen=True)
class SlowRoom(FormulaRoom):
    """Takes its time, a different one for each candidate, and writes down which process began and ended what."""

    diary: Path

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        self.note(arch, "began")
        time.sleep(0.3 * accuracy_of(arch))  # the work
        self.note(arch, "ended")
        return super().rate(arch, hopeless)

    def note(self, arch: Arch, what: str) -> None:
        with self.diary.open("a") as file:
            file.write(f"{what} {os.getpid()} {arch.arch_id}\n")


@dataclass(frozen=True)
class DeadlyRoom(FormulaRoom):
    """Some candidates kill the process that rates them, so many times each."""

    folder: Path
    deadly: tuple[str, ...]  # arch_ids
    times: int

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        for attempt in range(self.times if arch.arch_id in self.deadly else 0):
            mark = self.folder / f"{arch.arch_id}-{attempt}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().rate(arch, hopeless)


@dataclass(frozen=True)
class StuckRoom(FormulaRoom):
    """Computes for ever, as a training would that nobody ends, and says in which process."""

    folder: Path

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        (self.folder / str(os.getpid())).touch()
        while True:
            hashlib.sha256(bytes(1 << 20))


class MisledRoom(FormulaRoom):
    """Finds only while it rates that the request cannot be served."""

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        raise DataError("data x.npz: no such file; give another")


class BrokenRoom(FormulaRoom):
    """Has a defect."""

    def rate(self, arch: Arch, hopeless: Hopeless | None = None) -> Rated:
        raise ZeroDivisionError("a defect")


def room_behind_a_door(folder: Path) -> FormulaRoom:
    """Say that it is being opened, and wait until it may be."""
    (folder / "opening").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)  # a file tells nobody
    return FormulaRoom()


def no_room() -> FormulaRoom:
    """Refuse the request when it is opened."""
    raise DataError("data y.npz: no such file; give another")
