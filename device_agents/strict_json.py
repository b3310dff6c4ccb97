"""Reading one JSON line of a device that may be broken or hostile.

A line is an object with a `type`; each field is read with the type and range that it must have. Refused are: NaN and
infinities, a field given twice, missing and unknown fields, integers of endless digits, nesting without end.
It knows no message of the protocol. Read next: `protocol.py`, which does.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from device_agents.errors import ProtocolError

MAX_TEXT = 500  # characters of an error that a person will read
_RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z\Z")


@dataclass(frozen=True, slots=True)
class Fields:
    """One parsed line: reads a field with its type and range, or raises ProtocolError naming both."""

    what: str
    values: Mapping[str, Any]

    @staticmethod
    def of(line: bytes, what: str) -> Fields:
        """Parse a line into an object with a type. Raises ProtocolError, as all methods here do."""
        try:
            values = json.loads(
                line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_short_int
            )
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"expected {what}, got no valid JSON line: {excerpt(line)}") from error
        if not isinstance(values, dict) or not isinstance(values.get("type"), str):
            raise ProtocolError(f"expected {what}, got {excerpt(line)}")
        return Fields(what, values)

    @property
    def type(self) -> str:
        """Return the type of the message."""
        return cast("str", self.values["type"])

    def expect(self, *names: str) -> None:
        """Refuse a line that has not exactly these fields."""
        odd = self.values.keys() ^ set(names)
        if odd:
            raise ProtocolError(f"{self.what} has missing or unknown fields: {clean_text(', '.join(sorted(odd)))}")

    def raw(self, name: str) -> object:
        """Return a field as it came, None when it is missing."""
        return self.values.get(name)

    def text(self, name: str) -> str:
        """Return a text, cleaned."""
        value = self.raw(name)
        return clean_text(value) if isinstance(value, str) else self._refuse(name, "a text")

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return a text that is one of the choices."""
        value = self.raw(name)
        return value if isinstance(value, str) and value in choices else self._refuse(name, " or ".join(choices))

    def choices(self, name: str, choices: Sequence[str]) -> tuple[str, ...]:
        """Return texts that are each one of the choices, none twice."""
        value = self.raw(name)
        if not isinstance(value, list) or any(item not in choices for item in value) or len(set(value)) != len(value):
            self._refuse(name, f"some of {', '.join(choices)}")
        return tuple(value)

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """Return at most `most` texts as they came, which are not for a person to read."""
        value = self.raw(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, str) for item in value):
            self._refuse(name, f"at most {most} texts")
        return tuple(value)

    def objects(self, name: str, most: int) -> tuple[Fields, ...]:
        """Return at most `most` objects, to be read field by field."""
        value = self.raw(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, dict) for item in value):
            self._refuse(name, f"at most {most} objects")
        return tuple(Fields(f"{self.what}: {name}", item) for item in value)

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        value = self.raw(name)
        if not _is_integer(value, low, high):
            self._refuse(name, f"an integer from {low} to {high}")
        return cast("int", value)

    def integers(self, name: str, low: int, high: int, most: int) -> tuple[int, ...]:
        """Return at most `most` integers from low to high."""
        value = self.raw(name)
        if not isinstance(value, list) or len(value) > most or not all(_is_integer(item, low, high) for item in value):
            self._refuse(name, f"at most {most} integers from {low} to {high}")
        return tuple(value)

    def numbers(self, name: str, low: float, high: float, most: int) -> tuple[float, ...]:
        """Return at most `most` finite numbers from low to high."""
        value = self.raw(name)
        if not isinstance(value, list) or len(value) > most or not all(_is_number(item, low, high) for item in value):
            self._refuse(name, f"at most {most} numbers from {low} to {high}")
        return tuple(float(item) for item in value)

    def timestamp(self, name: str) -> str:
        """Return a time in UTC as RFC 3339 writes it."""
        value = self.raw(name)
        if not isinstance(value, str) or not _RFC3339_UTC.match(value):
            self._refuse(name, "a time like 2026-01-31T12:00:00.000Z")
        return value

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        raise ProtocolError(f"{self.what}: {name} is {_short(self.raw(name))}, must be {wanted}")


def clean_text(text: str) -> str:
    """Return text without control, format or line characters, cut to MAX_TEXT characters."""
    kept = (char for char in text[: 4 * MAX_TEXT] if unicodedata.category(char) not in _UNPRINTABLE)
    return "".join(kept)[:MAX_TEXT]


def clean_lines(text: str) -> list[str]:
    """Return the lines of a device's text that say something, each cleaned."""
    lines = (clean_text(line).strip() for line in text.splitlines())
    return [line for line in lines if line]


_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _is_integer(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a field is given twice")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _short_int(digits: str) -> int:
    if len(digits) > 20:  # more than any field holds, and the conversion of a long one takes quadratic time
        raise ValueError("an integer of too many digits")
    return int(digits)


def excerpt(line: bytes) -> str:
    """Return the start of a line as a message can show it."""
    return repr(clean_text(line[:80].decode("utf-8", "replace")))


def _short(value: object) -> str:
    return clean_text(repr(value))[:60] if not isinstance(value, list) else f"a list of {len(value)}"
