"""A realistic run folder: searches over a seven-stage space, written as the files that a run leaves behind."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TARGET_MS = 0.150


@dataclass(frozen=True)
class Shape:
    """What kind of run to make: how many samples each search took (None: no such journal), and how slow they are."""

    search: int = 120
    random: int | None = 120
    slowdown: float = 1.0


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder and returns its path; keywords are those of Shape."""

    def make(**shape: Any) -> Path:
        folder = tmp_path / "run"
        write_run(folder, Shape(**shape))
        return folder

    return make


@pytest.fixture(scope="session")
def make_small_run() -> Callable[[Path], None]:
    """Return a function that writes a run of three samples into a folder; for property tests, so of the session."""
    return lambda folder: write_run(folder, Shape(search=3, random=None))


def write_run(folder: Path, shape: Shape = Shape()) -> None:
    """Write manifest.json and the journals; the winner is the best sample of the search under the target."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = make_samples(shape.search, learns=True, slowdown=shape.slowdown)
    write_journal(folder / "search.jsonl", "akd", samples)
    if shape.random is not None:
        write_journal(folder / "random.jsonl", "random", make_samples(shape.random, False, shape.slowdown))
    feasible = [s for s in samples if s["predicted_ms"]["int8"] <= TARGET_MS] or samples
    winner = max(feasible, key=lambda s: s["proxy_accuracy"], default={"arch": "akd32:none", "arch_id": "ab12cd34ef56"})
    (folder / "manifest.json").write_text(json.dumps(make_manifest(winner)))


def write_journal(path: Path, engine: str, samples: list[dict[str, Any]]) -> None:
    """Write a study's journal."""
    header = {"format": "edgekd-study", "version": 1, "engine": engine, "target_ms": TARGET_MS, "target_dtype": "int8"}
    header |= {"reward": {"form": "soft", "exponent": -0.07}, "budget": 120}
    path.write_text("".join(json.dumps(line) + "\n" for line in [header, *samples]))


def make_samples(count: int, learns: bool, slowdown: float = 1.0) -> list[dict[str, Any]]:
    """Draw samples; a search that learns moves to the target's latency and to better accuracies."""
    draw = random.Random(7 if learns else 8)
    samples = []
    for index in range(count):
        progress = min(1.0, index / 120) if learns else 0.0
        macs = int(draw.lognormvariate(0.92 - 0.32 * progress, 0.42 - 0.22 * progress) * 1e6)
        int8 = slowdown * (0.028 + macs / 1e6 * 0.054) * draw.lognormvariate(0, 0.13)
        accuracy = 0.80 - 0.36 / (1 + macs / 6e5) + 0.045 * progress + draw.gauss(0, 0.014)
        ops, skips = ["conv", "dsconv", "mb3", "mb6"], ["none", "identity", "pool"]
        stages = [
            f"{draw.choice(ops)}_k{draw.choice('35')}_se{draw.choice(['0', '0.25'])}_{draw.choice(skips)}"
            f"_l{draw.choice('1234')}_f{draw.choice(['0.75', '1', '1.25'])}"
            for _ in range(7)
        ]
        arch = "akd32:" + "/".join(stages)
        reward = accuracy * (int8 / TARGET_MS) ** -0.07
        samples.append({
            "index": index, "arch": arch, "arch_id": hashlib.sha256(arch.encode()).hexdigest()[:12],
            "predicted_ms": {"float32": int8 * 1.74, "int8": int8}, "proxy_accuracy": accuracy, "reward": reward,
            "seconds": draw.uniform(1.8, 3.4), "macs": macs,
        })  # fmt: skip
    return samples


def make_manifest(winner: dict[str, Any]) -> dict[str, Any]:
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
        "arch": winner["arch"], "arch_id": winner["arch_id"], "seed": 0,
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
