#!/usr/bin/env python3
"""Measure edgekd against its bars on this machine, side by side in one run.

A space's whole latency table against one process of the runtime's own benchmark a row, the time to write a .tflite
file, the start of `edgekd --help`, and with --demo the whole job's seconds a stage and its memory. Ends with 1 where a
bar is missed. Needs Linux and the project's environment.

    .venv/bin/python tools/bench_main.py [--json FILE] [--demo]
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench_parts import (
    ROOT,
    Result,
    concluded,
    machine,
    models_of,
    print_machine,
    row_command,
    row_seconds,
    seconds_of,
    shown,
)

if TYPE_CHECKING:
    from edgekd.profile import Order

SPACE = "mnasnet-28-narrow"  # the demonstration's
MIN_TABLE_RATIO = 20.0
MAX_WRITE_MS = 50.0
HELP_RUNS = 10
RANDOM_ARCHS = 20
WRITES = 3  # of each file; their median leaves out what else the machine did for a moment
HEAVY = ("torch", "onnx", "onnxruntime", "ai_edge_litert")
SAMPLE_SECONDS = 0.5  # between two looks at the demonstration's memory

HELP_COMMAND = (sys.executable, "-m", "edgekd", "--help")


def main() -> int:
    """Measure, print and write; give the exit code."""
    options = _options()
    result: Result = {"machine": machine()}
    print_machine(result["machine"])
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as name:
        folder = Path(name)
        for part in (lambda: table_part(folder, options.sample), lambda: write_part(folder), help_part):
            result |= shown(part)
        if options.demo:
            result |= shown(lambda: demo_part(folder))
    return concluded(result, missed_bars(result), options.json)


def missed_bars(result: Result) -> list[str]:
    """Say which bars a result does not reach; none is missed by being reached exactly."""
    missed = []
    if result["table_ratio"] < MIN_TABLE_RATIO:
        missed.append(f"table_ratio {result['table_ratio']:.1f} is below {MIN_TABLE_RATIO:g}")
    for dtype, times in result["write_ms"].items():
        if times["max"] > MAX_WRITE_MS:
            missed.append(f"write_ms.{dtype}.max {times['max']:.1f} is above {MAX_WRITE_MS:g}")
    if result["help_heavy_imports"]:
        missed.append(f"help imports {', '.join(result['help_heavy_imports'])}")
    return missed


# --- the table --------------------------------------------------------------------------------------------------------


def table_part(folder: Path, sample: int) -> Result:
    """Profile the space with edgekd, and time one process a row on a random sample that is scaled to every row.

    Half of the sample is timed before and half after, so that a machine that gets faster or slower favours neither.
    """
    from edgekd.profile import Order
    from edgekd.spaces.mnasnet import space_named

    order = Order.for_space(space_named(SPACE))
    models = models_of(order)
    chosen = random.Random(0).sample(models, min(sample, len(models)))  # noqa: S311 - a sample, not a secret
    sampled = [row_seconds(folder, make()) for make in chosen[: sample // 2]]
    table_seconds = _edgekd_seconds(folder / "table.jsonl", order)
    sampled += [row_seconds(folder, make()) for make in chosen[sample // 2 :]]
    scaled = statistics.fmean(sampled) * len(models)
    ratio = scaled / table_seconds
    print(f"table of {SPACE}, {len(models)} rows (operators, and whole networks for the calibration)")
    print(f"  edgekd:            {table_seconds:8.1f} s  calibration, and rows measured again, included")
    print(f"  a process per row: {scaled:8.1f} s  scaled: {len(chosen)} random rows took {sum(sampled):.1f} s")
    print(f"    {shlex.join(row_command(Path('M.tflite'), Path('R.json')))}")
    print(f"  ratio:             {ratio:8.1f}    (bar: at least {MIN_TABLE_RATIO:g})")
    return {
        "table_seconds": {"edgekd": table_seconds, "process_per_row": scaled},
        "table_ratio": ratio,
        "table_rows": len(models),
        "sampled_row_seconds": sampled,
    }


def _edgekd_seconds(table: Path, order: Order) -> float:
    from edgekd.bench import DeviceChoice
    from edgekd.profile import ProfileRequest, profile

    began = time.perf_counter()
    profile(ProfileRequest(DeviceChoice(), table), order, lambda done, total: None, lambda text: print(f"  {text}"))
    return time.perf_counter() - began


# --- writing ----------------------------------------------------------------------------------------------------------


def write_part(folder: Path) -> Result:
    """Time the writing of .tflite files from weights in memory to the disk; a file's time is its median."""
    from edgekd.graph.ir import int8_graph
    from edgekd.graph.micro import plausible_ranges, random_parameters
    from edgekd.graph.tflite_writer import write_tflite
    from edgekd.spaces.layers import graph_of
    from edgekd.spaces.mnasnet import space_named

    space, rng = space_named(SPACE), random.Random(1)  # noqa: S311 - a choice of networks, not a secret
    archs = [space.reference()]
    archs += [space.arch([rng.randrange(n) for n in space.decision_sizes]) for _ in range(RANDOM_ARCHS)]
    times: dict[str, list[float]] = {"float32": [], "int8": []}
    for graph in (graph_of(space, arch) for arch in archs):
        parameters, quantized = random_parameters(graph), int8_graph(graph)
        times["float32"].append(_write_ms(folder, partial(write_tflite, graph, parameters)))
        times["int8"].append(
            _write_ms(folder, partial(write_tflite, quantized, parameters, plausible_ranges(quantized)))
        )
    result = {dtype: {"median": statistics.median(ms), "max": max(ms)} for dtype, ms in times.items()}
    print(f"writing the .tflite of the reference and of {RANDOM_ARCHS} random architectures, each {WRITES} times")
    for dtype, ms in result.items():
        print(f"  {dtype:8} median {ms['median']:6.1f} ms, max {ms['max']:6.1f} ms (bar: {MAX_WRITE_MS:g} ms)")
    return {"write_ms": result}


