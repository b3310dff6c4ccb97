"""tools/study_teachers.py: which searches it plans, what it repeats and what not, and what it says of their end."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from synthetic import table_for, tiny_space

from edgekd.config import settings_from
from edgekd.report.compare_text import as_json, compared_table
from edgekd.report.comparison import Comparison
from edgekd.runs import open_run
from edgekd.search.latency import LatencyModel
from edgekd.search.rated import Hopeless, Rated
from edgekd.search.reward import Reward
from edgekd.search.study import Study
from edgekd.search.study_file import StudySettings
from edgekd.spaces.arch import Arch

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))  # the tool's modules find each other there
    tool = importlib.import_module("study_teachers")

TINY = LatencyModel.of(tiny_space(), table_for(tiny_space()))
TARGET_MS = 0.05


def rate(archs: Sequence[Arch], hopeless: Hopeless | None) -> Iterator[Rated]:
    """Give each architecture an accuracy of its own, after two seconds."""
    for arch in archs:
        yield Rated(hashlib.sha256(str(arch).encode()).digest()[0] / 256, 2.0, epochs=1)


def value(command: Sequence[str], option: str) -> str:
    """Give what stands behind an option; of several the last counts."""
    return command[len(command) - command[::-1].index(option)]


@dataclass
class FakeEdgekd:
    """Stands for the command line: searches a tiny space and compares in this process."""

    commands: list[list[str]] = field(default_factory=list)
    dies_at: int = 10**9  # which command is interrupted
    target_ms: float = TARGET_MS
    computed: int = 0  # teachers' logits, in this folder or that

    def run(self, command: Sequence[str], log: Path) -> str:
        """Do what the command says; give its stdout."""
        assert command[1:3] == ["-m", "edgekd"]
        self.commands.append(list(command[3:]))
        if len(self.commands) == self.dies_at:
            raise KeyboardInterrupt
        if command[3] == "report":
            comparison = Comparison.load([Path(folder) for folder in command[4 : command.index("--out")]])
            table = value(command, "--format") == "text"
            return compared_table(comparison) if table else json.dumps(as_json(comparison))
        return self.search(command)

    def search(self, command: Sequence[str]) -> str:
        """Search; the probe finds nothing under its target, as it may happen."""
        folder = Path(value(command, "--out"))
        teacher = value(command, "--teacher") if "--teacher" in command else "none"
        open_run(folder, settings_from({"teacher": teacher}, "test"))
        budget, seed = int(value(command, "--budget")), int(value(command, "--seed"))
        settings = StudySettings("random", budget, 4, seed, (self.target_ms,), "int8", Reward("soft"))
        logits = folder / f"teacher-logits-{Path(teacher).stem}.npy"
        if teacher != "none" and not logits.exists():
            self.computed += 1
            logits.write_bytes(b"logits")
        identity = {"teacher_sha256": teacher}
        record = Study(settings, TINY, folder / "search.jsonl", identity).run(rate)
        if folder.name == "probe":
            raise tool.StudyFailed("nothing is under the target", folder / "log")
        under = [sample for sample in record.samples if sample.predicted_ms["int8"] <= self.target_ms]
        if not under:
            raise tool.StudyFailed("nothing is under the target", folder / "log")
        best = max(under, key=lambda sample: sample.proxy_accuracy)
        return json.dumps(best.as_json() | {"target_ms": self.target_ms, "target_dtype": "int8"})

    def searches(self) -> list[str]:
        """Name the run folders that were searched."""
        return [Path(value(command, "--out")).name for command in self.commands if command[0] == "search"]


@pytest.fixture
def edgekd(monkeypatch: pytest.MonkeyPatch) -> FakeEdgekd:
    """The tool with a made-up command line behind it."""
    fake = FakeEdgekd()
    monkeypatch.setattr(tool, "run", fake.run)
    return fake


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., int]:
    """Start the tool in a folder of its own: two seeds of ten candidates."""
    arguments = ["--out", str(tmp_path / "study"), "--seeds", "2", "--budget", "10", "--json", str(tmp_path / "r.json")]
    return lambda *more: int(tool.main([*arguments, *more]))


@pytest.fixture
def refused(edgekd: FakeEdgekd, study: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Start the tool with what it must refuse before it starts anything; give what it says."""

    def start(*arguments: str) -> str:
        before = len(edgekd.commands)
        assert study(*arguments) == 2
        assert len(edgekd.commands) == before
        return capsys.readouterr().err

    return start


@pytest.mark.whole  # a whole study
def test_every_teacher_and_none_are_searched_with_every_seed(
    edgekd: FakeEdgekd, study: Callable[..., int], tmp_path: Path
) -> None:
    """Study by study in turn, in run folders of their own, and then all of them are compared."""
    assert study("--teachers", "embedded", str(tmp_path / "vgg8.safetensors")) == 0
    places = {"embedded": 1, "vgg8": 2, "none": 0}
    names = [f"{teacher}-seed{1000 * places[teacher] + number}" for number in (0, 1) for teacher in places]
    assert edgekd.searches() == ["probe", *names]
    compared = [command for command in edgekd.commands if command[0] == "report"]
    assert [value(command, "--format") for command in compared] == ["json", "text"]
    assert all(command[1:7] == [str(tmp_path / "study" / name) for name in names] for command in compared)


