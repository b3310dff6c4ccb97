"""Optuna's NSGA-II: a population that spreads along the Pareto front of accuracy and latency.

Source: Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II (2002), as Optuna implements it. It
does not look at the reward: a target or a reward's form does not change where it searches.

Read next: through_optuna.py, which runs the sampler.
"""

from __future__ import annotations

from edgekd.search.engines.base import EngineSettings
from edgekd.search.engines.through_optuna import OptunaEngine, import_optuna


class Nsga2Engine(OptunaEngine):
    """Maximise accuracy and minimise latency with Optuna's NSGAIISampler; raise MissingExtra without Optuna.

    Results that were not asked for are no parents: Optuna breeds from generations of its own. A generation is an eighth
    of the budget, from 10 to 50 vectors, as regularised evolution's population is.
    """

    def __init__(self, decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> None:
        population = max(10, min(50, settings.budget // 8))
        sampler = import_optuna().samplers.NSGAIISampler(population_size=population, seed=seed)
        super().__init__(decision_sizes, sampler, ["accuracy", "latency_ms"])
