#!/usr/bin/env python3
"""Measure the ways to devices against their bars on this machine, each beside its peer in one run.

What the host and the link add to each row of a batch of 500 small models, pushing included; one big and many small
files against scp, sftp and adb push; that a second session pushes nothing; how the host's memory grows over 5,000 rows.
The devices are virtual-sshd and virtual-adbd of tools/virtual_devices, which are started where they do not run and then
ended again. Ends with 1 where a bar is missed. Needs Linux, root, the project's environment, openssh-client and adb.

    .venv/bin/python tools/bench_devices.py [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import secrets
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench_parts import ROOT, Result, concluded, machine, print_machine, seconds_of

from device_agents.device import Device
from device_agents.inventory import find_device, open_transport
from device_agents.protocol import Job, JobResult, MeasureSettings
from device_agents.session import Session, SessionLimits
from device_agents.transport import Transport
from edgekd.graph.micro import micro_model
from latency_tables.op_spec import OpSpec, TensorSpec

VIRTUAL = ROOT / "tools" / "virtual_devices"
DEVICES = {"ssh": "virtual-sshd", "adb": "virtual-adbd"}
ADB_PORT_VARIABLE = "ANDROID_ADB_SERVER_PORT"

MAX_OVERHEAD_MS = 5.0  # a row
MIN_PUSH_RATIO = 0.5
MAX_RSS_GROWTH_MB = 16.0
BATCH_ROWS = 500
BATCHES = 5  # of each kind, in turn
BIG_BYTES = 64 << 20
SMALL_FILES, SMALL_BYTES = 1000, 4096
PUSHES = 3  # of each kind, in turn
FEW_ROWS, MANY_ROWS = 100, 5000
# Rows that cost the device nothing and the host what every row costs; blocks of the first reading's size.
CHEAP = MeasureSettings(
    rounds=1, samples_per_round=1, min_sample_us=0, warmup_runs=1, warmup_min_ms=0, block_size=FEW_ROWS
)
KEEP_ALL = SessionLimits(keep_bytes=1 << 34)
KEEP_NOTHING = SessionLimits(keep_bytes=0)


def main() -> int:
    """Measure, print and write; give the exit code."""
    options = _options()
    result: Result = {"machine": machine()}
    print_machine(result["machine"])
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as name, devices() as found:
        folder = Path(name)
        batch = Batch.of(folder, BATCH_ROWS)
        result |= overhead_part(found, batch)
        result |= second_session_part(found, batch)
        result |= push_part(found, folder)
        result |= memory_part(found, batch)
    return concluded(result, missed_bars(result), options.json)


def missed_bars(result: Result) -> list[str]:
    """Say which bars a result does not reach; none is missed by being reached exactly."""
    missed = []
    for way in DEVICES:
        if (overhead := result["host_overhead_ms_per_row"][way]) > MAX_OVERHEAD_MS:
            missed.append(f"host_overhead_ms_per_row.{way} {overhead:.2f} is above {MAX_OVERHEAD_MS:g}")
        if (ratio := result["push_ratio"][way]) < MIN_PUSH_RATIO:
            missed.append(f"push_ratio.{way} {ratio:.2f} is below {MIN_PUSH_RATIO:g}")
        if pushed := result["second_session_pushed_bytes"][way]:
            missed.append(f"second_session_pushed_bytes.{way} is {pushed}, not 0")
    if (growth := result["rss_growth_mb"]) > MAX_RSS_GROWTH_MB:
        missed.append(f"rss_growth_mb {growth:.1f} is above {MAX_RSS_GROWTH_MB:g}")
    return missed


@dataclass(frozen=True, slots=True)
class Batch:
    """Real one-operator models, each measured once."""

    jobs: tuple[Job, ...]
    models: Mapping[str, Path]

    @staticmethod
    def of(folder: Path, rows: int) -> Batch:
        """Write so many different convolutions."""
        jobs, models = [], {}
        for index in range(rows):
            shape = (1, 6 + index % 5, 6 + index % 5, 1 + index // 25)
            op = OpSpec("conv_2d", (TensorSpec(shape),), "float32", 1 + index // 5 % 5, kernel=(3, 3))
            content = micro_model(op)
            digest = hashlib.sha256(content).hexdigest()
            models[digest] = folder / f"{digest}.tflite"
            models[digest].write_bytes(content)
            jobs.append(Job(f"row {index}", digest))
        if len(models) != rows:
            raise RuntimeError(f"{rows} operators made only {len(models)} different files")
        return Batch(tuple(jobs), models)

    @property
    def size_bytes(self) -> int:
        """Add up the models' files."""
        return sum(path.stat().st_size for path in self.models.values())

    def repeated(self, rows: int) -> Batch:
        """Measure the same models again and again, until there are so many rows."""
        jobs = (Job(f"row {index}", self.jobs[index % len(self.jobs)].model_sha256) for index in range(rows))
        return Batch(tuple(jobs), self.models)