@pytest.mark.whole  # a whole study
def test_searches_differ_in_nothing_but_teacher_seed_and_folder(
    edgekd: FakeEdgekd, study: Callable[..., int], tmp_path: Path
) -> None:
    """All other arguments are the same, those behind -- among them; a table and a teacher are named in full."""
    table = tmp_path / "host.jsonl"
    arguments = ("--table", str(table), "--target-ms", "0.07", "--workers", "2", "--", "--space", "tiny-28")
    assert study("--teachers", "file:vgg8.safetensors", *arguments) == 0
    searches = [command[1:] for command in edgekd.commands if command[0] == "search" and "probe" not in command[-1]]
    searches = [command for command in searches if not value(command, "--out").endswith("probe")]
    teachers = {tuple(command[: 1 if command[0] == "--no-teacher" else 2]) for command in searches}
    assert teachers == {("--no-teacher",), ("--teacher", str(Path("vgg8.safetensors").resolve()))}
    rest = [command[1 if command[0] == "--no-teacher" else 2 :] for command in searches]
    for command in rest:
        for option in ("--seed", "--out"):
            command[command.index(option) + 1] = ""
    assert all(command == rest[0] for command in rest)
    for option, expected in {"--table": str(table), "--target-ms": "0.07", "--space": "tiny-28"}.items():
        assert value(rest[0], option) == expected


@pytest.mark.whole  # weighs whole studies
def test_a_teacher_that_is_no_file_is_given_as_it_is(
    edgekd: FakeEdgekd, study: Callable[..., int], tmp_path: Path
) -> None:
    """Its folders are named by what of its text a folder may be called."""
    assert study("--teachers", "timm:resnet18@random", "--seeds", "1") == 0
    teachers = {value(command, "--teacher") for command in edgekd.commands if "--teacher" in command}
    assert teachers == {"timm:resnet18@random"}
    assert len(list((tmp_path / "study").glob("timm-resnet18-random-seed*"))) == 1


@pytest.mark.whole  # a whole study
def test_a_teachers_logits_are_computed_once(edgekd: FakeEdgekd, study: Callable[..., int]) -> None:
    """The teacher's other searches find them in their folders."""
    assert study("--teachers", "embedded", "vgg8.safetensors", "--seeds", "3") == 0
    assert edgekd.computed == 2


@pytest.mark.whole  # a whole study
def test_no_two_searches_have_the_same_seed(edgekd: FakeEdgekd, study: Callable[..., int]) -> None:
    """Searches of one seed begin alike, and the test takes them to be independent."""
    assert study("--teachers", "embedded", "vgg8.safetensors", "--seeds", "3") == 0
    seeds = [
        value(c, "--seed") for c in edgekd.commands if c[0] == "search" and not value(c, "--out").endswith("probe")
    ]
    assert len(seeds) == len(set(seeds)) == 9


@pytest.mark.whole  # a whole study
def test_a_finished_search_is_not_repeated(edgekd: FakeEdgekd, study: Callable[..., int]) -> None:
    """What was interrupted goes on; what lies there says how long it takes, so nothing is probed again."""
    edgekd.dies_at = 4  # the probe, two searches, and this one
    with pytest.raises(KeyboardInterrupt):
        study()
    edgekd.commands.clear()
    edgekd.dies_at = 10**9
    assert study() == 0
    assert edgekd.searches() == ["embedded-seed1001", "none-seed1"]
    edgekd.commands.clear()
    assert study() == 0
    assert edgekd.searches() == []


@pytest.mark.whole  # three whole studies
def test_more_seeds_teachers_and_candidates_add_to_what_is_there(edgekd: FakeEdgekd, study: Callable[..., int]) -> None:
    """A third seed and another teacher are searched alone; a larger budget goes on with all."""
    assert study() == 0
    edgekd.commands.clear()
    assert study("--seeds", "3", "--teachers", "embedded", "vgg8.safetensors") == 0
    assert edgekd.searches() == [
        *("vgg8-seed2000", "vgg8-seed2001"),
        *("embedded-seed1002", "vgg8-seed2002", "none-seed2"),
    ]
    edgekd.commands.clear()
    assert study("--budget", "12") == 0
    assert edgekd.searches() == ["embedded-seed1000", "none-seed0", "embedded-seed1001", "none-seed1"]


