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
COMMAND_LINE = "command line"  # as the place where settings come from
NO_TEACHER = "none"  # as the teacher: candidates and the student learn from labels alone
MEASURES = ("final", "top-k", "all", "never")
MOST_PIXELS = 4096  # a side of what a candidate sees, as of what a space takes
_TOO_LARGE = 1 << 63  # torch's seeds end there, and everything else long before
_MOST_THREADS = 1024  # torch and OpenMP end the process where they cannot have as many as they are told
_MOST_MS = 1e9  # eleven days; a study's file holds no more


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """[search]: how many candidates, by which engine, under which target."""

    engine: str = "akd"
    budget: int = 100  # distinct architectures, over all targets; may be raised later
    budget_epochs: int = 0  # of training, over all targets; 0 is no limit
    batch: int = 10  # proposals between two updates of the engine
    target_ms: float | str | tuple[float, ...] = AUTO  # or several; "auto": half of the reference's predicted latency
    target_dtype: str = "int8"  # of the table, the reward and the final check: the dtype that will ship
    reward: str = "absolute"
    reward_weight: float = 0.0  # of latency: the exponent of soft and hard, the factor of absolute; 0 is the form's own
    baseline: str = "random"  # a second search of the same budget for the report; "none" leaves it out
    workers: int = 1  # that rate candidates; 1 is this process itself, more need Ray
    ray_address: str = ""  # of a Ray cluster; "" is this machine alone
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0  # a share of one is allowed
    measure: str = "final"  # on the device: the finished files, the top-k by the table, all candidates, or never
    measure_top: int = 5  # how many top-k measures
    warm_start: str = ""  # a run folder whose evaluations are taken over
    tensorboard: bool = False  # write scalars for TensorBoard into the run folder


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """[proxy]: the short training by which a candidate is rated."""

    method: str = "kd"
    weights: str = ""  # of the method's parts, as in "kd=0.5,dist=2": multiples of the published ones
    images: float = 800.0  # class-balanced, of the training split: a number of them, or a share of up to 1
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.03
    resolution: int = 0  # pixels that the candidate sees; 0 is the space's own
    threads: int = 1  # of torch, a candidate
    stop_share: float = 0.0  # of earlier candidates that one must not fall behind at a third of its epochs; 0 is off


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """[distil]: the winner's training."""

    method: str = "kd"  # or several, as in "dist+at"
    weights: str = ""  # of the method's parts, as in "dist=2,at=0.5": multiples of the published ones
    recipe: str = "embedded-quick"  # a preset; where it is named, the next three are its own unless they are given, too
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 0.1
    changes: tuple[str, ...] = ()  # of the rest of the recipe, as in "label_smoothing=0.1" or "optimizer.name=adamw"
    anchors: tuple[str, ...] = ()  # of method rco: earlier moments of the teacher's own training, easy to hard
    student_taps: tuple[str, ...] = ()  # modules whose features are compared; none are named: the ends of stages
    teacher_taps: tuple[str, ...] = ()
    threads: int = 2
    readers: int = 0  # processes that vary images; 0 is this one itself
    train_on: str = "cpu"  # or "cuda", or what torch calls another device
    gpus: int = 1  # or several of one kind, each with its share of every batch
    save_every_s: float = 600.0  # within an epoch; whole epochs are always kept


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
    space: str = "mnasnet-28-narrow"  # or a .toml file
    data: str = "embedded"
    teacher: str = "embedded"  # or a file; "none" searches and trains without
    table: str = ""  # a table file to use and complete; "" keeps one in the run folder
    seed: int = 0
    search: SearchSettings = field(default_factory=SearchSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    distil: DistilSettings = field(default_factory=DistilSettings)
    quantize: QuantizeSettings = field(default_factory=QuantizeSettings)

    @property
    def has_teacher(self) -> bool:
        """Tell whether anybody teaches."""
        return self.teacher != NO_TEACHER

    def as_dict(self) -> dict[str, Any]:
        """Give the nested plain form, as `settings_from` reads it and JSON keeps it."""
        return dataclasses.asdict(self, dict_factory=_plain)


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}


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
    settings = _with_recipe(_build(Settings, content, where, ""), content.get("distil", {}))
    _check(settings, where)
    return settings if settings.has_teacher else _without_teacher(settings)


def _with_recipe(settings: Settings, given: dict[str, Any]) -> Settings:
    """Take a named recipe's own numbers where none are given."""
    distil = settings.distil
    missing = {"epochs", "batch_size", "learning_rate"} - given.keys()
    if distil.recipe == DistilSettings().recipe or not missing:
        return settings
    from edgekd.distill.recipe import recipe_named

    recipe = recipe_named(distil.recipe)
    own = {
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.optimizer.learning_rate,
    }
    numbers: dict[str, Any] = {name: own[name] for name in missing}
    return dataclasses.replace(settings, distil=dataclasses.replace(distil, **numbers))


