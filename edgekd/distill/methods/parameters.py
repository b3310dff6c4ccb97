"""The numbers that a method is made of (temperatures, weights, shares), read and changed by name.

A number that several parts of a method have is changed in all of them. Which method is taken with which weights is
__init__.py's; who asks for other numbers than the published ones is a recipe (../recipe.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from edgekd.distill.methods import METHODS, MethodError
from edgekd.distill.methods.base import FeatureMethod
from edgekd.distill.methods.combined import Combined, CombinedLogits, Part

_SOME = TypeVar("_SOME")
_DIVISORS = {"temperature", "tau"}  # 0 is none
_LEAST = {"negatives": 1, "width": 1}


def parameters_of(method: FeatureMethod) -> dict[str, float]:
    """Give the numbers of a method by name; of several parts that share a name, the first's."""
    if isinstance(method, Combined):
        found = [parameters_of(part.method) for part in method.parts]
    elif isinstance(method, CombinedLogits):
        found = [parameters_of(part) for part, _ in method.parts]
    else:
        found = [_numbers(method)]
    return {name: value for one in reversed(found) for name, value in one.items()}


def known_parameters() -> dict[str, type]:
    """Name the numbers that any method has, each with its kind."""
    return {name: type(value) for make in METHODS.values() for name, value in parameters_of(make()).items()}


def with_parameters(method: FeatureMethod, given: Mapping[str, float]) -> FeatureMethod:
    """Make the same method with other numbers; names that none of its parts has change nothing."""
    if not given:
        return method
    if isinstance(method, Combined):
        return Combined(tuple(Part(with_parameters(part.method, given), part.factor) for part in method.parts))
    if isinstance(method, CombinedLogits):
        return CombinedLogits([(_replaced(part, given), factor) for part, factor in method.parts])
    return _replaced(method, given)


def see_parameter(name: str, value: float) -> None:
    """See that a number can be one of that name.

    Raises:
        MethodError: it is not finite, negative, or what is divided by and 0.

    """
    least = _LEAST.get(name, 0)
    if not math.isfinite(value) or value < least or (name in _DIVISORS and value == 0):
        bound = "above 0" if name in _DIVISORS else f"at least {least}"
        raise MethodError(f"method.{name} is {value}; it must be a finite number {bound}")


def _numbers(method: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in dataclasses.fields(method):
        value = getattr(method, item.name)
        if dataclasses.is_dataclass(value):
            found |= _numbers(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[item.name] = value
    return found


def _replaced(method: _SOME, given: Mapping[str, float]) -> _SOME:
    """Replace what a method, or a method inside it, has of the names."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(method):  # type: ignore[arg-type]  # every method that is not joined is a dataclass
        value = getattr(method, item.name)
        if dataclasses.is_dataclass(value):
            changes[item.name] = _replaced(value, given)
        elif item.name in given and not isinstance(value, bool):
            changes[item.name] = given[item.name]
    return dataclasses.replace(method, **changes)  # type: ignore[type-var]  # as above
