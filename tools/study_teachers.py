#!/usr/bin/env python3
"""Find out whether the best student depends on the teacher: the same search with teachers A, B, … and with none.

Every teacher is searched with several seeds and otherwise equal settings, each study in its own run folder of --out.
Then the last samples of all studies are compared: how far apart they are between teachers and within one, with a
permutation test over whole runs. A study that is finished is not repeated, one that was stopped goes on.

    .venv/bin/edgekd profile --space mnasnet-28-narrow --table host.jsonl
    .venv/bin/python tools/train_teacher.py --architecture vgg8 --epochs 6 --target vgg8.safetensors
    .venv/bin/python tools/study_teachers.py --table host.jsonl --teachers embedded vgg8.safetensors --out study

What stands behind `--` is handed to every `edgekd search`, such as `-- --space mine.toml --engine evolution`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_parts import ROOT, Result, machine, positive, print_machine

from edgekd.errors import EdgekdError, UsageError
from edgekd.files import make_folder, write_atomic
from edgekd.runs import read_json_object
from edgekd.search.outcome import outcome_at
from edgekd.search.study_file import StudyRecord, load_study
from latency_tables.errors import TableError

NONE = "none"
BUDGET, QUICK_BUDGET, SEEDS, QUICK_SEEDS = 100, 6, 4, 2
SEED_STEP = 1000  # between the seeds of two teachers: more than anybody's studies
PROBED = 4  # candidates, by which the duration is estimated
OWN = ("--teacher", "--no-teacher", "--seed", "--out", "--format", "--budget", "--target-ms", "--table", "--workers")
MOST_SAID = 100  # characters of a reason in a study's line; the log has all
SETTINGS, STUDY = "settings.json", "search.jsonl"


class StudyFailed(EdgekdError):
    """A command of the study ended with an error; `reason` is its last line."""

    def __init__(self, reason: str, log: Path) -> None:
        super().__init__(f"{reason} ({log}); the same command goes on from here")
        self.reason = reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, compare and write; give the exit code."""
    options = _options(arguments)
    facts = machine()
    print_machine(facts)
    try:
        plan = Plan.of(options)
        plan.write()
        search_all(plan)
        result = {"machine": facts, **compared(plan)}
        if options.json:
            write_atomic(options.json, json.dumps(result, indent=2, allow_nan=False) + "\n")
    except (EdgekdError, TableError) as error:
        print(f"study_teachers: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, EdgekdError) else 2
    return 0


# --- the plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Study:
    """One search: by which teacher, under which seed, and its run folder."""

    label: str
    teacher: str  # as `edgekd search --teacher` takes it, or "none"
    seed: int
    folder: Path

    def record(self) -> StudyRecord | None:
        """Give what its journal holds so far; None before it was begun."""
        path = self.folder / STUDY
        return load_study(path) if path.exists() else None

    def missing(self, budget: int) -> int:
        """Count the candidates that it has still to rate."""
        record = self.record()
        return max(0, budget - len(record.samples)) if record else budget


@dataclass(frozen=True, slots=True)
class Plan:
    """All searches, and what they have in common."""

    labels: tuple[str, ...]  # of the teachers that are compared now
    teachers: dict[str, str]  # label → as given, of all that were ever searched with in this folder, in that order
    seeds: int  # studies a teacher
    budget: int
    workers: int
    out: Path
    common: tuple[str, ...]  # arguments of `edgekd search` on which its samples depend

    @staticmethod
    def of(options: argparse.Namespace) -> Plan:
        """Take the options, and what lies in the folder; no teacher is always among the teachers.

        Raises:
            UsageError: two teachers have one label, an argument behind `--` is this tool's own, or the folder holds
                searches with other options.

        """
        own = [text for text in options.more if text.partition("=")[0] in OWN]
        if own:
            raise UsageError(f"{own[0]} is an option of this tool or set by it; it cannot stand behind --")
        table = ("--table", str(options.table.resolve())) if options.table else ()
        common = (*table, "--target-ms", options.target_ms, *options.more)
        given = _labelled([teacher for teacher in dict.fromkeys(options.teachers) if teacher != NONE])
        known = _known_teachers(options.out, common)
        for label in sorted(known.keys() & given.keys()):
            if known[label] != given[label]:
                raise UsageError(f"{options.out} knows {label} as {known[label]}, not {given[label]}; rename it")
        return Plan(
            labels=(*given, NONE),
            teachers=known | given,
            seeds=options.seeds or (QUICK_SEEDS if options.quick else SEEDS),
            budget=options.budget or (QUICK_BUDGET if options.quick else BUDGET),
            workers=options.workers,
            out=options.out,
            common=common,
        )

    def studies(self) -> list[Study]:
        """List the searches, seed by seed, so that what a stopped study has is balanced.

        No two have the same seed: searches of one seed begin alike, and the test over runs takes them to be
        independent of each other.
        """
        places = {label: place for place, label in enumerate(self.teachers)}
        seeds = {
            label: range(SEED_STEP * places[label], SEED_STEP * places[label] + self.seeds) for label in self.labels
        }
        return [
            Study(label, self.teachers[label], seeds[label][number], self.out / f"{label}-seed{seeds[label][number]}")
            for number in range(self.seeds)
            for label in self.labels
        ]

    def search(self, study: Study, budget: int, *more: str) -> list[str]:
        """Give the command of one search."""
        teacher = ["--no-teacher"] if study.teacher == NONE else ["--teacher", study.teacher]
        own = ["--seed", str(study.seed), "--budget", str(budget), "--workers", str(self.workers)]
        shared = [*self.common, *own, "--out", str(study.folder), "--format", "json", *more]
        return [sys.executable, "-m", "edgekd", "search", *teacher, *shared]

    def write(self) -> None:
        """Keep what must stay the same in this folder."""
        make_folder(self.out)
        content = {"arguments": list(self.common), "teachers": self.teachers}
        write_atomic(self.out / SETTINGS, json.dumps(content, indent=2) + "\n")


def _known_teachers(out: Path, common: Sequence[str]) -> dict[str, str]:
    """Give the teachers of the searches in a folder, which must have the same arguments; none is the first of all."""
    path = out / SETTINGS
    if not path.exists():
        return {NONE: NONE}
    content = read_json_object(path)
    if content.get("arguments") != list(common):
        raise UsageError(
            f"{out} holds searches with {content.get('arguments')}, not {list(common)}; "
            "give the same options or another --out"
        )
    teachers = content.get("teachers")
    if not isinstance(teachers, dict) or next(iter(teachers), "") != NONE:
        raise UsageError(f"{path} is not as this tool wrote it; give another --out")
    return {str(label): str(teacher) for label, teacher in teachers.items()}


def _labelled(teachers: Sequence[str]) -> dict[str, str]:
    """Name each teacher, by its file if it is one; files are given in full, so that the command may be repeated."""
    labels: dict[str, str] = {}
    for teacher in teachers:
        path = Path(teacher.removeprefix("file:"))
        is_file = teacher != "embedded" and ":" not in str(path)
        label = path.stem if is_file else re.sub(r"[^\w.+-]+", "-", teacher)  # names a folder, too
        if label in (*labels, NONE):
            raise UsageError(f"two teachers are called {label}; give files of different names")
        labels[label] = str(path.resolve()) if is_file else teacher
    return labels


# --- searching --------------------------------------------------------------------------------------------------------


def search_all(plan: Plan) -> None:
    """Run what is not finished, one search after the other, with a line each."""
    studies = plan.studies()
    waiting = [study for study in studies if study.missing(plan.budget)]
    print(f"{len(studies)} studies of {plan.budget} candidates, {len(studies) - len(waiting)} of them finished")
    if not waiting:
        return
    pace = Pace(plan, _sample_seconds(studies) or _probed(plan))
    print(f"about {_duration(pace.left(waiting))} for the others, by what candidates took so far", flush=True)
    for number, study in enumerate(waiting, 1):
        began, missing = time.perf_counter(), study.missing(plan.budget)
        outcome = search(plan, study)
        pace.searched(missing, time.perf_counter() - began)
        left = _duration(pace.left(waiting[number:]))
        print(f"{number}/{len(waiting)} {study.label}, seed {study.seed}: {outcome}; about {left} left", flush=True)


def search(plan: Plan, study: Study) -> str:
    """Run one search to its end and say what it found; that nothing is under the target is a finding, too.

    Raises:
        StudyFailed: it ended early.

    """
    _share_logits(plan, study)
    try:
        found = json.loads(run(plan.search(study, plan.budget), study.folder.with_suffix(".log")))
    except StudyFailed as error:
        if study.missing(plan.budget):
            raise
        return f"no winner, {textwrap.shorten(error.reason, MOST_SAID)}"
    latency_ms = found["predicted_ms"][found["target_dtype"]]
    return (
        f"best under {found['target_ms']:.4g} ms {100 * found['proxy_accuracy']:.1f} %, {latency_ms:.4g} ms, "
        f"{found['arch_id']}"
    )


def _share_logits(plan: Plan, study: Study) -> None:
    """Give a search the logits that another one of its teacher computed; their file's name says whose they are."""
    for path in plan.out.glob(f"{study.label}-seed*/teacher-logits-*.npy"):
        target = study.folder / path.name
        if not target.exists():
            make_folder(study.folder)
            write_atomic(target, path.read_bytes())


class Pace:
    """Knows how long a search takes: by single candidates' seconds at first, then by whole searches."""

    def __init__(self, plan: Plan, candidate_seconds: Sequence[float]) -> None:
        self._plan = plan
        self._each = statistics.fmean(candidate_seconds or [0.0]) / plan.workers  # seconds a candidate
        self._searched: list[tuple[int, float]] = []  # candidates and seconds

    def searched(self, candidates: int, seconds: float) -> None:
        """Take the time of a search that ended."""
        self._searched.append((candidates, seconds))
        self._each = sum(s for _, s in self._searched) / sum(n for n, _ in self._searched)

    def left(self, studies: Sequence[Study]) -> float:
        """Estimate the seconds that searches take."""
        return self._each * sum(study.missing(self._plan.budget) for study in studies)


def _probed(plan: Plan) -> list[float]:
    """Rate a few random candidates in a folder of their own; whether one of them is under the target is no matter."""
    probe = Study("probe", NONE, 0, plan.out / "probe")
    command = plan.search(probe, PROBED, "--engine", "random")
    try:
        run(command, probe.folder.with_suffix(".log"))
    except StudyFailed:
        if probe.missing(PROBED):
            raise
    return _sample_seconds([probe])


def _sample_seconds(studies: Sequence[Study]) -> list[float]:
    records = [record for study in studies if (record := study.record())]
    return [sample.seconds for record in records for sample in record.samples]


def run(command: Sequence[str], log: Path) -> str:
    """Run a command and give its stdout; stderr goes to a file.

    Raises:
        StudyFailed: it ended with an error; the message is its last line.

    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    with log.open("wb") as file:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=file, check=False
        )
    if done.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise StudyFailed(said or "no reason given", log)
    return done.stdout.decode()


def _duration(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"


# --- comparing --------------------------------------------------------------------------------------------------------


def compared(plan: Plan) -> Result:
    """Compare the last samples of all studies; print distances and p-values, and give them with each study's best."""
    comparison = json.loads(_report(plan, "json"))
    print(f"\n{_report(plan, 'text').rstrip()}")
    return {
        "teachers": plan.teachers,
        "budget": plan.budget,
        "arguments": list(plan.common),
        "studies": [_best(study) for study in plan.studies()],
        "tests": tests_of(comparison),
        "comparison": comparison,
    }


def tests_of(comparison: Result) -> Result:
    """Give the permutation tests by name: of all teachers, and of each two; None where there are too few runs."""
    teachers = {run["group"]: run["teacher"] for run in comparison["runs"]}
    pairs = {f"{teachers[t['first']]}-{teachers[t['second']]}": t["test"] for t in comparison["pair_tests"]}
    return {"all": comparison["test"], **pairs}


def _report(plan: Plan, form: str) -> str:
    """Compare by `edgekd report`, which writes a page, too."""
    folders = [str(study.folder) for study in plan.studies()]
    page = str(plan.out / "compare.html")
    command = [sys.executable, "-m", "edgekd", "report", *folders, "--out", page, "--format", form]
    return run(command, plan.out / "compare.log")


def _best(study: Study) -> Result:
    """Say what a study found at its first target, and what it cost."""
    record = load_study(study.folder / STUDY)
    settings = record.header.settings
    best = outcome_at(record.samples, settings.targets_ms[0], settings.target_dtype, settings.reward).best_under_target
    return {
        "teacher": study.label,
        "seed": study.seed,
        "samples": len(record.samples),
        "candidate_seconds": sum(sample.seconds for sample in record.samples),
        "best_under_target": best.as_json() if best else None,
    }


def _seeds(text: str) -> int:
    if positive(text) > SEED_STEP:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {SEED_STEP}")
    return positive(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "names or files of teachers; without any teacher is always among them (default: embedded)"
    parser.add_argument("--teachers", nargs="+", default=["embedded"], metavar="TEACHER", help=text)
    parser.add_argument(
        "--seeds", type=_seeds, metavar="N", help=f"studies a teacher, each its seed (default: {SEEDS})"
    )
    parser.add_argument("--budget", type=positive, help=f"candidates a study (default: {BUDGET})")
    parser.add_argument("--target-ms", default="auto", help="latency target, as edgekd search takes it (default: auto)")
    parser.add_argument("--table", type=Path, help="latency table, as edgekd profile writes it")
    parser.add_argument("--workers", type=positive, default=1, help="that rate candidates (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/teachers"), help="folder of the studies' run folders")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds of {QUICK_BUDGET} candidates each")
    parser.add_argument("more", nargs="*", metavar="-- ARGUMENT", help="handed to every edgekd search")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
