#!/usr/bin/env python3
"""Find out what a teacher and a method bring: one student, trained with each at equal budget and with several seeds.

Every teacher teaches by every method; without a teacher is always among them. Trainings of one seed begin with the same
weights and see the same batches, so differences are taken seed by seed. The methods' losses differ in size a
hundredfold; AdamW's steps do not depend on that, so that one learning rate is fair to all. The test split is read once
a training, after its last epoch. A training that is finished is not repeated, one that was stopped goes on.

    .venv/bin/python tools/study_distill.py --out study
    .venv/bin/python tools/study_distill.py --data folder:cifar10 --student small.toml --teachers resnet56.toml \
        --images 3000 --epochs 10 --out cifar
    .venv/bin/python tools/study_distill.py --teachers resnet8 resnet14 resnet20 --methods kd dist --out strengths

A teacher is what `edgekd search --teacher` takes, or an architecture's name, which is then trained here on all training
images. The student is a space's name or .toml file (its reference), or SPACE:BLOCK/….
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_parts import Result, machine, positive, print_machine
from study_distill_compare import NONE, compared, table
from study_distill_plan import (
    EPOCHS,
    IMAGES,
    QUICK_EPOCHS,
    QUICK_IMAGES,
    QUICK_SEEDS,
    SEEDS,
    Study,
    Training,
    few,
)

from edgekd.distill.lesson import Lesson
from edgekd.distill.loader import source_of
from edgekd.distill.methods import bindable_method_named
from edgekd.distill.train import EpochResult, accuracy, predict, train
from edgekd.distill.views import samples_of
from edgekd.errors import DataError, EdgekdError
from edgekd.files import write_atomic
from edgekd.progress import duration
from edgekd.runs import read_json_object

METHODS = ("kd", "dist", "dkd", "dist+at", "kd+sp")
STUDENT = "mnasnet-28-narrow"
BATCH, TEACHER_EPOCHS, OPTIMIZER, RATE = 64, 4, "adamw", 3e-3
PROBED = 4  # batches, by which the duration is estimated


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, compare and write; give the exit code."""
    options = _options(arguments)
    facts = machine()
    print_machine(facts)
    torch.set_num_threads(options.threads)
    try:
        study = Study.of(options)
        study.keep_settings()
        known = [study.judged(label) for label in study.sources]
        records = train_all(study)
        result: Result = {"machine": facts, "settings": study.settings, "teachers": known, "trainings": records}
        result["comparison"] = compared(records)
        print(f"\n{table(result['comparison'])}")
        if options.json:
            write_atomic(options.json, json.dumps(result, indent=2, allow_nan=False) + "\n")
    except EdgekdError as error:
        print(f"study_distill: {error}", file=sys.stderr)
        return error.exit_code
    return 0


# --- training ---------------------------------------------------------------------------------------------------------


def train_all(study: Study) -> list[Result]:
    """Run what is not finished, one training after the other, with a line each; give the records of all."""
    trainings = study.trainings()
    waiting = [training for training in trainings if not _path(study, training).exists()]
    print(f"{len(trainings)} trainings of {study.recipe.epochs} epochs, {len(trainings) - len(waiting)} of them there")
    pace = Pace(study) if waiting else None
    if pace:
        print(f"about {duration(pace.left(waiting))} for the others, by a few steps of each kind", flush=True)
    for number, training in enumerate(waiting, 1):
        began = time.perf_counter()
        record = trained(study, training)
        if pace:
            pace.took(training, time.perf_counter() - began)
            left = duration(pace.left(waiting[number:]))
            said = f"{100 * record['test_accuracy']:.2f} %, {record['epoch_seconds']:.1f} s an epoch"
            print(f"{number}/{len(waiting)} {training.name}: {said}; about {left} left", flush=True)
    return [recorded(study, training) for training in trainings]


def trained(study: Study, training: Training) -> Result:
    """Train one student and keep what the test says of it."""
    network, seconds = study.student(training.seed), list[float]()
    recipe = replace(
        study.recipe, seed=training.seed, about=f"{training.name} {study.sha256_of(training)} {study.settings}"
    )
    checkpoint = study.out / f"{training.name}.safetensors"
    train(network, study.lesson(training), recipe, checkpoint, lambda result: seconds.append(result.seconds))
    record = {
        **dataclasses.asdict(training),
        "teacher_sha256": study.sha256_of(training),
        "test_accuracy": accuracy(network, samples_of(study.data, study.data.test)),
        "epoch_seconds": statistics.fmean(seconds) if seconds else 0.0,  # none where only the test was missing
    }
    write_atomic(_path(study, training), json.dumps(record) + "\n")
    checkpoint.unlink(missing_ok=True)
    return record


