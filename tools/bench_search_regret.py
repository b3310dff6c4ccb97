"""The regret of every search engine on two benchmarks, under three rewards, over many seeds.

A study is a budget of distinct evaluations and at most 20 times as many proposals; repeats are answered from a cache,
as edgekd's studies do. Regret is the best reward there is (nas_bench_macro) or that any engine or 50,000 random vectors
found (accel_nasbench), less the best that a study found. Intervals are bootstrapped over seeds; engines are compared
with akd seed by seed.

Read next: bench_search_truth.py, the benchmarks; bench_search.py, which runs this part.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_search_truth import TRUTHS, Truth, accel_fit, truth_of

from edgekd.search.engines import ENGINES, Choices, Engine, EngineSettings, Evaluated, engine_named
from edgekd.search.reward import FORMS, Reward

OURS = "akd"
PEERS = ("evolution", "tpe")  # engines that akd has to be level with, under every reward
FLOORS = ("random", "reinforce")  # engines that akd has to be clearly ahead of, over both benchmarks and all rewards
LEVEL = 1e-3  # akd is level with another where the paired interval of its regret less the other's begins below this
MAX_MS = 5.0  # a proposal of our own engines
OWN = ("akd", "reinforce", "evolution", "random")
PROPOSALS = 20  # at most so many proposals an evaluation of the budget
BATCH = 10  # the studies' default
RANDOM_VECTORS = 50_000
RESAMPLES = 10_000

Scores = Mapping[tuple[str, str, str], Mapping[int, float]]  # (benchmark, reward, engine) → seed → best reward


@dataclass(frozen=True, slots=True)
class RegretOptions:
    """What to compare, on which data, and where finished studies are kept."""

    data: Path
    work: Path
    engines: tuple[str, ...] = tuple(ENGINES)
    seeds: tuple[int, ...] = tuple(range(20))
    jobs: int = 1
    benchmarks: tuple[str, ...] = tuple(TRUTHS)


@dataclass(frozen=True, slots=True)
class StudyOf:
    """One study of the comparison."""

    benchmark: str
    reward: str
    engine: str
    seed: int

    @property
    def file_name(self) -> str:
        """Name the file that keeps its outcome."""
        return f"{self.benchmark}.{self.reward}.{self.engine}.{self.seed}.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a study found and what its engine cost."""

    best_reward: float
    evaluations: int
    proposals: int
    ms_per_proposal: float  # processor time of asks and tells


def run(*, quick: bool, options: RegretOptions) -> dict[str, Any]:
    """Run what the work folder lacks, print the comparison, and return its figures by key."""
    if quick:
        options = RegretOptions(
            options.data, options.work, options.engines, options.seeds[:2], options.jobs, ("nas_bench_macro",)
        )
    outcomes = dict(_outcomes(options))
    result: dict[str, Any] = {"regret_seeds": len(options.seeds)}
    if "accel_nasbench" in options.benchmarks:
        result |= _surrogate(options)
    best = {key: _best(options, *key, outcomes) for key in {(s.benchmark, s.reward) for s in outcomes}}
    regrets = regrets_of(outcomes, best)
    result |= summary(regrets) | {
        f"best.{benchmark}.{reward}": value for (benchmark, reward), value in sorted(best.items())
    }
    result |= _costs(outcomes)
    print_table(result, regrets)
    return result


def missed_bars(result: Mapping[str, Any]) -> list[str]:
    """Say where akd is not level with an engine, not ahead of a floor, or an engine of ours is too slow."""
    missed = []
    for key in (key for key in result if key.startswith("paired.") and key.endswith(".diff")):
        stem = key.removesuffix(".diff")
        other = stem.rpartition(".")[2]
        if other in PEERS and result[f"{stem}.low"] > LEVEL:
            missed.append(f"{stem}: akd is behind {other} by {result[key]:.5f}")
    missed += [
        f"ahead.{floor}: akd is not clearly ahead of {floor}"
        for floor in FLOORS
        if result.get(f"ahead.{floor}.high", -1.0) >= 0
    ]
    costs = {engine: result.get(f"ms_per_proposal.{engine}", 0.0) for engine in OWN}
    missed += [f"ms_per_proposal.{engine} {ms:.2f} is above {MAX_MS:g}" for engine, ms in costs.items() if ms > MAX_MS]
    return missed