@dataclass(frozen=True, slots=True)
class Devices:
    """The host itself, and the same machine at the end of each wire."""

    host: Device
    remote: Mapping[str, Device]
    ssh_config: Path


# --- overhead ---------------------------------------------------------------------------------------------------------


def overhead_part(found: Devices, batch: Batch) -> Result:
    """Time a batch over each link and without one; the difference a row is what host and link add.

    A batch's time is from the call of `measure` to its last row: pushing, plan, measuring, every line back. From it is
    taken what its rows tell of loading, warming up and running models, so that how fast those ran does not matter. What
    is left without a link (files copied, read and hashed, inputs filled, lines read) it costs on this machine alone as
    well, and is not counted; both figures are printed.
    The least of several batches counts: what another one took longer, others did on the machine meanwhile.
    """
    everything = {"local": found.host, **found.remote}
    times: dict[str, list[BatchTimes]] = {way: [] for way in everything}
    for _ in range(BATCHES):
        for way, device in everything.items():
            times[way].append(_batch_times(device, batch))
    best = {way: min(taken, key=lambda one: one.overhead_s) for way, taken in times.items()}
    per_row = {way: 1000 * one.overhead_s / len(batch.jobs) for way, one in best.items()}
    size_mb = batch.size_bytes / 1e6
    print(f"{len(batch.jobs)} rows of small models, {size_mb:.1f} MB pushed; the least of {BATCHES} batches each")
    for way, device in everything.items():
        one = best[way]
        print(f"  {device.name:12} {per_row[way]:5.2f} ms a row beside the models")
        parts = f"{one.models_s:.2f} s were models, {one.push_s:.2f} s pushing"
        print(f"  {'':12} of {one.wall_s:.2f} s in all {parts}; this process used {one.cpu_s:.2f} s of CPU")
    overhead = {way: per_row[way] - per_row["local"] for way in DEVICES}
    for way, name in DEVICES.items():
        print(f"  {name} adds {overhead[way]:.2f} ms a row (bar: at most {MAX_OVERHEAD_MS:g} ms)")
    print(flush=True)
    batches = {way: [asdict(one) for one in taken] for way, taken in times.items()}
    return {"batches": batches, "host_overhead_ms_per_row": overhead}


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """What one batch took on the wall, of that in models and in pushing; and this process's CPU in all its threads."""

    wall_s: float
    models_s: float
    push_s: float
    cpu_s: float

    @property
    def overhead_s(self) -> float:
        """Give what was neither loading nor running models."""
        return self.wall_s - self.models_s


