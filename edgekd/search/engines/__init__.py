"""The search engines by name: each proposes decision vectors and learns from their rewards.

An engine is made with ``ENGINES[name](decision_sizes, EngineSettings(budget, batch), seed)``; a subclass of
EngineSettings that belongs to the engine, such as AkdSettings, sets it in detail. Importing this package does
not import torch.

Read next: base.py, the ask/tell protocol.
"""

from __future__ import annotations

from edgekd.errors import UnknownName
from edgekd.search.engines.base import (
    AkdSettings,
    Choices,
    Engine,
    EngineFactory,
    EngineSettings,
    Told,
    learning_rate_for,
)
from edgekd.search.engines.random import RandomEngine


def _akd(decision_sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> Engine:
    from edgekd.search.engines.akd import AkdEngine  # here, so that only a search that runs imports torch

    if not isinstance(settings, AkdSettings):
        settings = AkdSettings.suited_to(settings)
    return AkdEngine(decision_sizes, settings, seed)


ENGINES: dict[str, EngineFactory] = {"akd": _akd, "random": RandomEngine}


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
    "Told",
    "engine_named",
    "learning_rate_for",
]
