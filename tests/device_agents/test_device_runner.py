"""How a row comes to be: warm-up, loops, rounds, sentinel, blocks, flags; on scripted clocks, without noise."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Container
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agents.protocol import MeasureSettings

pytestmark = pytest.mark.slow  # real processes, one after the other


class Wire:
    """Keeps what the runner sends, in `sent` with what its death would tell."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []

    def send(self, **fields: Any) -> None:
        """Keep one line."""
        self.note(**fields)
        self.told.append(fields)

    def note(self, **fields: Any) -> None:
        """Keep what a death would tell."""
        json.dumps(fields, allow_nan=False)
        self.sent.append(fields)

    def forget(self) -> None:
        """Nobody dies here."""

    def of(self, kind: str, **wanted: object) -> list[dict[str, Any]]:
        """Return the lines of a type with these fields."""
        return [line for line in self.sent if line["type"] == kind and all(line[key] == wanted[key] for key in wanted)]


class FakeModel:
    """A model whose one run takes the ns in its content on the CPU, and the factor after it more on the wall."""

    def __init__(self, model_content: bytes, num_threads: int) -> None:
        self.cpu_ns, self.stretch = (float(word) for word in model_content.decode().split())

    def allocate_tensors(self) -> None:
        """Need nothing."""

    def get_input_details(self) -> list[dict[str, Any]]:
        """Have no inputs."""
        return []

    def get_output_details(self) -> list[dict[str, Any]]:
        """Have one output of 400 bytes."""
        return [{"index": 0, "shape": np.array([1, 100], dtype=np.int32), "dtype": np.float32}]

    def get_tensor(self, index: int) -> Any:
        """Give an output of ones."""
        return np.ones((1, 100), dtype=np.float32)

    def invoke(self) -> None:
        """Be timed by `scripted_sample` alone."""


@pytest.fixture
def bench(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Wire]:
    """Run a batch of fake models, given as contents by job, in this process on scripted clocks.

    `slowness` gives the factor on a sample's time from the `phases` of what was sent before it, `lost` the share of it
    that its own clock does not count.
    """
    (tmp_path / "models").mkdir()

    def measure(
        contents: dict[str, str],
        slowness: Callable[[str], float] | None = None,
        networks: Container[str] = (),
        look_every_ns: float = math.inf,
        look_lengths: float = 0.0,
        lost: Callable[[str], float] | None = None,
        **settings: Any,
    ) -> Wire:
        def scripted_sample(invoke: Any, loops: int) -> tuple[int, int]:
            model = invoke.__self__
            cpu_ns = model.cpu_ns * (slowness(phases(wire)) if slowness else 1.0) * loops
            counted = 1 - lost(phases(wire)) if lost else 1.0
            return round(cpu_ns * counted), round(cpu_ns * model.stretch)

        monkeypatch.setattr(runner, "sample", scripted_sample)
        # The clock on the wall is not scripted: a single run, and a reading between visits only where that is tested.
        monkeypatch.setattr(runner, "SENTINEL_START_NS", 0)
        monkeypatch.setattr(runner, "LOOK_EVERY_NS", look_every_ns)
        monkeypatch.setattr(runner, "LOOK_LENGTHS", look_lengths)
        jobs = []
        for job_id, content in contents.items():
            digest = hashlib.sha256(content.encode()).hexdigest()
            (tmp_path / "models" / f"{digest}.tflite").write_text(content)
            kind = "network" if job_id in networks else "operator"
            jobs.append({"type": "job", "job": job_id, "sha256": digest, "kind": kind})
        wire = Wire()
        batch = runner.Batch(wire, str(tmp_path), FakeModel, asdict(MeasureSettings(**settings)))
        batch.run(jobs[0], jobs)
        return wire

    return measure


def test_a_sample_lasts_at_least_its_minimum(bench: Callable[..., Wire]) -> None:
    """Short operators are run back to back until the clocks no longer matter, long ones once."""
    rows = bench({"short": "1000 1", "long": "400000 1"}, min_sample_us=300).of("row")
    loops = {row["job"]: row["loops"] for row in rows}
    assert 300 <= loops["short"] <= 340
    assert loops["long"] == 1


def test_samples_are_a_single_run_on_both_clocks(bench: Callable[..., Wire]) -> None:
    """Whatever the loops, a sample is the time of one inference."""
    (row,) = bench({"a": "1000 1.25"}, rounds=2, samples_per_round=4).of("row")
    assert row["samples_ns"] == [1000] * 8
    assert row["wall_samples_ns"] == [1250] * 8


@pytest.mark.parametrize(("stretch", "contended"), [(1.0, False), (1.2, False), (1.4, True)])
def test_a_wall_far_above_the_cpu_time_is_contention(
    stretch: float, contended: bool, bench: Callable[..., Wire]
) -> None:
    """Others took the CPU: the row says so."""
    (row,) = bench({"a": f"1000 {stretch}"}).of("row")
    assert ("contended" in row["flags"]) is contended


