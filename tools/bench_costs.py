"""What tables cost, for `bench_tables.py`: device time, predictions a second, and the time to read one.

The accuracy of what they predict is bench_tables.py's.
"""

from __future__ import annotations

import itertools
import random
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bench_parts import ROOT, Result, models_of, row_command, row_seconds
from bench_workshop import Workshop

from edgekd.graph.ir import graph_in
from edgekd.profile import QUICK as ROUGH
from edgekd.profile import all_ops
from edgekd.search.latency import LatencyModel
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import SPACES
from latency_tables.op_spec import OpSpec
from latency_tables.schema import Measurement, TableKey
from latency_tables.store import TableFile

PX, DTYPE = 96, "float32"
LOAD_ROWS, LOAD_SAMPLES = 5000, 32  # a row, on each of its two clocks
LOADS = 5
SINGLES = 100
_LOAD_CODE = """
import sys, time
from pathlib import Path
from latency_tables.store import load_table
began = time.perf_counter()
table = load_table(Path(sys.argv[1]))
print(time.perf_counter() - began, len(table.rows))
"""


def device_part(shop: Workshop) -> Result:
    """Time a table's profile on the device, full and quick, and one process a row on a random sample that is scaled to
    every row.

    Half of the sample is timed before and half after, so that a machine that gets faster or slower favours neither.
    """
    models = models_of(shop.order(PX))
    chosen = random.Random(0).sample(models, shop.scale.sampled_rows)  # noqa: S311 - a sample, not a secret
    half = len(chosen) // 2
    sampled = [row_seconds(shop.folder, make()) for make in chosen[:half]]
    ours, quick = shop.profiled(PX).device_seconds, shop.rough(PX).device_seconds
    sampled += [row_seconds(shop.folder, make()) for make in chosen[half:]]
    rough = models_of(shop.order(PX, ROUGH))
    scaled, scaled_rough = (statistics.fmean(sampled) * len(each) for each in (models, rough))
    print(f"table of mnasnet-{PX}, {len(models)} rows (operators, and whole networks for the calibration)")
    print(f"  edgekd:            {ours:8.1f} s  from the first push to the last row, rows measured again included")
    print(f"  edgekd, --quick:   {quick:8.1f} s  {len(rough)} rows, fewer networks among them, one attempt at each")
    print(f"  a process per row: {scaled:8.1f} s  scaled: {len(chosen)} random rows took {sum(sampled):.1f} s")
    print(f"    {shlex.join(row_command(Path('M.tflite'), Path('R.json')))}")
    print(f"  ratios:            {scaled / ours:8.1f}, --quick {scaled_rough / quick:.1f} (beside its own rows)")
    seconds = {"edgekd": ours, "quick": quick, "process_per_row": scaled, "process_per_quick_row": scaled_rough}
    return {"device_seconds": seconds, "sampled_row_seconds": sampled}


def predictions_part(shop: Workshop) -> Result:
    """Count predictions a second: architectures one at a time and all at once, and bare sums of a dictionary's rows."""
    space, table = shop.space(PX), shop.profiled(PX).table
    latency, rng = LatencyModel.of(space, table), np.random.default_rng(0)
    sizes = space.decision_sizes
    choices = rng.integers(0, sizes, (shop.scale.architectures, len(sizes)))
    archs = [space.arch(row) for row in choices[:SINGLES].tolist()]
    speed = table.speed
    row_ms = {key: speed.quiet_ms(row) for key, row in table.rows.items()}
    keys = [[op.key for op in graph_in(graph_of(space, arch), DTYPE).ops] for arch in archs]
    arrays = latency.arrays(DTYPE)
    speeds = {
        "single": _per_second(len(archs), lambda: [latency.predict(arch, DTYPE) for arch in archs]),
        "vectorised": _per_second(len(choices), lambda: arrays.predict_ms(choices)),
        "dict_sum": _per_second(len(archs), lambda: [sum(row_ms[key] for key in each) for each in keys]),
    }
    print(f"predictions a second, {DTYPE}, mnasnet-{PX}")
    print(f"  single:     {speeds['single']:12,.0f}  LatencyModel.predict: graph, parts and interval")
    print(f"  vectorised: {speeds['vectorised']:12,.0f}  ArrayLatency.predict_ms: {len(choices):,} in one call")
    print(f"  dict_sum:   {speeds['dict_sum']:12,.0f}  plain sums, the operators' keys known; no calibration")
    return {"predictions_per_s": speeds}


def _per_second(count: int, work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return count / statistics.median(seconds)


def load_part(shop: Workshop) -> Result:
    """Time the reading of a table of 5,000 made-up rows, each time in a process that has read none before."""
    path = shop.folder / "made-up.jsonl"
    write_table(path, LOAD_ROWS)
    seconds = statistics.median(_load_seconds(path) for _ in range(LOADS))
    print(f"load_table: {seconds:.3f} s for {LOAD_ROWS} rows of {LOAD_SAMPLES} samples on each of two clocks")
    return {"load_table_5000_s": seconds}


def write_table(path: Path, rows: int) -> None:
    """Write a table of so many operators of the known spaces with random times."""
    key = TableKey("bench", "none", "python", "litert", "0", "xnnpack", 1, "any", "thread_cpu")
    rng, file = np.random.default_rng(0), TableFile(path, key)
    for op in itertools.islice(_known_ops(), rows):
        file.add_row(_made_up(op, rng.integers(50_000, 90_000, 2 * LOAD_SAMPLES).tolist()))
    file.sync()
    if len(file.table.rows) != rows:
        raise RuntimeError(f"the known spaces have {len(file.table.rows)} operators, fewer than {rows}")


def _known_ops() -> Iterator[OpSpec]:
    seen: set[OpSpec] = set()
    for space in SPACES.values():
        new = [op for op in all_ops(space) if op not in seen]
        seen.update(new)
        yield from new


def _made_up(op: OpSpec, samples_ns: list[int]) -> Measurement:
    return Measurement(
        subject=op.key,
        samples_ns=tuple(samples_ns[:LOAD_SAMPLES]),
        wall_samples_ns=tuple(samples_ns[LOAD_SAMPLES:]),
        inferences_per_sample=3,
        warmup_ns=1_000_000,
        init_ns=1_000_000,
        started_at="2026-01-02T03:04:05Z",
        source="simulated",
    )


def _load_seconds(path: Path) -> float:
    command = [sys.executable, "-c", _LOAD_CODE, str(path)]
    seconds, rows = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    if int(rows) != LOAD_ROWS:
        raise RuntimeError(f"load_table gave {rows} rows of {LOAD_ROWS}")
    return float(seconds)
