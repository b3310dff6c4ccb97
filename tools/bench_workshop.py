"""Tables and networks for `bench_tables.py`: made or measured once each, kept in one folder, and measured in sessions.

Judges nothing; bench_errors.py compares, bench_tables.py sets the bars.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest import mock

from device_agents.device import Device
from device_agents.protocol import JobResult
from device_agents.session import Session
from edgekd.bench import ROUNDS, Bench, DeviceChoice, MeasuringFailed, Model
from edgekd.errors import DataError, UsageError
from edgekd.graph.ir import graph_in
from edgekd.graph.micro import random_model
from edgekd.graph.tflite_reader import network_dtype
from edgekd.profile import QUICK as ROUGH
from edgekd.profile import Effort, Order, ProfileRequest, calibration_archs, profile
from edgekd.sentinels import network_name
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.space import BlockOptions, Space
from latency_tables.calibrate import MIN_NETWORKS, Calibration
from latency_tables.op_spec import OpSpec
from latency_tables.schema import Measurement
from latency_tables.store import LatencyTable, load_table

HELD_OUT_SEED = 1907  # of the networks that the bars are judged by; another than profile.py's and study_tables.py's
RESOLUTIONS = (96, 160)
# Keeps a core busy until its input ends, as it also does when the process that started it is killed.
_NEIGHBOUR = """
import os, sys, threading

threading.Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()
while True:
    pass
"""
_MOST_DRAWS = 50  # × the networks wanted; a space that is nearly used up must not draw for ever


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured; `full_space` False takes a corner of each space, whose table is measured in seconds."""

    heldout: int
    calibration: int
    pairs: int
    rounds: int
    sampled_rows: int
    architectures: int  # of one vectorised prediction
    of_each_family: int
    full_space: bool = True
    resolutions: tuple[int, ...] = RESOLUTIONS


FULL = Scale(200, 20, 3, ROUNDS, 50, 1_000_000, 8)
QUICK = Scale(12, MIN_NETWORKS, 1, 4, 4, 50_000, 2, full_space=False)


@dataclass(frozen=True, slots=True)
class Condition:
    """How the device is used: its threads, and whether another process loads a core meanwhile."""

    threads: int = 1
    loaded: bool = False

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}{', another process beside it' * self.loaded}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a core busy while the block runs, where that is the condition."""
        if not self.loaded:
            yield
            return
        with subprocess.Popen([sys.executable, "-c", _NEIGHBOUR], stdin=subprocess.PIPE):
            yield  # its end closes the input


ALONE = Condition()


@dataclass(frozen=True)
class Host(DeviceChoice):
    """The machine that this runs on, with so many threads."""

    threads: int = 1

    def find(self) -> Device:
        """Find it."""
        return replace(DeviceChoice.find(self), threads=self.threads)


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A whole network on disk, and the operators that it holds."""

    name: str
    path: Path
    ops: tuple[OpSpec, ...]

    @staticmethod
    def write(path: Path, make: Callable[[], bytes], ops: Sequence[OpSpec]) -> NetworkFile:
        """Make a network's file where it is not there yet."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make())
        return NetworkFile(f"network:{path.stem}", path, tuple(ops))

    @property
    def model(self) -> Model:
        """Read the file, to be measured beside what a table's networks are."""
        return Model(self.name, self.path.read_bytes(), "network", network_name(network_dtype(self.ops)))


@dataclass(frozen=True, slots=True)
class Profiled:
    """A table that `edgekd profile` measured, and the seconds that it held the device."""

    path: Path
    table: LatencyTable
    device_seconds: float


@dataclass(frozen=True, slots=True)
class MeasuredNetworks:
    """What networks took, in their order, and how many times slower than usual for a table the machine was.

    `raw_ms` are their fastest samples, whatever the machine's speed was.
    """

    ms: list[float]
    raw_ms: list[float]
    slowdown: list[float]

    @staticmethod
    def of(rows: Sequence[Measurement], table: LatencyTable) -> MeasuredNetworks:
        """Read measurements beside a table: at the speed that it speaks of, where a network beside them tells it."""
        speed = table.speed
        return MeasuredNetworks(
            list(map(speed.settled_ms, rows)),
            [row.quiet_ms for row in rows],
            list(map(speed.slowdown, rows)),
        )


