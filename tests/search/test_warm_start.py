"""Warm starts: evaluations of another study are taken over where they compare, and cost nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import IDENTITY, TINY, FakeProxy, PulledPlug, accuracy_of, study
from synthetic import CALIBRATION, table_for

from edgekd.search.errors import OtherStudy
from edgekd.search.latency import LatencyModel
from edgekd.search.rated import Rated
from edgekd.search.study_file import MEASURED, load_study
from edgekd.spaces.arch import Arch
from latency_tables.errors import FileDamaged

pytestmark = pytest.mark.whole  # whole searches


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A finished study of eight, of which some failed."""
    path = tmp_path / "source.jsonl"

    def answer(arch: Arch) -> Rated:
        return Rated(accuracy_of(arch), 2.0, "lost" if accuracy_of(arch) < 0.4 else "", epochs=1)

    study(path, budget=8, seed=1).run(FakeProxy(answer=answer).evaluate)
    return path


def test_what_is_taken_over_is_not_paid_for(tmp_path: Path, source: Path) -> None:
    """It stands first, rewarded at the new target; the budget is for others; failures are not taken over."""
    proxy = FakeProxy()
    record = study(tmp_path / "new.jsonl", TINY, source, targets_ms=(0.03,), budget=6).run(proxy.evaluate)
    sound = [s for s in load_study(source).samples if not s.failure]
    taken = record.samples[: len(sound)]
    assert 0 < len(sound) < 8
    assert record.header.warm_samples == len(sound)
    assert [(s.arch, s.proxy_accuracy, s.target) for s in taken] == [(s.arch, s.proxy_accuracy, -1) for s in sound]
    for sample in taken:
        reward = record.header.settings.reward(sample.proxy_accuracy, sample.predicted_ms["int8"], 0.03)
        assert sample.reward == reward
    assert len(proxy.rated) == len(record.samples) - len(sound) == 6
    assert not {s.arch for s in taken} & {str(arch) for arch in proxy.rated}


def test_a_warm_study_goes_on_without_its_source(tmp_path: Path, source: Path) -> None:
    """What was taken over is in its own file, from its first moment; so a kill loses nothing."""
    path, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    study(whole, TINY, source, budget=6).run(FakeProxy().evaluate)
    with pytest.raises(PulledPlug):
        study(path, TINY, source, budget=6).run(FakeProxy(3).evaluate)
    source.unlink()
    study(path, TINY, source, budget=6).run(FakeProxy().evaluate)
    assert path.read_bytes() == whole.read_bytes()


def test_other_targets_seeds_engines_and_tables_are_no_obstacle(tmp_path: Path, source: Path) -> None:
    """Accuracies do not depend on them; predictions are made anew."""
    table = table_for(TINY.space)
    slower = replace(CALIBRATION, scale=1.8)
    model = LatencyModel.of(TINY.space, replace(table, calibrations=dict.fromkeys(table.calibrations, slower)))
    settings = {"seed": 9, "batch": 2, "targets_ms": (0.5,), "budget": 2}
    new = replace(study(tmp_path / "a.jsonl", model, source, **settings), identity=IDENTITY | {"table_sha256": "other"})
    first = new.run(FakeProxy().evaluate).samples[0]
    assert first.predicted_ms["int8"] == pytest.approx(model.predicted_ms(Arch.parse(first.arch))["int8"])


@pytest.mark.parametrize(
    ("identity", "settings", "reason"),
    [
        ({"teacher_sha256": "xyz"}, {}, "its teacher_sha256 is 'abc', not 'xyz'"),
        ({"data_sha256": "d"}, {}, "its data_sha256 is None, not 'd'"),
        ({"proxy": {"epochs": 2, "method": "kd"}}, {}, "its proxy.epochs is 1, not 2"),
        ({}, {"latency": MEASURED}, "its latency is 'table', not 'measured'"),
    ],
)
def test_evaluations_that_do_not_compare_are_refused(
    tmp_path: Path, source: Path, identity: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    """The message says what differs, and no file is begun."""
    new = replace(study(tmp_path / "new.jsonl", TINY, source, **settings), identity=IDENTITY | identity)
    with pytest.raises(OtherStudy, match=f"{reason}; name one of the same space, data, teacher and proxy"):
        new.run(FakeProxy().evaluate)
    assert not new.path.exists()


def test_another_space_is_refused(tmp_path: Path, source: Path) -> None:
    """By name, and by content where the name is the same."""
    for space, reason in (
        (replace(TINY.space, name="tinier"), "its space is 'tiny', not 'tinier'"),
        (replace(TINY.space, resolution=17), "its content of the space is"),
    ):
        with pytest.raises(OtherStudy, match=reason):
            study(tmp_path / "new.jsonl", replace(TINY, space=space), source).run(FakeProxy().evaluate)


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(FileDamaged, match="cannot be read"):
        study(tmp_path / "new.jsonl", TINY, tmp_path / "none.jsonl").run(FakeProxy().evaluate)
    assert not list(tmp_path.iterdir())
