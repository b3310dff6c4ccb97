"""Builds: only what is missing is measured, a kill costs nothing that was measured, slow rows get another chance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from synthetic import CALIBRATION, KEY, conv, measurement, synthetic_ns

from latency_tables.builder import (
    MAX_ATTEMPTS,
    NetworkSpec,
    Plan,
    Subject,
    build,
    fit_networks,
    usable_networks,
)
from latency_tables.errors import FileDamaged
from latency_tables.op_spec import OpSpec
from latency_tables.predictor import Predictor
from latency_tables.schema import Measurement, Network
from latency_tables.speed import SLOW
from latency_tables.store import LatencyTable, TableFile, load_table

pytestmark = pytest.mark.whole  # whole tables

OPS = tuple(conv(channels) for channels in range(4, 64))
NETWORKS = tuple(NetworkSpec(f"network:{n}", "float32", OPS[n : n + 5 + 3 * n]) for n in range(12))
PLAN = Plan(OPS, NETWORKS)
QUIET_NS = 5000


def name_of(subject: Subject) -> str:
    """Give the text that names a subject in a table."""
    return subject.key if isinstance(subject, OpSpec) else subject.name


class PulledPlug(Exception):
    """The device is gone."""


@dataclass
class FakeDevice:
    """Answers with formula times; `slow` says how much slower the machine is at an attempt (from 1) at a subject."""

    slow: Callable[[str, int], float] = lambda name, attempt: 1.0
    dies_after: int = 10**9
    measured: list[str] = field(default_factory=list)

    def measure(self, subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Measurement]]:
        for subject in subjects:
            if len(self.measured) == self.dies_after:
                raise PulledPlug
            name = name_of(subject)
            self.measured.append(name)
            factor = self.slow(name, self.measured.count(name))
            ops = (subject,) if isinstance(subject, OpSpec) else subject.ops
            ns = int(sum(map(synthetic_ns, ops)) * factor)
            yield subject, measurement(name, ns, sentinel_ns=int(QUIET_NS * factor))


def built(path: Path, device: FakeDevice, plan: Plan = PLAN) -> LatencyTable:
    """Build a table file with a device."""
    return build(TableFile(path, KEY), plan, device.measure, lambda done, total: None)


def test_everything_is_measured_once_and_calibrated(tmp_path: Path) -> None:
    """On a quiet machine each operator and network is measured one time, and the file holds what is given back."""
    device = FakeDevice()
    table = built(tmp_path / "table.jsonl", device)
    assert sorted(device.measured) == sorted(map(name_of, OPS + NETWORKS))
    assert table == load_table(tmp_path / "table.jsonl")
    assert set(table.calibrations) == {"float32"}
    assert table.calibrations["float32"].scale == pytest.approx(1, abs=0.01)
    assert table.calibrations["float32"].heldout_max_error < 0.01


def test_only_what_is_missing_is_measured(tmp_path: Path) -> None:
    """A larger plan adds its own subjects, and a complete table is left byte for byte as it is."""
    path = tmp_path / "table.jsonl"
    built(path, FakeDevice(), Plan(OPS[:40], NETWORKS[:8]))
    device = FakeDevice()
    built(path, device)
    assert sorted(device.measured) == sorted(map(name_of, OPS[40:] + NETWORKS[8:]))
    before = path.read_bytes()
    idle = FakeDevice()
    built(path, idle)
    assert idle.measured == []
    assert path.read_bytes() == before


@pytest.mark.parametrize("dies_after", [0, 1, 17, 71])
def test_a_build_goes_on_where_it_broke(tmp_path: Path, dies_after: int) -> None:
    """All that was answered before the device went is kept, and the rest alone is asked for."""
    path, device = tmp_path / "table.jsonl", FakeDevice(dies_after=dies_after)
    with pytest.raises(PulledPlug):
        built(path, device)
    assert len(load_table(path).measurements) == dies_after
    second = FakeDevice()
    table = built(path, second)
    assert sorted(device.measured + second.measured) == sorted(map(name_of, OPS + NETWORKS))
    undisturbed = built(tmp_path / "other.jsonl", FakeDevice())
    assert (table.rows, table.networks) == (undisturbed.rows, undisturbed.networks)


def test_what_was_measured_on_a_slow_machine_is_measured_again(tmp_path: Path) -> None:
    """Samples of both attempts are kept, and the table speaks of the quiet one."""
    slow = {OPS[3].key, OPS[40].key, NETWORKS[2].name}
    device = FakeDevice(slow=lambda name, attempt: 1.5 if name in slow and attempt == 1 else 1.0)
    table = built(tmp_path / "table.jsonl", device)
    assert sorted(name for name in set(device.measured) if device.measured.count(name) == 2) == sorted(slow)
    quiet = built(tmp_path / "quiet.jsonl", FakeDevice())
    for again in table.measurements:
        assert len(again.samples_ns) == (6 if again.subject in slow else 3)
        assert again.attempt == (2 if again.subject in slow else 1)
    by_name = {m.subject: m.quiet_ms for m in quiet.measurements}
    assert {m.subject: m.quiet_ms for m in table.measurements} == by_name
    assert table == load_table(tmp_path / "table.jsonl")


def test_a_boost_of_the_clock_makes_nothing_else_slow(tmp_path: Path) -> None:
    """What few measurements were fast enough for is no speed that others could be measured at."""
    boosted = {OPS[3].key, OPS[40].key, NETWORKS[2].name}
    device = FakeDevice(slow=lambda name, attempt: 0.9 if name in boosted else 1.0)
    built(tmp_path / "table.jsonl", device)
    assert len(device.measured) == len(set(device.measured))


def test_what_stays_at_another_speed_is_read_as_of_the_usual_one(tmp_path: Path) -> None:
    """A boosted clock and a slow one, under rows and under networks, change no prediction and leave nothing out."""
    subjects = [*NETWORKS[:5], *OPS[:25]]
    odd = dict(zip(map(name_of, subjects), (0.92, 0.95, 1.1, 1.3, 1.5) * 6, strict=True))
    table = built(tmp_path / "table.jsonl", FakeDevice(slow=lambda name, attempt: odd.get(name, 1.0)))
    quiet = built(tmp_path / "quiet.jsonl", FakeDevice())
    assert table.calibrations["float32"].networks == len(NETWORKS)
    found, wanted = (Predictor(each, "float32") for each in (table, quiet))
    for ops in (network.ops for network in NETWORKS):
        assert found.predict(ops).total_ms == pytest.approx(wanted.predict(ops).total_ms, rel=0.001)
        assert found.predict(ops).high_ms == pytest.approx(wanted.predict(ops).high_ms, rel=0.005)


def test_a_calibration_says_at_which_speed_it_reads_rows(tmp_path: Path) -> None:
    """One of an older edgekd read them as they were measured, and its predictions stay what they were."""
    slow = {op.key for op in OPS[:5]}
    path = tmp_path / "table.jsonl"
    table = built(path, FakeDevice(slow=lambda name, attempt: 1.5 if name in slow else 1.0))
    fit = table.calibrations["float32"]
    assert fit.usual_sentinel_ns == table.usual_sentinel_ns == QUIET_NS
    before = replace(table, calibrations={"float32": replace(fit, usual_sentinel_ns=0)})
    new, old = (Predictor(each, "float32").predict(NETWORKS[0].ops).total_ms for each in (table, before))
    assert old == pytest.approx(1.5 * new, rel=0.05)


def test_times_on_the_wall_are_read_as_they_were_measured(tmp_path: Path) -> None:
    """There a slow sentinel tells of others beside it."""
    file = TableFile(tmp_path / "table.jsonl", replace(KEY, clock="wall", threads=2))
    device = FakeDevice(slow=lambda name, attempt: 1.5 if name == OPS[3].key else 1.0)
    table = build(file, PLAN, device.measure, lambda done, total: None)
    assert table.calibrations["float32"].usual_sentinel_ns == 0


def test_float32_networks_tell_int8_ones_where_weights_come_from(tmp_path: Path) -> None:
    """Both are on one machine, and those of float32 have four times the weights to show it."""
    ops = {dtype: tuple(conv(channels, dtype=dtype) for channels in range(40, 100)) for dtype in ("float32", "int8")}
    networks = tuple(
        NetworkSpec(f"network:{dtype} {n}", dtype, ops[dtype][n : n + 5 + 3 * n]) for dtype in ops for n in range(12)
    )

    class Fetching(FakeDevice):
        """Weights of networks come at 5 GB/s, those of single operators are in the cache; int8 networks scatter."""

        def measure(self, subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Measurement]]:
            for subject, found in super().measure(subjects):
                ops = subject.ops if isinstance(subject, NetworkSpec) else ()
                extra_ns = sum(max(0, op.weight_bytes // 5 - synthetic_ns(op)) for op in ops)
                scatter = next(off) if isinstance(subject, NetworkSpec) and subject.dtype == "int8" else 1.0
                yield subject, measurement(name_of(subject), round((min(found.samples_ns) + extra_ns) * scatter))

    off = itertools.cycle((0.9, 1.1, 1.0))
    of_int8 = Plan(ops["int8"], tuple(network for network in networks if network.dtype == "int8"))
    assert built(tmp_path / "int8.jsonl", Fetching(), of_int8).calibrations["int8"].fetch_gb_per_s == 0
    table = built(tmp_path / "table.jsonl", Fetching(), Plan(ops["float32"] + ops["int8"], networks))
    near_gb_per_s = table.calibrations["float32"].fetch_gb_per_s
    assert near_gb_per_s > 0
    assert near_gb_per_s / 2.6 <= table.calibrations["int8"].fetch_gb_per_s <= 2.6 * near_gb_per_s


def test_disturbed_networks_do_not_calibrate_where_enough_others_do(tmp_path: Path) -> None:
    """Where too few are undisturbed, all of them do."""
    names = [network.name for network in NETWORKS]
    flagged = set(names[:3])
    table = built(tmp_path / "table.jsonl", FakeDevice())
    for name in flagged:
        disturbed = replace(table.networks[name].measurement, flags=("throttled",))
        table.networks[name] = replace(table.networks[name], measurement=disturbed)
    assert {network.name for network in usable_networks(table, "float32")} == set(names) - flagged
    for name in names[3:5]:
        del table.networks[name]
    assert len(usable_networks(table, "float32")) == len(NETWORKS) - 2


def test_a_sentinel_just_below_the_limit_is_quiet_enough(tmp_path: Path) -> None:
    """The sentinel's own repeat error is no reason to measure again."""
    wobbly = OPS[3].key
    device = FakeDevice(slow=lambda name, attempt: SLOW - 0.005 if name == wobbly else 1.0)
    built(tmp_path / "table.jsonl", device)
    assert device.measured.count(wobbly) == 1


