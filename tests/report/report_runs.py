"""A realistic run folder: searches over a seven-stage space, written as the files that a run leaves behind."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.search.reward import Reward
from edgekd.search.study_file import Sample, StudyHeader, StudySettings
from latency_tables.journal import sealed_lines

TARGET_MS = 0.150
REWARD = Reward("soft")
OPTIONS = (
    ("conv", "dsconv", "mb3", "mb6"), ("k3", "k5"), ("se0", "se0.25"), ("none", "identity", "pool"),
    ("l1", "l2", "l3", "l4"), ("f0.75", "f1", "f1.25"),
)  # fmt: skip
SIZES = tuple(len(options) for options in OPTIONS) * 7
SETTINGS = StudySettings(
    engine="akd", budget=120, batch=10, seed=0, targets_ms=(TARGET_MS,), target_dtype="int8", reward=REWARD
)
IDENTITY: dict[str, Any] = {
    "table_sha256": "1" * 64, "data_sha256": "2" * 64, "teacher_sha256": "3" * 64,
    "proxy": {"method": "kd", "images": 800, "epochs": 1},
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What kind of run to make: how many samples each search took (None: no such journal), and how slow they are."""

    search: int = 120
    random: int | None = 120
    slowdown: float = 1.0
    failed: int = 0
    finished: bool = True


def write_run(folder: Path, shape: Shape = Shape()) -> None:
    """Write the journals and, if the run is finished, manifest.json; the winner is the search's best under the target.

    The last `failed` samples of the search have no accuracy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = make_samples(shape.search, learns=True, slowdown=shape.slowdown)
    for index in range(shape.search - shape.failed, shape.search):
        samples[index] = scored(replace(samples[index], proxy_accuracy=0.0, failure="out of memory"))
    write_study(folder / "search.jsonl", samples)
    if shape.random is not None:
        others = make_samples(shape.random, learns=False, slowdown=shape.slowdown)
        write_study(folder / "random.jsonl", others, replace(SETTINGS, engine="random"))
    feasible = [s for s in samples if s.predicted_ms["int8"] <= TARGET_MS and not s.failure] or samples
    winner = max(feasible, key=lambda s: s.proxy_accuracy, default=None)
    if shape.finished:
        (folder / "manifest.json").write_text(json.dumps(make_manifest(winner)))


def write_study(
    path: Path, samples: Sequence[Sample], settings: StudySettings = SETTINGS, identity: dict[str, Any] | None = None
) -> None:
    """Write a study's journal."""
    header = StudyHeader("seven-blocks", "0" * 64, SIZES, settings, 0, IDENTITY if identity is None else identity)
    path.write_text("".join(sealed_lines(header.as_json(), [s.as_json() for s in samples])))


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the lines of a study and seal them again, as a hostile writer would."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["crc"]
    change(lines)
    path.write_text("".join(sealed_lines(lines[0], lines[1:])))


def arch_text(choices: Sequence[int]) -> str:
    """Spell an architecture of seven blocks."""
    words = [OPTIONS[place % 6][choice] for place, choice in enumerate(choices)]
    return "seven-blocks:" + "/".join("_".join(words[start : start + 6]) for start in range(0, 42, 6))


def scored(sample: Sample, target_ms: float = TARGET_MS) -> Sample:
    """Give a sample the reward of what it says."""
    return replace(sample, reward=REWARD(sample.proxy_accuracy, sample.latency_ms("int8"), target_ms))


def make_sample(index: int, int8_ms: float, accuracy: float, choices: Sequence[int] | None = None) -> Sample:
    """Make a sample; without choices, those that count up with its index."""
    chosen = tuple(choices) if choices is not None else counted(index)
    arch = arch_text(chosen)
    return scored(Sample(
        index=index, choices=chosen, arch=arch, arch_id=hashlib.sha256(arch.encode()).hexdigest()[:12],
        predicted_ms={"float32": int8_ms * 1.74, "int8": int8_ms}, measured_ms=None, proxy_accuracy=accuracy,
        reward=0.0, seconds=1.0, macs=1000, epochs=1, early_accuracy=None, failure="", host="here", target=0,
    ))  # fmt: skip


def counted(index: int) -> tuple[int, ...]:
    """Give choices of its own to each index: its digits, the first decision's first."""
    digits = []
    for size in SIZES:
        index, digit = divmod(index, size)
        digits.append(digit)
    return tuple(digits)


def make_samples(count: int, learns: bool, slowdown: float = 1.0, seed: int = 7) -> list[Sample]:
    """Draw samples; a search that learns moves to the target's latency and to better accuracies."""
    draw = random.Random(seed if learns else seed + 1)
    samples = []
    for index in range(count):
        progress = min(1.0, index / 120) if learns else 0.0
        macs = int(draw.lognormvariate(0.92 - 0.32 * progress, 0.42 - 0.22 * progress) * 1e6)
        int8 = slowdown * (0.028 + macs / 1e6 * 0.054) * draw.lognormvariate(0, 0.13)
        accuracy = min(1.0, max(0.0, 0.80 - 0.36 / (1 + macs / 6e5) + 0.045 * progress + draw.gauss(0, 0.014)))
        choices = [0 if draw.random() < 0.5 * progress else draw.randrange(size) for size in SIZES]
        sample = replace(make_sample(index, int8, accuracy, choices), seconds=draw.uniform(1.8, 3.4), macs=macs)
        samples.append(sample)
    return samples


def make_manifest(winner: Sample | None) -> dict[str, Any]:
    """Make the manifest of a finished run."""
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("float32", "int8", "onnx", "table")}
    sizes = {"float32": 412_304, "int8": 131_880, "onnx": 415_772}
    return {
        "format": "edgekd-manifest", "version": 1, "target_ms": TARGET_MS, "target_dtype": "int8",
        "teacher_accuracy": 0.895, "predicted_ms": {"float32": 0.227, "int8": 0.1266},
        "predicted_low_ms": {"float32": 0.219, "int8": 0.1221}, "predicted_high_ms": {"float32": 0.238, "int8": 0.1339},
        "measured_ms": {"float32": 0.2312, "int8": 0.1231}, "measured_wall_ms": {"float32": 0.2387, "int8": 0.1274},
        "accuracy": {"float32": 0.8794, "int8": 0.8762, "onnx": 0.8794},
        "artifacts": {
            name: {"path": f"student-{name}.{'onnx' if name == 'onnx' else 'tflite'}", "sha256": hashes[name],
                   "size_bytes": size} for name, size in sizes.items()
        },
        "arch": winner.arch if winner else "seven-blocks:none", "arch_id": winner.arch_id if winner else "ab12cd34ef56",
        "seed": 0,
        "versions": {"edgekd": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "ai-edge-litert": "2.3.0"},
        "device": {"name": "host", "model": "x86-64 machine, 2 cores", "os": "Linux 6.1", "abi": "x86_64",
                   "runtime": "ai_edge_litert 2.3.0", "threads": 1, "features": ["avx2", "fma"]},
        "table": {"sha256": hashes["table"], "rows": 1792},
        "seconds": {"profile": 24.1, "search": 312.4, "random": 298.0, "distil": 640.9, "quantize": 8.2, "export": 4.4,
                    "verify": 6.5},
        "macs": 1_654_272, "parameters": 98_410, "parity": {"float32": 3.1e-6, "int8": 0.042, "onnx": 2.4e-6},
        "reference": {"arch": "the reference network", "predicted_ms": {"float32": 0.402, "int8": 0.233}},
        "space": "akd-32", "method": "kd (temperature 4)",
    }  # fmt: skip
