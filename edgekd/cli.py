"""The command line: the parser, one short function a command, and the only place that ends the process.

stdout is the result, stderr everything else. Heavy imports are inside the commands, so that --help starts at once.
Exit codes: 0 fine, 1 the job could not be done, 2 usage, config or input files, 3 device, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekd import (
    __version__,
    cli_devices,
    cli_distil,
    cli_measure,
    cli_predict,
    cli_report,
    cli_search,
    cli_spaces,
    cli_tables,
)
from edgekd.cli_output import print_result
from edgekd.errors import EdgekdError, MissingExtra

Command = Callable[[argparse.Namespace], None]
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    raise SystemExit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; errors become one line on stderr."""
    # OpenMP threads that spin while they wait starve each other on a busy machine; a short spin costs nothing
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # every architecture brings new kernels, of which torch would keep the last 1,024 in memory
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")
    options = parser().parse_args(arguments)
    try:
        options.command(options)
    except KeyboardInterrupt:
        print("edgekd: interrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        known = _missing_extra(error) or error
        code = exit_code(known)
        if code is None:
            raise
        words = " ".join(str(known).split())  # a foreign reason may hold line breaks, and a device's own words anything
        print(f"edgekd: {''.join(char for char in words if char.isprintable())}", file=sys.stderr)
        return code
    return 0


# by module: its package, and the extra that brings it
_EXTRAS = {
    "torch": ("torch", "train"),
    "safetensors": ("safetensors", "train"),
    "PIL": ("Pillow", "train"),
    "yaml": ("PyYAML", "formats"),
    "ray": ("ray", "ray"),
    "optuna": ("optuna", "engines"),
    "matplotlib": ("matplotlib", "plots"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "datasets": ("datasets", "datasets"),
    "torchvision": ("torchvision", "torchvision"),
    "lightning_fabric": ("lightning-fabric", "gpu"),
}


def _missing_extra(error: Exception) -> MissingExtra | None:
    """Say which extra to install, where an import failed for want of one."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in _EXTRAS:
        return MissingExtra(*_EXTRAS[package])
    return None


def exit_code(error: Exception) -> int | None:
    """Give the exit code of one of our errors, or None for a defect."""
    from device_agents.errors import DeviceError, InvalidRequest
    from latency_tables.errors import FileNotWritable, TableError

    if isinstance(error, EdgekdError):
        return error.exit_code
    if isinstance(error, DeviceError):
        return 2 if isinstance(error, InvalidRequest) else 3
    if isinstance(error, TableError):
        return 1 if isinstance(error, FileNotWritable) else 2
    return None


def parser() -> argparse.ArgumentParser:
    """Build the parser; every command has its function and --format."""
    root = argparse.ArgumentParser(prog="edgekd", description="Find, distil and ship the student that fits a device.")
    root.add_argument("--version", action="version", version=f"edgekd {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    run_ = _add(commands, "run", _run, "the whole job from a config file: profile, search, distil, export, report")
    run_.add_argument("config", type=Path, help="TOML file of settings")
    run_.add_argument("--out", type=Path, help="run folder (default: runs/NAME of the config file)")
    run_.add_argument("--table", default="", help="latency table to use and complete (default: one in the run folder)")

    profile = _add(commands, "profile", cli_measure.profile, "measure a device's latency table for a space")
    _add_device_and_space(profile)
    cli_measure.add_profile(profile)

    predict = _add(
        commands, "predict", cli_predict.predict, "predict what model files take on a device, from its table"
    )
    _add_device_and_space(predict)
    cli_predict.add_predict(predict)

    search = _add(commands, "search", cli_search.search, "search the best student under a latency target")
    cli_search.add_options(search)

    cli_distil.register(commands)
    export = _add(commands, "export", _export, "write, judge and measure the student's .tflite and .onnx files")
    export.add_argument("run", type=Path, help="run folder of a distilled student")
    bench = _add(commands, "bench", cli_measure.bench, "measure .tflite or .onnx files on a device")
    cli_measure.add_device(bench)
    cli_measure.add_bench(bench)
    cli_devices.register(commands)
    cli_tables.register(commands)
    cli_spaces.register(commands)
    cli_report.register(commands)
    _add_data(commands)
    return root


def _add(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.add_argument("--format", choices=("text", "json"), default="text", help="how the result is printed on stdout")
    added.set_defaults(command=command)
    return added


def _add_device_and_space(target: argparse.ArgumentParser) -> None:
    cli_measure.add_device(target)
    target.add_argument("--space", default="mnasnet-28-narrow", help=cli_search.SPACE_HELP)


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="work with data sets")
    actions = data.add_subparsers(metavar="ACTION", required=True)
    export = _add(actions, "export", _data_export, "write a split as an artifact's input expects it, with labels")
    export.add_argument("source", help="embedded, an .npz file of three splits, or another source of --data")
    export.add_argument("--resolution", type=int, default=0, metavar="PIXELS", help="of pictures of any size, square")
    export.add_argument("--channels", type=int, choices=(1, 3), default=3, help="of pictures")
    export.add_argument("--split", default="test", help="train, validation or test")
    export.add_argument("file", type=Path, metavar="FILE.npz")


def _run(options: argparse.Namespace) -> None:
    import dataclasses

    from edgekd.config import load_config
    from edgekd.files import locked
    from edgekd.pipeline import check_settings, run_all
    from edgekd.runs import open_run

    settings = load_config(options.config)
    if options.table:
        settings = dataclasses.replace(settings, table=options.table)
    with _progress() as progress:
        check_settings(settings, progress)
    run = open_run(options.out or Path("runs") / options.config.stem, settings)
    with locked(run.folder), _progress() as progress:
        run_all(run, progress)
    _print_outcome(run.folder, options.format)


def _export(options: argparse.Namespace) -> None:
    from edgekd.files import locked
    from edgekd.pipeline import export_run, report_run
    from edgekd.runs import load_run
    from edgekd.students import see_own_student

    run = load_run(options.run)
    see_own_student(run)
    with locked(run.folder), _progress() as progress:
        progress.stage("export")
        export_run(run, progress)
        report_run(run, progress)
    _print_outcome(run.folder, options.format)


def _data_export(options: argparse.Namespace) -> None:
    from edgekd.data.dataset import write_split
    from edgekd.data.loading import load_data
    from edgekd.data.pictures import Wanted

    size = options.resolution
    data = load_data(options.source, Wanted((size, size, options.channels) if size > 0 else None))
    split = data.split(options.split)
    write_split(options.file, data, split)
    result = {"file": str(options.file), "images": len(split), "classes": data.classes}
    print_result(result, [f"{options.file}: {len(split)} images, x float32 (N, H, W, C), y int64 (N,)"], options.format)


def _progress() -> Any:
    from edgekd.cli_progress import drawn_progress

    return drawn_progress()


def _print_outcome(folder: Path, form: str) -> None:
    from edgekd.report.data import ReportData
    from edgekd.report.text import as_json, final_table

    data = ReportData.load(folder)
    print_result(as_json(data), [final_table(data), f"report: {folder / 'report.html'}"], form)
