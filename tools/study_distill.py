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
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from bench_parts import Result, machine, positive, print_machine
from study_distill_compare import NONE, compared, table
from train_teacher import train_teacher

from edgekd import teachers
from edgekd.data.dataset import DataSet, Split
from edgekd.data.loading import load_data
from edgekd.data.pictures import Wanted
from edgekd.distill.lesson import Lesson, needs_live
from edgekd.distill.loader import source_of
from edgekd.distill.logit_cache import cache_logits, read_logits
from edgekd.distill.mentors import CachedLogits, LiveTeacher
from edgekd.distill.methods import bindable_method_named
from edgekd.distill.recipe import Optimizer, Recipe, sgd_recipe
from edgekd.distill.train import EpochResult, accuracy, new_network, predict, train
from edgekd.distill.views import balanced_subset, samples_of
from edgekd.errors import DataError, EdgekdError, UsageError
from edgekd.files import make_folder, write_atomic
from edgekd.runs import read_json_object
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.network import Network
from edgekd.spaces.space import Space
from edgekd.teachers.from_space import space_and_arch

METHODS = ("kd", "dist", "dkd", "dist+at", "kd+sp")
STUDENT = "mnasnet-28-narrow"
SEEDS, IMAGES, EPOCHS, TEACHER_EPOCHS = 3, 3000, 10, 4
QUICK_SEEDS, QUICK_IMAGES, QUICK_EPOCHS = 2, 200, 1
BATCH, OPTIMIZER, RATE = 64, "adamw", 3e-3
TEACHER_BATCH, TEACHER_RATE = 128, 0.1  # by SGD, as tools/train_teacher.py has it
PROBED = 4  # batches, by which the duration is estimated
SETTINGS = "settings.json"


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


# --- the plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Training:
    """One student: by which teacher and method it is taught, and the seed of its weights and batches."""

    teacher: str  # a label, or "none"
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Name its files."""
        return f"{self.teacher}-{self.method}-seed{self.seed}" if self.teacher != NONE else f"{NONE}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """All trainings, and what they have in common."""

    out: Path
    data: DataSet  # its training split is what students see
    all_data: DataSet  # what teachers see that are trained here
    space: Space
    arch: Arch
    recipe: Recipe
    sources: dict[str, str]  # label → as given
    methods: tuple[str, ...]
    seeds: int
    teacher_epochs: int
    _loaded: dict[str, teachers.Teacher] = field(default_factory=dict)

    @staticmethod
    def of(options: argparse.Namespace) -> Study:
        """Load the data and see that the student fits it.

        Raises:
            UsageError: it does not, or two teachers have one label, or a method is none.

        """
        space, arch = space_and_arch(options.student)
        methods = tuple(dict.fromkeys(method for method in options.methods if method != NONE))
        for method in methods:
            bindable_method_named(method)  # an unknown one is said before anything is trained
        all_data = load_data(options.data, Wanted(space.input_shape[1:]))
        _see_fit(space, all_data)
        seeds, images, epochs = _amounts(options)
        return Study(
            out=options.out,
            data=_few(all_data, images),
            all_data=all_data,
            space=space,
            arch=arch,
            recipe=Recipe(epochs, options.batch_size, Optimizer(options.optimizer, options.learning_rate)),
            sources=_labelled(options.teachers),
            methods=methods,
            seeds=seeds,
            teacher_epochs=options.teacher_epochs,
        )

    @property
    def settings(self) -> Result:
        """Give what must stay the same in a folder, so that its trainings compare."""
        return {
            "data": self.data.name,
            "data_sha256": self.data.sha256,
            "images": len(self.data.train),
            "student": str(self.arch),
            "epochs": self.recipe.epochs,
            "batch_size": self.recipe.batch_size,
            "optimizer": self.recipe.optimizer.name,
            "learning_rate": self.recipe.optimizer.learning_rate,
            "threads": torch.get_num_threads(),
        }

    def keep_settings(self) -> None:
        """Write the settings; refuse a folder with others. Raises UsageError."""
        make_folder(self.out)
        path = self.out / SETTINGS
        if path.exists() and read_json_object(path) != self.settings:
            raise UsageError(f"{path} holds other settings; give the same options or another --out")
        write_atomic(path, json.dumps(self.settings, indent=2) + "\n")

    def trainings(self) -> list[Training]:
        """List the trainings, seed by seed, so that what a stopped study has is balanced."""
        taught = [(label, method) for label in self.sources for method in self.methods]
        return [Training(*which, seed) for seed in range(self.seeds) for which in [(NONE, NONE), *taught]]

    # --- teachers ---

    def teacher(self, label: str) -> teachers.Teacher:
        """Load a teacher, or train it first."""
        if label not in self._loaded:
            source = self.sources[label]
            if source in teachers.FAMILIES:
                path = self.out / f"teacher-{label}.safetensors"
                if not path.exists():
                    print(f"teacher {label}, {self.teacher_epochs} epochs of {len(self.all_data.train)} images")
                    recipe = sgd_recipe(self.teacher_epochs, TEACHER_BATCH, TEACHER_RATE, seed=1)
                    train_teacher(self.all_data, source, recipe, path)
                source = str(path)
            self._loaded[label] = teachers.load(source, self.data)
        return self._loaded[label]

    def judged(self, label: str) -> Result:
        """Say how often a teacher is right, on the test images and on those that students see."""
        teacher = self.teacher(label)
        path = self.out / f"judged-{label}.json"
        if path.exists():
            found = read_json_object(path)
            if found.get("teacher_sha256") == teacher.sha256:
                return found
        said = self.logits(label).at(torch.arange(len(self.data.train)), torch.zeros(1, dtype=torch.int64)).argmax(1)
        found = {
            "teacher": label,
            "teacher_sha256": teacher.sha256,
            "train_accuracy": float((said == torch.from_numpy(self.data.train.labels)).double().mean()),
            "test_accuracy": accuracy(teacher.module, samples_of(self.data, self.data.test)),
        }
        write_atomic(path, json.dumps(found) + "\n")
        print(
            f"teacher {label}: {100 * found['test_accuracy']:.1f} % of the test images, "
            f"{100 * found['train_accuracy']:.1f} % of the students' training images",
            flush=True,
        )
        return found

    def logits(self, label: str) -> CachedLogits:
        """Give a teacher's logits of the training images, computed once."""
        return read_logits(cache_logits(self.out, self.teacher(label), self.data))

    # --- students ---

    def is_live(self, training: Training) -> bool:
        """Tell whether the teacher runs in each step."""
        return needs_live(bindable_method_named(training.method), self.recipe)

    def lesson(self, training: Training) -> Lesson:
        """Say what is taught, by logits that are already there where they are enough."""
        mentor: CachedLogits | LiveTeacher | None = None
        if training.teacher != NONE:
            live = self.is_live(training)
            mentor = LiveTeacher.of(self.teacher(training.teacher)) if live else self.logits(training.teacher)
        samples = source_of(self.data, self.data.train)
        return Lesson(samples, bindable_method_named(training.method), mentor)

    def student(self, seed: int) -> Network:
        """Make an untrained student."""
        graph = graph_of(self.space, self.arch)
        return new_network(lambda: Network(graph), seed)