class DeviceClock:
    """Times what goes on between the first push to the device and its last row, here and there; a context manager.

    Every row comes out of Session.measure, whoever asks for it, so that is where it listens; `seconds_for` sees to it.
    """

    def __init__(self) -> None:
        self._began = self._ended = 0.0
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        """Begin to listen to sessions."""
        clock, measure = self, Session.measure

        def timed(session: Session, *args: Any, **kwargs: Any) -> Iterator[JobResult]:
            clock._began = clock._began or time.perf_counter()
            for row in measure(session, *args, **kwargs):
                clock._ended = time.perf_counter()
                clock._seen.add(row.job_id)
                yield row

        self._patch = mock.patch.object(Session, "measure", timed)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave sessions as they were."""
        self._patch.stop()

    def seconds_for(self, subjects: Iterable[str]) -> float:
        """Give the seconds that these rows took. Raises RuntimeError where one was not seen to come from the device."""
        if unseen := sorted(set(subjects) - self._seen):
            raise RuntimeError(f"{len(unseen)} rows were measured past the clock, which may not tell: {unseen[0]}")
        return self._ended - self._began


class Workshop:
    """Tables and networks of one run of the benchmark, each made when it is first asked for."""

    def __init__(self, folder: Path, scale: Scale, seed: int = HELD_OUT_SEED) -> None:
        """Begin in an empty folder; `seed` draws the held-out networks."""
        self.folder = folder
        self.scale = scale
        self._seed = seed
        self._profiled: dict[tuple[int, Condition], Profiled] = {}
        self._rough: dict[int, Profiled] = {}

    def space(self, px: int) -> Space:
        """Give the space of a resolution, or its corner."""
        space = space_named(f"mnasnet-{px}")
        return space if self.scale.full_space else replace(space, blocks=tuple(map(_corner, space.blocks)))

    def profiled(self, px: int, condition: Condition = ALONE) -> Profiled:
        """Measure a space's table in every dtype, as `edgekd profile` does."""
        if (px, condition) not in self._profiled:
            path = self.folder / f"table-{px}-{condition.threads}-{condition.loaded}.jsonl"
            self._profiled[px, condition] = self._timed(path, px, condition, self._effort)
        return self._profiled[px, condition]

    def rough(self, px: int) -> Profiled:
        """Measure a space's table in every dtype, as `edgekd profile --quick` does."""
        if px not in self._rough:
            self._rough[px] = self._timed(self.folder / f"table-{px}-quick.jsonl", px, ALONE, ROUGH)
        return self._rough[px]

    def _timed(self, path: Path, px: int, condition: Condition, effort: Effort) -> Profiled:
        with condition.held(), DeviceClock() as clock:
            table = self._profile(path, self.order(px, effort), condition, effort)
        seconds = clock.seconds_for([*table.rows, *table.networks])
        levels = "; ".join(f"{name} takes {ns / 1e6:.2f} ms" for name, ns in table.beside_ns.items())
        quick = " --quick" if effort == ROUGH else ""
        rows = f"{len(table.rows)} rows in {seconds:.1f} s; {levels}"
        print(f"table of mnasnet-{px}{quick}, {condition}: {rows}")
        for dtype, fit in table.calibrations.items():
            print(f"  {dtype}: {_spelled(fit)}", flush=True)
        return Profiled(path, table, seconds)

    def order(self, px: int, effort: Effort | None = None) -> Order:
        """Say what a space's table covers, one of this run's scale unless an effort is named."""
        return Order.for_space(self.space(px), networks=(effort or self._effort).networks)

    def held_out(self, px: int, dtype: str) -> list[NetworkFile]:
        """Write the networks that no table is calibrated on, uniformly drawn, the same in every dtype."""
        space, files = self.space(px), []
        for number, arch in enumerate(self._held_out_archs(space)):
            graph = graph_in(graph_of(space, arch), dtype)
            path = self.folder / f"{dtype}-{px}" / f"{number}.tflite"
            files.append(NetworkFile.write(path, partial(random_model, graph), graph.ops))
        return files

    def _held_out_archs(self, space: Space) -> list[Arch]:
        rng = random.Random(self._seed)  # noqa: S311 - a choice of networks, not a secret
        efforts = (self._effort, ROUGH)
        calibrated = {arch for effort in efforts for arch in calibration_archs(space, effort.networks)}
        archs: dict[Arch, None] = {}
        for _ in range(_MOST_DRAWS * self.scale.heldout):
            if len(archs) == self.scale.heldout:
                return list(archs)
            arch = space.arch([rng.randrange(n) for n in space.decision_sizes])
            archs |= {} if arch in calibrated else {arch: None}
        raise RuntimeError(f"space {space.name} has fewer than {self.scale.heldout} networks to hold out")

    def completed(self, px: int, ops: Iterable[OpSpec]) -> LatencyTable:
        """Measure operators that a space's table lacks into a copy of it, which lasts; its calibration stays.

        One that cannot be measured alone stays without a row, for a prediction to tell.
        """
        path = self.folder / f"completed-{px}.jsonl"
        if not path.exists():
            shutil.copyfile(self.profiled(px).path, path)
        wanted = tuple(op for op in dict.fromkeys(ops) if not op.is_folded)
        try:
            return self._profile(path, Order(wanted), ALONE, self._effort)
        except (MeasuringFailed, DataError) as error:
            warn(str(error))
        rows = load_table(path).rows  # all that could be measured; what was slow is measured again
        return self._profile(path, Order(tuple(op for op in wanted if op.key in rows)), ALONE, self._effort)

    @property
    def _effort(self) -> Effort:
        return Effort(self.scale.calibration, self.scale.rounds)

    def _profile(self, path: Path, order: Order, condition: Condition, effort: Effort) -> LatencyTable:
        request = ProfileRequest(Host(threads=condition.threads), path, effort=effort)
        return profile(request, order, lambda done, total: None, warn)

    def refusals(self, networks: Sequence[NetworkFile]) -> dict[str, str]:
        """Run each file once; say of those that the device's engine cannot run why."""
        refused = {}
        with Bench(Host().find(), warn) as bench:
            for network in networks:
                try:
                    list(bench.measure([network.model], rounds=1))
                except (MeasuringFailed, UsageError) as error:
                    refused[network.name] = str(error)
        return refused

    def measured(
        self, networks: Sequence[NetworkFile], table: LatencyTable, condition: Condition = ALONE
    ) -> MeasuredNetworks:
        """Measure networks in one fresh session, as `Bench.measure` does by default."""
        began = time.perf_counter()
        with condition.held(), Bench(Host(threads=condition.threads).find(), warn) as bench:
            models = (network.model for network in networks)  # read one by one: together they are gigabytes
            found = {row.subject: row for row in bench.measure(models, self.scale.rounds)}
        seconds, measured = time.perf_counter() - began, MeasuredNetworks.of([found[n.name] for n in networks], table)
        slowdown = statistics.median(measured.slowdown)
        print(
            f"  {len(found)} networks, {condition}: {seconds:.1f} s, {slowdown:.3f} x as slow as for the table",
            flush=True,
        )
        return measured

    def settled(self, networks: Sequence[NetworkFile], table: LatencyTable) -> MeasuredNetworks:
        """Measure networks so few that a session is over in a moment: by themselves until the machine is as fast as for
        the table, beside one at any speed.
        """
        if not networks:
            return MeasuredNetworks([], [], [])
        with Bench(Host().find(), warn) as bench:
            found = bench.measure_settled([network.model for network in networks], table.usual_sentinel_ns)
        return MeasuredNetworks.of([found[network.name] for network in networks], table)


def warn(warning: str) -> None:
    """Show a warning of the device's."""
    print(f"  {warning}", flush=True)


def _spelled(fit: Calibration) -> str:
    values = ((name, f"{value:.3g}" if isinstance(value, float) else value) for name, value in asdict(fit).items())
    return ", ".join(f"{name} {value}" for name, value in values)


def _corner(block: BlockOptions) -> BlockOptions:
    """Keep few options of a block, the reference's among them."""
    return replace(
        block,
        layers=block.layers[:2],
        conv_ops=("dsconv", "mb6"),
        kernels=(3,),
        skip_ops=("none", "identity"),
        filters=(0.75, 1.0),
    )
