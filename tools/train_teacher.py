#!/usr/bin/env python3
"""Train a teacher and write it as edgekd reads it; by default the embedded one, edgekd/data/teacher.safetensors.

    python tools/train_teacher.py
    python tools/train_teacher.py --architecture vgg8 --epochs 12 --target mine.safetensors
    python tools/train_teacher.py --data mine.npz --architecture mobilenetv2-cifar --target mine.safetensors

Architectures are those of edgekd/teachers/families.py, a search space's name or .toml file (its reference), or one
architecture of a space, SPACE:BLOCK/…. Every run of the same options and threads gives the same weights.
The validation split is only printed along the way; the test split is read once, after the last epoch, for the record.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from edgekd.data.dataset import DataSet
from edgekd.data.loading import load_data
from edgekd.distill.lesson import Lesson
from edgekd.distill.methods import method_named
from edgekd.distill.recipe import Recipe, plain, sgd_recipe
from edgekd.distill.train import EpochResult, accuracy, train
from edgekd.distill.views import samples_of
from edgekd.errors import EdgekdError
from edgekd.files import write_atomic
from edgekd.teachers import EMBEDDED, FAMILIES, names_of, new_teacher

RECIPE = sgd_recipe(epochs=15, batch_size=128, learning_rate=0.1, seed=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, judge and write; give the exit code."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    try:
        recipe = sgd_recipe(options.epochs, RECIPE.batch_size, options.learning_rate, seed=options.seed)
        record = train_teacher(load_data(options.data), options.architecture, recipe, options.target)
    except EdgekdError as error:
        print(f"train_teacher: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.target.name}: test accuracy {record['test_accuracy']}")
    return 0


def train_teacher(data: DataSet, architecture: str, recipe: Recipe, target: Path) -> dict[str, str]:
    """Train a fresh network and write it with its record; give the record."""
    height, width, channels = data.train.images.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = new_teacher(architecture, (height, width, channels), data.classes)
    validation, began = samples_of(data, data.validation), time.perf_counter()

    def report(result: EpochResult) -> None:
        share, seconds = accuracy(network, validation), time.perf_counter() - began
        print(
            f"epoch {result.epoch}/{result.epochs}: loss {result.loss:.4f}, validation {share:.4f}, {seconds:.0f} s",
            flush=True,
        )

    train(network, Lesson(samples_of(data, data.train), method_named("none")), recipe, on_epoch=report)
    record = {
        **names_of(architecture),
        "classes": str(data.classes),
        "in_channels": str(channels),
        "input_shape": json.dumps([height, width, channels]),
        "mean": json.dumps(data.mean),
        "std": json.dumps(data.std),
        "recipe": json.dumps(plain(recipe)),
        "threads": str(torch.get_num_threads()),
        "data_sha256": data.sha256,
        "validation_accuracy": f"{accuracy(network, validation):.4f}",
        "test_accuracy": f"{accuracy(network, samples_of(data, data.test)):.4f}",
    }
    write_atomic(target, save({k: v.contiguous() for k, v in network.state_dict().items()}, record))
    return record


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="embedded, or an npz file of three splits")
    parser.add_argument("--architecture", default="resnet14", help=f"{', '.join(FAMILIES)}, or a space's network")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--learning-rate", type=float, default=RECIPE.optimizer.learning_rate)
    parser.add_argument("--seed", type=int, default=RECIPE.seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--target", type=Path, default=EMBEDDED)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