def test_the_warm_up_ends_by_count_and_by_time(bench: Callable[..., Wire]) -> None:
    """A long model warms up by count, a short one by time."""
    rows = bench({"long": "5000000 1", "short": "1000 1"}, warmup_runs=3, warmup_min_ms=1.0).of("row")
    warm = {row["job"]: row for row in rows}
    assert warm["long"]["warmup_runs"] == 3
    assert 1_000_000 <= warm["short"]["warmup_ns"] <= 1_100_000


def test_each_round_visits_every_job_in_an_order_of_its_own(bench: Callable[..., Wire]) -> None:
    """Rounds are permutations of the block, shuffled by the seed and by nothing else."""
    contents = {str(number): f"{1000 + number} 1" for number in range(20)}

    def orders(seed: int) -> list[list[str]]:
        visits = [line["job"] for line in bench(contents, rounds=3, seed=seed).of("start", phase="measure")]
        return [visits[first : first + 20] for first in (0, 20, 40)]

    first = orders(1)
    assert all(sorted(order) == sorted(contents) for order in first)
    assert first[0] != first[1] != first[2]
    assert first == orders(1) != orders(2)


def phases(wire: Wire) -> str:
    """Write what was measured as a string: S for a reading of the sentinel, m for a job's visit, r for a row."""
    letters = {"sentinel": "S", "measure": "m", "load": ""}
    return "".join("r" if line["type"] == "row" else letters[line["phase"]] for line in wire.sent)


def test_the_sentinel_is_read_before_each_round_and_after_the_last(bench: Callable[..., Wire]) -> None:
    """The readings are spread over a block's whole time; the first S of all is the sentinel's loading."""
    wire = bench({str(number): f"{1000 + number} 1" for number in range(5)}, rounds=3, block_size=3)
    assert phases(wire) == "S" + "SmmmSmmmSmmmS" + "rrr" + "SmmSmmSmmS" + "rr"
    assert len(wire.of("start", phase="sentinel", job="0")) == 1 + 4 + 4


@pytest.mark.parametrize("reading", range(4))
def test_a_machine_that_is_fast_in_one_reading_only_is_seen_there(bench: Callable[..., Wire], reading: int) -> None:
    """Whichever reading of a block meets the machine at its best sets sentinel_ns, and in no other block."""

    def slowness(seen: str) -> float:
        return 0.5 if seen.endswith("S") and seen.count("S") == 2 + reading else 1.0

    wire = bench({"a": "1000 1", "b": "2000 1", "c": "3000 1"}, slowness, rounds=3, block_size=2)
    assert {row["job"]: row["sentinel_ns"] for row in wire.of("row")} == {"a": 500, "b": 500, "c": 1000}


@given(factors=st.lists(st.integers(500, 5000), min_size=7, max_size=7))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])  # every run starts a Wire anew
def test_sentinel_ns_is_the_fastest_of_all_samples_of_a_block(bench: Callable[..., Wire], factors: list[int]) -> None:
    """Two samples a reading, three readings: the fastest of the six counts, not the look before them nor a job."""
    left = iter(factors)

    def slowness(seen: str) -> float:
        if seen.endswith("m"):
            return 0.25  # a job is fast just when the sentinel is not read
        return next(left) / 1000 if seen.startswith("SS") else 1.0

    wire = bench({"a": "1000 1", "b": "2000 1"}, slowness, rounds=2)
    assert {row["sentinel_ns"] for row in wire.of("row")} == {min(factors[1:])}
    assert not list(left)


def test_each_visit_has_the_sentinels_last_reading_beside_it(bench: Callable[..., Wire]) -> None:
    """What slows the machine in one round shows in both, in every job's row."""

    def slowness(seen: str) -> float:
        return 1.0 + seen.count("S")

    rows = bench({"a": "1000 1", "b": "2000 1"}, slowness, rounds=3).of("row")
    assert {row["job"]: len(row["beside_ns"]) for row in rows} == {"a": 3, "b": 3}
    for row in rows:
        visits = zip(row["samples_ns"][::2], row["beside_ns"], strict=True)
        times = 1 if row["job"] == "a" else 2
        assert all(ns == times * beside_ns for ns, beside_ns in visits)


def test_the_sentinel_is_read_on_the_clock_of_the_rows(bench: Callable[..., Wire]) -> None:
    """One thread is timed by its CPU clock, several by the wall, the sentinel like the jobs."""
    contents = {"a": "1000 1.2"}
    (alone,) = bench(contents, threads=1).of("row")
    (several,) = bench(contents, threads=2).of("row")
    assert (alone["sentinel_ns"], several["sentinel_ns"]) == (1000, 1200)
    assert (alone["clock"], several["clock"]) == ("thread_cpu", "wall")


