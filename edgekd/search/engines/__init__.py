"""The search engines by name: each proposes decision vectors and learns from their rewards.

An engine is made with ``ENGINES[name](decision_sizes, EngineSettings(budget, batch), seed)``; a subclass of
EngineSettings that belongs to the engine, such as AkdSettings, sets it in detail. Importing this package does
not import torch.

Read next: base.py, the ask/tell protocol.
"""

from __future__ import annotations

from edgekd.errors import UnknownName
from edgekd.search.engines.akd_settings import AkdSettings, learning_rate_for
from edgekd.search.engines.base import Choices, Engine, EngineFactory, EngineSettings, Evaluated
from edgekd.search.engines.evolution import EvolutionEngine
from edgekd.search.engines.nsga2 import Nsga2Engine
from edgekd.search.engines.random import RandomEngine
from edgekd.search.engines.tpe import TpeEngine


def _akd(decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> Engine:
    from edgekd.search.engines.akd import AkdEngine  # here, so that only a search that runs imports torch

    return AkdEngine(decision_sizes, settings, seed)


def _reinforce(decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> Engine:
    from edgekd.search.engines.reinforce import ReinforceEngine  # imports torch

    return ReinforceEngine(decision_sizes, settings, seed)


ENGINES: dict[str, EngineFactory] = {
    "akd": _akd,
    "reinforce": _reinforce,
    "evolution": EvolutionEngine,
    "nsga2": Nsga2Engine,
    "tpe": TpeEngine,
    "random": RandomEngine,
}


def engine_named(name: str) -> EngineFactory:
    """Find an engine by name.

    Raises:
        UnknownName: there is none; the message names the nearest.

    """
    if name not in ENGINES:
        raise UnknownName("search engine", name, ENGINES)
    return ENGINES[name]


__all__ = [
    "ENGINES",
    "AkdSettings",
    "Choices",
    "Engine",
    "EngineFactory",
    "EngineSettings",
    "Evaluated",
    "engine_named",
    "learning_rate_for",
]
