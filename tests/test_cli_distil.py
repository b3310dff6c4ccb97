"""`edgekd distil`: of a search's architectures and of a user's own network; nothing is mixed up, and nothing lost."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError, safe_open
from small_run import edgekd, lines_of, wait_until, write_data, write_teacher

from edgekd import cli, cli_distil
from edgekd.config import COMMAND_LINE, settings_from
from edgekd.errors import ConfigError
from edgekd.runs import Run, find_or_open_run, load_run, open_run
from edgekd.search.latency import LatencyModel
from edgekd.search.rated import Hopeless, Rated
from edgekd.search.reward import Reward
from edgekd.search.study import Study
from edgekd.search.study_file import Sample, StudySettings
from edgekd.spaces.arch import Arch
from edgekd.spaces.mnasnet import space_named
from edgekd.students import chosen, place_of
from latency_tables.store import load_table, table_sha256

pytestmark = pytest.mark.whole  # whole commands

TINY = space_named("tiny-28")
QUICK = ("--epochs", 1, "--threads", 1, "--batch-size", 32, "--learning-rate", 0.01)

OWN = """
import torch
from torch import nn

def student(channels=1, classes=10):
    first = nn.Conv2d(channels, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)
    return nn.Sequential(*first, nn.Conv2d(4, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))

def grey():
    return student(1, 2)

def colour():
    return student(3, 2)

