"""Optuna's tree-structured Parzen estimator: options that are frequent among the best results and rare among the rest.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization (NeurIPS 2011), section 4, as Optuna implements it
with the defaults of its version 5: proposals of one batch avoid each other (constant liar). It sees the reward alone.

Read next: through_optuna.py, which runs the sampler.
"""

from __future__ import annotations

from edgekd.search.engines.base import EngineSettings
from edgekd.search.engines.through_optuna import OptunaEngine, import_optuna


class TpeEngine(OptunaEngine):
    """Maximise the reward with Optuna's TPESampler; raise MissingExtra without Optuna."""

    def __init__(self, decision_sizes: tuple[int, ...], _settings: EngineSettings, seed: int) -> None:
        sampler = import_optuna().samplers.TPESampler(seed=seed, constant_liar=True)  # the default since Optuna 5
        super().__init__(decision_sizes, sampler, ["reward"])
