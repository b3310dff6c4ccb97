"""tools/study_tables.py: all of its parts on a fake device, and what it says of operators in context."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fake_device import CALL_NS, FakeClock, HeldDevice, operators_ns
from synthetic import conv, measurement, table_of

from device_agents.questions import Node
from edgekd import profile as profile_module
from edgekd.bench import ROUNDS, Model
from edgekd.profile import all_ops
from edgekd.spaces.mnasnet import SPACES
from latency_tables.builder import FIXED_COST_OPS
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.schema import Measurement

pytestmark = pytest.mark.slow  # runs the whole tool on made-up devices

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))  # the tool's modules find each other there
    study = importlib.import_module("study_tables")
context, errors, workshop = (sys.modules[name] for name in ("study_context", "bench_errors", "bench_workshop"))

IN_CONTEXT = ("in context, uncalibrated", "in context, held near physics", "rows by kind's ratio in context")


class FakeBench(HeldDevice):
    """Stands for a device on which networks take the sum of their operators and one call.

    Its profiler tells `odd_nodes` nodes more than there are operators, beside the one that holds them together.
    """

    odd_nodes: ClassVar[int] = 0

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        for model in models:
            yield measurement(model.name, CALL_NS + sum(operators_ns(model.content)))

    def measure_settled(self, models: Iterable[Model]) -> dict[str, Measurement]:
        return {row.subject: row for row in self.measure(models)}

    def nodes(self, model: Model, runs: int) -> tuple[Node, ...]:
        told = [*operators_ns(model.content), *[7] * self.odd_nodes]
        inside = [Node("op", ("xnnpack", "builtin")[place % 2], ns, runs) for place, ns in enumerate(told)]
        added = Node("Static Reshape (NC)", "xnnpack", 1, runs)
        return (Node("TfLiteXNNPackDelegate", "delegate", sum(told), runs), added, *inside)


@pytest.fixture
def fake_bench(monkeypatch: pytest.MonkeyPatch) -> type[FakeBench]:
    """Let the study measure on the fake device, the smallest space of all."""
    monkeypatch.setattr(FakeBench, "odd_nodes", 0)
    monkeypatch.setattr(profile_module, "BenchGroup", FakeBench)
    for module in (study, workshop):
        monkeypatch.setattr(module, "Bench", FakeBench)
    monkeypatch.setattr(workshop, "DeviceClock", FakeClock)
    monkeypatch.setattr(workshop, "space_named", lambda name: SPACES["tiny-28"])
    monkeypatch.setattr(workshop, "_corner", lambda block: block)
    return FakeBench


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Run the study as from the command line; give what it wrote."""
    path = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["study_tables.py", "--quick", "--held-out", "6", "--json", str(path)])
    assert study.main() == 0
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# --- the whole --------------------------------------------------------------------------------------------------------