class Bursts(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = student()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        if self.training:
            self.seen += 1
        return self.inner(images) * (torch.nan if self.seen > 5 else 1)

class Tired(Bursts):
    def forward(self, images):
        if self.seen > 4:
            raise RuntimeError("I am tired")
        return super().forward(images)

KNOWN = student()

def known():
    return KNOWN

class Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = student()

    def forward(self, images):
        if self.training or torch.is_grad_enabled() or any(p.requires_grad for p in self.parameters()):
            raise RuntimeError("it learns")
        return self.inner(images)

THREADS = []

def counted():
    THREADS.append(torch.get_num_threads())
    return student()

class Stubborn(nn.Sequential):
    def train(self, mode=True):
        return super().train(True)

def stubborn():
    return Stubborn(*student())
"""


@dataclass(frozen=True)
class Inputs:
    """Files that a small training needs."""

    data: Path
    teacher: Path
    table: Path
    search: Path  # the finished search of a tiny space, with three samples

    def own(self, *more: object, student: str = "my_students:student") -> list[str]:
        """Word the training of a network of one's own."""
        files = ("--data", self.data, "--out", "own")
        teacher = () if {"--teacher", "--no-teacher"} & set(more) else ("--teacher", self.teacher)
        return ["distil", "--student", student, *map(str, (*files, *teacher, *QUICK, *more))]


def made_up(archs: Sequence[Arch], hopeless: Hopeless | None) -> Iterator[Rated]:
    """Rate architectures without a training."""
    for number, _ in enumerate(archs):
        yield Rated(0.5 + 0.1 * number, 0.1, epochs=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Little data, an ignorant teacher, a simulated table, and a search whose accuracies are made up."""
    folder = tmp_path_factory.mktemp("inputs")
    data = write_data(folder / "data.npz", train=100)
    teacher = write_teacher(folder / "teacher.safetensors", data, epochs=0)
    table = folder / "s.jsonl"
    assert cli.run(["table", "simulate", "pixel4", str(table), "--space", "tiny-28"]) == 0
    content = {
        "device": "simulated-pixel4", "space": "tiny-28", "data": str(data), "teacher": str(teacher),
        "table": str(table), "search": {"measure": "never", "baseline": "none"},
        "distil": {"epochs": 1, "threads": 1, "batch_size": 32}, "quantize": {"images": 20},
    }  # fmt: skip
    return Inputs(data, teacher, table, searched(open_run(folder / "search", settings_from(content, "here"))).folder)


def searched(run: Run) -> Run:
    """Search three architectures, and choose the last."""
    settings = StudySettings("random", 3, 3, 0, (50.0,), "int8", Reward("absolute"))
    table = load_table(run.table_path)
    record = Study(settings, LatencyModel.of(TINY, table), run.folder / "search.jsonl", {}).run(made_up)
    run.write_json("winner.json", winner_of(record.samples[2], table_sha256(table)))
    return run


def winner_of(sample: Sample, table: str) -> dict[str, Any]:
    """Say in which words a search names its winner."""
    found = {"target_ms": 50.0, "target_dtype": "int8", "table_sha256": table, "unmeasured": {}, "outcomes": []}
    return json.loads(json.dumps(sample.as_json() | found))  # type: ignore[no-any-return]  # an object


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder with one's own networks, and give torch's thread count and the import path back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my_students.py").write_text(OWN)
    yield
    sys.modules.pop("my_students", None)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def run(inputs: Inputs) -> Path:
    """A run folder of its own with the finished search."""
    found = load_run(inputs.search)
    mine = open_run(Path("run"), found.settings)
    for name in ("search.jsonl", "winner.json"):
        (mine.folder / name).write_bytes((found.folder / name).read_bytes())
    return mine.folder


Fails = Callable[[int, Sequence[object]], str]
Does = Callable[[Sequence[object]], dict[str, Any]]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must end with a code, an empty stdout and one line of ours, the last; give that line."""

    def call(code: int, arguments: Sequence[object]) -> str:
        assert cli.run([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert [line for line in lines if line.startswith("edgekd: ")] == lines[-1:]
        return lines[-1]

    return call


@pytest.fixture
def does(capsys: pytest.CaptureFixture[str]) -> Does:
    """Run a command that must do its work; give its result, and what it told on stderr as `told`."""

    def call(arguments: Sequence[object]) -> dict[str, Any]:
        code = cli.run([*map(str, arguments), "--format", "json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out) | {"told": captured.err}  # type: ignore[no-any-return]  # an object

    return call


def facts_of(path: Path) -> dict[str, str]:
    """Read a checkpoint's metadata; none while there is no whole file."""
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def weights_in(path: Path) -> dict[str, Any]:
    """Read what a file's network is shipped with."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def every_tiny() -> Iterator[Arch]:
    """Give architectures of the tiny space: the lightest with any operator and skip in its first block."""
    for operator, skip in itertools.product(range(2), range(2)):
        yield TINY.arch((operator, 0, 0, skip, *TINY.lightest[4:]))


def told(*arguments: str) -> argparse.Namespace:
    """Read a command line."""
    parser = argparse.ArgumentParser()
    cli_distil.register(parser.add_subparsers())
    return parser.parse_args(["distil", *arguments])


# --- a student of a search --------------------------------------------------------------------------------------------


def test_the_winner_is_distilled_in_the_run_s_own_folder(run: Path, does: Does) -> None:
    """With the search's settings; accuracy is told on both splits that never taught, and an epoch is a line."""
    found = does(["distil", run])
    winner = json.loads((run / "winner.json").read_text())
    assert (found["run"], found["arch"]) == ("run", winner["arch"])
    assert (found["method"], found["recipe"], found["epochs"]) == ("kd", "embedded-quick", 1)
    assert set(found["accuracy"]) == {"validation", "test"}
    header, *epochs = lines_of(run / "distil.jsonl")
    assert header["student"] == winner["arch"]
    assert [(line["epoch"], line["accuracy"]) for line in epochs] == [(1, found["accuracy"]["validation"])]
    assert re.search(r"distil: 1/1 loss \d+\.\d+, \d+\.\d % of validation right$", found["told"], re.MULTILINE)
    assert not (run / "students").exists()


@pytest.mark.slow  # several trainings
def test_another_training_has_a_folder_of_its_own(run: Path, does: Does) -> None:
    """Neither goes on from the other's checkpoint; the same command finds its own again and trains nothing twice."""
    does(["distil", run])
    first = (run / "student.safetensors").read_bytes()
    how = ("--method", "dist+at", "--learning-rate", 0.01)
    found = does(["distil", run, *how])
    own = Path(found["run"])
    assert own.parent == run / "students"
    assert own.name.startswith("dist+at-")
    assert (run / "student.safetensors").read_bytes() == first
    second = (own / "student.safetensors").read_bytes()
    again = does(["distil", run, *how])
    assert (again["run"], again["accuracy"]) == (found["run"], found["accuracy"])
    assert (own / "student.safetensors").read_bytes() == second
    assert len(lines_of(own / "distil.jsonl")) == 2
    assert len(list(run.glob("**/teacher-logits-*"))) == 1
    others = [does(["distil", run, *more])["run"] for more in (("--seed", 4), ("--no-teacher",))]
    assert len({found["run"], *others}) == 3


@pytest.mark.slow  # several trainings
def test_where_it_runs_is_no_other_training(run: Path, does: Does) -> None:
    """Threads and the like change no student's place."""
    assert does(["distil", run, "--threads", 2, "--save-every-s", 5])["run"] == str(run)
    assert does(["distil", run, "--arch", "winner", "--method", "kd"])["run"] == str(run)


@pytest.mark.parametrize("distil", [{"gpus": 2}, {"seed": 1}, {"changes": ["ema_decay=0.9"]}])
def test_what_a_student_depends_on_gives_it_a_folder_of_its_own(run: Path, distil: dict[str, Any]) -> None:
    """Devices that share a batch as well: norms see their share alone."""
    search = load_run(run)
    content = search.settings.as_dict()
    top = {name: value for name, value in distil.items() if name in content}
    inner = {name: value for name, value in distil.items() if name not in content}
    settings = settings_from(content | top | {"distil": content["distil"] | inner}, "here")
    assert place_of(search, search.settings, chosen(search, "best"), None).run.folder == run
    assert place_of(search, settings, chosen(search, "best"), None).run.folder.parent == run / "students"


def test_options_add_to_what_the_search_was_told(run: Path) -> None:
    """Changes of a recipe stay but for those of the same key; another recipe brings its own."""
    base = load_run(run).settings.as_dict()
    base["distil"] |= {"changes": ["label_smoothing=0.1", "keep=best"]}
    settings = settings_from(base, "here")
    changes = cli_distil.settings_for(told("run", "--change", "ema_decay=0.9"), settings).distil.changes
    assert changes == ("label_smoothing=0.1", "keep=best", "ema_decay=0.9")
    same = cli_distil.settings_for(told("run", "--change", "keep=best"), settings).distil.changes
    assert same == ("label_smoothing=0.1", "keep=best")
    other = told("run", "--recipe", "cifar-240", "--change", "keep=best")
    assert cli_distil.settings_for(other, settings).distil.changes == ("keep=best",)


def test_another_teacher_has_no_anchors_or_taps_of_the_former(run: Path) -> None:
    """Those were moments and modules of that one; the same teacher keeps its own."""
    base = load_run(run).settings.as_dict()
    base["distil"] |= {"method": "rco", "anchors": ["a"], "teacher_taps": ["layer1"], "student_taps": ["stem"]}
    settings = settings_from(base, "here")
    kept = cli_distil.settings_for(told("run", "--teacher", settings.teacher), settings).distil
    assert (kept.anchors, kept.teacher_taps) == (("a",), ("layer1",))
    other = cli_distil.settings_for(told("run", "--teacher", "b"), settings).distil
    assert (other.anchors, other.teacher_taps, other.student_taps) == ((), (), ("stem",))
    given = cli_distil.settings_for(told("run", "--teacher", "b", "--anchor", "c"), settings).distil
    assert given.anchors == ("c",)


@pytest.mark.slow  # several trainings
def test_any_architecture_of_the_search_can_be_distilled(run: Path, does: Does) -> None:
    """By its index, its arch_id or its text; each student's folder is a run folder with that one as its winner."""
    samples = lines_of(run / "search.jsonl")[1:]
    places = []
    for text in ("0", samples[0]["arch_id"], samples[0]["arch"]):
        found = does(["distil", run, "--arch", text])
        assert found["arch"] == samples[0]["arch"]
        places.append(found["run"])
    assert len(set(places)) == 1
    winner = json.loads((Path(places[0]) / "winner.json").read_text())
    assert (winner["arch"], winner["proxy_accuracy"]) == (samples[0]["arch"], samples[0]["proxy_accuracy"])
    other = str(next(arch for arch in every_tiny() if str(arch) not in {sample["arch"] for sample in samples}))
    own = Path(does(["distil", run, "--arch", other])["run"])
    assert "proxy_accuracy" not in json.loads((own / "winner.json").read_text())
    assert does(["distil", run, "--arch", "2"])["run"] == does(["distil", run, "--arch", "best"])["run"] == str(run)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--arch", "3"), 2, "is no sample of run: give best, an index from 0 to 2"),
        (("--arch", "bset"), 2, "is no sample of run"),
        (("--arch", "tiny-28:mb3"), 2, "is not like"),
        (("--method", "dits"), 2, "did you mean 'dist'"),
        (("--method", "dist", "--weights", "kd=2"), 2, "no part of method 'dist'"),
        (("--method", "rco"), 2, "with --anchor"),
        (("--method", "at", "--teacher-taps", "layer9"), 2, "the nearest are layer"),
        (("--method", "at", "--student-taps", "blokc1"), 2, "the nearest are block1"),
        (("--method", "at", "--student-taps", "block1"), 2, "did not run in the forward pass"),
        (("--student-taps", "block1"), 2, "compares no features"),
        (("--recipe", "cifar-24"), 2, "did you mean 'cifar-240'"),
        (("--change", "label_smothing=0.1"), 2, "did you mean 'label_smoothing'"),
        (("--epochs", "0"), 2, "--epochs is 0; it must be at least 1"),
        (("--batch-size", "0"), 2, "--batch-size is 0"),
        (("--learning-rate", "nan"), 2, "--learning-rate is nan"),
        (("--train-on", "abacus"), 2, "nothing can be trained on 'abacus'"),
        (("--train-on", "meta"), 2, "nothing can be trained on 'meta'"),
        (("--gpus", "3"), 2, "a batch of 32 cannot be shared evenly among 3 devices"),
        (("--gpus", "2", "--method", "crd"), 2, "a bank of all images"),
        (("--change", "precision=float16"), 2, "float16 needs a GPU"),
        (("--method", "none", "--anchor", "my_students:student"), 2, "anchors are for method rco"),
        (("--teacher", "none.safetensors"), 2, "no such file"),
        (("--data", "none.npz"), 2, "no such file"),
        (("--out", "run", "--method", "dist"), 2, "is the search's own folder"),
        (("--method", "dist", "--no-teacher"), 2, "--method dist needs a teacher"),
        pytest.param(
            ("--learning-rate", "1e30", "--batch-size", "8"),
            1,
            "training diverged in epoch 1, step",
            marks=pytest.mark.whole,  # trains
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    run: Path, fails: Fails, options: tuple[str, ...], code: int, words: str
) -> None:
    """With the exit code that says whose fault it is; what was refused has left nothing behind."""
    before = sorted(path.name for path in run.iterdir())
    assert words in fails(code, ["distil", run, *options])
    if code == 2:
        assert [name for name in sorted(path.name for path in run.iterdir()) if name != ".lock"] == before


@pytest.mark.slow  # several trainings
def test_a_folder_of_another_training_is_refused(run: Path, inputs: Inputs, does: Does, fails: Fails) -> None:
    """Whatever differs is named, before anything is changed: the method, the recipe, the teacher, or what it is."""
    does(["distil", run, "--method", "dist", "--out", "mine"])
    before = {path.name: path.read_bytes() for path in Path("mine").iterdir()}
    command = ("distil", run, "--out", "mine")
    assert "mine holds another training: its method is 'dist', not 'kd+dist'" in fails(
        2, [*command, "--method", "kd+dist"]
    )
    assert "its recipe.epochs is 1, not 2" in fails(2, [*command, "--method", "dist", "--epochs", 2])
    assert "its recipe.ema_decay" in fails(2, [*command, "--method", "dist", "--change", "ema_decay=0.9"])
    assert "its teacher_sha256" in fails(2, [*command, "--method", "dist", "--teacher", "my_students:student"])
    assert "its student" in fails(2, [*command, "--method", "dist", "--arch", "0"])
    assert "is a run folder" in fails(2, inputs.own("--out", "mine"))
    assert {path.name: path.read_bytes() for path in Path("mine").iterdir()} == before
    open_run(Path("other"), load_run(run).settings)
    assert "is the folder of a search" in fails(2, ["distil", run, "--method", "dist", "--out", "other"])


@pytest.mark.slow  # several trainings
def test_a_teacher_that_changed_is_another_teacher(run: Path, inputs: Inputs, does: Does, fails: Fails) -> None:
    """Under the same name, too: its student is not gone on with."""
    Path("t.safetensors").write_bytes(inputs.teacher.read_bytes())
    how = ("distil", run, "--teacher", "t.safetensors")
    does(how)
    write_teacher(Path("t.safetensors"), inputs.data, epochs=1)
    assert "its teacher_sha256" in fails(2, how)


@pytest.mark.slow  # several trainings
def test_a_history_of_the_first_version_is_set_aside(run: Path, does: Does, fails: Fails) -> None:
    """Its checkpoint is gone on with where it is of the same student, data and teacher."""
    does(["distil", run])
    header, *epochs = lines_of(run / "distil.jsonl")
    former = {"format": "edgekd-distil", "version": 1, "arch": header["student"]}
    former |= {name: header[name] for name in ("data_sha256", "teacher_sha256")}
    student = (run / "student.safetensors").read_bytes()
    for whom, code in ((former | {"teacher_sha256": "0" * 64}, 2), (former, 0)):
        written = "".join(json.dumps(line) + "\n" for line in (whom, *epochs))
        (run / "distil.jsonl").write_text(written)
        if code:
            assert "its teacher_sha256 is '000" in fails(code, ["distil", run])
        else:
            assert "are in distil-version-1.jsonl" in does(["distil", run])["told"]
            assert (run / "distil-version-1.jsonl").read_text() == written
    assert (run / "student.safetensors").read_bytes() == student
    assert lines_of(run / "distil.jsonl")[0] == header


@pytest.mark.slow  # several trainings
def test_several_methods_and_anchors_go_together(run: Path, inputs: Inputs, does: Does) -> None:
    """Of rco, easy to hard; weights, taps and a recipe are told in words."""
    taps = ("--student-taps", "stem,block1.layer0.project", "--teacher-taps", "layer1,layer2")
    anchored = does(["distil", run, "--method", "rco", "--anchor", "my_students:student"])
    header = lines_of(Path(anchored["run"]) / "distil.jsonl")[0]
    assert header["teacher_sha256"].count("+") == 1
    joined = does(
        ["distil", run, "--method", "kd+at", "--weights", "at=0.01", *taps, "--change", "label_smoothing=0.1"]
    )
    header = lines_of(Path(joined["run"]) / "distil.jsonl")[0]
    assert (header["weights"], header["student_taps"]) == ("at=0.01", ["stem", "block1.layer0.project"])
    assert header["recipe"]["label_smoothing"] == 0.1


@pytest.mark.slow  # several trainings
def test_a_search_without_a_teacher_may_get_one(run: Path, inputs: Inputs, does: Does) -> None:
    """Who only names the teacher is taught by kd."""
    settings = settings_from(load_run(run).settings.as_dict() | {"teacher": "none"}, "here")
    content = json.loads((run / "run.json").read_text()) | {"settings": settings.as_dict()}
    (run / "run.json").write_text(json.dumps(content))
    assert does(["distil", run])["method"] == "none"
    assert does(["distil", run, "--teacher", inputs.teacher])["method"] == "kd"


@pytest.mark.slow  # files are written, judged and reported
def test_a_student_in_a_folder_of_its_own_is_exported_like_any_other(
    run: Path, does: Does, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its manifest says how it was taught; a search does not take its folder for one of its own."""
    own = Path(does(["distil", run, "--arch", "0", "--method", "dist+at", "--teacher", "my_students:student"])["run"])
    assert cli.run(["export", str(own)]) == 0
    assert "int8 student" in capsys.readouterr().out
    manifest = json.loads((own / "manifest.json").read_text())
    assert (manifest["method"], manifest["arch"]) == ("dist+at", lines_of(run / "search.jsonl")[1]["arch"])
    assert (own / "report.html").exists()
    assert find_or_open_run(None, load_run(own).settings, own.parent).folder != own
    assert cli.run(["export", str(run)]) == 2
    assert f"has no student of its own; name the folder of one that it has: {own}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "name", "value", "option"),
    [
        ("proxy", "images", 0, "--proxy-images"),
        ("proxy", "stop_share", 1.0, "--stop-share"),
        ("search", "target_ms", -1.0, "--target-ms"),
        ("search", "measure", "tops", "--measure"),
        ("distil", "batch_size", 0, "--batch-size"),
        ("distil", "readers", 9999, "--readers"),
    ],
)
def test_what_was_given_as_an_option_is_named_as_an_option(section: str, name: str, value: object, option: str) -> None:
    """And what stands in a file as its key."""
    content = {section: {name: value}}
    with pytest.raises(ConfigError, match=f"^{option} is "):
        settings_from(content, COMMAND_LINE)
    with pytest.raises(ConfigError, match=f"^my.toml: {section}.{name} is "):
        settings_from(content, "my.toml")


# --- a network of the user's own --------------------------------------------------------------------------------------


def test_an_own_network_is_distilled(inputs: Inputs, does: Does) -> None:
    """Its weights lie under its own names, with what they were trained on; accuracy is told, and nothing exported."""
    found = does(inputs.own("--method", "kd+at", "--weights", "at=0.01"))
    assert found["module"] == "my_students:student"
    assert re.search(r"teacher \S*teacher.safetensors: \d+\.\d % of \d+ validation images right", found["told"])
    weights, facts = weights_in(Path(found["student"])), facts_of(Path(found["student"]))
    import my_students

    network = my_students.student()
    assert weights.keys() == network.state_dict().keys()
    assert json.loads(facts["accuracy"]) == found["accuracy"]
    assert (facts["classes"], facts["input_shape"], facts["method"]) == ("10", "[28, 28, 1]", "kd+at")
    assert does(inputs.own("--method", "kd+at", "--weights", "at=0.01"))["accuracy"] == found["accuracy"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["distil"],
        ["distil", "run", "--student", "a:b"],
        ["distil", "run", "--resolution", "8"],
        ["distil", "--student", "a:b", "--arch", "best"],
        ["distil", "--student", "a:b", "--data", "embedded", "--teacher", "embedded"],
        ["distil", "--student", "a:b", "--data", "embedded", "--out", "own"],
        ["distil", "--student", "a:b", "--data", "embedded", "--no-teacher", "--out", "own", "--channels", "1"],
        ["distil", "--list-methods", "--list-recipes"],
        ["distil", "run", "--teacher", "embedded", "--no-teacher"],
    ],
)
def test_options_that_do_not_go_together_end_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing on stdout."""
    with pytest.raises(SystemExit) as ended:
        cli.run(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: edgekd distil" in captured.err


def test_an_own_training_that_is_changed_is_refused(inputs: Inputs, does: Does, fails: Fails) -> None:
    """Another method, another teacher, another network of the same name: the folder keeps what it holds."""
    does(inputs.own())
    before = {path.name: path.read_bytes() for path in Path("own").iterdir()}
    assert "its method is 'kd', not 'dist'" in fails(2, inputs.own("--method", "dist"))
    assert "its method is 'kd', not 'none'" in fails(2, inputs.own("--no-teacher"))
    assert "its teacher_sha256" in fails(2, inputs.own("--teacher", "my_students:student"))
    assert "its student is" in fails(2, inputs.own("--seed", 1))
    changed = OWN.replace("0.3", "0.45")  # longer: Python takes what it compiled of a file of that second and size
    Path("my_students.py").write_text(changed)
    sys.modules.pop("my_students")
    assert "its student is" in fails(2, inputs.own())
    assert {path.name: path.read_bytes() for path in Path("own").iterdir()} == before


def test_it_is_judged_where_it_was_trained(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device that was asked for, and the network comes back to main memory."""
    import torch

    from edgekd import distil_job
    from edgekd.data.loading import load_data
    from edgekd.distill.student import StudentPlan, Tutors

    class Zero(torch.nn.Linear):
        put: list[str] = []  # noqa: RUF012 - of the one that is made

        def to(self, device: Any) -> Zero:  # type: ignore[override]  # one of torch's many forms
            self.put.append(str(device))
            return self

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert self.put == ["abacus"]
            return torch.eye(10)[:1].expand(len(images), 10)

    data = load_data(str(inputs.data))
    settings = load_run(inputs.search).settings
    plan = StudentPlan(settings, "zero", Path("own/training.safetensors"), data.sha256, "")
    monkeypatch.setattr(distil_job, "device_of", lambda distil: "abacus")
    network = Zero(1, 1)
    found = distil_job.DistilJob(plan, network, data, Tutors(), Path("own")).judged()
    assert found == {name: float((data.split(name).labels == 0).mean()) for name in ("validation", "test")}
    assert network.put == ["abacus", "cpu"]


def test_weights_of_the_user_s_own_are_not_written_over(inputs: Inputs, fails: Fails) -> None:
    """A student.safetensors that no training of ours has made stays what it is."""
    Path("own").mkdir()
    Path("own/student.safetensors").write_bytes(b"mine")
    assert "own/student.safetensors is of no training of ours" in fails(2, inputs.own())
    assert {path.name: path.read_bytes() for path in Path("own").iterdir()} == {"student.safetensors": b"mine"}


def test_advice_can_be_followed(inputs: Inputs, does: Does, fails: Fails) -> None:
    """A training that was refused or came to no epoch leaves its folder to the one that the message asks for."""
    assert "change batch_size" in fails(2, inputs.own("--gpus", 3))
    assert not Path("own").exists()
    diverging = inputs.own("--learning-rate", 1e30, "--batch-size", 8)
    assert "lower the learning rate" in fails(1, diverging)
    assert [line.get("epoch") for line in lines_of(Path("own/distil.jsonl"))] == [None]
    does(inputs.own())
    header, *epochs = lines_of(Path("own/distil.jsonl"))
    assert (header["recipe"]["batch_size"], [line["epoch"] for line in epochs]) == (32, [1])
    assert "its recipe.batch_size is 32, not 8" in fails(2, diverging)


def test_a_file_that_is_no_history_is_left_alone(inputs: Inputs, fails: Fails) -> None:
    """Even one that is named like it and says nothing more than its first line."""
    Path("own").mkdir()
    Path("own/distil.jsonl").write_text('{"format":"mine"}\n')
    assert "own holds another training" in fails(2, inputs.own())
    assert Path("own/distil.jsonl").read_text() == '{"format":"mine"}\n'


@pytest.mark.slow  # two processes start
def test_devices_share_batches_and_are_part_of_what_a_training_is(inputs: Inputs, does: Does, fails: Fails) -> None:
    """A folder of two devices is not gone on with by one, nor the other way round."""
    does(inputs.own("--gpus", 2))
    assert lines_of(Path("own/distil.jsonl"))[0]["gpus"] == 2
    assert "its gpus is 2, not 1" in fails(2, inputs.own())
    does(inputs.own("--out", "one"))
    assert "its gpus is 1, not 2" in fails(2, inputs.own("--out", "one", "--gpus", 2))


def test_a_teacher_is_loaded_last_and_only_where_one_is_needed(inputs: Inputs, does: Does, fails: Fails) -> None:
    """It may be a download; and it is loaded with the threads that were asked for."""
    lost = ("--teacher", "none.safetensors")
    assert "has no callable 'nothing'" in fails(2, inputs.own(*lost, student="my_students:nothing"))
    assert does(inputs.own(*lost, "--method", "none"))["method"] == "none"
    assert lines_of(Path("own/distil.jsonl"))[0]["teacher_sha256"] == ""
    does(inputs.own("--teacher", "my_students:counted", "--threads", 2, "--out", "other"))
    import my_students

    assert set(my_students.THREADS) == {2}


@pytest.mark.parametrize("asked", [("--resolution", 24), ("--resolution", 28, "--channels", 3)])
def test_a_shape_that_the_data_does_not_have_is_refused(
    inputs: Inputs, fails: Fails, asked: tuple[object, ...]
) -> None:
    """Arrays are taken as they are; only pictures are made to measure."""
    assert "has images of 28x28 pixels in 1 channels" in fails(2, inputs.own(*asked))
    assert not Path("own").exists()


def pictures(folder: Path, count: int, mode: str = "RGB", size: int = 10) -> None:
    """Write so many png files of a class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(folder.parts[-1]) + count)
    for number in range(count):
        bands = len(mode)
        values = rng.integers(0, 256, (size, size, bands), dtype=np.uint8)
        Image.fromarray(values[..., 0] if bands == 1 else values, mode).save(folder / f"{number:03}.png")


def on_pictures(student: str, *more: object) -> list[object]:
    """Word a training on the folder `set`."""
    teacher = () if {"--teacher"} & set(more) else ("--no-teacher",)
    base = ("distil", "--student", f"my_students:{student}", "--data", "set", "--out", "own", *teacher)
    return [*base, "--resolution", 8, *QUICK, *more]


@pytest.mark.parametrize(
    ("mode", "student", "channels"), [("L", "colour", 3), ("RGBA", "colour", 3), ("RGBA", "grey", 1)]
)
def test_grey_and_transparent_pictures_are_taken(does: Does, mode: str, student: str, channels: int) -> None:
    """As many channels as are asked for, beside ordinary pictures in one set."""
    pictures(Path("set/train/cat"), 12, mode)
    pictures(Path("set/train/dog"), 12)
    found = does(on_pictures(student, "--channels", channels))
    assert facts_of(Path(found["student"]))["input_shape"] == f"[8, 8, {channels}]"


def test_sets_that_teach_nothing_are_refused(fails: Fails) -> None:
    """No folder of classes, a class without pictures, one class alone, pictures of any size: each is named."""
    Path("set").mkdir()
    assert "has no folders of classes" in fails(2, on_pictures("colour"))
    pictures(Path("set/train/cat"), 12)
    assert "it has 1 class; at least two are needed" in fails(2, on_pictures("colour"))
    Path("set/train/dog").mkdir()
    assert "dog holds no pictures" in fails(2, on_pictures("colour"))
    pictures(Path("set/train/dog"), 12)
    without_size = [part for part in on_pictures("colour") if part not in ("--resolution", 8)]
    assert "say which with --resolution" in fails(2, without_size)
    assert "--resolution is 0; it must be from 1" in fails(2, [*on_pictures("colour"), "--resolution", 0])
    assert not Path("own").exists()


def test_wrong_classes_and_channels_are_named(inputs: Inputs, fails: Fails) -> None:
    """The student's and the teacher's: what differs, and what to do about it."""
    pictures(Path("set/train/cat"), 12)
    pictures(Path("set/train/dog"), 12)
    assert "has 2 classes; let its last layer have 2 outputs" in fails(2, [*on_pictures("student"), "--channels", 1])
    assert "does not take images [3, 8, 8]" in fails(2, on_pictures("student"))
    line = fails(2, on_pictures("colour", "--teacher", inputs.teacher))
    assert "it knows 10 classes, the data set has 2; choose a teacher for this data" in line
    line = fails(2, [*on_pictures("grey", "--teacher", "my_students:student"), "--channels", 1])
    assert "teacher my_students:student: it knows 10 classes, the data set has 2" in line
    assert not Path("own").exists()


def test_damaged_pictures_are_named_and_counted(does: Does, fails: Fails) -> None:
    """A few are left out and told; many end the run, before anything is written."""
    pictures(Path("set/train/cat"), 100)
    pictures(Path("set/train/dog"), 100)
    Path("set/train/dog/007.png").write_bytes(b"no picture")
    assert "1 damaged pictures are left out: train/dog/007.png" in does(on_pictures("colour"))["told"]
    for number in range(10, 20):
        Path(f"set/train/cat/{number:03}.png").write_bytes(b"")
    assert "11 of 200 pictures cannot be decoded" in fails(2, [*on_pictures("colour"), "--out", "other"])
    assert not Path("other").exists()


def test_a_class_that_nobody_is_judged_on_is_told(does: Does) -> None:
    """One line on stderr: an accuracy is silent about it."""
    for split, names in (("train", ("cat", "dog")), ("test", ("cat",))):
        for name in names:
            pictures(Path("set") / split / name, 12)
    told = does(on_pictures("colour"))["told"].splitlines()
    assert [line for line in told if "no image of" in line] == [
        "distil: data set: split test has no image of 1 of 2 classes: dog"
    ]


def test_a_training_that_diverges_keeps_its_epochs(inputs: Inputs, fails: Fails) -> None:
    """The step and the samples are named with exit code 1; what was whole before lies there, and no weights of NaN."""
    command = inputs.own("--epochs", 3, student="my_students:Bursts")
    for _ in range(2):
        line = fails(1, command)
        assert re.search(r"training diverged in epoch 2, step 3 \(samples \d+, \d+, \d+, \d+, …\)", line)
        assert [entry.get("epoch") for entry in lines_of(Path("own/distil.jsonl"))] == [None, 1]
        assert facts_of(Path("own/training.safetensors"))["epochs_done"] == "1"
    assert not Path("own/student.safetensors").exists()


def test_a_network_that_fails_later_is_one_line(inputs: Inputs, fails: Fails) -> None:
    """What a user's own network raises in mid-training is told as what it is; whole epochs are kept."""
    line = fails(1, inputs.own("--epochs", 3, student="my_students:Tired"))
    assert "the training failed (RuntimeError: I am tired); whole epochs are kept" in line
    assert facts_of(Path("own/training.safetensors"))["epochs_done"] == "1"


def test_a_teacher_in_train_mode_teaches_in_eval_mode(inputs: Inputs, does: Does, fails: Fails) -> None:
    """It learns nothing, its norms neither, and the user's own object is as it was; one that refuses ends it all."""
    live = ("--method", "kd+at", "--weights", "at=0.01")
    does(inputs.own(*live, "--teacher", "my_students:known"))
    import my_students

    assert all(module.training for module in my_students.KNOWN.modules())
    assert my_students.KNOWN[1].num_batches_tracked == 0
    for number, how in enumerate((live, ("--method", "kd"))):
        does(inputs.own(*how, "--teacher", "my_students:Watched", "--out", f"watched{number}"))
        line = fails(2, inputs.own(*how, "--teacher", "my_students:stubborn", "--out", "other"))
        assert "my_students:stubborn" in line
        assert "stays in train mode" in line
    assert not Path("other").exists()


# --- in a config file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distil", "words"),
    [
        ("method = 'rco'", "follows earlier moments"),
        ("method = 'at'\nstudent_taps = ['blokc1']", "the nearest are block1"),
        ("method = 'at'\nteacher_taps = ['layer9']", "the nearest are layer"),
        ("method = 'crd'\nchanges = ['augmentation.mixup_alpha=0.2']", "mixup or cutmix mixes them"),
        ("changes = ['ema_decay=2']", "ema_decay is 2.0"),
        ("anchors = ['none.safetensors']", "no such file"),
        ("recipe = 'cifar240'", "did you mean 'cifar-240'"),
        ("student_taps = 'stem'", "student_taps is 'stem'; it must be of type list"),
        ("train_on = 'abacus'", "nothing can be trained on 'abacus'"),
    ],
)
def test_a_final_training_that_cannot_be_is_refused_before_a_run(
    inputs: Inputs, fails: Fails, distil: str, words: str
) -> None:
    """Not after minutes of measuring and searching."""
    base = f"space = 'tiny-28'\ndata = '{inputs.data}'\nteacher = '{inputs.teacher}'\n"
    Path("edgekd.toml").write_text(f"{base}[distil]\n{distil}\n")
    assert words in fails(2, ["run", "edgekd.toml"])
    assert not Path("runs").exists()


@pytest.mark.parametrize("tap", ["block1.layer0.expand", "block1.layer0.depthwise", "block2.layer2"])
def test_a_tap_that_only_some_architectures_have_is_refused_before_a_search(
    inputs: Inputs, fails: Fails, tap: str
) -> None:
    """The winner may be one without it."""
    base = f"space = 'mnasnet-28-narrow'\ndata = '{inputs.data}'\nteacher = '{inputs.teacher}'\n"
    Path("edgekd.toml").write_text(f"{base}[distil]\nmethod = 'at'\nstudent_taps = ['stem', '{tap}']\n")
    line = fails(2, ["run", "edgekd.toml"])
    assert f"no module '{tap}' to tap" in line
    assert not Path("runs").exists()


# --- lists ------------------------------------------------------------------------------------------------------------


def test_methods_and_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, and all of it as JSON."""
    assert cli.run(["distil", "--list-methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"crd +features, indices, target +CE \+ 0\.8 .*arXiv 1910\.10699$", line) for line in lines)
    assert cli.run(["distill", "--list-methods", "--format", "json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["none"]["needs"] == []
    assert listed["rco"]["needs"] == ["anchors", "logits"]
    assert cli.run(["distil", "--list-recipes"]) == 0
    assert "cifar-240         240 epochs, batch 64" in capsys.readouterr().out
    assert cli.run(["distil", "--list-recipes", "--format", "json"]) == 0
    recipes = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert recipes["cifar-240"]["optimizer"]["learning_rate"] == 0.05


# --- killed and gone on with ------------------------------------------------------------------------------------------


def in_second_epoch(checkpoint: Path) -> bool:
    """Tell whether a training is in the middle of its second epoch."""
    facts = facts_of(checkpoint)
    return facts.get("epochs_done") == "1" and facts.get("steps_done", "0") != "0"


@pytest.mark.slow  # whole trainings, one in a process that is killed
@pytest.mark.parametrize(("whose", "how"), [("run", signal.SIGKILL), ("own", signal.SIGKILL), ("own", signal.SIGINT)])
def test_a_training_that_is_ended_in_mid_epoch_goes_on_to_the_same_weights(
    inputs: Inputs, run: Path, tmp_path: Path, does: Does, whose: str, how: signal.Signals
) -> None:
    """Bit for bit those of an undisturbed one, dropout included; every epoch is told once."""
    files = {"run": ("student.safetensors",), "own": ("training.safetensors", "student.safetensors")}[whose]
    subject = (run,) if whose == "run" else ("--student", "my_students:student", "--data", inputs.data)
    teacher = ("--teacher", inputs.teacher, "--method", "kd+at", "--weights", "at=0.01", "--learning-rate", 0.02)
    command = ("distil", *subject, *teacher, "--epochs", 2, "--threads", 1, "--batch-size", 4)
    process = edgekd(*command, "--out", "ended", "--save-every-s", 1e-3, folder=tmp_path)
    checkpoint = tmp_path / "ended" / files[0]
    wait_until(lambda: in_second_epoch(checkpoint), process)
    process.send_signal(how)
    stderr = process.communicate()[1]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert stderr.splitlines()[-1] == "edgekd: interrupted; the same command goes on from here"
    assert in_second_epoch(checkpoint)
    for out in ("ended", "undisturbed"):
        does([*command, "--out", out])
    for name in files:
        found, wanted = (weights_in(tmp_path / place / name) for place in ("ended", "undisturbed"))
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[key], wanted[key]) for key in wanted)
    assert [line["epoch"] for line in lines_of(tmp_path / "ended" / "distil.jsonl")[1:]] == [1, 2]
