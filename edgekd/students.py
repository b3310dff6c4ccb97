"""Which architecture of a search is distilled, and in which folder.

With the search's own settings, its winner is distilled in the run folder itself. With any other method, teacher,
recipe, seed or architecture a student gets a folder of its own, RUN/students/METHOD-… or the one that is named, which
is a run folder too: it can be exported and reported like the search's own, and no training overwrites another.
Training is distil_job.py's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.config import Settings
from edgekd.errors import DataError, UsageError
from edgekd.files import write_atomic
from edgekd.runs import DERIVED, FORMAT, VERSION, Run, read_json_object, read_winner, versions
from edgekd.search_job import STUDY_FILE
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import space_named

FOLDER, STUDENT = "students", "student.safetensors"
WINNER = ("best", "winner")
_FREE = ("threads", "readers", "train_on", "save_every_s")  # of [distil]: no student is another by these


@dataclass(frozen=True, slots=True)
class Chosen:
    """An architecture, and what stands in winner.json where it is the one that is shipped."""

    arch: Arch
    winner: dict[str, Any]


def chosen(run: Run, text: str) -> Chosen:
    """Find the architecture that a user means: best or winner, a sample's index or arch_id, or a text form.

    Raises:
        DataError: the search is not finished, or winner.json is damaged.
        UsageError: there is no such sample, or the space has no such architecture.

    """
    arch = read_winner(run).arch
    winner = run.read_json("winner.json", "edgekd search")
    if text in WINNER or text in (str(arch), arch.arch_id):
        return Chosen(arch, winner)
    sample = _sample(run, text)
    found = Arch.parse(sample["arch"] if sample else text)
    space_named(run.settings.space).choices(found)
    if found == arch:
        return Chosen(arch, winner)
    return Chosen(found, _without_sample(winner) | (sample or {"arch": str(found), "arch_id": found.arch_id}))


def see_own_student(run: Run) -> None:
    """See that a run has no students that were trained in other ways alone. Raises DataError, which names them."""
    others = sorted(path.parent for path in (run.folder / FOLDER).glob(f"*/{STUDENT}"))
    if others and not (run.folder / STUDENT).exists():
        listed = ", ".join(map(str, others))
        raise DataError(f"run {run.folder} has no student of its own; name the folder of one that it has: {listed}")


def _sample(run: Run, text: str) -> dict[str, Any] | None:
    """Find a sample of the search; None where the text is an architecture that need not be one."""
    from edgekd.search.study_file import load_study

    samples = load_study(run.folder / STUDY_FILE).samples
    for sample in samples:
        if text in (str(sample.index), sample.arch_id, sample.arch):
            return sample.as_json()
    if ":" in text:
        return None
    raise UsageError(
        f"--arch {text[:80]!r} is no sample of {run.folder}: give best, an index from 0 to {len(samples) - 1}, "
        "an arch_id or an architecture from search.jsonl"
    )


def _without_sample(winner: dict[str, Any]) -> dict[str, Any]:
    from edgekd.search.study_record import FIELDS

    return {name: value for name, value in winner.items() if name not in FIELDS}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a student is trained: in the search's own folder, or in one of its own."""

    run: Run
    search: Run  # that it was found by
    chosen: Chosen

    @property
    def is_own(self) -> bool:
        """Tell whether the student has a folder of its own."""
        return self.run.folder != self.search.folder

    def see_free(self) -> None:
        """See that the folder is nobody else's.

        Raises:
            UsageError: it is the folder of a search, or of a student of another one.

        """
        path = self.run.folder / "run.json"
        if self.is_own and path.exists() and DERIVED not in read_json_object(path):
            raise UsageError(f"{self.run.folder} is the folder of a search; choose another --out")

    def write(self) -> None:
        """Make the folder a run folder of its own, with the search that led to it."""
        if not self.is_own:
            return
        content = {
            "format": FORMAT,
            "version": VERSION,
            DERIVED: str(self.search.folder),
            "settings": self.run.settings.as_dict(),
            "versions": versions(),
        }
        self.run.write_json("run.json", content)
        self.run.write_json("winner.json", self.chosen.winner)
        for name in (STUDY_FILE, f"{self.search.settings.search.baseline}.jsonl"):
            if (self.search.folder / name).exists():
                write_atomic(self.run.folder / name, (self.search.folder / name).read_bytes())


def place_of(run: Run, settings: Settings, choice: Chosen, out: Path | None) -> Place:
    """Choose the folder of a student.

    Raises:
        UsageError: it is the search's own, and may not be.

    """
    same = _what_counts(settings) == _what_counts(run.settings) and choice.arch == read_winner(run).arch
    if same and (out is None or out.resolve() == run.folder.resolve()):
        return Place(Run(run.folder, settings), run, choice)
    if out is not None and out.resolve() == run.folder.resolve():
        raise UsageError(f"--out {out} is the search's own folder, whose student has other settings; choose another")
    folder = out or run.folder / FOLDER / _name(settings, choice.arch)
    table = str(run.table_path)
    return Place(Run(folder, dataclasses.replace(settings, table=table)), run, choice)


def _what_counts(settings: Settings) -> dict[str, Any]:
    """Give what a student depends on, besides its architecture."""
    distil = {name: value for name, value in dataclasses.asdict(settings.distil).items() if name not in _FREE}
    return {"data": settings.data, "teacher": settings.teacher, "seed": settings.seed, "distil": distil}


def _name(settings: Settings, arch: Arch) -> str:
    """Name a folder after all that its student depends on; settings that are at their defaults leave no trace."""
    counts, usual = _what_counts(settings), _what_counts(Settings())
    distil = {name: value for name, value in counts["distil"].items() if value != usual["distil"][name]}
    told = json.dumps(counts | {"distil": distil, "arch": str(arch)}, sort_keys=True)
    return f"{settings.distil.method}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