# --- studies ----------------------------------------------------------------------------------------------------------


def search(engine: Engine, truth: Truth, reward: Reward) -> Outcome:
    """Let an engine spend the benchmark's budget of distinct evaluations."""
    known: dict[Choices, Evaluated] = {}
    proposals, seconds = 0, 0.0
    while len(known) < truth.budget and proposals < PROPOSALS * truth.budget:
        began = time.process_time()
        asked = engine.ask(min(BATCH, truth.budget - len(known)))
        seconds += time.process_time() - began
        if not asked:
            break
        proposals += len(asked)
        fresh = [choices for choices in dict.fromkeys(asked) if choices not in known]
        known |= {item.choices: item for item in rated(fresh, truth, reward)}
        began = time.process_time()
        engine.tell([known[choices] for choices in asked])
        seconds += time.process_time() - began
    best = max((item.reward for item in known.values()), default=-math.inf)
    return Outcome(best, len(known), proposals, 1e3 * seconds / max(1, proposals))


def rated(vectors: Sequence[Choices], truth: Truth, reward: Reward) -> list[Evaluated]:
    """Look vectors up and weigh their accuracy and latency."""
    ratings = truth.rate(vectors) if vectors else []
    return [
        Evaluated(choices, reward(accuracy, latency, truth.target), accuracy, latency)
        for choices, (accuracy, latency) in zip(vectors, ratings, strict=True)
    ]


def finish(study: StudyOf, data: Path, work: Path) -> Outcome:
    """Give a study's outcome, from the work folder if it is there, and keep it there."""
    path = work / study.file_name
    if path.exists():
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    truth = truth_of(study.benchmark, data)
    target = truth.target if study.reward == "hard" else math.inf
    engine = engine_named(study.engine)(truth.sizes, EngineSettings(truth.budget, BATCH, target), study.seed)
    outcome = search(engine, truth, Reward(study.reward))
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    draft.replace(path)
    return outcome


def studies_of(options: RegretOptions) -> list[StudyOf]:
    """List all studies of a comparison, seed by seed, so that an interrupted one is a comparison of fewer seeds."""
    return [
        StudyOf(benchmark, reward, engine, seed)
        for seed in options.seeds
        for benchmark in options.benchmarks
        for reward in FORMS
        for engine in options.engines
    ]


def _outcomes(options: RegretOptions) -> Iterator[tuple[StudyOf, Outcome]]:
    options.work.mkdir(parents=True, exist_ok=True)
    studies = studies_of(options)
    data, work = [options.data] * len(studies), [options.work] * len(studies)
    if options.jobs == 1:
        yield from zip(studies, map(finish, studies, data, work), strict=True)
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        yield from zip(studies, pool.map(finish, studies, data, work), strict=True)


# --- what came of them ------------------------------------------------------------------------------------------------


def _surrogate(options: RegretOptions) -> dict[str, float]:
    """Give the surrogates' cross-validation, which is kept beside the studies."""
    path = options.work / "surrogate.json"
    if not path.exists():
        path.write_text(json.dumps(accel_fit(options.data)), encoding="utf-8")
    fit: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    print("accel_nasbench is a surrogate: boosted trees, 5-fold cross-validation")
    for name in ("accuracy", "latency"):
        r2, tau = fit[f"surrogate.{name}.r2"], fit[f"surrogate.{name}.kendall_tau"]
        print(f"  {name:9} R² {r2:.4f}, Kendall τ {tau:.4f}")
    return fit


def _best(options: RegretOptions, benchmark: str, form: str, outcomes: Mapping[StudyOf, Outcome]) -> float:
    """Give the best reward known: of the whole space, or of everything that was looked at."""
    truth, reward = truth_of(benchmark, options.data), Reward(form)
    vectors: Iterable[Choices] = truth.everything
    if not truth.everything:
        rng = random.Random(0)  # noqa: S311 - a sample, not a secret
        vectors = [tuple(rng.randrange(size) for size in truth.sizes) for _ in range(RANDOM_VECTORS)]
    found = [outcome.best_reward for s, outcome in outcomes.items() if (s.benchmark, s.reward) == (benchmark, form)]
    return max([*found, *(item.reward for item in rated(list(vectors), truth, reward))])


