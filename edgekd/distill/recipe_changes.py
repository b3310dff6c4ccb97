"""Changes of a recipe in words, as a config or a command line has them: "label_smoothing=0.1", "optimizer.name=adamw".

What a recipe knows is recipe.py's, which also says what a value may be; a change that it does not know is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from edgekd.distill.recipe import Recipe
from edgekd.errors import UsageError, suggest

# these have settings and options of their own, or are nobody's to choose
_ELSEWHERE = {"epochs", "batch_size", "optimizer.learning_rate", "seed", "about"}
_TRUTH = {"true": True, "false": False}


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Apply changes to a recipe, one after the other.

    Raises:
        UsageError: one has not the form KEY=VALUE, or names nothing of a recipe, or its value is none for that.

    """
    for change in changes:
        key, equals, text = (part.strip() for part in change.partition("="))
        known = keys_of(recipe)
        if not equals or key not in known:
            raise UsageError(f"recipe change {change!r} is not KEY=VALUE: {suggest(key, known)}")
        recipe = _replaced(recipe, key.split("."), text, change)
    return recipe


def keys_of(recipe: Recipe) -> list[str]:
    """Name what can be changed."""
    return [key for key in _keys(recipe, "") if key not in _ELSEWHERE]


def _keys(part: Any, prefix: str) -> Iterator[str]:
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if dataclasses.is_dataclass(value):
            yield from _keys(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def _replaced(part: Any, path: Sequence[str], text: str, change: str) -> Any:
    """Replace what lies at a path below a frozen value, which checks itself anew."""
    name, rest = path[0], path[1:]
    old = getattr(part, name)
    new = _replaced(old, rest, text, change) if rest else _value(old, text, change)
    return dataclasses.replace(part, **{name: new})


def _value(old: object, text: str, change: str) -> object:
    """Read a value of the kind that is there now."""
    try:
        if isinstance(old, bool):
            return _TRUTH[text.lower()]
        if isinstance(old, int):
            return int(text)
        if isinstance(old, float):
            return _finite(text)
        if isinstance(old, tuple):
            return tuple(_finite(item) for item in text.split(",") if item.strip())
    except (KeyError, ValueError) as error:
        raise UsageError(f"recipe change {change!r}: {text!r} is not {_KINDS[type(old)]}") from error
    return text


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    tuple: "numbers with commas between them",
}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