@pytest.mark.parametrize("stretch", [1.0, 1.2])
@pytest.mark.parametrize(("share", "sentinel_ns"), [(0.03, 970), (0.1, 1000), (0.6, 1000)])
def test_a_clock_that_loses_time_does_not_make_the_sentinel_faster(
    bench: Callable[..., Wire], stretch: float, share: float, sentinel_ns: int
) -> None:
    """Of a sample that took longer on the wall than is usual beside its own clock the wall tells."""
    (row,) = bench({"a": f"1000 {stretch}"}, lost=lambda seen: share if seen.endswith("SSmS") else 0.0).of("row")
    assert row["sentinel_ns"] == pytest.approx(sentinel_ns, rel=0.01)


def test_who_shares_the_cpu_for_good_makes_the_sentinel_no_slower(bench: Callable[..., Wire]) -> None:
    """Soon a wall time of twice the CPU time is the usual one, and the CPU clock counts again."""

    def is_shared(seen: str) -> bool:
        return "r" in seen

    wire = bench(
        {"a": "1000 1", "b": "1000 1"},
        slowness=lambda seen: 2.0 if is_shared(seen) else 1.0,
        lost=lambda seen: 0.5 if is_shared(seen) else 0.0,
        block_size=1,
        rounds=60,
        least_rounds=60,
    )
    assert {row["job"]: row["sentinel_ns"] for row in wire.of("row")} == {"a": 1000, "b": 1000}


def test_several_threads_are_on_the_wall_whatever_one_clock_loses(bench: Callable[..., Wire]) -> None:
    """No other clock is asked."""
    (row,) = bench({"a": "1000 1"}, lost=lambda seen: 0.9, threads=2).of("row")
    assert row["sentinel_ns"] == min(row["samples_ns"]) == 1000


def test_a_sentinel_that_is_measured_too_has_a_row_of_its_own(bench: Callable[..., Wire]) -> None:
    """The sentinel's row holds the samples of its visits and no readings."""
    row = bench({"a": "1000 1", "b": "2000 1"}, lambda seen: 0.5 if seen.endswith("S") else 1.0).of("row", job="a")[0]
    assert set(row["samples_ns"]) == {1000}
    assert len(row["samples_ns"]) == MeasureSettings().least_samples


def test_each_job_is_measured_once_however_slow_the_machine_gets(bench: Callable[..., Wire]) -> None:
    """A block is never repeated: whether it was too slow is for the caller to judge."""
    wire = bench({"a": "1000 1", "b": "5000 1"}, lambda seen: 1.0 + len(seen), rounds=2)
    assert phases(wire) == "S" + "SmmSmmS" + "rr"


def test_a_full_block_of_short_operators_is_one_block(bench: Callable[..., Wire]) -> None:
    """With the defaults 512 operators of 5 µs are visited together, so that each round takes its time."""
    wire = bench({str(number): f"{5000 + number} 1" for number in range(MeasureSettings().block_size)})
    assert phases(wire) == "S" + ("S" + 512 * "m") * 6 + "S" + 512 * "r"


def test_a_block_closes_before_it_takes_too_long(bench: Callable[..., Wire], runner: ModuleType) -> None:
    """Slow networks come home a few at a time, however many would fit a block."""
    contents = {str(number): f"{100_000_000 + number} 1" for number in range(6)}
    wire = bench(contents, rounds=10, least_rounds=10, patience=1, samples_per_round=1)
    assert runner.BLOCK_NS / (50 * 100_000_000) < 2  # with a run before each visit to settle the caches
    assert phases(wire) == "S" + (10 * "Smm" + "S" + "rr") * 3


