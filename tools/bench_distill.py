#!/usr/bin/env python3
"""Measure distillation's training steps, its loader and its teacher cache on this machine, side by side in one run.

    .venv/bin/python tools/bench_distill.py --json distill.json --peer-python /path/to/python

Each method's step, with a live teacher and with cached logits, is compared with a bare step of the same student; kd's
and dist's also with torchdistill's, where `--peer-python` names an interpreter that can import it. On a CPU one thread
trains; where there is a GPU, all is measured there as well. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bench_distill_data import Reading, cache_facts, read_rate
from bench_distill_peer import TERMS
from bench_distill_steps import BARE, CACHED, LIVE, OPTIMIZER, PEER, Steps, Task, contestants, measured, pairs_of
from bench_parts import Result, concluded, machine, print_machine

from edgekd.distill.augment import Augmentation
from edgekd.distill.methods import METHODS
from edgekd.spaces.mnasnet import space_named

CACHED_BAR, PEER_BAR, CACHE_BAR_MB = 1.05, 1.0, 12.0
CACHED_METHODS = ("kd", "dist")  # that the bar is for
CACHED_TURNS = 3  # of theirs a round: they are near their bar, and steps on a busy machine vary by more than that
# a light student of the space of CIFAR's images, so that a round of all methods takes a minute of one core, not ten
STUDENT = "mnasnet-32:" + "/".join(f"dsconv_k3_se0_identity_l{layers}_f0.75" for layers in (1, 1, 2, 3, 2, 2, 1))
TEACHER = "resnet20"
GPU_STUDENT, GPU_STUDENT_224 = (str(space_named(name).reference()) for name in ("mnasnet-32", "mnasnet-224"))
GPU_TEACHER = "resnet56"
GPU = "cuda"
PEER_SCRIPT = Path(__file__).resolve().parent / "bench_distill_peer.py"
LOOKS = {
    "mirrored": Augmentation(),
    "cropped": Augmentation(crop_padding=4),
    "randaugment": Augmentation(crop_padding=4, operators=2),
}


class PeerFailed(Exception):
    """The peer's interpreter cannot do what it was asked."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured."""

    batch: int
    samples: int
    rounds: int
    turn: int  # steps that a contestant makes in a row
    methods: tuple[str, ...]