def model_ns(row: JobResult) -> float:
    """Add up what the device spent on one row's model: loading, warming up, samples and the runs before them."""
    runs = sum(row.wall_samples_ns) * row.loops
    mean_ns = runs / row.loops / len(row.wall_samples_ns)
    before = len(row.beside_ns) * max(1, row.loops // 4) * mean_ns  # each visit runs so often before its first sample
    return row.init_ns + row.warmup_ns + runs + before


class PushClock:
    """A transport whose pushes are timed."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.push_s = 0.0

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Push as the transport does."""
        began = time.perf_counter()
        self._transport.push_all(files)
        self.push_s += time.perf_counter() - began

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to the transport."""
        return getattr(self._transport, name)


def _batch_times(device: Device, batch: Batch) -> BatchTimes:
    settings = MeasureSettings()
    with closing(PushClock(open_transport(device))) as transport, Session(device, transport, KEEP_NOTHING) as session:
        began, push_s, cpu_s = time.perf_counter(), transport.push_s, time.process_time()
        pushed_before = session.pushed_bytes
        rows = list(session.measure(batch.jobs, batch.models, settings))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
        failed = [row.error for row in rows if not row.ok]
        if failed or session.pushed_bytes - pushed_before != batch.size_bytes:
            raise RuntimeError(f"{device.name}: {len(failed)} rows failed, {failed[:1]}; or files lay there already")
        models_s = sum(model_ns(row) for row in rows) / 1e9
        return BatchTimes(wall_s, models_s, transport.push_s - push_s, cpu_s)


# --- a second session -------------------------------------------------------------------------------------------------


def second_session_part(found: Devices, batch: Batch) -> Result:
    """Run two sessions one after the other and count what the second one pushes."""
    pushed: dict[str, int] = {}
    for way, device in found.remote.items():
        first, pushed[way] = (_pushed_bytes(device, batch, limits) for limits in (KEEP_ALL, KEEP_NOTHING))
        print(f"{DEVICES[way]}: a first session pushed {first} bytes, a second one {pushed[way]} (bar: 0)")
    print(flush=True)
    return {"second_session_pushed_bytes": pushed}


def _pushed_bytes(device: Device, batch: Batch, limits: SessionLimits) -> int:
    with closing(open_transport(device)) as transport, Session(device, transport, limits) as session:
        for row in session.measure(batch.jobs, batch.models, CHEAP):
            if not row.ok:
                raise RuntimeError(f"{device.name}: {row.job_id}: {row.error}")
        return session.pushed_bytes


# --- pushing ----------------------------------------------------------------------------------------------------------


def push_part(found: Devices, folder: Path) -> Result:
    """Push one big file and many small ones as edgekd does and as the peers do, from connecting to the last byte.

    The ratio is the peer's time over ours, the faster peer's where there are two; the worst one counts.
    """
    loads = {
        f"one file of {BIG_BYTES >> 20} MiB": _random_files(folder / "big", 1, BIG_BYTES),
        f"{SMALL_FILES} files of {SMALL_BYTES} bytes": _random_files(folder / "small", SMALL_FILES, SMALL_BYTES),
    }
    pushes: Result = {way: {} for way in DEVICES}
    for load, files in loads.items():
        pushes["ssh"][load] = _compared(load, files, found.remote["ssh"], _ssh_peers(found, files))
        with adb_server(found.remote["adb"]) as adb:
            peer = {"adb push": adb("push", *(str(path) for path in files), "/data/local/tmp/edgekd-bench/")}
            # Straight to the device, past the server that Google's client needs.
            with _environment(ADB_PORT_VARIABLE, str(_free_port())):
                pushes["adb"][load] = _compared(load, files, found.remote["adb"], peer)
            pushes["adb"][f"{load}, through the adb server"] = _compared(
                f"{load}, through the adb server", files, found.remote["adb"], peer
            )
    ratios = {way: min(push["ratio"] for push in pushes[way].values()) for way in DEVICES}
    print(flush=True)
    return {"push": pushes, "push_ratio": ratios}


def _compared(load: str, files: Sequence[Path], device: Device, peers: Mapping[str, Sequence[str]]) -> Result:
    seconds: dict[str, list[float]] = {"edgekd": [], **{name: [] for name in peers}}
    target = f"{device.work_dir.rpartition('/')[0]}/edgekd-bench"
    for _ in range(PUSHES):
        _fresh(device, target)
        seconds["edgekd"].append(_push_seconds(device, files, target))
        for name, argv in peers.items():
            _fresh(device, target)
            seconds[name].append(seconds_of(argv))
    _fresh(device, target, leave=False)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = min(median[name] for name in peers) / median["edgekd"]
    size = sum(path.stat().st_size for path in files)
    speeds = ", ".join(f"{name} {value:.2f} s ({size / 1e6 / value:.1f} MB/s)" for name, value in median.items())
    print(f"{device.name}, {load}: {speeds}; ratio {ratio:.2f} (bar: at least {MIN_PUSH_RATIO:g})")
    for argv in peers.values():
        line = shlex.join(argv)
        print(f"    {line if len(line) < 300 else line[:200] + ' …'}", flush=True)
    return {"seconds": seconds, "ratio": ratio}


def _push_seconds(device: Device, files: Sequence[Path], target: str) -> float:
    began = time.perf_counter()
    with closing(open_transport(device)) as transport:
        transport.push_all({f"{target}/{path.name}": path for path in files})
    return time.perf_counter() - began


def _fresh(device: Device, target: str, *, leave: bool = True) -> None:
    """Empty the folder on the device that is pushed to."""
    script = 'rm -rf "$1"' + (' && mkdir "$1"' if leave else "")
    with closing(open_transport(device)) as transport:
        done = transport.run(["sh", "-c", script, "sh", target], 60)
    if done.exit_code:
        raise RuntimeError(f"{device.name}: cannot empty {target}: {done.stderr.decode('utf-8', 'replace')}")


def _ssh_peers(found: Devices, files: Sequence[Path]) -> dict[str, list[str]]:
    device = found.remote["ssh"]
    target = f"{device.work_dir.rpartition('/')[0]}/edgekd-bench"
    batch = files[0].parent.with_suffix(".sftp")
    batch.write_text("".join(f"put {path} {target}/{path.name}\n" for path in files), encoding="utf-8")
    config, name = str(found.ssh_config), DEVICES["ssh"]
    return {
        "scp": ["scp", "-q", "-F", config, *map(str, files), f"{name}:{target}/"],
        "sftp": ["sftp", "-q", "-F", config, "-b", str(batch), name],
    }


@contextmanager
def adb_server(device: Device) -> Iterator[Callable[..., list[str]]]:
    """Run an adb server of our own that knows the device, and give what writes a command of its client."""
    port, serial = str(_free_port()), str(device.address).removeprefix("adb://")
    with _environment(ADB_PORT_VARIABLE, port):
        seconds_of(["adb", "-P", port, "start-server"])
        try:
            seconds_of(["adb", "-P", port, "connect", serial])
            yield lambda *arguments: ["adb", "-P", port, "-s", serial, *arguments]
        finally:
            seconds_of(["adb", "-P", port, "kill-server"])


def _random_files(folder: Path, count: int, size: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{index:04}.bin" for index in range(count)]
    for path in paths:
        path.write_bytes(secrets.token_bytes(size))
    return paths


# --- memory -----------------------------------------------------------------------------------------------------------


def memory_part(found: Devices, batch: Batch) -> Result:
    """Read a fresh process's memory after the first rows of a batch and after many more of the same batch."""
    growth: dict[str, float] = {}
    for way, device in found.remote.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            few, many = process.submit(rss_bytes_at, device, batch.repeated(MANY_ROWS)).result()
        growth[way] = (many - few) / 1e6
        print(
            f"{DEVICES[way]}: {few / 1e6:.1f} MB resident after {FEW_ROWS} rows, {many / 1e6:.1f} MB after {MANY_ROWS}:"
            f" {growth[way]:+.1f} MB (bar: at most {MAX_RSS_GROWTH_MB:g} MB)"
        )
    print(flush=True)
    return {"rss_growth_mb_by_link": growth, "rss_growth_mb": max(growth.values())}


def rss_bytes_at(device: Device, batch: Batch) -> tuple[int, int]:
    """Measure a batch and give the resident memory after its first and its last rows."""
    readings = []
    with closing(open_transport(device)) as transport, Session(device, transport, KEEP_NOTHING) as session:
        for count, row in enumerate(session.measure(batch.jobs, batch.models, CHEAP), 1):
            if not row.ok:
                raise RuntimeError(f"{device.name}: {row.job_id}: {row.error}")
            if count in (FEW_ROWS, MANY_ROWS):
                readings.append(_rss_bytes())
    few, many = readings
    return few, many


def _rss_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# --- the devices ------------------------------------------------------------------------------------------------------


@contextmanager
def devices() -> Iterator[Devices]:
    """Have the virtual devices run, and end them afterwards if they did not run before."""
    before = _listing()
    ran = {entry["name"] for entry in before["devices"]} if before else set()
    subprocess.run(
        [VIRTUAL, "up", "--only", ",".join({*DEVICES.values(), *ran})], check=True, stdout=subprocess.DEVNULL
    )
    try:
        listing = _listing()
        with (
            _environment("EDGEKD_DEVICES", listing["devices_toml"]),
            _environment(ADB_PORT_VARIABLE, str(_free_port())),
        ):
            yield _found(Path(listing["ssh_config"]))
    finally:
        if not ran:
            subprocess.run([VIRTUAL, "down"], check=True)


def _found(ssh_config: Path) -> Devices:
    host = replace(find_device("host"), engine="python", python=sys.executable)
    remote = {way: replace(find_device(name), engine="python") for way, name in DEVICES.items()}
    # virtual-sshd is this machine: with the same Python, the link alone makes the difference.
    remote["ssh"] = replace(remote["ssh"], python=sys.executable)
    return Devices(host, remote, ssh_config)


def _listing() -> Result:
    done = subprocess.run([VIRTUAL, "list", "--format", "json"], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


# --- common -----------------------------------------------------------------------------------------------------------


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _options(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return parser.parse_args(list(arguments) if arguments is not None else None)


if __name__ == "__main__":
    raise SystemExit(main())