def as_given(where: str, key: str) -> str:
    """Name a setting in errors as its user gave it: as a key of a file, or as an option of the command line."""
    if where != COMMAND_LINE:
        return f"{where}: {key}"
    section, _, name = key.rpartition(".")
    own = section == "proxy" and name != "stop_share"
    return ("--proxy-" if own else "--") + name.replace("_", "-")


def _without_teacher(settings: Settings) -> Settings:
    """Let nothing be learnt from a teacher that is not there: a search is conventional then."""
    proxy = dataclasses.replace(settings.proxy, method="none", weights="")
    distil = dataclasses.replace(settings.distil, method="none", weights="", anchors=())
    return dataclasses.replace(settings, proxy=proxy, distil=distil)


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
            values[name] = _typed(value, hints[name], as_given(where, prefix + name))
    return kind(**values)


def _typed(value: object, hint: Any, where: str) -> object:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = tuple(kind for kind in kinds if isinstance(kind, type) and typing.get_origin(kind) is None)
    lists = [kind for kind in kinds if typing.get_origin(kind) is tuple]  # as in tuple[float, ...]
    if isinstance(value, list | tuple) and lists:
        return tuple(_typed(item, typing.get_args(lists[0])[0], f"{where}[{i}]") for i, item in enumerate(value))
    if float in plain and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _TOO_LARGE:
        return float(value)
    if (isinstance(value, bool) and bool not in plain) or not isinstance(value, plain):
        names = [kind.__name__ for kind in plain] + ["list"] * (len(kinds) - len(plain))
        raise ConfigError(f"{where} is {value!r}; it must be of type {' or '.join(names)}")
    return value


def _check(settings: Settings, where: str) -> None:
    search = settings.search
    for key, value, known in (
        ("search.target_dtype", search.target_dtype, DTYPES),
        ("search.measure", search.measure, MEASURES),
    ):
        if value not in known:
            raise ConfigError(f"{as_given(where, key)} is {value!r}: {suggest(value, known)}")
    _check_target(search.target_ms, as_given(where, "search.target_ms"))
    parts: tuple[tuple[str, Any], ...] = (
        ("", settings),
        ("search.", search),
        ("proxy.", settings.proxy),
        ("distil.", settings.distil),
        ("quantize.", settings.quantize),
    )
    for prefix, section in parts:
        for item in dataclasses.fields(section):
            _check_number(getattr(section, item.name), item.name, as_given(where, prefix + item.name))
    for key, count, most in (
        ("proxy.resolution", settings.proxy.resolution, MOST_PIXELS),
        ("proxy.threads", settings.proxy.threads, _MOST_THREADS),
        ("distil.threads", settings.distil.threads, _MOST_THREADS),
        ("distil.readers", settings.distil.readers, _MOST_THREADS),
        ("distil.gpus", settings.distil.gpus, _MOST_THREADS),
    ):
        if count > most:
            raise ConfigError(f"{as_given(where, key)} is {count}; it must be at most {most}")
    if not settings.proxy.stop_share < 1:
        raise ConfigError(f"{as_given(where, 'proxy.stop_share')} is {settings.proxy.stop_share}; it must be below 1")


def _check_target(target_ms: float | str | tuple[float, ...], name: str) -> None:
    if isinstance(target_ms, str):
        if target_ms != AUTO:
            raise ConfigError(f"{name} is {target_ms!r}; it must be a number of ms, a list of them, or {AUTO!r}")
        return
    targets = target_ms if isinstance(target_ms, tuple) else (target_ms,)
    wrong = next((target for target in targets if not 0 < target <= _MOST_MS), None)
    if wrong is not None:
        raise ConfigError(f"{name} is {wrong}; it must be above 0 and at most {_MOST_MS:g}")
    if not targets or len(set(targets)) < len(targets):
        raise ConfigError(f"{name} is {list(targets)}; give each target once, and at least one")


_FROM_0 = {"seed", "budget_epochs", "resolution", "gpus_per_worker", "stop_share", "readers"}
_SIGNED = {"reward_weight"}


def _check_number(value: object, field_name: str, name: str) -> None:
    least = 0 if field_name in _FROM_0 else 1
    if isinstance(value, int) and not isinstance(value, bool) and not least <= value < _TOO_LARGE:
        raise ConfigError(f"{name} is {value}; it must be at least {least} and below 2⁶³")
    if not isinstance(value, float):
        return
    if field_name in _SIGNED:
        if not math.isfinite(value):
            raise ConfigError(f"{name} is {value}; it must be finite")
    elif not 0 <= value < math.inf or (value == 0 and field_name not in _FROM_0):
        raise ConfigError(f"{name} is {value}; it must be {'at least' if least == 0 else 'above'} 0 and finite")