@pytest.mark.parametrize(
    ("files", "size_bytes"),
    [
        ({}, 128 << 20),  # a kernel that says nothing
        ({"meminfo": "MemTotal: 9000000 kB\nMemAvailable: 800000 kB\n"}, 100_000 * 1024),
        ({"meminfo": "MemTotal: 9000000 kB\n"}, 128 << 20),
        ({"meminfo": "MemAvailable: 99999999 kB\n", "fs/cgroup/memory.max": "800000000\n"}, 100_000_000),
        ({"meminfo": "MemAvailable: 99999999 kB\n", "fs/cgroup/memory.max": "max\n"}, 512 << 20),
        ({"fs/cgroup/memory/memory.limit_in_bytes": "1600000\n"}, 200_000),
    ],
)
def test_a_block_takes_an_eighth_of_the_memory_that_may_be_had(
    files: dict[str, str], size_bytes: int, runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Free memory and the limits of a container count, as far as the kernel tells them."""
    monkeypatch.setattr(runner, "SYS", tmp_path)
    monkeypatch.setattr(runner, "PROC", tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert runner.block_bytes() == size_bytes


def test_a_block_closes_before_it_takes_too_much_memory(
    bench: Callable[..., Wire], runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job keeps alive, its file and its inputs and outputs, counts towards the limit of a block."""
    monkeypatch.setattr(runner, "BLOCK_BYTES", 3 * (len("1000 1") + 400))
    wire = bench({str(number): f"{1000 + number} 1" for number in range(5)}, rounds=1)
    assert phases(wire) == "S" + "SmmmS" + "rrr" + "SmmS" + "rr"


@pytest.mark.parametrize(
    ("factors", "visits"),
    [
        ([1.0, 1.3, 1.0, 1.3, 1.02, 1.3, 1.004], 7),  # two fast visits may be chance, the third best agrees
        ([1.0, 1.0, 1.0, 1.0], 4),  # as few as they may be
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8], 9),  # as many as they may be
    ],
)
def test_a_job_is_visited_until_its_best_visits_agree(
    factors: list[float], visits: int, bench: Callable[..., Wire]
) -> None:
    """Between the least rounds and the most, a job is done when its three best visits are within the bound."""

    def slowness(seen: str) -> float:
        return factors[seen.count("m") - 1] if seen.endswith("m") else 1.0

    wire = bench({"a": "1000 1"}, slowness, rounds=9, least_rounds=4, agreement=0.005)
    assert phases(wire) == "S" + visits * "Sm" + "S" + "r"
    assert len(wire.of("row")[0]["samples_ns"]) == visits * MeasureSettings().samples_per_round


@pytest.mark.parametrize("networks", [(), ("b",)])
def test_agreement_says_nothing_while_the_machine_is_disturbed(
    networks: tuple[str, ...], bench: Callable[..., Wire]
) -> None:
    """What agrees while the sentinel is slow agrees on a slow machine: all rounds are needed to meet it fast."""

    def slowness(seen: str) -> float:
        return 1.0 if seen in ("S", "SS") else 1.3

    wire = bench({"a": "1000 1", "b": "1000 1"}, slowness, networks, rounds=15, least_rounds=3, patience=3)
    visited = [line["job"] for line in wire.of("start", phase="measure")]
    assert (visited.count("a"), visited.count("b")) == (15, 15)


@pytest.mark.parametrize(("run_ns", "networks", "visits"), [(1000, (), 7), (1_400_000, (), 23), (1000, ("b",), 23)])
def test_long_runs_want_more_visits(
    run_ns: int, networks: tuple[str, ...], visits: int, bench: Callable[..., Wire]
) -> None:
    """Few of them are undisturbed from end to end; and by a network all rows of a table are put right."""

    def slowness(seen: str) -> float:
        return 1.3 if seen.endswith("S") and seen.count("S") % 2 else 1.0

    wire = bench({"a": "1000 1", "b": f"{run_ns} 1"}, slowness, networks, rounds=50, least_rounds=3, patience=3)
    visited = [line["job"] for line in wire.of("start", phase="measure")]
    assert (visited.count("a"), visited.count("b")) == (7, visits)


@pytest.mark.parametrize(
    ("slow_every", "visits"),
    [(0, {"net": 12, "op": 3}), (2, {"net": 24, "op": 6}), (1, {"net": 12, "op": 3})],
    ids=["calm", "now and then", "for good"],
)
def test_beside_a_network_visits_on_a_calm_machine_count(
    slow_every: int, visits: dict[str, int], bench: Callable[..., Wire]
) -> None:
    """The readings before them tell; a network needs four times as many. Slow for good is as calm as it gets."""

    def slowness(seen: str) -> float:
        return 1.3 if slow_every and seen.count("S") % slow_every == 0 else 1.0

    contents = {"net": "1000 1", "op": "2000 1"}
    rows = bench(contents, slowness, {"net"}, look_every_ns=10**18, rounds=50, least_rounds=3).of("row")
    told = {row["job"]: len(row["beside_ns"]) for row in rows}
    assert told == visits


def test_beside_a_network_an_operator_is_not_waited_for_as_long_as_a_network(bench: Callable[..., Wire]) -> None:
    """On a machine that is calm for a moment only it has a fourth of the rounds, a network all."""

    def slowness(seen: str) -> float:
        return 1.3 if seen.count("S") > 2 else 1.0

    contents = {"net": "1000 1", "op": "2000 1"}
    rows = bench(contents, slowness, {"net"}, rounds=40, least_rounds=4).of("row")
    assert {row["job"]: len(row["beside_ns"]) for row in rows} == {"net": 40, "op": 10}


