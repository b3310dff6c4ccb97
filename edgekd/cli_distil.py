"""The command `edgekd distil`: a final training, of a search's winner, of another architecture, or of your own network.

It reads options and words results. The training is distil_job.py's, where a student of a search lies students.py's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edgekd.cli_output import print_result
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from edgekd.config import Settings
    from edgekd.data.dataset import DataSet
    from edgekd.distil_job import DistilJob
    from edgekd.progress import Progress

_TEXT = "train a student with its teacher: a search's winner, another of its architectures, or a network of your own"
_TEACHERS = (
    "embedded, none, a file, timm:NAME, torchvision:NAME, onnx:FILE, tflite:FILE, MODULE:CALLABLE, or A+B "
    "(default: the search's)"
)
_NUMBERS = ("epochs", "batch_size", "learning_rate")
_TAKEN = (  # options that are settings of [distil]
    *("method", "weights", "recipe", *_NUMBERS, "changes", "anchors", "student_taps", "teacher_taps"),
    *("threads", "readers", "train_on", "gpus", "save_every_s"),
)
_OF_RUN, _OF_OWN = ("arch",), ("resolution", "channels")


def register(commands: Any) -> None:
    """Add `distil`, and `distill`, to the parser's commands."""
    for name in ("distil", "distill"):
        parser = commands.add_parser(name, help=_TEXT, description=f"{_TEXT[0].upper()}{_TEXT[1:]}.")
        parser.add_argument("--format", choices=("text", "json"), default="text", help="how the result is printed")
        parser.set_defaults(command=distil, wrong=parser.error)
        _add_subject(parser)
        _add_training(parser.add_argument_group("training", "what is left out is as the search was told, or a default"))
        _add_machine(parser.add_argument_group("machine", "where and how fast; no part of a recipe"))


def _add_subject(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, nargs="?", help="run folder of a search")
    add("--arch", metavar="WHICH", help="best (or winner), a sample's index or arch_id, or an architecture")
    add(
        "--student",
        metavar="MODULE:CALLABLE",
        help="a network of your own instead: a function that gives a torch module",
    )
    add("--data", help="embedded, a file, a folder of images … (default: the search's)")
    teaching = parser.add_mutually_exclusive_group()
    teaching.add_argument("--teacher", help=_TEACHERS)
    teaching.add_argument("--no-teacher", dest="teacher", action="store_const", const="none", help="from labels alone")
    add("--out", type=Path, metavar="FOLDER", help="where the student is kept (default: in the run folder)")
    add("--resolution", type=int, metavar="PIXELS", help="of pictures of any size, square, with --student")
    add("--channels", type=int, choices=(1, 3), help="of pictures, with --student (default: 3)")
    lists = parser.add_mutually_exclusive_group()
    lists.add_argument("--list-methods", action="store_true", help="list the distillation methods, and train nothing")
    lists.add_argument("--list-recipes", action="store_true", help="list the recipes, and train nothing")


def _add_training(group: Any) -> None:
    add = group.add_argument
    add("--method", help="distillation method, or several as in dist+at; --list-methods names them")
    add("--weights", metavar="PART=W,…", help="of the method's parts: multiples of the published ones")
    add("--recipe", metavar="NAME", help="preset of everything below; --list-recipes names them")
    add("--epochs", type=int, metavar="N")
    add("--batch-size", type=int, metavar="N")
    add("--learning-rate", type=float, metavar="RATE")
    add("--change", action="append", dest="changes", metavar="KEY=VALUE", help="of the recipe: optimizer.name=adamw …")
    add("--seed", type=int, metavar="N")
    add("--anchor", action="append", dest="anchors", metavar="TEACHER", help="for rco, easy to hard, before --teacher")
    add(
        "--student-taps",
        type=_paths,
        metavar="PATH,…",
        help="modules whose features are compared (default: stages' ends)",
    )
    add("--teacher-taps", type=_paths, metavar="PATH,…", help="the same of the teacher")


def _add_machine(group: Any) -> None:
    add = group.add_argument
    add("--threads", type=int, metavar="N", help="of torch; weights depend on them in their last bits")
    add("--readers", type=int, metavar="N", help="processes that vary images")
    add("--train-on", metavar="DEVICE", help="cpu, cuda …")
    add("--gpus", type=int, metavar="N", help="more than one share every batch")
    add("--save-every-s", type=float, metavar="SECONDS", help="within an epoch; whole epochs are always kept")


