"""tools/bench_search.py: how regret is counted and compared, on truths small enough to know."""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.search.engines import Choices, EngineSettings, Evaluated, engine_named
from edgekd.search.reward import Reward

pytestmark = pytest.mark.whole  # whole benchmarks

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load(name: str) -> ModuleType:
    """Load a tool as a module, which finds its siblings beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        return importlib.import_module(name)


truths, regret, bench = load("bench_search_truth"), load("bench_search_regret"), load("bench_search")


def rate(vectors: Sequence[Choices]) -> list[tuple[float, float]]:
    return [(sum(choices) / 10, 1.0 + choices[0]) for choices in vectors]


EVERYTHING = tuple(itertools.product(range(3), repeat=4))
TOY = truths.Truth("toy", (3,) * 4, 2.0, 30, rate, EVERYTHING)


class Stubborn:
    """An engine that proposes the same two vectors for ever."""

    def __init__(self) -> None:
        self.told: list[Evaluated] = []

    def ask(self, count: int) -> list[Choices]:
        return ([(0, 0, 0, 0), (1, 1, 1, 1)] * count)[:count]

    def tell(self, told: Sequence[Evaluated]) -> None:
        self.told += told


def test_a_budget_counts_distinct_evaluations_and_proposals_end_it() -> None:
    """Repeats are answered and told but not paid for; after 20 proposals an evaluation the study ends."""
    engine = Stubborn()
    outcome = regret.search(engine, TOY, Reward("hard"))
    assert (outcome.evaluations, outcome.proposals) == (2, 20 * TOY.budget)
    assert len(engine.told) == outcome.proposals
    assert outcome.best_reward == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["random", "evolution"])
def test_a_study_spends_its_whole_budget(name: str) -> None:
    """An engine without repeats proposes as often as it evaluates."""
    outcome = regret.search(engine_named(name)(TOY.sizes, EngineSettings(30), 0), TOY, Reward("soft"))
    assert (outcome.evaluations, outcome.proposals) == (30, 30)


def test_regret_is_what_the_best_has_more() -> None:
    """By hand: a best of 0.9 and findings of 0.9 and 0.7."""
    found = {
        regret.StudyOf("toy", "hard", "akd", seed): regret.Outcome(best, 1, 1, 0.1)
        for seed, best in enumerate([0.9, 0.7])
    }
    regrets = regret.regrets_of(found, {("toy", "hard"): 0.9})
    assert regrets["toy", "hard", "akd"] == pytest.approx({0: 0.0, 1: 0.2})


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_an_interval_holds_its_mean(values: list[float]) -> None:
    """Low ≤ mean ≤ high, within the values' range, and twice the same."""
    mean, low, high = regret.bootstrapped(values)
    assert min(values) - 1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= max(values) + 1e-9
    assert (mean, low, high) == regret.bootstrapped(values)


def test_an_interval_is_as_wide_as_theory_says() -> None:
    """400 normal values: about ± 1.96 deviations of the mean."""
    rng = random.Random(3)
    values = [rng.gauss(5, 2) for _ in range(400)]
    _, low, high = regret.bootstrapped(values)
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / 20, rel=0.15)


def summary_of(akd: list[float], other: list[float], engine: str = "evolution") -> dict[str, float]:
    pair = {"akd": akd, engine: other}
    regrets = {("toy", "soft", name): dict(enumerate(values)) for name, values in pair.items()}
    summary: dict[str, float] = regret.summary(regrets)
    return summary


def test_engines_are_compared_seed_by_seed() -> None:
    """A difference that is the same in every seed has an interval of no width, however the seeds differ."""
    result = summary_of([0.1, 0.5, 0.9], [0.2, 0.6, 1.0])
    for name in ("diff", "low", "high"):
        assert result[f"paired.toy.soft.evolution.{name}"] == pytest.approx(-0.1)
    assert result["regret.toy.soft.evolution.mean"] == pytest.approx(0.6)
    assert "paired.toy.soft.akd.diff" not in result


def test_only_seeds_that_both_have_are_paired() -> None:
    """An engine that lacks seeds is compared on those that it has."""
    assert summary_of([0.1, 0.2, 0.3], [0.5])["paired.toy.soft.evolution.diff"] == pytest.approx(-0.4)


@pytest.mark.parametrize(
    ("akd", "other", "engine", "missed"),
    [
        ([0.01, 0.02], [0.01, 0.02], "evolution", []),
        ([0.02, 0.03], [0.01, 0.02], "evolution", ["paired.toy.soft.evolution: akd is behind evolution by 0.01000"]),
        ([0.02, 0.03], [0.01, 0.02], "nsga2", []),  # shown, and not a bar
        ([0.0109, 0.0209], [0.01, 0.02], "tpe", []),  # within 1e-3 is level
        ([0.01, 0.02], [0.03, 0.04], "random", []),
        ([0.01, 0.02], [0.01, 0.02], "random", ["ahead.random: akd is not clearly ahead of random"]),
    ],
)
def test_bars_of_being_level_and_ahead(akd: list[float], other: list[float], engine: str, missed: list[str]) -> None:
    """Level is an interval that begins below 1e-3; ahead is one that ends below 0."""
    assert regret.missed_bars(summary_of(akd, other, engine)) == missed


