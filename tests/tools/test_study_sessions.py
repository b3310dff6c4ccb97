"""tools/study_sessions.py: how far sessions are apart on a made-up device whose speed others change."""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fake_device import CALL_NS, HeldDevice, operators_ns
from synthetic import measurement

from edgekd.bench import ROUNDS, Model
from edgekd.spaces.mnasnet import SPACES
from latency_tables.schema import Measurement

pytestmark = pytest.mark.slow  # runs the whole tool on made-up devices

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))  # the tool's modules find each other there
    study = importlib.import_module("study_sessions")
workshop = sys.modules["bench_workshop"]

ALONE, BESIDE = "fastest sample", "beside another, visit by visit"
OTHER_NS = 1_000_000


def taken(name: str, ns: float, states: Sequence[float]) -> Measurement:
    """Make a measurement of a visit a round; in each the machine takes so many times as long as it would by itself."""
    samples = tuple(round(ns * state) + place for state in states for place in range(3))
    beside_ns = tuple(round(OTHER_NS * state) for state in states)
    return measurement(name, samples_ns=samples, wall_samples_ns=samples, beside="other", beside_ns=beside_ns)


class SharedBench(HeldDevice):
    """Stands for a device that others use: its speed changes with the rounds, and no session sees it at its best."""

    sessions: ClassVar[int] = 0

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        type(self).sessions += 1
        rng = random.Random(self.sessions)
        best = rng.uniform(1.0, 2.0)
        states = [best * rng.uniform(1.0, 3.0) for _ in range(20)]
        for model in models:
            yield taken(model.name, 1000 * (CALL_NS + sum(operators_ns(model.content))), states)


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run the study as from the command line, on the smallest space of all; give what it wrote."""
    path = tmp_path / "out.json"
    monkeypatch.setattr(study, "Bench", SharedBench)
    monkeypatch.setattr(workshop, "space_named", lambda name: SPACES["tiny-28"])
    monkeypatch.setattr(workshop, "_corner", lambda block: block)
    monkeypatch.setattr(sys, "argv", ["study_sessions.py", "--quick", "--json", str(path), *options])
    assert study.main() == 0
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_what_slows_all_networks_of_a_round_leaves_their_ratio(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sessions that never see the machine at its best disagree on times, and agree on how they compare."""
    found = run(monkeypatch, tmp_path, "--networks", "5", "--sessions", "3")
    assert set(found["disagreement"]) == {"float32@96", "int8@96"}
    for readings in found["disagreement"].values():
        assert set(readings) == set(study.READINGS)
        assert readings[ALONE]["mean_ape"] > 5
        assert readings[BESIDE]["mean_ape"] < 0.01
        assert readings[BESIDE]["within_5"] == 1.0
    assert capsys.readouterr().out.count(BESIDE) == 2


def test_one_session_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no other to agree with."""
    monkeypatch.setattr(sys, "argv", ["study_sessions.py", "--sessions", "1"])
    with pytest.raises(SystemExit):
        study.main()
    assert "1 session has no other to agree with" in capsys.readouterr().err


def test_the_study_looks_at_other_networks_than_the_benchmark_judges_by(tmp_path: Path) -> None:
    """A reading that was chosen on the networks of the bars would flatter itself."""
    archs = [
        set(workshop.Workshop(tmp_path, workshop.FULL, seed)._held_out_archs(SPACES["mnasnet-96"]))
        for seed in (study.SEED, workshop.HELD_OUT_SEED)
    ]
    assert not archs[0] & archs[1]