@pytest.mark.whole  # a whole study
def test_the_duration_is_told_beforehand_and_after_every_search(
    edgekd: FakeEdgekd, study: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Four searches of ten candidates at two seconds each on one worker are 80 s."""
    assert study() == 0
    said = capsys.readouterr().out
    assert "4 studies of 10 candidates, 0 of them finished\nabout 80 s for the others" in said
    lines = [line for line in said.splitlines() if " left" in line]
    assert [line.partition(":")[0] for line in lines] == [
        "1/4 embedded, seed 1000",
        "2/4 none, seed 0",
        "3/4 embedded, seed 1001",
        "4/4 none, seed 1",
    ]
    assert lines[-1].endswith("about 0 s left")
    assert "Distance between groups" in said


@pytest.mark.whole  # a whole study
def test_the_json_file_holds_every_studys_best_and_the_comparison(
    edgekd: FakeEdgekd, study: Callable[..., int], tmp_path: Path
) -> None:
    """The best under the target by proxy accuracy, and what the report gave."""
    assert study() == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["comparison"]["format"] == "edgekd-comparison"
    assert [(found["teacher"], found["seed"], found["samples"]) for found in result["studies"]] == [
        ("embedded", 1000, 10),
        ("none", 0, 10),
        ("embedded", 1001, 10),
        ("none", 1, 10),
    ]
    for found in result["studies"]:
        assert found["candidate_seconds"] == 20.0
        assert found["best_under_target"]["predicted_ms"]["int8"] <= TARGET_MS


@pytest.mark.whole  # two whole studies
def test_every_two_teachers_are_tested_and_all_together(
    edgekd: FakeEdgekd, study: Callable[..., int], tmp_path: Path
) -> None:
    """By name, with distances and p-value; two teachers are all."""
    assert study("--teachers", "embedded", "vgg8.safetensors") == 0
    tests = json.loads((tmp_path / "r.json").read_text())["tests"]
    assert list(tests) == ["all", "embedded-vgg8", "embedded-none", "vgg8-none"]
    for test in tests.values():
        assert 0 < test["p_value"] <= 1
        assert test["between"] - test["within"] == test["difference"]
    assert study("--teachers", "embedded") == 0
    assert list(json.loads((tmp_path / "r.json").read_text())["tests"]) == ["all"]


@pytest.mark.whole  # weighs whole studies
def test_one_seed_says_nothing_of_chance(edgekd: FakeEdgekd, study: Callable[..., int], tmp_path: Path) -> None:
    """Without a second run of a teacher there is no test, and that is told."""
    assert study("--seeds", "1") == 0
    assert json.loads((tmp_path / "r.json").read_text())["tests"] == {"all": None}


@pytest.mark.whole  # a whole study
def test_that_nothing_is_under_the_target_is_a_finding(
    edgekd: FakeEdgekd, study: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a study is complete all the same, and compared as the others."""
    edgekd.target_ms = 1e-6
    assert study() == 0
    assert "1/4 embedded, seed 1000: no winner, nothing is under the target; about" in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert [found["best_under_target"] for found in result["studies"]] == [None] * 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--teachers", "a/t.safetensors", "b/t.toml"), "two teachers are called t"),
        (("--", "--seed", "5"), "--seed is an option of this tool"),
        (("--", "--teacher=embedded"), "--teacher=embedded is an option of this tool"),
    ],
)
def test_what_would_mix_studies_up_is_refused(refused: Callable[..., str], arguments: Sequence[str], said: str) -> None:
    """Before anything is searched."""
    assert said in refused(*arguments)


@pytest.mark.whole  # a whole study
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target-ms", "0.08"), "'0.08'"),
        (("--teachers", "other/vgg8.safetensors"), "other/vgg8.safetensors; rename it"),
        (("--", "--engine", "evolution"), "'evolution'"),
    ],
)
def test_a_folder_of_other_settings_is_not_gone_on_with(
    study: Callable[..., int], refused: Callable[..., str], arguments: Sequence[str], said: str
) -> None:
    """Studies that do not compare never lie beside each other."""
    assert study("--teachers", "vgg8.safetensors") == 0
    assert said in refused(*arguments)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"arguments": ["--target-ms", "auto"], "teachers": {"a": "b"}}'])
def test_a_damaged_settings_file_is_refused(refused: Callable[..., str], tmp_path: Path, text: str) -> None:
    """Nothing is searched beside what cannot be known."""
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "settings.json").write_text(text)
    assert str(tmp_path / "study") in refused()


def test_a_search_that_fails_ends_the_study_with_its_reason(tmp_path: Path) -> None:
    """The last line of its stderr, and where the others are."""
    log = tmp_path / "search.log"
    with pytest.raises(tool.StudyFailed, match=r"no such teacher .*search\.log.*goes on from here"):
        tool.run([sys.executable, "-c", "import sys; print('first'); sys.exit('no such teacher')"], log)
    assert log.read_text() == "no such teacher\n"


def test_a_commands_stdout_is_given_and_its_stderr_kept(tmp_path: Path) -> None:
    """And it finds edgekd wherever it is started."""
    code = "import sys, edgekd; print('result'); print('progress', file=sys.stderr)"
    assert tool.run([sys.executable, "-c", code], tmp_path / "search.log") == "result\n"
    assert (tmp_path / "search.log").read_text() == "progress\n"