def _paths(text: str) -> list[str]:
    return [path for path in text.split(",") if path]


def distil(options: argparse.Namespace) -> None:
    """Run `edgekd distil`."""
    if options.list_methods:
        _list_methods(options.format)
    elif options.list_recipes:
        _list_recipes(options.format)
    elif options.run is not None and options.student is None:
        _refuse(options, _OF_OWN, "--student: a search's students see what its space takes")
        _distil_run(options)
    elif options.student is not None and options.run is None:
        _refuse(options, _OF_RUN, "the folder of a search")
        _distil_own(options)
    else:
        both = options.run is not None
        _wrong(options, f"give the run folder of a search or --student MODULE:CALLABLE{', not both' if both else ''}")


def _refuse(options: argparse.Namespace, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            _wrong(options, f"--{name} goes with {reason}")


def _wrong(options: argparse.Namespace, words: str) -> NoReturn:
    options.wrong(words)  # argparse's own end, with the usage
    raise UsageError(words)


# --- a student of a search --------------------------------------------------------------------------------------------


def _distil_run(options: argparse.Namespace) -> None:
    from edgekd.cli_progress import drawn_progress
    from edgekd.distil_job import job_of
    from edgekd.files import locked, make_folder
    from edgekd.predict import is_simulated
    from edgekd.runs import load_run
    from edgekd.students import chosen, place_of

    search = load_run(options.run)
    choice = chosen(search, options.arch or "best")
    place = place_of(search, settings_for(options, search.settings), choice, options.out)
    folder = place.run.folder
    with drawn_progress() as progress:
        progress.stage("distil")
        place.see_free()
        job = job_of(place.run, choice.arch, progress, search.folder)
        _see(job)
        make_folder(folder)
        with locked(folder):
            place.write()
            job.do(progress)
        result = _result(job, {"run": str(folder), "arch": str(choice.arch), "arch_id": choice.arch.arch_id})
    hint = f"  export it with: edgekd export {folder}"
    if is_simulated(search.settings.device):
        hint = f"  it cannot be exported: {search.settings.device} is simulated, and nothing can be measured on it"
    print_result(result, [*_words(result, str(choice.arch)), hint], options.format)


def settings_for(options: argparse.Namespace, base: Settings) -> Settings:
    """Give a search's settings with those of the command line in their place.

    Raises:
        ConfigError: a value is out of range or of the wrong form.
        UsageError: a method is asked for, and nobody teaches.

    """
    from edgekd.config import COMMAND_LINE, NO_TEACHER, settings_from

    content = base.as_dict()
    given = {name: value for name in _TAKEN if (value := getattr(options, name)) is not None}
    distil: dict[str, Any] = content["distil"]
    if "recipe" in given:  # brings its own numbers
        distil = {name: value for name, value in distil.items() if name not in (*_NUMBERS, "changes")}
    if options.teacher not in (None, base.teacher):  # these were another's
        distil = distil | {"anchors": (), "teacher_taps": ()}
    if "changes" in given:
        given["changes"] = _joined(distil.get("changes", ()), given["changes"])
    if "method" in given:  # what was set for another says nothing
        distil = distil | {"weights": "", "anchors": (), "student_taps": (), "teacher_taps": ()}
    elif options.teacher not in (None, NO_TEACHER) and not base.has_teacher:
        distil = distil | {"method": "kd"}
    top = {name: value for name in ("data", "teacher", "seed") if (value := getattr(options, name)) is not None}
    settings = settings_from(content | top | {"distil": distil | given}, COMMAND_LINE)
    if not settings.has_teacher and given.get("method", "none") != "none":
        raise UsageError(f"--method {given['method']} needs a teacher, and there is none; give --teacher")
    return settings


def _joined(before: Sequence[str], more: Sequence[str]) -> list[str]:
    """Add changes of a recipe to those that were told before; of one and the same key the new one counts."""
    keys = {change.partition("=")[0].strip() for change in more}
    return [change for change in before if change.partition("=")[0].strip() not in keys] + list(more)


def _see(job: DistilJob) -> None:
    """See, before anything is written, that all goes together and the folder is this training's."""
    from edgekd.distill.student import check_lesson

    check_lesson(job.plan.settings, job.data, job.tutors, job.network)
    job.see_place()


# --- a network of the user's own --------------------------------------------------------------------------------------


def _distil_own(options: argparse.Namespace) -> None:
    from edgekd.cli_progress import drawn_progress
    from edgekd.distil_job import own_job, write_own
    from edgekd.files import locked, make_folder

    if options.out is None or options.data is None or options.teacher is None:
        _wrong(options, "--student needs --data, --teacher (or --no-teacher) and --out FOLDER")
    if options.channels is not None and options.resolution is None:
        _wrong(options, "--channels goes with --resolution, for pictures of any size")
    settings = _own_settings(options)
    with drawn_progress() as progress:
        progress.stage("distil")
        job = own_job(options.student, settings, _own_data(options, progress), options.out)
        if (options.out / "run.json").exists():
            raise UsageError(f"--out {options.out} is a run folder; choose another for a network of your own")
        _see(job)
        make_folder(options.out)
        with locked(options.out):
            job.do(progress)
            result = _result(job, {"module": options.student})
            write_own(job, options.student, result["accuracy"])
    hint = "  its weights have its own names: safetensors.torch.load_file; edgekd export takes a space's networks alone"
    print_result(result, [*_words(result, options.student), hint], options.format)


def _own_settings(options: argparse.Namespace) -> Settings:
    from edgekd.config import MOST_PIXELS, Settings

    if options.resolution is not None and not 1 <= options.resolution <= MOST_PIXELS:
        raise UsageError(f"--resolution is {options.resolution}; it must be from 1 to {MOST_PIXELS}")
    return settings_for(options, Settings())


def _own_data(options: argparse.Namespace, progress: Progress) -> DataSet:
    from edgekd.materials import told_data

    size, channels = options.resolution, options.channels
    data = told_data(options.data, (size, size, channels or 3) if size else None, progress)
    height, width, found = data.train.images.shape[1:]
    if size and ((height, width) != (size, size) or channels not in (None, found)):
        raise UsageError(
            f"data {data.name} has images of {height}x{width} pixels in {found} channels, which are taken as they are; "
            "leave --resolution and --channels out: they are for pictures of any size"
        )
    return data


# --- words ------------------------------------------------------------------------------------------------------------


def _result(job: DistilJob, subject: dict[str, Any]) -> dict[str, Any]:
    from edgekd.distil_job import STUDENT

    distil = job.plan.settings.distil
    how = {"method": distil.method, "recipe": distil.recipe, "epochs": distil.epochs}
    return {"student": str(job.folder / STUDENT), **subject, **how, "accuracy": job.judged()}


def _words(result: dict[str, Any], whom: str) -> list[str]:
    right = ", ".join(f"{split} {100 * share:.1f} %" for split, share in result["accuracy"].items())
    return [
        f"{result['student']}: {whom}",
        f"  trained by {result['method']}, epochs: {result['epochs']} ({result['recipe']})",
        f"  accuracy: {right}",
    ]


def _list_methods(form: str) -> None:
    from edgekd.distill.methods.catalogue import catalogue

    methods = catalogue()
    rows = [(m.name, ", ".join(m.needs) or "no teacher", m.loss, m.source) for m in methods]
    listed = [{"name": m.name, "needs": list(m.needs), "loss": m.loss, "source": m.source} for m in methods]
    print_result(listed, [*_columns(rows), "several at once: dist+at"], form)


def _list_recipes(form: str) -> None:
    import dataclasses

    from edgekd.distill.recipe import RECIPES

    made = {name: named.make() for name, named in RECIPES.items()}
    rows = [
        (
            name,
            f"{recipe.epochs} epochs, batch {recipe.batch_size}",
            f"{recipe.optimizer.name} {recipe.optimizer.learning_rate:g}, {recipe.schedule.name}",
            RECIPES[name].source,
        )
        for name, recipe in made.items()
    ]
    listed = [{"name": name, "source": RECIPES[name].source, **dataclasses.asdict(r)} for name, r in made.items()]
    print_result(listed, _columns(rows), form)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [line.rstrip() for line in lines]