def recorded(study: Study, training: Training) -> Result:
    """Read a finished training. Raises DataError where the file is another's or damaged."""
    path = _path(study, training)
    record = read_json_object(path)
    share = record.get("test_accuracy")
    whose = dataclasses.asdict(training) | {"teacher_sha256": study.sha256_of(training)}
    if {key: record.get(key) for key in whose} != whose or not isinstance(share, float) or not 0 <= share <= 1:
        raise DataError(f"{path} is not as this tool wrote it; remove it")
    return record


def _path(study: Study, training: Training) -> Path:
    return study.out / f"{training.name}.json"


class Pace:
    """Knows how long trainings take: by a few steps at first, corrected by those that ended."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._images = study.recipe.epochs * len(study.data.train)
        self._student = _student_seconds(study)
        self._teachers = {label: _seconds_an_image(study, study.teacher(label).module) for label in study.sources}
        self._estimated = self._taken = 0.0

    def took(self, training: Training, seconds: float) -> None:
        """Take the time of a training that ended."""
        self._estimated += self._seconds(training)
        self._taken += seconds

    def left(self, trainings: Sequence[Training]) -> float:
        """Estimate the seconds that trainings take."""
        factor = self._taken / self._estimated if self._estimated else 1.0
        return factor * sum(map(self._seconds, trainings))

    def _seconds(self, training: Training) -> float:
        live = training.teacher != NONE and self._study.is_live(training)
        each = self._student + (self._teachers[training.teacher] if live else 0.0)
        return self._images * each + len(self._study.data.test) * self._student / 3  # forward alone is about a third


def _student_seconds(study: Study) -> float:
    """Time a student's step by the image, kernels chosen before."""
    some = few(study.data, min(PROBED * study.recipe.batch_size, len(study.data.train)))
    found: list[EpochResult] = []
    lesson = Lesson(source_of(some, some.train), bindable_method_named(NONE))
    train(study.student(0), lesson, replace(study.recipe, epochs=2), on_epoch=found.append)
    return found[-1].seconds / len(some.train)


def _seconds_an_image(study: Study, module: torch.nn.Module) -> float:
    images = samples_of(study.data, few(study.data, study.recipe.batch_size).train).images
    predict(module, images)
    began = time.perf_counter()
    predict(module, images)
    return (time.perf_counter() - began) / len(images)


# --- options ----------------------------------------------------------------------------------------------------------


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Callable[..., Any] = parser.add_argument
    add("--data", default="embedded", help="as edgekd search takes it (default: embedded)")
    add("--student", default=STUDENT, help=f"space or architecture (default: {STUDENT})")
    add("--teachers", nargs="+", default=["embedded"], metavar="TEACHER", help="(default: embedded)")
    add("--methods", nargs="+", default=METHODS, metavar="METHOD", help=f"(default: {' '.join(METHODS)})")
    add("--seeds", type=positive, help=f"trainings of each kind (default: {SEEDS})")
    add("--images", type=positive, help=f"training images, balanced over classes (default: {IMAGES})")
    add("--epochs", type=positive, help=f"(default: {EPOCHS})")
    add("--batch-size", type=positive, default=BATCH, help=f"(default: {BATCH})")
    add("--optimizer", choices=("adamw", "sgd"), default=OPTIMIZER, help=f"(default: {OPTIMIZER})")
    add("--learning-rate", type=float, default=RATE, help=f"at its highest (default: {RATE})")
    add("--teacher-epochs", type=positive, default=TEACHER_EPOCHS, help=f"of own teachers (default: {TEACHER_EPOCHS})")
    add("--threads", type=positive, default=1, help="of torch (default: 1)")
    add("--out", type=Path, default=Path("runs/distil-study"), help="folder of the finished trainings")
    add("--json", type=Path, metavar="FILE", help="also write the numbers here")
    add("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds, {QUICK_IMAGES} images, {QUICK_EPOCHS} epoch")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
