"""The search of a run: what is measured when, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic import NARROW, random_archs

from edgekd.config import SearchSettings, Settings
from edgekd.errors import DataError, UnknownName
from edgekd.runs import open_run
from edgekd.search.errors import InvalidSetting
from edgekd.search.rated import Rated
from edgekd.search.reward import Reward
from edgekd.search_job import MeasuredFile, measuring, reward_of, warm_file
from edgekd.spaces.arch import Arch
from latency_tables.errors import FileDamaged, OtherSettings

ARCHS = random_archs(NARROW, 4, 1)


def test_a_batch_is_measured_before_it_is_trained() -> None:
    """While the machine is quiet; what is measured goes into the rating of its own architecture."""
    done: list[str] = []

    def measure(archs: Sequence[Arch]) -> list[float]:
        done.append(f"measure {len(archs)}")
        return [float(1 + ARCHS.index(arch)) for arch in archs]

    def evaluate(archs: Sequence[Arch], hopeless: object) -> object:
        for arch in archs:
            done.append("train")
            yield Rated(ARCHS.index(arch) / 10, 1.0)

    rated = list(measuring(evaluate, measure)(ARCHS, None))  # type: ignore[arg-type]  # a generator is an iterator
    assert done == ["measure 4", *["train"] * 4]
    assert [(r.accuracy, r.measured_ms) for r in rated] == [(0.0, 1.0), (0.1, 2.0), (0.2, 3.0), (0.3, 4.0)]


def test_measurements_are_kept(tmp_path: Path) -> None:
    """For the table and dtype that they belong to; a damaged one is refused."""
    path = tmp_path / "measured.jsonl"
    MeasuredFile(path, "abc", "int8").add(["a", "b"], [0.5, 0.25])
    assert MeasuredFile(path, "abc", "int8").measured_ms == {"a": 0.5, "b": 0.25}
    with pytest.raises(OtherSettings, match="dtype 'int8', not 'float32'"):
        MeasuredFile(path, "abc", "float32")
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.26"))
    with pytest.raises(FileDamaged, match="line 3: the checksum"):
        MeasuredFile(path, "abc", "int8")


def test_the_weight_of_latency_is_that_of_the_form() -> None:
    """Zero is what the form's authors used."""

    def made(form: str, weight: float = 0.0) -> Reward:
        return reward_of(Settings(search=SearchSettings(reward=form, reward_weight=weight)))

    for form in ("soft", "hard", "absolute"):
        assert made(form) == Reward(form)
    assert made("soft", -0.1) == Reward("soft", soft_exponent=-0.1)
    assert made("hard", -2.0) == Reward("hard", hard_exponent=-2.0)
    assert made("absolute", -0.3) == Reward("absolute", absolute_weight=-0.3)
    with pytest.raises(InvalidSetting, match="from -4 to 0"):
        made("soft", 0.1)
    with pytest.raises(UnknownName, match="did you mean 'soft'"):
        made("sofft")


def test_a_warm_start_needs_a_run_with_a_study(tmp_path: Path) -> None:
    """Its search, not its baseline."""
    assert warm_file("") is None
    with pytest.raises(DataError, match=r"is no run folder"):
        warm_file(str(tmp_path))
    run = open_run(tmp_path / "run", Settings())
    with pytest.raises(DataError, match=r"has no search.jsonl to start from"):
        warm_file(str(run.folder))
    (run.folder / "search.jsonl").touch()
    assert warm_file(str(run.folder)) == run.folder / "search.jsonl"
