"""Changes of a recipe in words, as a config or a command line has them: "label_smoothing=0.1", "optimizer.name=adamw".

What a recipe knows is recipe.py's, which also says what a value may be; a change that it does not know is refused.
`method.tau=1` changes a number of the distillation method itself; what there is, methods/parameters.py knows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_origin, get_type_hints

from edgekd.distill.methods.parameters import known_parameters, see_parameter
from edgekd.distill.recipe import Parameter, Recipe
from edgekd.errors import UsageError, suggest

# these have settings and options of their own, or are nobody's to choose
_ELSEWHERE = {"epochs", "batch_size", "optimizer.learning_rate", "seed", "about", "method"}
_OF_METHOD = "method."
_TRUTH = {"true": True, "false": False}


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Apply changes to a recipe, one after the other.

    Raises:
        UsageError: one has not the form KEY=VALUE, or names nothing of a recipe, or its value is none for that.

    """
    for change in changes:
        key, equals, text = (part.strip() for part in change.partition("="))
        of_method = key.startswith(_OF_METHOD)
        known = [_OF_METHOD + name for name in known_parameters()] if of_method else keys_of(recipe)
        if key not in known:
            raise UsageError(f"recipe change {change!r}: there is no {key!r} in a recipe; {suggest(key, known)}")
        if not equals:
            raise UsageError(f"recipe change {change!r} says no value; write {key}=VALUE")
        recipe = _taught(recipe, key, text, change) if of_method else _replaced(recipe, key.split("."), text, change)
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
    kind = get_type_hints(type(part))[name]
    new = _replaced(getattr(part, name), rest, text, change) if rest else _value(kind, text, change)
    return dataclasses.replace(part, **{name: new})


def _taught(recipe: Recipe, key: str, text: str, change: str) -> Recipe:
    """Replace a number of the method."""
    name = key.removeprefix(_OF_METHOD)
    value: Any = _value(known_parameters()[name], text, change)
    see_parameter(name, value)
    others = tuple(one for one in recipe.method if one.name != name)
    return dataclasses.replace(recipe, method=(*others, Parameter(name, value)))


def _value(kind: Any, text: str, change: str) -> object:
    """Read a value of a field's kind; texts are checked by who takes them."""
    read = _READ.get(get_origin(kind) or kind)
    if read is None:
        return text
    try:
        return read[0](text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"recipe change {change!r}: {text!r} is not {read[1]}") from error


def _truth(text: str) -> bool:
    return _TRUTH[text.lower()]


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _several(text: str) -> tuple[float, ...]:
    return tuple(_finite(item) for item in text.split(",") if item.strip())


_READ: dict[Any, tuple[Callable[[str], object], str]] = {
    bool: (_truth, "true or false"),
    int: (int, "a whole number"),
    float: (_finite, "a finite number"),
    tuple: (_several, "numbers with commas between them"),
}