def regrets_of(outcomes: Mapping[StudyOf, Outcome], best: Mapping[tuple[str, str], float]) -> Scores:
    """Subtract what each study found from the best."""
    regrets: dict[tuple[str, str, str], dict[int, float]] = {}
    for study, outcome in outcomes.items():
        seeds = regrets.setdefault((study.benchmark, study.reward, study.engine), {})
        seeds[study.seed] = best[study.benchmark, study.reward] - outcome.best_reward
    return regrets


def bootstrapped(values: Sequence[float]) -> tuple[float, float, float]:
    """Give the mean and its 95 % interval: percentiles of the means of resampled values, always the same ones."""
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def summary(regrets: Scores) -> dict[str, float]:
    """Word regrets and akd's paired differences as keys; ``ahead`` pools a floor's pairs over all comparisons."""
    result: dict[str, float] = {}
    pooled: dict[str, list[float]] = {}
    for (benchmark, form, engine), seeds in regrets.items():
        result |= _keys(f"regret.{benchmark}.{form}.{engine}", ("mean", "low", "high"), list(seeds.values()))
        ours = regrets.get((benchmark, form, OURS), {})
        pairs = [ours[seed] - regret for seed, regret in seeds.items() if seed in ours]
        if engine != OURS and pairs:
            result |= _keys(f"paired.{benchmark}.{form}.{engine}", ("diff", "low", "high"), pairs)
            pooled.setdefault(engine, []).extend(pairs)
    for floor in FLOORS:
        if floor in pooled:
            result |= _keys(f"ahead.{floor}", ("diff", "low", "high"), pooled[floor])
    return result


def _keys(stem: str, names: tuple[str, str, str], values: Sequence[float]) -> dict[str, float]:
    return {f"{stem}.{name}": value for name, value in zip(names, bootstrapped(values), strict=True)}


def _costs(outcomes: Mapping[StudyOf, Outcome]) -> dict[str, float]:
    """Give each engine's median time a proposal, on the benchmark of 28 decisions if that was run."""
    costs: dict[str, list[float]] = {}
    largest = max((study.benchmark for study in outcomes), key=lambda name: (name == "accel_nasbench", name))
    for study, outcome in outcomes.items():
        if study.benchmark == largest:
            costs.setdefault(study.engine, []).append(outcome.ms_per_proposal)
    return {f"ms_per_proposal.{engine}": float(np.median(times)) for engine, times in costs.items()}


def print_table(result: Mapping[str, Any], regrets: Scores) -> None:
    """Print regrets and paired differences side by side."""
    print(f"regret over {result['regret_seeds']} seeds, and akd's less the engine's, with 95 % intervals")
    for benchmark, form in dict.fromkeys((benchmark, form) for benchmark, form, _ in regrets):
        print(f"  {benchmark}, {form} (best {result[f'best.{benchmark}.{form}']:.5f})")
        for engine in [engine for b, f, engine in regrets if (b, f) == (benchmark, form)]:
            mean, low, high = (result[f"regret.{benchmark}.{form}.{engine}.{n}"] for n in ("mean", "low", "high"))
            line = f"    {engine:10} {mean:.5f} [{low:.5f}, {high:.5f}]"
            bar = f" (bar: low ≤ {LEVEL:g})" if engine in PEERS else ""
            if f"paired.{benchmark}.{form}.{engine}.diff" in result:
                stem = f"paired.{benchmark}.{form}.{engine}"
                diff, below, above = (result[f"{stem}.{name}"] for name in ("diff", "low", "high"))
                line += f"   akd's less this {diff:+.5f} [{below:+.5f}, {above:+.5f}]{bar}"
            print(line)
    for key in (key for key in result if key.startswith("ahead.") and key.endswith(".diff")):
        stem = key.removesuffix(".diff")
        diff, below, above = (result[f"{stem}.{name}"] for name in ("diff", "low", "high"))
        print(f"  over all of these, akd's less {stem[6:]}'s: {diff:+.5f} [{below:+.5f}, {above:+.5f}] (bar: high < 0)")
    print("processor time a proposal, asks and tells (bar: 5 ms for our own engines)")
    for key in (key for key in result if key.startswith("ms_per_proposal.")):
        print(f"  {key.partition('.')[2]:10} {result[key]:6.2f} ms")