def _see_fit(space: Space, data: DataSet) -> None:
    shape = data.train.images.shape[1:]
    if (space.input_shape[1:], space.classes) != (shape, data.classes):
        raise UsageError(
            f"the student takes images {space.input_shape[1:]} of {space.classes} classes, data {data.name} has "
            f"{shape} of {data.classes}; give --student a space for these"
        )


def _few(data: DataSet, count: int) -> DataSet:
    """Leave a class-balanced part of the training split; its hash says which."""
    rows = balanced_subset(torch.from_numpy(data.train.labels), count).sort().values.numpy()
    sha256 = hashlib.sha256(f"{data.sha256} {len(rows)} balanced".encode()).hexdigest()
    return replace(data, sha256=sha256, train=Split(data.train.images[rows], data.train.labels[rows]))


def _labelled(sources: Sequence[str]) -> dict[str, str]:
    """Name each teacher by its file, model or architecture, and several together by all of theirs."""
    labels: dict[str, str] = {}
    for source in dict.fromkeys(sources):
        label = "+".join(Path(part.partition(",")[0].removeprefix("file:")).stem for part in source.split("+"))
        if label in labels or label == NONE:
            raise UsageError(f"two teachers are called {label}; give files of different names")
        labels[label] = source
    return labels


# --- training ---------------------------------------------------------------------------------------------------------


def train_all(study: Study) -> list[Result]:
    """Run what is not finished, one training after the other, with a line each; give the records of all."""
    trainings = study.trainings()
    waiting = [training for training in trainings if not _path(study, training).exists()]
    print(f"{len(trainings)} trainings of {study.recipe.epochs} epochs, {len(trainings) - len(waiting)} of them there")
    pace = Pace(study) if waiting else None
    if pace:
        print(f"about {_duration(pace.left(waiting))} for the others, by a few steps of each kind", flush=True)
    for number, training in enumerate(waiting, 1):
        began = time.perf_counter()
        record = trained(study, training)
        if pace:
            pace.took(training, time.perf_counter() - began)
            left = _duration(pace.left(waiting[number:]))
            said = f"{100 * record['test_accuracy']:.2f} %, {record['epoch_seconds']:.1f} s an epoch"
            print(f"{number}/{len(waiting)} {training.name}: {said}; about {left} left", flush=True)
    return [recorded(study, training) for training in trainings]


def trained(study: Study, training: Training) -> Result:
    """Train one student and keep what the test says of it."""
    network, seconds = study.student(training.seed), list[float]()
    recipe = replace(study.recipe, seed=training.seed, about=f"{training.name} {study.settings}")
    checkpoint = study.out / f"{training.name}.safetensors"
    train(network, study.lesson(training), recipe, checkpoint, lambda result: seconds.append(result.seconds))
    record = {
        **dataclasses.asdict(training),
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
    same = {key: record.get(key) for key in ("teacher", "method", "seed")} == dataclasses.asdict(training)
    if not same or not isinstance(share, float) or not 0 <= share <= 1:
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
    few = _few(study.data, min(PROBED * study.recipe.batch_size, len(study.data.train)))
    found: list[EpochResult] = []
    lesson = Lesson(source_of(few, few.train), bindable_method_named(NONE))
    train(study.student(0), lesson, replace(study.recipe, epochs=2), on_epoch=found.append)
    return found[-1].seconds / len(few.train)


def _seconds_an_image(study: Study, module: torch.nn.Module) -> float:
    images = samples_of(study.data, _few(study.data, study.recipe.batch_size).train).images
    predict(module, images)
    began = time.perf_counter()
    predict(module, images)
    return (time.perf_counter() - began) / len(images)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


# --- options ----------------------------------------------------------------------------------------------------------


def _amounts(options: argparse.Namespace) -> tuple[int, int, int]:
    quick = (QUICK_SEEDS, QUICK_IMAGES, QUICK_EPOCHS)
    usual = quick if options.quick else (SEEDS, IMAGES, EPOCHS)
    given = (options.seeds, options.images, options.epochs)
    seeds, images, epochs = (own or default for own, default in zip(given, usual, strict=True))
    return seeds, images, epochs


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