def test_a_machine_that_stays_slow_does_not_keep_a_build_from_ending(tmp_path: Path) -> None:
    """Attempts are bounded, also over several builds of one file."""
    path, slow = tmp_path / "table.jsonl", {OPS[3].key, NETWORKS[2].name}
    device = FakeDevice(slow=lambda name, attempt: 2.0 if name in slow else 1.0)
    built(path, device)
    assert {name: device.measured.count(name) for name in slow} == dict.fromkeys(slow, MAX_ATTEMPTS)
    idle = FakeDevice()
    built(path, idle)
    assert idle.measured == []


@pytest.mark.parametrize("stays", [True, False])
def test_a_few_are_measured_again_to_see_whether_the_machine_still_is_slow(tmp_path: Path, stays: bool) -> None:
    """Where it is, the others would take minutes and tell nothing new; else all get another chance."""
    ops = tuple(conv(channels) for channels in range(4, 304))
    slow = {op.key for op in ops[:100]}
    device = FakeDevice(slow=lambda name, attempt: 1.2 if name in slow and (stays or attempt == 1) else 1.0)
    told: list[tuple[int, int]] = []
    file = TableFile(tmp_path / "table.jsonl", KEY)
    table = build(file, Plan(ops, NETWORKS), device.measure, lambda *told_now: told.append(told_now))
    count = 32 if stays else 100
    again = {name: n for name in slow if (n := device.measured.count(name)) > 1}
    assert sorted(again.values()) == [MAX_ATTEMPTS if stays else 2] * count
    total = len(ops) + len(NETWORKS)
    assert len(device.measured) == total + sum(again.values()) - count
    assert told[total : total + count] == [(n, 100) for n in range(1, count + 1)]
    assert table.calibrations["float32"].scale == pytest.approx(1, abs=0.01)


