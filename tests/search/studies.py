"""Studies for tests: a tiny space with a made-up table, and an evaluation by a formula that can be pulled the plug."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthetic import table_for, tiny_space
from table_files import sealed

from edgekd.search.latency import LatencyModel
from edgekd.search.rated import Hopeless, Rated
from edgekd.search.reward import Reward
from edgekd.search.study import Study
from edgekd.search.study_file import Sample, StudySettings
from edgekd.spaces.arch import Arch

SETTINGS = StudySettings("random", 12, 4, 7, (0.05,), "int8", Reward("soft"))
IDENTITY = {"table_sha256": "def", "teacher_sha256": "abc", "proxy": {"epochs": 1, "method": "kd"}}
TINY = LatencyModel.of(tiny_space(), table_for(tiny_space()))


def accuracy_of(arch: Arch) -> float:
    """Give each architecture an accuracy of its own."""
    return int.from_bytes(hashlib.sha256(str(arch).encode()).digest()[:4], "big") / 2**32


class PulledPlug(Exception):
    """The process is gone."""


@dataclass
class FakeProxy:
    """Rates architectures by a formula, and dies when it is to rate one too many."""

    dies_after: int = 10**9
    answer: Callable[[Arch], Rated] = lambda arch: Rated(accuracy_of(arch), 1.25, epochs=1)
    rated: list[Arch] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    rules: list[Hopeless | None] = field(default_factory=list)

    def evaluate(self, archs: Sequence[Arch], hopeless: Hopeless | None) -> Iterator[Rated]:
        self.batches.append(len(archs))
        self.rules.append(hopeless)
        for arch in archs:
            if len(self.rated) == self.dies_after:
                raise PulledPlug
            self.rated.append(arch)
            yield self.answer(arch)


@dataclass
class Witness:
    """Keeps what it is told of a study."""

    recalled_ones: list[Sample] = field(default_factory=list)
    sampled_ones: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def recalled(self, sample: Sample) -> None:
        self.recalled_ones.append(sample)

    def sampled(self, sample: Sample) -> None:
        self.sampled_ones.append(sample)

    def noted(self, text: str) -> None:
        self.notes.append(text)


def study(path: Path, model: LatencyModel = TINY, warm_start: Path | None = None, **changes: Any) -> Study:
    """Bind a study to a file."""
    return Study(replace(SETTINGS, **changes), model, path, IDENTITY, warm_start)


def plain_lines(path: Path) -> list[dict[str, Any]]:
    """Read a study's lines without their checksums."""
    return [{k: v for k, v in json.loads(line).items() if k != "crc"} for line in path.read_text().splitlines()]


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write a study's lines with the right checksums, as someone who knows the format could."""
    path.write_text(sealed([json.dumps(line, separators=(",", ":"), ensure_ascii=False) for line in lines]))


def edit_line(path: Path, number: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change one line of a study, with the right checksums."""
    lines = plain_lines(path)
    edit(lines[number - 1])
    write_lines(path, lines)
