"""A part of tools/bench_search.py: what keeping a study costs, and how soon a long one is read.

A sample is appended and forced to the disk, as study.py does it; the disk's own share is measured beside it. A study of
100,000 samples in the narrow space is written and read with every check.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from edgekd.search.reward import Reward
from edgekd.search.study_file import Sample, StudyHeader, StudyRecord, StudySettings, arch_id_of, load_study
from edgekd.spaces.mnasnet import space_named
from latency_tables.journal import Journal, sealed_lines

SPACE = "mnasnet-28-narrow"
APPENDS, SAMPLES = 2000, 100_000
APPEND_BAR_MS, LOAD_BAR_S = 1.0, 2.0


def run(quick: bool = False, folder: Path | None = None) -> dict[str, float]:
    """Measure both; print them beside their bars, and give them by the names of --json.

    `folder` says on which disk; the default is the system's for temporary files.
    """
    count, appends = (SAMPLES // 10, APPENDS // 10) if quick else (SAMPLES, APPENDS)
    record = made_up(count)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        append_ms, disk_ms = _append(Path(name), record, appends)
        load_s, size_mb = _load(Path(name), record)
    scaled = "" if count == SAMPLES else f", from {count:,}"
    load_s *= SAMPLES / count
    print(f"append a sample: median {append_ms:.3f} ms, of which the disk {disk_ms:.3f} ms (bar {APPEND_BAR_MS:g} ms)")
    print(f"load {SAMPLES:,} samples ({size_mb:.0f} MB{scaled}): {load_s:.2f} s (bar {LOAD_BAR_S:g} s)")
    return {"journal_append_ms": append_ms, "journal_append_disk_ms": disk_ms, "load_100000_s": load_s}


def missed_bars(result: Mapping[str, float]) -> list[str]:
    """Say which of the two bars is missed."""
    bars = {"journal_append_ms": APPEND_BAR_MS, "load_100000_s": LOAD_BAR_S}
    return [f"{key} {result[key]:.3f} is above {bar:g}" for key, bar in bars.items() if result[key] > bar]


def _append(folder: Path, record: StudyRecord, appends: int) -> tuple[float, float]:
    """Give the median ms of an append, and of forcing as many bytes to this disk alone."""
    journal = Journal(folder / "appended.jsonl", record.header.as_json(), sealed=True)
    spent_ms: list[float] = []
    for sample in record.samples[:appends]:
        began = time.perf_counter()
        journal.append(sample.as_json())
        journal.sync()
        spent_ms.append(1e3 * (time.perf_counter() - began))
    line = journal.path.read_bytes().splitlines(keepends=True)[-1]
    return statistics.median(spent_ms), _disk(folder / "plain", line, appends)


def _disk(path: Path, line: bytes, appends: int) -> float:
    spent_ms: list[float] = []
    with path.open("ab", buffering=0) as file:
        for _ in range(appends):
            began = time.perf_counter()
            file.write(line)
            os.fsync(file.fileno())
            spent_ms.append(1e3 * (time.perf_counter() - began))
    return statistics.median(spent_ms)


def _load(folder: Path, record: StudyRecord) -> tuple[float, float]:
    """Give the least s of three readings, and the file's MB."""
    path = folder / "loaded.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(sealed_lines(record.header.as_json(), (sample.as_json() for sample in record.samples)))
    spent_s: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        loaded = load_study(path)
        spent_s.append(time.perf_counter() - began)
        if len(loaded.samples) != len(record.samples):
            raise RuntimeError(f"{len(loaded.samples)} samples were read, {len(record.samples)} were written")
        del loaded  # or the next reading is charged with its end
    return min(spent_s), path.stat().st_size / 1e6


def made_up(count: int) -> StudyRecord:
    """Make a study of distinct architectures with plausible numbers."""
    space = space_named(SPACE)
    settings = StudySettings("random", count, 10, 0, (0.1,), "int8", Reward("absolute"))
    proxy = {"method": "kd", "images": 800.0, "epochs": 1}
    header = StudyHeader(space.name, space.sha256, space.decision_sizes, settings, 0, {"proxy": proxy})
    return StudyRecord(header, tuple(_sample(index, header) for index in range(count)))


def _sample(index: int, header: StudyHeader) -> Sample:
    rest, choices = index * 1_000_003, []
    for size in header.decision_sizes:
        rest, choice = divmod(rest, size)
        choices.append(choice)
    arch = str(space_named(SPACE).arch(choices))
    ms, accuracy = 0.05 + index % 997 / 1e4, index % 1009 / 1009
    return Sample(
        index=index,
        choices=tuple(choices),
        arch=arch,
        arch_id=arch_id_of(arch),
        predicted_ms={"float32": 2.1 * ms, "int8": ms},
        measured_ms=None,
        proxy_accuracy=accuracy,
        reward=header.settings.reward(accuracy, ms, header.settings.targets_ms[0]),
        seconds=1.234,
        macs=1_234_567 + index,
        epochs=1,
        early_accuracy=None,
        failure="",
        host="host",
        target=0,
    )
