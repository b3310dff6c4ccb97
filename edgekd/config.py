"""Settings of a run: edgekd.toml → one frozen value. An unknown key or a wrong type is an error with a suggestion.

Defaults are those of the demo's size. Names of spaces, engines and methods are checked by those who own them.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.errors import ConfigError, suggest
from latency_tables.op_spec import DTYPES

AUTO = "auto"
_TOO_LARGE = 1 << 63  # torch's seeds end there, and everything else long before


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """[search]: how many candidates, by which engine, under which target."""

    engine: str = "akd"
    budget: int = 100  # distinct architectures
    batch: int = 10  # proposals between two updates of the engine
    target_ms: float | str = AUTO  # "auto": half of the reference architecture's predicted latency
    target_dtype: str = "int8"  # of the table, the reward and the final check: the dtype that will ship
    reward: str = "absolute"
    baseline: str = "random"  # a second search of the same budget for the report; "none" leaves it out
    workers: int = 2


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """[proxy]: the short training by which a candidate is rated."""

    method: str = "kd"
    images: int = 800
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.03


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """[distil]: the winner's training."""

    method: str = "kd"
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 0.1
    threads: int = 2


@dataclass(frozen=True, slots=True)
class QuantizeSettings:
    """[quantize]: full int8 from true minima and maxima."""

    images: int = 500  # training images that the ranges are taken from


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole run."""

    device: str = "host"
    device_engine: str = ""  # what runs models there: python, native, benchmark_model, …; "" is the device's own
    serial: str = ""  # of the device, where several of its kind are attached
    space: str = "mnasnet-28-narrow"
    data: str = "embedded"
    teacher: str = "embedded"
    table: str = ""  # a table file to use and complete; "" keeps one in the run folder
    seed: int = 0
    search: SearchSettings = field(default_factory=SearchSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    distil: DistilSettings = field(default_factory=DistilSettings)
    quantize: QuantizeSettings = field(default_factory=QuantizeSettings)

    def as_dict(self) -> dict[str, Any]:
        """Give the nested plain form, as `settings_from` reads it."""
        return dataclasses.asdict(self)


def load_config(path: Path) -> Settings:
    """Read a TOML file.

    Raises:
        ConfigError: it is missing, no TOML, or a key or value is wrong.

    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config {path} is not TOML: {error}") from error
    return settings_from(content, str(path))


def settings_from(content: dict[str, Any], where: str) -> Settings:
    """Build settings from a nested dictionary; `where` names it in errors.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.

    """
    settings = _build(Settings, content, where, "")
    _check(settings, where)
    return settings


S = typing.TypeVar("S")


def _build(kind: type[S], content: dict[str, Any], where: str, prefix: str) -> S:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in hints:
            raise ConfigError(f"{where}: unknown key {prefix + name!r}: {suggest(name, hints)}")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: {prefix}{name} is {value!r}; it must be a section [{name}]")
            values[name] = _build(typing.cast("type[Any]", hints[name]), value, where, f"{name}.")
        else:
            values[name] = _typed(value, hints[name], f"{where}: {prefix}{name}")
    return kind(**values)


def _typed(value: object, hint: Any, where: str) -> object:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _TOO_LARGE:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{where} is {value!r}; it must be of type {names}")
    return value


def _check(settings: Settings, where: str) -> None:
    search = settings.search
    if search.target_dtype not in DTYPES:
        raise ConfigError(
            f"{where}: search.target_dtype {search.target_dtype!r}: {suggest(search.target_dtype, DTYPES)}"
        )
    if isinstance(search.target_ms, str) and search.target_ms != AUTO:
        raise ConfigError(f"{where}: search.target_ms is {search.target_ms!r}; it must be a number of ms, or {AUTO!r}")
    if not isinstance(search.target_ms, str) and not 0 < search.target_ms < math.inf:
        raise ConfigError(f"{where}: search.target_ms is {search.target_ms}; it must be above 0")
    for section in (settings, search, settings.proxy, settings.distil, settings.quantize):
        for item in dataclasses.fields(section):
            _check_number(getattr(section, item.name), item.name, where)


def _check_number(value: object, name: str, where: str) -> None:
    least = 0 if name == "seed" else 1
    if isinstance(value, int) and not least <= value < _TOO_LARGE:
        raise ConfigError(f"{where}: {name} is {value}; it must be at least {least} and below 2⁶³")
    if isinstance(value, float) and not 0 < value < math.inf:
        raise ConfigError(f"{where}: {name} is {value}; it must be above 0 and finite")