def test_every_part_gives_its_figures(
    fake_bench: type[FakeBench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a device that adds up operators and a call, what is fitted near physics is right and plain sums are not."""
    found = run(monkeypatch, tmp_path)
    assert set(found) == {"machine", "in_context", "mixes", "estimates", "fusion"}
    assert set(found["mixes"]) == {"float32@96", "int8@96"}
    for mixes in found["mixes"].values():
        assert all(any(name.startswith(start) for name in mixes) for start in IN_CONTEXT)
        assert mixes["measured again"]["mean_ape"] == 0.0
        physics = mixes["rows - fixed cost, 20 networks, held near physics"]["mean_ape"]
        assert physics < 0.5
        assert mixes["isolated rows"]["mean_ape"] > 10 * physics
        assert all(of["seconds"] > 0 for name, of in mixes.items() if name != "measured again")
    for counts in found["in_context"].values():
        assert counts["networks_read"] == counts["networks"] == 20
        assert counts["operators_read"] == counts["operators"] > 0
    assert set(found["estimates"]) == set(DTYPES)
    assert all(0 <= of["interval_coverage"] <= 1 for of in found["estimates"].values())
    assert set(found["fusion"]) == set(study.PAIRS)


def test_networks_whose_nodes_are_not_their_operators_make_no_mix(
    fake_bench: type[FakeBench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Isolated rows under the name of operators in context would mislead; one line a dtype says so."""
    monkeypatch.setattr(fake_bench, "odd_nodes", 1)
    found = run(monkeypatch, tmp_path)
    for mixes in found["mixes"].values():
        assert "isolated rows" in mixes
        assert not any("in context" in name for name in mixes)
    assert all(counts["networks_read"] == counts["operators_read"] == 0 for counts in found["in_context"].values())
    lines = [line for line in capsys.readouterr().out.splitlines() if "too little for a mix, left out" in line]
    assert len(lines) == len(DTYPES)
    assert all("0 of 20 networks, 0 of " in line for line in lines)


def test_the_study_chooses_on_other_networks_than_the_benchmark_judges_by(tmp_path: Path) -> None:
    """A default that was picked on the networks of the bars would flatter itself."""
    archs = []
    for seed in (study.SEED, workshop.HELD_OUT_SEED):
        shop = workshop.Workshop(tmp_path, workshop.FULL, seed)
        archs.append(set(shop._held_out_archs(shop.space(96))))
    assert not archs[0] & archs[1]


def test_no_held_out_network_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to judge by is no study."""
    monkeypatch.setattr(sys, "argv", ["study_tables.py", "--held-out", "0"])
    with pytest.raises(SystemExit):
        study.main()
    assert "'0' is not an integer from 1" in capsys.readouterr().err


# --- operators in context ---------------------------------------------------------------------------------------------

A, B, C = (conv(channels) for channels in (8, 16, 24))


def network(ops: Sequence[OpSpec], *times_ns: int) -> tuple[Sequence[OpSpec], list[Node]]:
    """Pair operators with nodes of these times."""
    return ops, [Node("op", "xnnpack", ns, context.NODE_RUNS) for ns in times_ns]


def test_an_operators_time_in_context_is_the_median_over_its_networks() -> None:
    """A network with a node more is not read; its device time counts all the same."""
    found = context.Context.of(
        [network((A, B), 1000, 500), network((A,), 3000), network((A,), 9000), network((A, C), 1, 1, 1)]
    )
    assert found.op_ms == {A.key: 0.003, B.key: 0.0005}
    assert found.counts == {"networks_read": 3, "networks": 4, "operators_read": 2, "operators": 3}
    assert found.seconds == pytest.approx(context.NODE_RUNS * 13503e-9)


@pytest.mark.parametrize(
    ("networks", "is_enough"),
    [
        ([network((A,), 1), network((B,), 1)], True),
        ([network((A,), 1), network((B,), 1, 1)], True),
        ([network((A,), 1), network((A,), 1, 1), network((A,), 1, 1)], False),
        ([network((A,), 1), network((A,), 1), network((A, B, C), 1)], False),
        ([], False),
    ],
)
def test_half_of_the_networks_and_operators_are_enough(networks: list[Any], is_enough: bool) -> None:
    """Below that a mix would be isolated rows under another name."""
    assert context.Context.of(networks).is_enough is is_enough


# --- estimates --------------------------------------------------------------------------------------------------------


def test_hidden_rows_are_estimated_as_a_prediction_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row alone is estimated without what a calibration would add to a network, and never from itself."""
    some = all_ops(SPACES["mnasnet-28-narrow"], ("float32",))[::4]  # tiny-28 has too few to tell one from the others
    table = table_of(some)
    table.rows |= {op.key: measurement(op.key, CALL_NS) for op in FIXED_COST_OPS.values()}
    pairs = study._hidden(table, "float32", 0)
    assert pairs
    for key, estimate in pairs:
        assert key != FIXED_COST_OPS["float32"].key
        (part,) = estimate.parts
        assert part.how in ("interpolated", "fitted")
        assert part.ms == pytest.approx(estimate.total_ms)
        assert estimate.low_ms < estimate.total_ms < estimate.high_ms
    changed = replace(table.rows[pairs[0][0]], samples_ns=(10**9,) * 3)
    table.rows[pairs[0][0]] = changed
    assert study._hidden(table, "float32", 0)[0][1].total_ms == pytest.approx(pairs[0][1].total_ms)