def test_networks_are_spread_among_the_operators(tmp_path: Path) -> None:
    """Both see the same machine: between two networks there is always an operator, and never more than their share."""
    device = FakeDevice()
    built(tmp_path / "table.jsonl", device)
    places = [i for i, name in enumerate(device.measured) if name.startswith("network:")]
    gaps = [b - a - 1 for a, b in zip([-1, *places], places, strict=False)]
    assert len(places) == len(NETWORKS)
    assert set(gaps) == {len(OPS) // len(NETWORKS)}


@pytest.mark.parametrize(("ops", "networks"), [(3, 12), (60, 0), (0, 12), (61, 12), (13, 12)])
def test_spreading_loses_and_repeats_nothing(ops: int, networks: int) -> None:
    """Whatever the numbers, each subject is planned once, in its own order."""
    some = tuple(conv(channels) for channels in range(1, ops + 1))
    missing = Plan(some, NETWORKS[:networks]).missing(LatencyTable(KEY))
    assert [s for s in missing if isinstance(s, OpSpec)] == list(some)
    assert [s for s in missing if not isinstance(s, OpSpec)] == list(NETWORKS[:networks])


def test_progress_counts_up_to_what_there_is_to_do(tmp_path: Path) -> None:
    """The caller hears every measurement, of how many."""
    told: list[tuple[int, int]] = []
    build(TableFile(tmp_path / "t.jsonl", KEY), PLAN, FakeDevice().measure, lambda *told_now: told.append(told_now))
    assert told == [(n, 72) for n in range(1, 73)]


def test_networks_whose_operators_are_not_all_measured_do_not_calibrate(tmp_path: Path) -> None:
    """A build of another space that was killed leaves networks behind; they neither count nor break the fit."""
    file = TableFile(tmp_path / "table.jsonl", KEY)
    stranger = "network:of-another-space"
    file.add_network(Network(stranger, "float32", (conv(500).key,), measurement(stranger)))
    table = build(file, PLAN, FakeDevice().measure, lambda done, total: None)
    assert table.calibrations["float32"].networks == len(NETWORKS)


def test_a_calibration_never_speaks_for_rows_that_have_changed_since(tmp_path: Path) -> None:
    """A plan without networks measures a slow row again; the dtype whose networks hold it is calibrated anew."""
    path, slow = tmp_path / "table.jsonl", OPS[3].key
    device = FakeDevice(slow=lambda name, attempt: 1.5 if name == slow else 1.0)
    before = built(path, device, Plan(OPS, NETWORKS, attempts=1))
    after = built(path, FakeDevice(), Plan((OPS[3], conv(500)), ()))
    assert after.rows[slow].quiet_ms < before.rows[slow].quiet_ms
    assert after.calibrations["float32"] == fit_networks(after, "float32") != before.calibrations["float32"]
    assert after == load_table(path)


def test_a_build_that_broke_before_it_calibrated_again_is_not_final(tmp_path: Path) -> None:
    """As many networks as before, but a row with a further attempt: the next build fits again and measures nothing."""
    path, device = tmp_path / "table.jsonl", FakeDevice()
    before = built(path, device)
    file = TableFile(path, KEY)
    file.add_row(measurement(OPS[5].key, synthetic_ns(OPS[5]) // 2, attempt=2))
    file.close()
    idle = FakeDevice()
    after = built(path, idle)
    assert idle.measured == []
    assert after.calibrations["float32"] == fit_networks(after, "float32") != before.calibrations["float32"]


def test_a_calibration_without_its_networks_is_left_as_it_is(tmp_path: Path) -> None:
    """There is nothing to fit it again to."""
    file = TableFile(tmp_path / "table.jsonl", KEY)
    file.add_calibration("float32", CALIBRATION)
    table = build(file, Plan(OPS, ()), FakeDevice().measure, lambda done, total: None)
    assert table.calibrations == {"float32": CALIBRATION}


def test_too_few_networks_cannot_calibrate(tmp_path: Path) -> None:
    """The rows are kept all the same."""
    with pytest.raises(ValueError, match="4 networks are too few"):
        built(tmp_path / "table.jsonl", FakeDevice(), Plan(OPS, NETWORKS[:4]))
    table = load_table(tmp_path / "table.jsonl")
    assert len(table.rows) == len(OPS)
    with pytest.raises(ValueError, match="0 networks are too few"):
        fit_networks(table, "int8")


def test_a_damaged_table_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    """Minutes of measuring never precede the bad news."""
    path, device = tmp_path / "table.jsonl", FakeDevice()
    built(path, FakeDevice())
    path.write_bytes(path.read_bytes().replace(b'"attempt":1', b'"attempt":9', 1))
    with pytest.raises(FileDamaged, match="line 2"):
        built(path, device)
    assert device.measured == []
