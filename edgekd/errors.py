"""The errors that edgekd raises on purpose; each carries the exit code that the command line ends with.

    EdgekdError                 exit 1   the job cannot be done
    ├── UsageError              exit 2   the request itself is wrong
    │   ├── ConfigError                  an unknown or unusable setting
    │   ├── UnknownName                  a space, engine, method, dtype … that does not exist
    │   └── DataError                    a data, teacher, table or run file is missing or damaged
    ├── MissingExtra            exit 2   an optional dependency is not installed
    └── InfeasibleTarget        exit 1   no architecture of the space meets the target

It does not catch or print anything: foreign errors are mapped at their seam, and cli.py prints.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class EdgekdError(Exception):
    """Say in one line what failed, with which value, and what to do."""

    exit_code = 1


class UsageError(EdgekdError):
    """The request is wrong: a bad argument, setting or input file."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or value cannot be used."""


class DataError(UsageError):
    """A file that was to be read is missing, damaged or of an unknown version."""


class UnknownName(UsageError):
    """A name that is not among the known ones; the message offers the nearest."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        super().__init__(f"unknown {what} {name!r}: {suggest(name, choices)}")
        self.name = name


class MissingExtra(EdgekdError):
    """An optional dependency is needed and not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'edgekd[{extra}]'")


class InfeasibleTarget(EdgekdError):
    """No architecture of the space is predicted to meet the target."""

    def __init__(self, target_ms: float, dtype: str, fastest: str, fastest_ms: float) -> None:
        super().__init__(
            f"target {target_ms:.4g} ms ({dtype}) cannot be met: the fastest architecture, {fastest}, "
            f"is predicted at {_rounded_up(fastest_ms):.4g} ms; raise --target-ms to at least that "
            "or choose a smaller space"
        )
        self.fastest_ms = fastest_ms


def _rounded_up(value: float) -> float:
    """Round up to four digits, so that the number a message names is enough."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3) if value > 0 else 1.0
    return math.ceil(value / unit - 1e-6) * unit


def suggest(name: str, choices: Iterable[str]) -> str:
    """Word a suggestion: the nearest known name if there is one, and all of them."""
    known = sorted(choices)
    spelled = {choice.lower(): choice for choice in known}
    begun = [choice for choice in spelled if name and choice.startswith(name.lower())]
    nearest = begun if len(begun) == 1 else difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.4)
    hint = f"did you mean {spelled[nearest[0]]!r}? " if nearest else ""
    return f"{hint}known: {', '.join(known) if known else 'none'}"