def test_short_rounds_share_a_long_reading_of_a_network(
    bench: Callable[..., Wire], runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow board would read it for longer than it measures; each visit has the latest reading beside it."""
    assert phases(bench({"a": "1000 1"}, None, {"a"}, rounds=3, least_rounds=3)) == "S" + 3 * "Sm" + "Sr"
    monkeypatch.setattr(runner, "LONG_READING_NS", -1)
    assert phases(bench({"a": "1000 1"}, rounds=3, least_rounds=3)) == "S" + 3 * "Sm" + "Sr"
    wire = bench({"a": "1000 1"}, None, {"a"}, rounds=3, least_rounds=3)
    assert phases(wire) == "SS" + 3 * "m" + "Sr"
    assert wire.of("row")[0]["beside_ns"] == [1000, 1000, 1000]


@pytest.mark.parametrize(("long_ns", "told"), [(200_000_000, 5), (-1, 8)])
def test_a_long_reading_within_a_round_tells_the_host_that_we_are_alive(
    long_ns: int, told: int, bench: Callable[..., Wire], runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round may begin just when one is due; a short one tells nothing unless the runner dies in it."""
    monkeypatch.setattr(runner, "LONG_READING_NS", long_ns)
    monkeypatch.setattr(runner, "PAIRED_LOOK_LENGTHS", 0.0)
    wire = bench({"a": "1000 1"}, None, {"a"}, look_every_ns=0, rounds=3, least_rounds=3)
    assert len(wire.of("start", phase="sentinel")) == 8
    assert len([line for line in wire.told if line.get("phase") == "sentinel"]) == told


def test_beside_a_network_no_job_has_more_visits_than_rounds(bench: Callable[..., Wire]) -> None:
    """Whatever is wanted at least."""

    def slowness(seen: str) -> float:
        return 1.0 + seen.count("m") % 2 if seen.endswith("m") else 1.0

    rows = bench({"net": "1000 1", "op": "2000 1"}, slowness, {"net"}, rounds=2, least_rounds=5).of("row")
    assert {row["job"]: len(row["beside_ns"]) for row in rows} == {"net": 2, "op": 2}


def test_a_sample_that_lost_all_its_time_ends_nothing(bench: Callable[..., Wire]) -> None:
    """A thread's clock may leave out even that."""
    contents = {"net": "1000 1", "op": "2000 1"}
    lost = {"lost": lambda seen: 1.0 if seen.endswith("Sm") else 0.0}
    rows = bench(contents, None, {"net"}, rounds=8, least_rounds=3, **lost).of("row")
    assert all(len(row["beside_ns"]) >= 3 for row in rows)


def test_the_more_often_the_machine_is_disturbed_the_more_visits_are_wanted(bench: Callable[..., Wire]) -> None:
    """Where every other reading is slow, seven visits leave less than a chance in a hundred that each of them was."""

    def slowness(seen: str) -> float:
        return 1.3 if seen.endswith("S") and seen.count("S") % 2 else 1.0

    assert phases(bench({"a": "1000 1"}, slowness, least_rounds=4)) == "S" + 7 * "Sm" + "S" + "r"


@pytest.mark.parametrize(("readings", "visits"), [(0, 8), (1, 5), (9, 3), (98, 2)])
def test_a_calm_machine_wants_few_visits(readings: int, visits: int, runner: ModuleType) -> None:
    """How few depends on how much is known of it; without any reading it may be anything."""
    block = runner.Block()
    for _ in range(readings):
        block.take_reading(1000.0, math.inf)
    assert math.ceil(block.visits_wanted()) == visits


@pytest.mark.parametrize(
    ("readings", "undisturbed"),
    [
        ([1300, 1310, 1300], 3),
        ([1300, 1310, 1300, 1000, 1040, 1300], 2),
        ([1300, 1245, 1190, 1140, 1090, 1045, 1000], 1),  # neighbours that leave one by one
        ([1000, 1000, 945, 1000, 1000], 5),  # a clock's short boost
    ],
)
def test_a_faster_reading_shows_that_those_before_were_slow(
    readings: list[int], undisturbed: int, runner: ModuleType
) -> None:
    """What was taken for the sentinel's best was not, however slowly that shows."""
    block = runner.Block()
    for ns in readings:
        block.take_reading(float(ns), math.inf)
    assert (block.readings, block.undisturbed) == (len(readings), undisturbed)
    assert block.best_ns == block.sentinel_ns == min(readings)


@pytest.mark.parametrize(("earlier_best_ns", "undisturbed"), [(math.inf, 9), (950.0, 9), (900.0, 0)])
def test_a_clock_a_little_slower_than_before_is_no_disturbance(
    earlier_best_ns: float, undisturbed: int, runner: ModuleType
) -> None:
    """A package that has warmed up runs some percent slower; a tenth is more than that."""
    block = runner.Block()
    for _ in range(9):
        block.take_reading(1000.0, earlier_best_ns)
    assert block.undisturbed == undisturbed


def test_the_sentinel_is_looked_at_between_visits_without_a_line(bench: Callable[..., Wire]) -> None:
    """A line would wake the host beside the samples. Where a look takes long there are few."""
    contents = {str(number): f"{1000 + number} 1" for number in range(3)}
    few, many = (bench(contents, rounds=4, look_every_ns=every) for every in (math.inf, 0))
    assert phases(few) == "S" + 4 * "Smmm" + "Srrr"
    assert phases(many).startswith("SSSmSmSmS")
    assert phases(bench(contents, rounds=4, look_every_ns=0, look_lengths=math.inf)) == phases(few)
    kinds = [[(line["type"], line["job"]) for line in wire.told] for wire in (few, many)]
    assert len(kinds[0]) == len(kinds[1]) < len(few.sent) < len(many.sent)


def test_one_fast_moment_before_a_block_tells_that_all_its_readings_are_slow(bench: Callable[..., Wire]) -> None:
    """A machine that others slow down throughout would seem calm by its readings alone."""
    looks = itertools.count()

    def slowness(seen: str) -> float:
        return 1.3 if seen.endswith("S") and seen != "S" and next(looks) else 1.0

    wire = bench({"a": "1000 1"}, slowness, rounds=9, least_rounds=4)
    assert phases(wire) == "S" + 9 * "Sm" + "S" + "r"


def test_a_clock_that_has_dropped_for_good_disturbs_one_block_alone(bench: Callable[..., Wire]) -> None:
    """The best of the block before is still expected; after that the slower machine is the usual one."""

    def slowness(seen: str) -> float:
        return 1.3 if "r" in seen else 1.0

    wire = bench({"a": "1000 1", "b": "1000 1", "c": "1000 1"}, slowness, rounds=9, least_rounds=4, block_size=1)
    visited = [line["job"] for line in wire.of("start", phase="measure")]
    assert [visited.count(job) for job in "abc"] == [4, 9, 4]


@pytest.mark.parametrize(("home_s", "sequel"), [(0.0, "Sr" + 2 * "Sm" + "Sr"), (1000.0, 2 * "Sm" + "Srr")])
def test_what_is_done_in_a_long_block_comes_home_now_and_then(
    home_s: float, sequel: str, bench: Callable[..., Wire], runner: ModuleType
) -> None:
    """Only what does not agree yet costs device time: one job's samples are all the same, the other's never are."""
    plain = runner.Batch.visit
    slower = itertools.count(1)

    def visit(batch: Any, candidate: Any, block: Any) -> None:
        plain(batch, candidate, block)
        if candidate.job_id == "b":
            block.samples["b"] = [(next(slower) * 1000, 1) for _ in block.samples["b"]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.Batch, "visit", visit)
        patch.setattr(runner, "HOME_S", home_s)
        patch.setattr(runner, "HOME_PAUSE_S", 0.0)
        wire = bench({"a": "1000 1", "b": "2000 1"}, rounds=6, least_rounds=4)
    assert phases(wire) == "S" + 4 * "Smm" + sequel
    assert [row["job"] for row in wire.of("row")] == ["a", "b"]


def test_a_job_whose_run_fails_while_it_is_measured_fails_alone(bench: Callable[..., Wire], runner: ModuleType) -> None:
    """Whatever a model raises in mid-batch is its own answer; the sentinel and the others go on."""
    plain = runner.Batch.visit

    def visit(batch: Any, candidate: Any, block: Any) -> None:
        if candidate.job_id == "b" and "b" in block.samples:
            raise MemoryError("no room for a workspace")
        plain(batch, candidate, block)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.Batch, "visit", visit)
        wire = bench({"a": "1000 1", "b": "2000 1"}, rounds=4)
    assert [line["error"] for line in wire.of("failed", job="b")] == ["MemoryError: no room for a workspace"]
    assert [row["job"] for row in wire.of("row")] == ["a"]


