"""What the benchmarks in this folder share: the machine's line, timed commands, a process a row, and the verdict.

Measures nothing by itself. Read next: `bench_main.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.files import write_atomic

if TYPE_CHECKING:
    from edgekd.profile import Order
    from latency_tables.builder import Subject

ROOT = Path(__file__).resolve().parent.parent
ROW_COMMAND = (sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model")

Result = dict[str, Any]


def machine() -> Result:
    """Describe this machine, and how busy it is with other work just now."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "os": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def positive(text: str) -> int:
    """Read an argument that counts something: an integer from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1")
    return int(text)


def space_options(doc: str | None, trial: str) -> argparse.ArgumentParser:
    """Begin the options of a tool that measures networks of one space: --json, --px, and --quick for a trial."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument(
        "--px", type=int, choices=(96, 160, 224), default=96, help="resolution of the space (default 96)"
    )
    parser.add_argument("--quick", action="store_true", help=f"{trial} of a small space: a trial, no result")
    return parser


def print_machine(facts: Result) -> None:
    """Print the machine's line and the command that runs."""
    print(f"{facts['cpu']}, {facts['cores']} cores, load {facts['load_before']:.2f}, {facts['os']}")
    print(f"{shlex.join([sys.executable, *sys.argv])}\n", flush=True)


def shown(part: Callable[[], Result]) -> Result:
    """Run a part, which prints its lines, and close them with an empty one."""
    result = part()
    print(flush=True)
    return result


def concluded(result: Result, missed: list[str], json_path: Path | None) -> int:
    """Complete a result with the load now and the bars it missed, write it where asked, and give the exit code."""
    result["machine"]["load_after"] = os.getloadavg()[0]
    result["missed_bars"] = missed
    write_result(result, json_path)
    print("every bar holds" if not missed else f"missed: {'; '.join(missed)}")
    return 1 if missed else 0


def write_result(result: Result, json_path: Path | None) -> None:
    """Write a result where a JSON file was asked for."""
    if json_path:
        write_atomic(json_path, json.dumps(result, indent=2) + "\n")


def models_of(order: Order) -> list[Callable[[], bytes]]:
    """List how to make each file that a profile measures."""

    def maker(subject: Subject) -> Callable[[], bytes]:
        return lambda: order.model_of(subject).content

    subjects: list[Subject] = [*order.ops, *order.networks]
    return [maker(subject) for subject in subjects]


def seconds_of(command: Sequence[str]) -> float:
    """Time a command. Raises RuntimeError where it fails: what does not work must not look fast."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise RuntimeError(f"{shlex.join(command)[:300]} ended with {done.returncode}: {last}")
    return seconds


def row_command(model: Path, result: Path) -> list[str]:
    """Give the command that measures one model in a process of its own."""
    return [*ROW_COMMAND, "--model", str(model), "--result_json", str(result)]


def row_seconds(folder: Path, content: bytes) -> float:
    """Time one model's measurement in a process of its own, its start included and the file's writing not."""
    model, result = folder / "row.tflite", folder / "row.json"
    model.write_bytes(content)
    result.unlink(missing_ok=True)
    seconds = seconds_of(row_command(model, result))
    json.loads(result.read_text(encoding="utf-8"))  # a process that measured nothing must not count
    return seconds
