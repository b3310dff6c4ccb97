"""`edgekd search --calibrate-proxy`: which proxy setting ranks candidates as a longer training with the teacher would.

Its options, and the command behind them. What is tried and how it is judged is in search/proxy_grid.py and
search/calibrate_proxy.py.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgekd.cli_output import print_result
from edgekd.config import SearchSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.progress import Progress
    from edgekd.runs import Run
    from edgekd.search.calibrate_proxy import (
        CalibrationOutcome,
        CalibrationPlan,
        OpenRater,
        ProxySetting,
        SettingResult,
    )
    from edgekd.search.proxy import ProxyTask
    from edgekd.search.proxy_grid import CalibrationRequest
    from edgekd.search.rank_correlation import Interval
    from edgekd.search.rated import Evaluate, Rated

FILE = "proxy-calibration.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a calibration to the parser of `edgekd search`."""
    group = parser.add_argument_group("calibration of the proxy")
    group.add_argument(
        "--calibrate-proxy",
        action="store_true",
        help="search nothing: compare proxy settings with a longer training with the teacher, and name the cheapest "
        "that is not significantly below the best",
    )
    group.add_argument("--calibrate-archs", type=int, default=24, metavar="N", help="architectures that are trained")
    group.add_argument("--calibrate-epochs", type=int, default=5, metavar="N", help="epochs of the longer training")
    group.add_argument(
        "--calibrate-images",
        type=float,
        default=1.0,
        metavar="N",
        help="training images of the longer training: a number, or a share of up to 1",
    )
    group.add_argument(
        "--calibrate-grid",
        nargs="+",
        default=[],
        metavar="KEY=A,B",
        help="what is tried: epochs=1,3 images=200,0.1 resolution=0,16 (default: around the run's own proxy)",
    )


def calibrate(options: argparse.Namespace, settings: Settings) -> None:
    """Run or go on with the calibration of a run folder, and print what it found."""
    from edgekd.cli_progress import drawn_progress
    from edgekd.files import locked
    from edgekd.runs import find_or_open_run
    from edgekd.search.proxy_grid import request_of

    request = request_of(
        options.calibrate_archs, options.calibrate_epochs, options.calibrate_images, options.calibrate_grid
    )
    run = find_or_open_run(options.out, settings)
    with locked(run.folder), drawn_progress() as progress:
        progress.stage("calibrate")
        plan, outcome = _calibrated(run, request, progress)
    print_result(_as_json(run.folder, plan, outcome), _as_text(run.folder, plan, outcome), options.format)


def _calibrated(
    run: Run, request: CalibrationRequest, progress: Progress
) -> tuple[CalibrationPlan, CalibrationOutcome]:
    from edgekd.materials import data_and_teacher, logits_path, teacher_sha256
    from edgekd.search.calibrate_proxy import calibrate as calibrated
    from edgekd.search.proxy_grid import identity_of, plan_of
    from edgekd.search_job import proxy_task

    data, teacher = data_and_teacher(run.settings)
    task = proxy_task(run.settings, data, logits_path(run, data, teacher, progress))
    plan = plan_of(run.settings, task.space, request, data)
    identity = identity_of(run.settings, task.space, data, teacher_sha256(teacher))

    def on_rated(known: int, setting: ProxySetting, rated: Rated) -> None:
        what = "truth" if setting == plan.truth else _words(setting)
        progress.step(known, plan.trainings, f"{what}: {rated.failure or f'accuracy {100 * rated.accuracy:.1f} %'}")

    return plan, calibrated(plan, run.folder / FILE, identity, _rater_of(task, run.settings.search), on_rated)


def _rater_of(task: ProxyTask, search: SearchSettings) -> OpenRater:
    """Bind the settings of a calibration to the workers of the run."""
    from edgekd.search.proxy_grid import task_of
    from edgekd.search.workers import WorkerSettings, open_workers

    workers = WorkerSettings(search.workers, search.ray_address, search.cpus_per_worker, search.gpus_per_worker)

    @contextmanager
    def open_rater(setting: ProxySetting) -> Iterator[Evaluate]:
        with open_workers(task_of(task, setting), workers) as opened:
            yield opened.evaluate

    return open_rater


def _words(setting: ProxySetting) -> str:
    pixels = f", {setting.resolution} pixels" if setting.resolution else ""
    return f"{setting.method}, {setting.epochs} epochs, {setting.images} images{pixels}"


def _as_json(folder: Path, plan: CalibrationPlan, outcome: CalibrationOutcome) -> dict[str, Any]:
    """Give everything that the text says."""
    return {
        "run": str(folder),
        "truth": {**dataclasses.asdict(plan.truth), "archs": outcome.archs, "seconds": outcome.truth_seconds},
        "settings": [dataclasses.asdict(result) for result in outcome.settings],
        "teacher": [dataclasses.asdict(effect) for effect in outcome.teacher],
        "chosen": dataclasses.asdict(outcome.chosen.setting),
        "above_chance": outcome.is_above_chance,
    }


def _as_text(folder: Path, plan: CalibrationPlan, outcome: CalibrationOutcome) -> list[str]:
    return [
        f"{folder / FILE}: {outcome.archs} architectures; the truth is {_words(plan.truth)}, "
        f"{outcome.truth_seconds:.1f} s a candidate",
        "",
        "  method  epochs  images  pixels  Kendall τ (95 %)       behind the best (95 %)  s/candidate",
        *(_row(result, chosen=result is outcome.chosen) for result in outcome.settings),
        *_teacher_lines(outcome),
        *_doubt(outcome),
        "",
        "* is the cheapest that is not significantly below the best; search with it:",
        f"  {_options_for(outcome.chosen.setting)}",
    ]


def _options_for(setting: ProxySetting) -> str:
    """Word the options of `edgekd search`; a config has the same names under [proxy]."""
    options = {
        "method": setting.method,
        "weights": setting.weights,
        "epochs": setting.epochs,
        "images": setting.images,
        "resolution": setting.resolution,
    }
    return " ".join(f"--proxy-{name} {value}" for name, value in options.items() if value)


def _row(result: SettingResult, *, chosen: bool) -> str:
    setting, failed = result.setting, f"  {result.failures} failed" if result.failures else ""
    return (
        f"{'*' if chosen else ' '} {setting.method:<6}  {setting.epochs:>6}  {setting.images:>6}  "
        f"{setting.resolution or 'own':>6}  {_range(result.tau):<21}  {_range(result.behind_best):<22}  "
        f"{result.seconds:>11.2f}{failed}"
    )


def _teacher_lines(outcome: CalibrationOutcome) -> list[str]:
    """Say what the teacher adds to τ where both were tried."""
    if not outcome.teacher:
        return []
    return [
        "",
        "What the teacher adds to Kendall τ (95 %):",
        *(f"  {_words(effect.guided)}: {_range(effect.gain, sign='+')}" for effect in outcome.teacher),
    ]


def _doubt(outcome: CalibrationOutcome) -> list[str]:
    """Say when nothing that was tried can be told from a guess."""
    if outcome.is_above_chance:
        return []
    return [
        "",
        "! no setting ranks significantly better than chance: take more architectures (--calibrate-archs), train the "
        "truth longer (--calibrate-epochs), or try dearer settings (--calibrate-grid)",
    ]


def _range(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.2f} ({interval.low:{sign}.2f} … {interval.high:{sign}.2f})"
