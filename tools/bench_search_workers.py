"""Proxy evaluations a minute: in this process, with one and with two Ray workers, on the embedded data.

All three rate the same candidates, one after the other and in rounds, so that other work on the machine meets all;
what counts is the median over rounds of a ratio within a round. Where other work takes the cores, two workers cannot be
twice as fast: the CPU time of an evaluation, Ray's own processes included, says what they would be. A part of
bench_search.py. The accuracies must be the same whoever rates; how good they are is not looked at.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgekd import teachers
from edgekd.data.loading import load_data
from edgekd.distill.logit_cache import cache_logits
from edgekd.distill.recipe import sgd_recipe
from edgekd.profile import calibration_archs
from edgekd.search.proxy import ProxyTask
from edgekd.search.workers import Workers, WorkerSettings, open_workers
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import space_named

SPACE = "mnasnet-28-narrow"
METHOD = "kd"
IMAGES = 800  # as a search takes by default
CANDIDATES = 12  # a round: even with two workers, and as mixed in size as those of a search
DIFFERENCES_BAR = 0
KINDS = ("inline", "1 Ray worker", "2 Ray workers")
KEYS = ("inline", "ray_1", "ray_2")

_TICKS = os.sysconf("SC_CLK_TCK")
Result = dict[str, float]


@dataclass(frozen=True, slots=True)
class Batch:
    """What rating a batch of candidates took, and brought."""

    wall_s: float
    cpu_s: float  # of this process and all that it started
    accuracies: tuple[float, ...]


def run(quick: bool) -> Result:
    """Measure and print evaluations a minute of each kind; give them and the efficiency by the names of --json."""
    rounds, candidates, images = (2, 4, 200) if quick else (5, CANDIDATES, IMAGES)
    archs = calibration_archs(space_named(SPACE), candidates)
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as folder, ExitStack() as stack:
        crews = _crews(_task(Path(folder), images), stack)
        for crew in crews:
            _rated(crew, archs[:2])  # kernels are chosen and memory is taken the first time
        found = [[_rated(crew, archs) for crew in crews] for _ in range(rounds)]
    return _told(found)


def missed_bars(result: Result) -> list[str]:
    """Say which bars the figures miss: none for the speed, which the machine's other work decides as well."""
    differences = result["workers_differences"]
    return [f"{differences:.0f} batches are rated otherwise by others"] if differences > DIFFERENCES_BAR else []


def _task(folder: Path, images: int) -> ProxyTask:
    data = load_data("embedded")
    logits = cache_logits(folder, teachers.load("embedded", data), data)
    recipe = sgd_recipe(epochs=1, batch_size=16, learning_rate=0.03)
    return ProxyTask(space_named(SPACE), "embedded", logits, METHOD, images, recipe, data_sha256=data.sha256)


def _crews(task: ProxyTask, stack: ExitStack) -> list[Workers]:
    """Open all kinds at once: who has nothing to do takes no processor. The third starts Ray, the second joins it."""
    two = stack.enter_context(open_workers(task, WorkerSettings(2)))
    one = stack.enter_context(open_workers(task, WorkerSettings(1, "auto", cpus_per_worker=0.0)))
    return [stack.enter_context(open_workers(task, WorkerSettings())), one, two]


def _rated(crew: Workers, archs: Sequence[Arch]) -> Batch:
    began_s, began_cpu_s = time.perf_counter(), _cpu_s()
    accuracies = tuple(rated.accuracy for rated in crew.evaluate(archs))
    return Batch(time.perf_counter() - began_s, _cpu_s() - began_cpu_s, accuracies)


def _cpu_s() -> float:
    """Add up what this process and all that it started have used of the processors."""
    parents, ticks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            pid = int(folder.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(ticks[pid] for pid in ours) / _TICKS


def _told(found: Sequence[Sequence[Batch]]) -> Result:
    """Print the rounds' figures, and give them."""
    candidates = len(found[0][0].accuracies)
    rates = [statistics.median(60 * candidates / row[kind].wall_s for row in found) for kind in range(len(KINDS))]
    costs_s = [statistics.median(row[kind].cpu_s / candidates for row in found) for kind in range(len(KINDS))]
    efficiency = statistics.median(row[0].wall_s / row[2].wall_s / 2 for row in found)
    differences = sum(batch.accuracies != found[0][0].accuracies for row in found for batch in row)
    print(f"proxy evaluations, {len(found)} rounds of {candidates}, medians:")
    for kind, rate, cost_s in zip(KINDS, rates, costs_s, strict=True):
        print(f"  {kind:>13}: {rate:6.1f} a minute, {cost_s:.3f} s of CPU time each")
    load = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    print(
        f"  efficiency of two workers: {efficiency:.2f} by the clock ({load}), "
        f"{costs_s[0] / costs_s[2]:.2f} by CPU time"
    )
    verdict = "holds" if differences <= DIFFERENCES_BAR else "DOES NOT HOLD"
    print(f"  bar: the same accuracies whoever rates, {differences} batches differ: {verdict}")
    return {
        **{f"evaluations_a_minute.{key}": rate for key, rate in zip(KEYS, rates, strict=True)},
        **{f"evaluation_cpu_s.{key}": cost_s for key, cost_s in zip(KEYS, costs_s, strict=True)},
        "workers_efficiency": efficiency,
        "workers_cpu_efficiency": costs_s[0] / costs_s[2],
        "workers_differences": float(differences),
    }