def test_a_job_that_has_had_its_time_is_done(
    bench: Callable[..., Wire], runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long network gets its least rounds and no more, however much they differ."""
    seconds = itertools.count()
    monkeypatch.setattr(runner.time, "monotonic", lambda: float(next(seconds)))  # each look is a second later
    wire = bench({"a": "1000 1"}, lambda seen: 1 + seen.count("m"), rounds=9, least_rounds=3, enough_s=1.0)
    assert phases(wire) == "S" + 3 * "Sm" + "S" + "r"


@pytest.mark.parametrize(
    ("size_bytes", "run_ns", "loops", "runs", "paired"),
    [
        (1000, 5000, 4, 1, 1),
        (1000, 5000, 32, 8, 8),
        (1 << 19, 300_000, 1, 1, 5),
        (4 << 20, 1_000_000, 1, 5, 17),
        (40 << 20, 16_000_000, 1, 2, 11),
        (40 << 20, 80_000_000, 1, 1, 3),
    ],
    ids=["small", "short", "light", "large", "larger", "slow"],
)
def test_a_model_settles_before_each_visit(
    size_bytes: int, run_ns: int, loops: int, runs: int, paired: int, runner: ModuleType
) -> None:
    """Weights that others drove out of the caches come back in runs that do not count, bounded in number and time; a
    network that is read beside them drives out more.
    """
    candidate = runner.Candidate({"job": "a", "kind": "operator"}, lambda: None, size_bytes)
    candidate.run_ns, candidate.loops = run_ns, loops
    assert runner.settling_runs(candidate, is_paired=False) == runs
    assert runner.settling_runs(candidate, is_paired=True) == paired


def test_a_batch_without_any_good_model_is_all_failed_rows(bench: Callable[..., Wire]) -> None:
    """With nothing to measure there is no sentinel, no block and no crash."""
    wire = bench({"a": "garbage", "b": "more garbage"})
    assert [line["job"] for line in wire.of("failed")] == ["a", "b"]
    assert not wire.of("row")


class FakeInputs:
    """An interpreter that keeps what its inputs are set to."""

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self.details = [{"index": 7, "shape": np.array(shape, dtype=np.int32), "dtype": np.dtype(dtype).type}]
        self.values: dict[int, Any] = {}

    def get_input_details(self) -> list[dict[str, Any]]:
        """Describe one input."""
        return self.details

    def set_tensor(self, index: int, values: Any) -> None:
        """Keep its values."""
        self.values[index] = values


@given(
    dtype=st.sampled_from(["float32", "float16", "int8", "uint8", "int32", "int64", "bool"]),
    shape=st.lists(st.integers(1, 9), max_size=4).map(tuple),
    seed=st.integers(0, 2**31 - 1),
)
def test_inputs_have_type_shape_and_range(runner: ModuleType, dtype: str, shape: tuple[int, ...], seed: int) -> None:
    """Every input is filled in its own type and shape, reproducibly, within a real range."""
    inputs, again = FakeInputs(dtype, shape), FakeInputs(dtype, shape)
    runner.fill_inputs(inputs, seed)
    runner.fill_inputs(again, seed)
    values = inputs.values[7]
    assert values.dtype == dtype
    assert values.shape == shape
    np.testing.assert_array_equal(values, again.values[7])
    if values.dtype.kind == "f" or dtype in ("int32", "int64"):
        assert (abs(values) <= 1).all()


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int32"])
def test_inputs_are_not_constant(runner: ModuleType, dtype: str) -> None:
    """Zeros, or any one value, would let a kernel take short cuts."""
    inputs = FakeInputs(dtype, (4, 64))
    runner.fill_inputs(inputs, 0)
    assert len(np.unique(inputs.values[7])) > 1


def test_an_input_of_text_cannot_be_filled(runner: ModuleType) -> None:
    """An input that has no real range is an error of that model."""
    with pytest.raises(TypeError, match="cannot fill"):
        runner.fill_inputs(FakeInputs("S4", (2,)), 0)


@pytest.mark.parametrize(("value", "denormal"), [(0.0, False), (1.0, False), (1e-40, True), (-1e-40, True)])
def test_denormal_outputs_are_seen(runner: ModuleType, value: float, denormal: bool) -> None:
    """One denormal number in an output is told from zero and from normal ones."""

    class Output:
        def get_output_details(self) -> list[dict[str, int]]:
            return [{"index": 0}]

        def get_tensor(self, index: int) -> Any:
            return np.array([1.0, value], dtype=np.float32)

    assert runner.has_denormals(Output()) is denormal


def test_the_shortest_sample_times_real_runs(runner: ModuleType) -> None:
    """The two clocks bracket exactly as many runs as asked."""
    runs: list[int] = []
    cpu_ns, wall_ns = runner.sample(lambda: runs.append(1), 5)
    assert len(runs) == 5
    assert cpu_ns > 0
    assert wall_ns > 0


def cpu_tree(sys_folder: Path, limits: dict[str, int]) -> Path:
    """Make the files of one of our CPUs below a fake /sys, and return its folder."""
    cpu = sys_folder / f"devices/system/cpu/cpu{min(os.sched_getaffinity(0))}"
    for name, value in limits.items():
        path = cpu / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return cpu


@pytest.fixture
def fake_sys(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the runner read an empty folder as /sys."""
    monkeypatch.setattr(runner, "SYS", tmp_path / "sys")
    return tmp_path / "sys"


def test_a_machine_that_tells_nothing_is_not_throttled(runner: ModuleType, fake_sys: Path) -> None:
    """Missing files, as in most virtual machines, are no sign of anything."""
    assert not fake_sys.exists()
    assert runner.throttle_signs(0) == (False, 0)
    assert runner.read_temperatures_c() == []


@pytest.mark.parametrize(("limit", "held"), [(1_800_000, False), (1_200_000, True)])
def test_a_lowered_top_frequency_is_throttling(runner: ModuleType, fake_sys: Path, limit: int, held: bool) -> None:
    """A governor that caps one of our CPUs below what it could have when the plan began is seen."""
    cpu_tree(fake_sys, {"cpufreq/scaling_max_freq": 1_800_000, "cpufreq/cpuinfo_max_freq": 2_400_000})
    usual_khz = runner.top_khz()
    cpu_tree(fake_sys, {"cpufreq/scaling_max_freq": limit})
    assert runner.throttle_signs(usual_khz) == (held, 0)


def test_a_cap_on_a_cpu_that_is_not_ours_does_not_count(runner: ModuleType, fake_sys: Path) -> None:
    """What another cluster of cores is held to has not slowed us."""
    ours = cpu_tree(fake_sys, {"cpufreq/scaling_max_freq": 1_200_000})
    ours.rename(ours.with_name(f"cpu{max(os.sched_getaffinity(0)) + 1}"))
    assert runner.top_khz() == 0
    assert runner.throttle_signs(0) == (False, 0)


@pytest.mark.parametrize(("word", "held"), [("0", False), ("50000", False), ("50005", True), ("4", True), ("x", False)])
def test_a_pi_tells_that_it_is_throttled_now(runner: ModuleType, fake_sys: Path, word: str, held: bool) -> None:
    """Bits 0 to 3 tell of now, bits 16 to 19 of some time since boot."""
    path = fake_sys / "devices/platform/soc/soc:firmware/get_throttled"
    path.parent.mkdir(parents=True)
    path.write_text(f"{word}\n")
    assert runner.throttle_signs(0) == (held, 0)


def test_a_count_that_grew_is_throttling(runner: ModuleType, fake_sys: Path) -> None:
    """A cap that came and went between two readings is seen by its counter, an old count is not."""
    cpu_tree(fake_sys, {"thermal_throttle/core_throttle_count": 3})
    before = runner.throttle_signs(0)
    assert not runner.is_throttled(before, before)
    cpu_tree(fake_sys, {"thermal_throttle/core_throttle_count": 4})
    assert runner.is_throttled(before, runner.throttle_signs(0))


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [((False, 2), (False, 2), False), ((True, 0), (False, 0), True), ((False, 0), (True, 0), True)],
)
def test_throttling_at_either_end_counts(
    runner: ModuleType, before: tuple[bool, int], after: tuple[bool, int], throttled: bool
) -> None:
    """A clock that was held down when the block began or ended was held down in it."""
    assert runner.is_throttled(before, after) is throttled


