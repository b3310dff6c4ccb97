"""What a study of distillation trains: its settings, teachers and students, and which file is whose.

A part of study_distill.py, which trains and compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from bench_parts import Result
from study_distill_compare import NONE
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
from edgekd.distill.train import accuracy, new_network
from edgekd.distill.views import balanced_subset, samples_of
from edgekd.errors import UsageError
from edgekd.files import make_folder, write_atomic
from edgekd.runs import read_json_object
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.network import Network
from edgekd.spaces.space import Space
from edgekd.teachers.from_space import space_and_arch

SEEDS, IMAGES, EPOCHS = 3, 3000, 10
QUICK_SEEDS, QUICK_IMAGES, QUICK_EPOCHS = 2, 200, 1
TEACHER_BATCH, TEACHER_RATE = 128, 0.1  # by SGD, as tools/train_teacher.py has it
SETTINGS, TEACHERS = "settings.json", "teachers"


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
            data=few(all_data, images),
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
            "teacher_epochs": self.teacher_epochs,
            "threads": torch.get_num_threads(),
        }

    def keep_settings(self) -> None:
        """Write the settings and who teaches; refuse a folder with others of the same names. Raises UsageError."""
        make_folder(self.out)
        path = self.out / SETTINGS
        found = read_json_object(path) if path.exists() else {**self.settings, TEACHERS: {}}
        before = found.pop(TEACHERS, None)
        if found != self.settings or not isinstance(before, dict):
            raise UsageError(f"{path} holds other settings; give the same options or another --out")
        write_atomic(path, json.dumps({**self.settings, TEACHERS: before}, indent=2) + "\n")
        now = {label: self.teacher(label).sha256 for label in self.sources}
        for label, sha256 in now.items():
            if before.get(label, sha256) != sha256:
                raise UsageError(f"{path}: teacher {label} was another one there; give that one or another --out")
        write_atomic(path, json.dumps({**self.settings, TEACHERS: before | now}, indent=2) + "\n")

    def sha256_of(self, training: Training) -> str:
        """Say which teacher it is that teaches, "" is nobody."""
        return self.teacher(training.teacher).sha256 if training.teacher != NONE else ""

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


def few(data: DataSet, count: int) -> DataSet:
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


def _amounts(options: argparse.Namespace) -> tuple[int, int, int]:
    quick = (QUICK_SEEDS, QUICK_IMAGES, QUICK_EPOCHS)
    usual = quick if options.quick else (SEEDS, IMAGES, EPOCHS)
    given = (options.seeds, options.images, options.epochs)
    seeds, images, epochs = (own or default for own, default in zip(given, usual, strict=True))
    return seeds, images, epochs
