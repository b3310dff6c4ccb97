#!/usr/bin/env python3
"""Train a teacher and write it as edgekd reads it; by default the embedded one, edgekd/data/teacher.safetensors.

    python tools/train_teacher.py
    python tools/train_teacher.py --data mine.npz --architecture resnet20 --target mine.safetensors

The validation split is only printed along the way; the test split is read once, after the last epoch, for the record.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save

from edgekd.data.dataset import load
from edgekd.distill.methods import method_named
from edgekd.distill.train import EpochResult, Lesson, Recipe, accuracy, train
from edgekd.distill.views import samples_of
from edgekd.files import write_atomic
from edgekd.teachers import EMBEDDED, CifarResNet

RECIPE = Recipe(epochs=15, batch_size=128, learning_rate=0.1, weight_decay=5e-4, seed=1)


def main() -> None:
    """Train, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="embedded, or an npz file of three splits")
    parser.add_argument("--architecture", default="resnet14", help="resnet8, resnet14, resnet20 or resnet56")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--target", type=Path, default=EMBEDDED)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = dataclasses.replace(RECIPE, epochs=arguments.epochs)
    data = load(arguments.data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = CifarResNet(arguments.architecture, data.train.images.shape[3], data.classes)
    validation = samples_of(data, data.validation)

    def report(result: EpochResult) -> None:
        share = accuracy(network, validation)
        print(f"epoch {result.epoch}/{result.epochs}: loss {result.loss:.4f}, validation {share:.4f}", flush=True)

    train(network, Lesson(samples_of(data, data.train), method_named("none")), recipe, on_epoch=report)
    test_accuracy = accuracy(network, samples_of(data, data.test))
    record = {
        "architecture": arguments.architecture,
        "classes": str(data.classes),
        "in_channels": str(data.train.images.shape[3]),
        "input_shape": json.dumps(list(data.train.images.shape[1:])),
        "recipe": json.dumps(dataclasses.asdict(recipe)),
        "data_sha256": data.sha256,
        "validation_accuracy": f"{accuracy(network, validation):.4f}",
        "test_accuracy": f"{test_accuracy:.4f}",
    }
    write_atomic(arguments.target, save({k: v.contiguous() for k, v in network.state_dict().items()}, record))
    print(f"{arguments.target.name}: test accuracy {test_accuracy:.4f}")


if __name__ == "__main__":
    main()
