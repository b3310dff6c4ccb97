"""An engine around one of Optuna's samplers: its trials behind the ask/tell protocol, held in memory.

Optuna keeps no file here and says nothing: a killed study is rebuilt by repeating its asks and tells. Its samplers know
nothing of repeats, so vectors may be proposed again; what comes of them is told once more, as a trial of its own.

Read next: tpe.py and nsga2.py, the samplers that are used.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from edgekd.errors import MissingExtra
from edgekd.search.engines.base import Choices, Evaluated, Ledger


def import_optuna() -> Any:
    """Import Optuna, silenced; raise MissingExtra where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "engines") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class OptunaEngine:
    """Propose what an Optuna sampler asks for; ``values`` of a result, each to be maximised, are what it is told.

    An exhausted space yields nothing more; before that, every ask is answered in full.
    """

    def __init__(self, decision_sizes: tuple[int, ...], sampler: Any, objectives: Sequence[str]) -> None:
        self._optuna = import_optuna()
        self._ledger = Ledger(decision_sizes)
        self._objectives = tuple(objectives)  # names of Evaluated's fields; latency is minimised, all else maximised
        directions = ["minimize" if name == "latency_ms" else "maximize" for name in self._objectives]
        self._study = self._optuna.create_study(directions=directions, sampler=sampler)
        categorical = self._optuna.distributions.CategoricalDistribution
        self._distributions = {
            f"decision {position}": categorical(tuple(range(size))) for position, size in enumerate(self._ledger.sizes)
        }
        self._open: defaultdict[Choices, deque[Any]] = defaultdict(deque)  # trials that wait for their result

    def ask(self, count: int) -> list[Choices]:
        """Propose ``count`` vectors, repeats among them; none once every vector of the space was seen."""
        return [self._propose() for _ in range(count)] if self._ledger.capped(count) else []

    def tell(self, told: Sequence[Evaluated]) -> None:
        """Take results, also of vectors that were not asked for; raise InvalidReward or InvalidChoices."""
        self._ledger.check(told)
        for item in told:
            self._ledger.add(item.choices)
            values = [getattr(item, name) for name in self._objectives]
            if self._open[item.choices]:
                self._study.tell(self._open[item.choices].popleft(), values)
            else:
                self._add(item.choices, values)

    def _propose(self) -> Choices:
        trial = self._study.ask(self._distributions)
        choices = tuple(int(trial.params[name]) for name in self._distributions)
        self._ledger.add(choices)
        self._open[choices].append(trial)
        return choices

    def _add(self, choices: Choices, values: list[float]) -> None:
        params = dict(zip(self._distributions, choices, strict=True))
        trial = self._optuna.trial.create_trial(params=params, distributions=self._distributions, values=values)
        self._study.add_trial(trial)