def _write_ms(folder: Path, make: Callable[[], bytes]) -> float:
    times = []
    for _ in range(WRITES):
        began = time.perf_counter()
        (folder / "student.tflite").write_bytes(make())
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


# --- the start --------------------------------------------------------------------------------------------------------


def help_part() -> Result:
    """Time `edgekd --help` and see whether it loads what it does not need."""
    seconds = statistics.median(seconds_of(HELP_COMMAND) for _ in range(HELP_RUNS))
    command = (HELP_COMMAND[0], "-X", "importtime", *HELP_COMMAND[1:])
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    heavy = heavy_imports(listing)
    print(f"{shlex.join(HELP_COMMAND)}: median {seconds:.3f} s of {HELP_RUNS} processes")
    print(f"  heavy imports ({', '.join(HEAVY)}): {', '.join(heavy) or 'none'}")
    return {"help_seconds": seconds, "help_heavy_imports": heavy}


def heavy_imports(listing: str) -> list[str]:
    """Find the heavy packages in what `python -X importtime` wrote."""
    names = (line.rpartition("|")[2].strip() for line in listing.splitlines() if line.startswith("import time:"))
    return sorted({name.partition(".")[0] for name in names} & set(HEAVY))


# --- the whole job ----------------------------------------------------------------------------------------------------


def demo_part(folder: Path) -> Result:
    """Run the demonstration and watch the memory of its processes."""
    command = [sys.executable, "-m", "edgekd", "run", "tools/demo.toml", "--out", str(folder / "demo")]
    print(f"demonstration: {shlex.join(command)}", flush=True)
    began, peak_bytes = time.perf_counter(), 0
    with (folder / "demo.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while not _ended(process):
            peak_bytes = max(peak_bytes, tree_memory_bytes(process.pid))
    if process.returncode:
        last = (folder / "demo.log").read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"the demonstration ended with {process.returncode}: {last}")
    wall, stages = time.perf_counter() - began, json.loads((folder / "demo" / "seconds.json").read_text("utf-8"))
    print("".join(f"  {stage:9} {seconds:7.1f} s\n" for stage, seconds in stages.items()), end="")
    print(f"  in all    {wall:7.1f} s, at most {peak_bytes / 1e6:.0f} MB in all its processes")
    return {"demo_seconds": stages, "demo_wall_seconds": wall, "demo_peak_mb": peak_bytes / 1e6}


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the process for a while, and say whether it has ended."""
    try:
        process.wait(SAMPLE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def tree_memory_bytes(root: int) -> int:
    """Add up the proportional memory of a process and of all that descend from it."""
    return sum(_pss_bytes(pid) for pid in descendants(root, _parents()))


def descendants(root: int, parents: dict[int, int]) -> set[int]:
    """Give a process and all that descend from it, by a map of each process to its parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found, open_ends = {root}, [root]
    while open_ends:
        new = [pid for pid in children.get(open_ends.pop(), ()) if pid not in found]
        found.update(new)
        open_ends += new
    return found


def _parents() -> dict[int, int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(entry / "stat")):
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])  # the name before may hold spaces
    return parents


def _pss_bytes(pid: int) -> int:
    lines = _read(Path("/proc") / str(pid) / "smaps_rollup").splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process has ended since it was listed
        return ""


# --- common -----------------------------------------------------------------------------------------------------------


def _options(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--demo", action="store_true", help="also run the demonstration (minutes)")
    parser.add_argument("--sample", type=int, default=20, help="rows that are timed with a process each")
    return parser.parse_args(list(arguments) if arguments is not None else None)


if __name__ == "__main__":
    raise SystemExit(main())
