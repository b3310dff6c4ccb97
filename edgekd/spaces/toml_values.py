"""Table: typed, checked reading of a TOML table; a wrong key or value is one line with where it is and what is allowed.

It knows nothing of spaces; space_file.py does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.errors import ConfigError, suggest

_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, both ends included."""

    low: float
    high: float

    def __contains__(self, number: float) -> bool:
        return math.isfinite(number) and self.low <= number <= self.high

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


class Table:
    """A TOML table; `where` names it in errors. Every key that is asked for is known, and `finish` refuses the rest."""

    def __init__(self, content: Mapping[str, object], where: str) -> None:
        self._content = content
        self._where = where
        self._known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        self._known.add(key)
        return key in self._content

    def finish(self) -> None:
        """See that nothing was left unread. Raises ConfigError, with the nearest known key."""
        for key in self._content:
            if key not in self._known:
                raise ConfigError(f"{self._where}: unknown key {_shown(key)}: {suggest(key, self._known)}")

    def wrong(self, key: str, value: object, allowed: str) -> ConfigError:
        """Give the error for a value that cannot be."""
        return ConfigError(f"{self._where}: {key} is {_shown(value)}; {allowed}")

    def raw(self, key: str, default: object = None) -> object:
        """Give a value as it is. Raises ConfigError where it is missing and there is no default."""
        if key in self:
            return self._content[key]
        if default is None:
            raise ConfigError(f"{self._where}: {key} is missing")
        return default

    def text(self, key: str, default: str | None = None) -> str:
        """Give a text."""
        value = self.raw(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, value, "it must be a text in quotes")
        return value

    def integer(self, key: str, allowed: Range, default: int | None = None) -> int:
        """Give a whole number within a range."""
        return self._integer(key, self.raw(key, default), allowed)

    def integers(self, key: str, allowed: Range) -> tuple[int, ...]:
        """Give a list of distinct whole numbers within a range."""
        return self._distinct(key, [self._integer(key, one, allowed) for one in self._list(key, None)])

    def one_of(self, key: str, allowed: Collection[int], default: Sequence[int] | None) -> tuple[int, ...]:
        """Give a list of distinct whole numbers, each one of those allowed."""
        values = self._list(key, default)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
                raise self.wrong(key, values, f"{_shown(value)} is none of {', '.join(map(str, allowed))}")
        return self._distinct(key, values)

    def names(self, key: str, allowed: Collection[str], default: Sequence[str] | None) -> tuple[str, ...]:
        """Give a list of distinct names, each one of those allowed."""
        values = self._list(key, default)
        for value in values:
            if not isinstance(value, str) or value not in allowed:
                raise self.wrong(key, values, f"{_shown(value)}: {suggest(str(value)[:_SHOWN], allowed)}")
        return self._distinct(key, values)

    def numbers(self, key: str, allowed: Range, digits: int, default: Sequence[float] | None) -> tuple[float, ...]:
        """Give a list of distinct numbers within a range, with so many digits behind the point at most."""
        values = self._list(key, default)
        for value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or value not in allowed or round(value, digits) != value:
                raise self.wrong(
                    key,
                    values,
                    f"{_shown(value)} is no number from {allowed} with at most {digits} digits behind the point",
                )
        return self._distinct(key, [float(value) + 0.0 for value in values])  # + 0.0, because −0 is spelled otherwise

    def table(self, key: str) -> Table:
        """Give a table within this one, empty where it is missing."""
        value = self.raw(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, value, f"it must be a section [{key}]")
        return Table(value, f"{self._where}: {key}")

    def tables(self, key: str, called: str) -> list[Table]:
        """Give a list of tables, at least one, which errors call so and count from 1."""
        value = self.raw(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
            raise self.wrong(key, value, f"it must be one or more sections [[{key}]]")
        return [Table(one, f"{self._where}: {called} {number}") for number, one in enumerate(value, 1)]

    def _integer(self, key: str, value: object, allowed: Range) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not allowed.low <= value <= allowed.high:
            raise self.wrong(key, value, f"it must be a whole number from {allowed}")
        return value

    def _list(self, key: str, default: Sequence[Any] | None) -> list[Any]:
        value = self.raw(key, None if default is None else list(default))
        if not isinstance(value, list) or not value:
            raise self.wrong(key, value, "it must be a list of at least one option, such as [1, 2]")
        return value

    def _distinct(self, key: str, values: Sequence[Any]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise self.wrong(key, list(values), "each option may stand there once")
        return tuple(values)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