def test_every_row_of_a_throttled_block_is_flagged(
    bench: Callable[..., Wire], runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign is read around each block, and the next block starts anew."""
    signs = iter([(False, 0), (False, 1), (False, 1), (False, 1)])
    monkeypatch.setattr(runner, "throttle_signs", lambda usual_khz: next(signs))
    rows = bench({"a": "1000 1", "b": "2000 1", "c": "3000 1.4"}, block_size=2).of("row")
    assert {row["job"]: row["flags"] for row in rows} == {"a": ["throttled"], "b": ["throttled"], "c": ["contended"]}


def test_temperatures_are_those_of_plausible_zones(runner: ModuleType, fake_sys: Path) -> None:
    """Broken sensors tell nonsense, which is left out."""
    for zone, text in enumerate(["45123", "-274000", "nonsense", "51000"]):
        path = fake_sys / f"class/thermal/thermal_zone{zone}/temp"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert runner.read_temperatures_c() == [45.123, 51.0]


class FakeClock:
    """The module `time`, as far as the lock's age needs it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        """Tell the seconds since the epoch."""
        return self.now


@pytest.mark.parametrize(
    ("since", "said"),
    [
        (880, "alice@desk has been measuring for 120 s (process 7 on the device)"),
        (1000, "alice@desk has been measuring for 0 s (process 7 on the device)"),
        (
            5000,
            "alice@desk has been measuring since a time that the device's clock has not reached "
            "(process 7 on the device)",
        ),
    ],
)
def test_the_owner_of_a_lock_is_told_with_its_age(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, since: int, said: str
) -> None:
    """Who is refused learns who measures and since when, even where the device's clock was set back meanwhile."""
    monkeypatch.setattr(runner, "time", FakeClock(1000.0))
    (tmp_path / "lock").write_text(json.dumps({"pid": 7, "since": since, "owner": "alice@desk"}))
    assert runner.lock_owner(str(tmp_path)) == said


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": 7, "since": "x", "owner": "a"}', "\x00"])
def test_a_lock_that_says_nothing_is_another_session(runner: ModuleType, tmp_path: Path, content: str) -> None:
    """The content only informs: whatever it is, the refusal stands."""
    (tmp_path / "lock").write_text(content)
    assert runner.lock_owner(str(tmp_path)) == "another session is measuring"
