"""Reads values out of JSON that is not trusted: every field has a type, a range and a clear error.

Text leaves here without control characters, direction overrides and lone surrogates, so that it can be printed on a
terminal and encoded anywhere. It does not escape for HTML; html.py does.
Next: data.py, which says which fields a run folder has.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.report.errors import RunFileError

TEXT_LIMIT = 20_000  # characters; the text form of the largest architecture is under 2,000
MS_LIMIT = 1e9  # eleven days; more is damage, and plots need finite spans
COUNT_LIMIT = 10**15  # a thousand times the multiply-accumulates of the largest network ever put on a device
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format (direction overrides), surrogate, separators


@dataclass(frozen=True)
class Fields:
    """One JSON object and where it stands, for error messages."""

    where: str
    values: Mapping[str, object]

    @classmethod
    def parse(cls, where: str, text: str) -> Fields:
        """Parse one JSON object strictly.

        Raises: RunFileError for anything that is not one object, for NaN or Infinity and for a key given twice.
        """
        try:
            value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise RunFileError(where, f"is not valid JSON ({clean(str(error))})") from error
        if not isinstance(value, dict):
            raise RunFileError(where, f"holds {_shown(value)}, not a JSON object")
        return cls(where, value)

    def fail(self, key: str, wanted: str) -> RunFileError:
        """Return the error for a field that is not as wanted."""
        found = f"is {_shown(self.values[key])}" if key in self.values else "is missing"
        return RunFileError(self.where, f"{key} {found}, wanted {wanted}")

    def expect_format(self, name: str, version: int) -> None:
        """Refuse a file of another format or version."""
        if self.values.get("format") != name:
            raise self.fail("format", f'"{name}"')
        found = self.values.get("version")
        if isinstance(found, bool) or found != version:
            raise RunFileError(
                self.where, f"version is {_shown(found)}, this program reads {version}", "use the edgekd that wrote it"
            )

    def number(self, key: str, low: float = 0.0, high: float = MS_LIMIT) -> float:
        """Return a finite number in [low, high]."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def positive(self, key: str) -> float:
        """Return a number above zero, such as a duration in ms."""
        value = self.number(key)
        if value <= 0:
            raise self.fail(key, "a number above 0")
        return value

    def integer(self, key: str, low: int = 0, high: int = COUNT_LIMIT) -> int:
        """Return an integer in [low, high]."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"an integer from {low} to {high}")
        return value

    def text(self, key: str) -> str:
        """Return text that is not empty, cleaned."""
        value = self.values.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= TEXT_LIMIT:
            raise self.fail(key, f"text of 1 to {TEXT_LIMIT} characters")
        return clean(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """Return one of the choices."""
        value = self.values.get(key)
        if not isinstance(value, str) or value not in choices:
            raise self.fail(key, "one of " + ", ".join(choices))
        return value

    def sha256(self, key: str) -> str:
        """Return a SHA-256 in lower-case hexadecimal."""
        value = self.values.get(key)
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
            raise self.fail(key, "64 hexadecimal digits")
        return value

    def nested(self, key: str) -> Fields:
        """Return an object inside this one."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.fail(key, "an object")
        return Fields(f"{self.where}, {clean(key)}", value)

    def described(self) -> dict[str, str]:
        """Return every value as text: scalars as they are, lists and objects as compact JSON."""
        return {clean(key): describe(value) for key, value in self.values.items()}

    def numbers(self, low: float = 0.0) -> dict[str, float]:
        """Return every value as a finite number of at least `low`."""
        return {clean(key): self.number(key, low) for key in self.values}


def clean(text: str) -> str:
    """Replace white space by spaces and hidden characters by U+FFFD, so that text shows as what it is."""
    if text.isprintable():
        return text
    spaced = re.sub(r"[\t\r\n]+", " ", text)
    return "".join("\ufffd" if unicodedata.category(char) in _HIDDEN else char for char in spaced)


def describe(value: object) -> str:
    """Word a JSON value for a reader, at most TEXT_LIMIT characters."""
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return clean(value[:TEXT_LIMIT])
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(describe(item) for item in value)[:TEXT_LIMIT]
    return clean(json.dumps(value, ensure_ascii=False)[:TEXT_LIMIT])


def _shown(value: object) -> str:
    text = clean(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key {key!r} is given twice")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key!r} is too large a number")
        values[key] = value
    return values
