"""Binds a proxy calibration to a run's settings: which architectures, what the truth is, which settings are tried.

The settings tried stand around the run's own proxy: once and thrice its epochs, a quarter and all of its images, with
and without the teacher, and for large images half the resolution; each of these can be given. Training is proxy.py's,
the comparison calibrate_proxy.py's.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekd.config import MOST_PIXELS, Settings
from edgekd.data.dataset import DataSet
from edgekd.distill.recipe import sgd_recipe
from edgekd.distill.views import count_from
from edgekd.errors import ConfigError, suggest
from edgekd.search.calibrate_proxy import LEAST_ARCHS, CalibrationPlan, ProxySetting, sampled_archs
from edgekd.search.proxy import ProxyTask
from edgekd.spaces.space import Space

GRID_KEYS = ("epochs", "images", "resolution")
_MOST_EPOCHS = 10**9
_SMALL = 64  # pixels; half of less leaves the last blocks hardly a pixel to look at


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """How long the truth is trained, on how many architectures, and what is tried where the default is not wanted."""

    archs: int = 24
    epochs: int = 5
    images: float = 1.0  # of the truth: a number above 1, or a share of the training split
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by one of GRID_KEYS


def request_of(archs: int, epochs: int, images: float, grid: list[str]) -> CalibrationRequest:
    """Check what the command line asks for; `grid` holds items such as "epochs=1,3" and "images=200,0.1".

    Raises:
        ConfigError: a number is out of range, or an item of the grid says something else.

    """
    for name, value, least in (("archs", archs, LEAST_ARCHS), ("epochs", epochs, 1)):
        if value < least:
            raise ConfigError(f"calibrate-{name} is {value}; it must be at least {least}")
    lists: dict[str, tuple[float, ...]] = {}
    for item in grid:
        key, _, values = item.partition("=")
        if key not in GRID_KEYS or key in lists:
            raise ConfigError(f"calibrate-grid {item!r}: {suggest(key, GRID_KEYS)}; each once, as in epochs=1,3")
        lists[key] = tuple(_grid_number(item, key, value) for value in values.split(","))
    return CalibrationRequest(archs, epochs, images, lists)


def _grid_number(item: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"calibrate-grid {item!r}: {text!r} is no number; write as in {key}=1,3") from error
    least, most = (0, MOST_PIXELS) if key == "resolution" else (1, _MOST_EPOCHS)
    if key != "images" and not (value.is_integer() and least <= value <= most):
        raise ConfigError(f"calibrate-grid {item!r}: {text} must be a whole number from {least} to {most}")
    return value


def plan_of(settings: Settings, space: Space, request: CalibrationRequest, data: DataSet) -> CalibrationPlan:
    """Make the plan. The truth has another seed than the proxies, which shall not profit from equal initial weights.

    Raises:
        UsageError: a number of images is neither a whole number nor a share.
        InvalidSetting: there are too few architectures.

    """
    total = len(data.train)
    distil = settings.distil
    truth = ProxySetting(
        method=distil.method,
        epochs=request.epochs,
        images=count_from(request.images, total),
        resolution=0,
        batch_size=distil.batch_size,
        learning_rate=distil.learning_rate,
        seed=settings.seed + 1,
    )
    archs = sampled_archs(space, request.archs, settings.seed)
    return CalibrationPlan(archs, truth, _grid(settings, space, request, total))


def _grid(settings: Settings, space: Space, request: CalibrationRequest, total: int) -> tuple[ProxySetting, ...]:
    """Multiply the lists, guided before unguided; what is the same is tried once."""
    proxy = settings.proxy
    images = count_from(proxy.images, total)
    pixels = proxy.resolution or space.resolution
    lists: dict[str, tuple[float, ...]] = {
        "epochs": (proxy.epochs, 3 * proxy.epochs),
        "images": (max(2, images // 4), images),
        "resolution": (proxy.resolution,) if pixels < _SMALL else (pixels // 2, proxy.resolution),
        **request.grid,
    }
    guided = (settings.distil.method, "") if proxy.method == "none" else (proxy.method, proxy.weights)
    methods = dict.fromkeys((guided, ("none", "")))
    counts = (count_from(wanted, total) for wanted in lists["images"])
    found = itertools.product(lists["epochs"], counts, lists["resolution"], methods)
    made = (
        ProxySetting(
            method, int(epochs), count, int(size), proxy.batch_size, proxy.learning_rate, settings.seed, weights
        )
        for epochs, count, size, (method, weights) in found
    )
    same = {space.resolution: 0}  # the space's own resolution has two names
    unique = (dataclasses.replace(one, resolution=same.get(one.resolution, one.resolution)) for one in made)
    return tuple(dict.fromkeys(unique))


def identity_of(settings: Settings, space: Space, data: DataSet, teacher_sha256: str) -> dict[str, Any]:
    """Say what all trainings of a calibration depend on, besides their own settings."""
    return {
        "space": space.name,
        "space_sha256": space.sha256,
        "data_sha256": data.sha256,
        "teacher_sha256": teacher_sha256,
        "threads": settings.proxy.threads,
        "trained_on": "cuda" if settings.search.gpus_per_worker > 0 else "cpu",
    }


def task_of(base: ProxyTask, setting: ProxySetting) -> ProxyTask:
    """Give the run's own task, trained in another way."""
    recipe = sgd_recipe(setting.epochs, setting.batch_size, setting.learning_rate, seed=setting.seed)
    return dataclasses.replace(
        base,
        method=setting.method,
        weights=setting.weights,
        images=setting.images,
        recipe=recipe,
        resolution=setting.resolution,
    )