def test_a_slow_engine_of_ours_misses_its_bar_and_optunas_do_not() -> None:
    """Five milliseconds are our own engines' limit."""
    costs = {"ms_per_proposal.akd": 5.5, "ms_per_proposal.tpe": 12.0, "ms_per_proposal.random": 5.0}
    assert regret.missed_bars(costs) == ["ms_per_proposal.akd 5.50 is above 5"]


def write_macro(folder: Path) -> None:
    entries: dict[str, Any] = {
        "".join(map(str, key)): {"mean_acc": 50 + sum(key), "flops": 1e6 * (20 + 5 * sum(key))}
        for key in itertools.product(range(3), repeat=8)
    }
    (folder / truths.MACRO_FILE).write_text(json.dumps(entries), encoding="utf-8")


def write_accel(folder: Path, rows: int = 60) -> None:
    rng, names = random.Random(0), [*truths.ACCEL_DECISIONS, "val_top1", "latency_zcu102"]
    lines = [",".join(names)]
    for number in range(rows):
        choices = [rng.randrange(2) for _ in truths.ACCEL_DECISIONS]
        latency = "" if number == 7 else str(1.0 + sum(choices))  # a gap, as in the data
        lines.append(",".join([*map(str, choices), str(40 + sum(choices)), latency]))
    with gzip.open(folder / truths.ACCEL_FILE, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def test_nas_bench_macro_is_read_as_shares_and_mflops(tmp_path: Path) -> None:
    """A key's digits are its choices; all 6,561 are known."""
    write_macro(tmp_path)
    truth = truths.macro_truth(tmp_path)
    assert (truth.sizes, truth.target, truth.budget, len(truth.everything)) == ((3,) * 8, 40.0, 400, 6561)
    assert truth.rate([(0,) * 8, (2,) * 8]) == [(0.5, 20.0), (0.66, 100.0)]


@pytest.mark.slow  # scikit-learn is imported and fits two forests
def test_the_surrogate_follows_its_data(tmp_path: Path) -> None:
    """Trees fitted to a sum rise with it; a row without a latency is left out of that fit only."""
    write_accel(tmp_path, 300)
    known = truths.AccelData.read(tmp_path)
    assert known.choices.shape == (300, 28)
    assert [math.isnan(value) for value in known.latency].count(True) == 1
    truth = truths.accel_truth(tmp_path)
    (least, fast), (most, slow) = truth.rate([(0,) * 28, (1,) * 28])
    assert most > least + 0.05
    assert slow > fast + 5
    assert truth.rate([(0,) * 28]) == [(least, fast)]


def test_finished_studies_are_kept_and_not_repeated(tmp_path: Path) -> None:
    """What the work folder holds is taken as it is; what it lacks is run and written."""
    write_macro(tmp_path)
    study = regret.StudyOf("nas_bench_macro", "hard", "random", 3)
    first = regret.finish(study, tmp_path, tmp_path)
    kept = tmp_path / study.file_name
    assert first == regret.finish(study, tmp_path, tmp_path)
    kept.write_text(kept.read_text(encoding="utf-8").replace('"proposals": 400', '"proposals": 7'), encoding="utf-8")
    assert regret.finish(study, tmp_path, tmp_path).proposals == 7


def test_a_quick_comparison_prints_and_gives_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tool from its command line to its file, with two engines and two seeds."""
    write_macro(tmp_path)
    figures = tmp_path / "figures.json"
    arguments = ["--data", str(tmp_path), "--parts", "regret", "--engines", "evolution,random", "--quick"]
    assert bench.main([*arguments, "--json", str(figures)]) == 0
    result = json.loads(figures.read_text(encoding="utf-8"))
    for form in ("soft", "hard", "absolute"):
        for name in ("mean", "low", "high"):
            assert 0 <= result[f"regret.nas_bench_macro.{form}.evolution.{name}"] < 0.1
    assert result["missed_bars"] == []
    assert "nas_bench_macro, absolute (best" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--parts", "regret"], ["--parts", "regrets"], ["--engines", "akd,evolutoin"]])
def test_requests_that_cannot_be_met_end_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """No data, an unknown part, an unknown engine: exit code 2 and a line that says which."""
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_both_benchmarks_are_looked_for_before_hours_are_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a quick comparison does with the first."""
    write_macro(tmp_path)
    with pytest.raises(SystemExit) as ended:
        bench.main(["--data", str(tmp_path), "--parts", "regret", "--engines", "random"])
    assert ended.value.code == 2
    assert truths.ACCEL_FILE in capsys.readouterr().err
