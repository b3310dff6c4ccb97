"""The command `edgekd search`: its options, the settings that they make, and how what was found is printed.

Searching is search_job.py's, the live view cli_progress.py's, calibrating the proxy cli_proxy.py's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import cli_measure, cli_proxy
from edgekd.cli_output import print_result
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from edgekd.config import Settings

SPACE_HELP = "search space: a name that `edgekd space list` gives, or a .toml file"
_TEACHER_HELP = (
    "embedded, none, a .safetensors file (a student of a run, too), a .toml file that describes bare weights, "
    "timm:NAME, torchvision:NAME, MODULE:CALLABLE, onnx:FILE, tflite:FILE, or several as in A+B"
)
_METHODS = "kd, kd-ls, dist, dkd, dkd-ls, none, or several as in kd+dist"
_AUTO = "auto"
_SHOWN = 12  # architectures of a Pareto front that are printed


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgekd search`."""
    cli_measure.add_device(parser)
    parser.add_argument("--space", default="mnasnet-28-narrow", help=SPACE_HELP)
    parser.add_argument("--data", default="embedded", help="embedded, a file or a folder of images")
    teaching = parser.add_mutually_exclusive_group()
    teaching.add_argument("--teacher", default="embedded", help=_TEACHER_HELP)
    teaching.add_argument(
        "--no-teacher", dest="teacher", action="store_const", const="none", help="conventional search: nobody teaches"
    )
    parser.add_argument("--table", help="latency table (default: tables/DEVICE-SPACE.jsonl, as profile writes it)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="run folder (default: under runs/, the one of these settings)")
    _add_search(parser.add_argument_group("search"))
    _add_proxy(parser.add_argument_group("proxy", "the short training by which a candidate is rated"))
    _add_workers(parser.add_argument_group("workers"))
    final = parser.add_argument_group("final training")
    final.add_argument("--method", default="kd", help="its distillation method: see edgekd distil --list-methods")
    final.add_argument("--epochs", type=int, default=12, help="its epochs")
    cli_proxy.add_options(parser)


def _add_search(group: Any) -> None:
    add = group.add_argument
    add("--engine", default="akd", help="akd, reinforce, evolution, nsga2, tpe or random")
    add("--budget", type=int, default=100, help="distinct architectures to evaluate; a run goes on with a larger one")
    add("--budget-epochs", type=int, default=0, metavar="N", help="end after so many epochs of training, too")
    add("--batch", type=int, default=10, metavar="N", help="proposals between two updates of the engine")
    add(
        "--target-ms",
        default=_AUTO,
        metavar="MS[,MS…]",
        help="latency targets in ms, searched for one after the other; auto is half of the reference's",
    )
    add("--target-dtype", default="int8", help="dtype that will ship: int8 or float32")
    add("--reward", default="absolute", help="soft, hard or absolute")
    add("--reward-weight", type=float, default=0.0, metavar="W", help="weight of latency (default: the form's own)")
    add("--warm-start", default="", metavar="RUN", help="run folder whose evaluations are taken over")
    add(
        "--measure",
        default="final",
        help="what is measured on the device: final (the finished files), top-k (the best by the table, too), "
        "all (each candidate) or never",
    )
    add("--measure-top", type=int, default=5, metavar="K", help="how many top-k measures")
    add("--tensorboard", action="store_true", help="write scalars into RUN/tensorboard")


def _add_proxy(group: Any) -> None:
    add = group.add_argument
    add("--proxy-method", default="kd", help=f"distillation method: {_METHODS}")
    add(
        "--proxy-weights", default="", metavar="PART=W,…", help="of the method's parts: multiples of the published ones"
    )
    add("--proxy-images", type=float, default=800, metavar="N", help="class-balanced: a number, or a share of up to 1")
    add("--proxy-epochs", type=int, default=1, metavar="N")
    add("--proxy-batch-size", type=int, default=16, metavar="N")
    add("--proxy-learning-rate", type=float, default=0.03, metavar="RATE")
    add("--proxy-resolution", type=int, default=0, metavar="PIXELS", help="0 is the space's own")
    add("--proxy-threads", type=int, default=1, metavar="N", help="of torch, a candidate; accuracies depend on it")
    add(
        "--stop-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="end a candidate at a third of its epochs that is behind this share of earlier ones; 0 ends none",
    )


def _add_workers(group: Any) -> None:
    add = group.add_argument
    add("--workers", type=int, default=1, metavar="N", help="that rate candidates at once; more than one need Ray")
    add("--ray-address", default="", metavar="HOST:PORT", help="of a Ray cluster to use (default: this machine)")
    add("--cpus-per-worker", type=float, default=1.0, metavar="N")
    add("--gpus-per-worker", type=float, default=0.0, metavar="N", help="a share of a GPU is allowed")


def search(options: argparse.Namespace) -> None:
    """Run `edgekd search`."""
    from edgekd.cli_progress import drawn_progress
    from edgekd.files import locked
    from edgekd.pipeline import check_settings, search_run
    from edgekd.runs import find_or_open_run
    from edgekd.search_job import latency_from_table

    settings = settings_of(options)
    with drawn_progress() as progress:
        check_settings(settings, progress, measures=False)
    if options.calibrate_proxy:
        cli_proxy.calibrate(options, settings)
        return
    latency_from_table(settings, Path(settings.table))  # before a run folder is begun with a target that cannot be met
    run = find_or_open_run(options.out, settings)
    with locked(run.folder), drawn_progress() as progress:
        progress.stage("search")
        search_run(run, progress)
    found = run.read_json("winner.json", "edgekd search")
    print_result({"run": str(run.folder), **found}, text_of(run.folder, found), options.format)


_TOP = ("device", "device_engine", "serial", "space", "data", "teacher", "seed")
_SEARCH = (
    *("engine", "budget", "budget_epochs", "batch", "target_dtype", "reward", "reward_weight", "warm_start"),
    *("measure", "measure_top", "tensorboard", "workers", "ray_address", "cpus_per_worker", "gpus_per_worker"),
)
_PROXY = ("method", "weights", "images", "epochs", "batch_size", "learning_rate", "resolution", "threads")


def settings_of(options: argparse.Namespace) -> Settings:
    """Give the settings that the options make.

    Raises:
        UsageError: a value is out of range or of the wrong form.

    """
    from edgekd.config import settings_from

    proxy = {name: getattr(options, f"proxy_{name}") for name in _PROXY}
    content = {
        **{name: getattr(options, name) for name in _TOP},
        "table": options.table or str(cli_measure.default_table(options)),
        "search": {name: getattr(options, name) for name in _SEARCH} | {"target_ms": _targets(options.target_ms)},
        "proxy": proxy | {"stop_share": options.stop_share},
        "distil": {"method": options.method, "epochs": options.epochs},
    }
    return settings_from(content, "command line")


def _targets(text: str) -> str | float | list[float]:
    if text == _AUTO:
        return text
    numbers = [_number(part) for part in text.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(
            f"--target-ms is {text!r}; it must be auto, a number, or numbers with commas between them"
        ) from error


def text_of(folder: Path, found: dict[str, Any]) -> list[str]:
    """Word what winner.json says: the winner, and for each target the best reward and the Pareto front."""
    dtype = found["target_dtype"]
    lines = [
        f"{folder}: {found['arch']}",
        f"  {_latency(found, dtype)} ({dtype}, target {found['target_ms']:.4g} ms), "
        f"proxy accuracy {100 * found['proxy_accuracy']:.1f} %",
        *(f"  ! not measured on this device: {n} rows of the table are {s}" for s, n in found["unmeasured"].items()),
    ]
    return lines + [line for outcome in found["outcomes"] for line in _outcome_text(outcome)]


def _outcome_text(outcome: dict[str, Any]) -> list[str]:
    dtype, front, under = outcome["target_dtype"], outcome["pareto_front"], outcome["best_under_target"]
    failed = f", {outcome['failures']} of them failed" if outcome["failures"] else ""
    lines = [f"target {outcome['target_ms']:.4g} ms ({dtype}), {outcome['samples']} samples{failed}"]
    lines.append(f"  best reward       {_sample_text(outcome['best_reward'], dtype)}")
    found = _sample_text(under, dtype) if under else "none; raise --target-ms or --budget, or take another --reward"
    lines.append(f"  best under target {found}")
    lines.append(f"  Pareto front of {len(front)}, fastest first")
    shown = front if len(front) <= _SHOWN else [*front[: _SHOWN - 1], front[-1]]
    points = [f"    {p['latency_ms']:8.4g} ms  {100 * p['proxy_accuracy']:5.1f} %  {p['arch_id']}" for p in shown]
    if len(shown) < len(front):
        points.insert(-1, f"    … {len(front) - len(shown)} more, all in winner.json")
    return lines + points


def _sample_text(sample: dict[str, Any], dtype: str) -> str:
    accuracy, reward = f"{100 * sample['proxy_accuracy']:.1f} %", f"reward {sample['reward']:.4f}"
    return f"{sample['arch_id']}  {_latency(sample, dtype)}, {accuracy}, {reward}"


def _latency(sample: dict[str, Any], dtype: str) -> str:
    if sample["measured_ms"] is not None:
        return f"{sample['measured_ms']:.4g} ms measured"
    return f"{sample['predicted_ms'][dtype]:.4g} ms predicted"