FULL = Amount(batch=64, samples=16_448, rounds=11, turn=2, methods=tuple(METHODS))
QUICK = Amount(batch=16, samples=512, rounds=3, turn=1, methods=tuple(METHODS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; give the exit code."""
    options = _options(arguments)
    result: Result = {"machine": machine()}
    print_machine(result["machine"])
    amount = QUICK if options.quick else FULL
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result |= on_cpu(amount, options.peer_python)
        if torch.cuda.is_available():
            result["gpu"] = on_gpu(amount, options.peer_python)
    except PeerFailed as error:
        print(f"bench_distill: {error}", file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(before)
    return concluded(result, missed_bars(result), options.json)


def on_cpu(amount: Amount, peer_python: Path | None) -> Result:
    """Measure steps, reading and the cache on a CPU."""
    result = steps_of(Task(STUDENT, TEACHER, amount.batch, amount.samples), amount, peer_python)
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as name:
        folder = Path(name)
        result["loader"] = {
            look: read_rate(Reading(32, 64, amount.rounds, augmentation), folder)
            for look, augmentation in LOOKS.items()
        }
        result["loader_needs"] = result["images_a_second"]
        _print_rates(result, "one core, 32x32")
        result["cache"] = cache_facts(folder)
    cache = result["cache"]
    result["cache_mb"] = cache["mb"]
    print(
        f"teacher cache, 50,000 x 100 logits in two views: {cache['mb']:.1f} MB, "
        f"{'mapped' if cache['mapped'] else 'NOT MAPPED'}, opened and checked in {cache['open_all_ms']:.0f} ms, "
        f"for 500 samples in {cache['open_500_ms']:.1f} ms"
    )
    return result


def on_gpu(amount: Amount, peer_python: Path | None) -> Result:
    """Measure the same on the first GPU, and what its loader gives and takes at 224x224."""
    print(f"\n{torch.cuda.get_device_name(0)}")
    task = Task(GPU_STUDENT, GPU_TEACHER, 2 * amount.batch, amount.samples, device=GPU)
    result = steps_of(task, amount, peer_python)
    large = Task(GPU_STUDENT_224, GPU_TEACHER, 2 * amount.batch, 2 * amount.batch, device=GPU)
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as name, ExitStack() as stack:
        bare = contestants(large, [], Path(name), stack)[BARE]
        seconds = [bare(amount.turn) / amount.turn for _ in range(amount.rounds + 1)][1:]
        reading = Reading(224, large.batch, 4 * workers, Augmentation(crop_area=0.08), workers, GPU)
        result["loader"] = {"windows": read_rate(reading, Path(name))}
        result["loader_needs"] = large.batch / statistics.median(seconds)
    _print_rates(result, f"{workers} processes, 224x224")
    return result


def steps_of(task: Task, amount: Amount, peer_python: Path | None) -> Result:
    """Measure and print all methods' steps and the peer's."""
    print(f"student {task.student}\nteacher {task.teacher}, batch {task.batch}, {task.samples} samples", flush=True)
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as name, ExitStack() as stack:
        steps = contestants(task, amount.methods, Path(name), stack)
        if peer_python:
            steps |= stack.enter_context(peers(peer_python, task))
        pairs = pairs_of(steps)
        near = [pair for pair in pairs if pair[0] in {f"{name} {CACHED}" for name in CACHED_METHODS}]
        times = measured(steps, pairs + near * (CACHED_TURNS - 1), amount.rounds, amount.turn)
    peer_ratio = {name: times.ratio(f"{name} {LIVE}", f"{PEER}{name}") for name in TERMS} if peer_python else None
    result = {
        "task": asdict(task),
        "rounds": amount.rounds,
        "step_ms": {name: 1e3 * times.median(name) for name in times.names()},
        "step_ratio": times.step_ratios(),
        "peer_ratio": peer_ratio,
        "images_a_second": task.batch / times.median(BARE),
    }
    _print_steps(result)
    return result


# --- the peer ---------------------------------------------------------------------------------------------------------


@contextmanager
def peers(python: Path, task: Task) -> Iterator[dict[str, Steps]]:
    """Start the peer's interpreter and give its steps by name: peer kd, peer dist.

    Raises:
        PeerFailed: it cannot be started, or import torchdistill, or ends before it is told to.

    """
    about = {**asdict(task), "shape": task.shape, "classes": task.classes, "learning_rate": OPTIMIZER.learning_rate}
    with _started([str(python), str(PEER_SCRIPT)]) as process:
        ask = _asker(process)
        print(f"peer: torchdistill {ask(json.dumps(about)).removeprefix('ready ')}", flush=True)

        def steps_of(name: str) -> Steps:
            return lambda steps: float(ask(f"{name} {steps}"))

        yield {f"{PEER}{name}": steps_of(name) for name in TERMS}


def _started(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise PeerFailed(f"--peer-python {command[0]} cannot be started: {error.strerror}") from error


def _asker(process: subprocess.Popen[str]) -> Callable[[str], str]:
    def ask(line: str) -> str:
        if process.stdin is None or process.stdout is None:
            raise PeerFailed("the peer has no pipes")
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            with suppress(BrokenPipeError):
                process.stdin.close()
            raise PeerFailed("the peer ended early, see above; --peer-python must be able to import torchdistill")
        return answer.strip()

    return ask


# --- what is said -----------------------------------------------------------------------------------------------------


def missed_bars(result: Result) -> list[str]:
    """Name the bars that were missed, each with its value."""
    found = _missed(result) + [f"gpu {missed}" for missed in _missed(result.get("gpu", {}))]
    if result["cache_mb"] > CACHE_BAR_MB:
        found.append(f"cache_mb is {result['cache_mb']:.1f}, above {CACHE_BAR_MB}")
    if not result["cache"]["mapped"]:
        found.append("the cache is not mapped")
    return found


def _missed(part: Result) -> list[str]:
    """Name what was missed on one device."""
    cached = {name: ways["cached"] for name, ways in part.get("step_ratio", {}).items() if name in CACHED_METHODS}
    peer = part.get("peer_ratio") or {}
    return [
        *(f"step_ratio.{n}.cached is {r:.3f}, above {CACHED_BAR}" for n, r in cached.items() if r > CACHED_BAR),
        *(f"peer_ratio.{n} is {r:.3f}, above {PEER_BAR}" for n, r in peer.items() if r > PEER_BAR),
        *(
            f"loader.{look} is {rate:.0f} images/s, below the step's {part['loader_needs']:.0f}"
            for look, rate in part.get("loader", {}).items()
            if rate < part["loader_needs"]
        ),
    ]


def _print_steps(result: Result) -> None:
    bare_ms = result["step_ms"][BARE]
    print(f"bare step {bare_ms:.1f} ms, {result['images_a_second']:.0f} images/s; times over it, medians of rounds:")
    print(f"  {'method':<12} {'live':>7} {'cached':>7}")
    for name, ways in result["step_ratio"].items():
        print(f"  {name:<12} {_times(ways['live']):>7} {_times(ways['cached']):>7}")
    for name, found in (result["peer_ratio"] or {}).items():
        print(f"  {name} live over torchdistill's {name}: {_times(found)}")
    print(flush=True)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _print_rates(part: Result, where: str) -> None:
    said = ", ".join(f"{name} {rate:.0f}" for name, rate in part["loader"].items())
    print(f"loader, images/s ({where}): {said}; a bare step takes {part['loader_needs']:.0f}", flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, metavar="PATH", help="an interpreter that can import torchdistill")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--quick", action="store_true", help="few rounds of small batches: only to see that it works")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
