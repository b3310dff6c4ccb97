"""The command line: exit codes, one line for every failure, and a stdout that holds the result alone."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_run import (
    all_end,
    descendants,
    edgekd,
    line_count,
    lines_of,
    make_read_only,
    names_in,
    wait_until,
    write_data,
    write_table,
    write_teacher,
)
from synthetic import KEY, NARROW, small_disk

from device_agents.inventory import find_device
from edgekd import cli, cli_devices
from edgekd.config import Settings
from edgekd.files import locked
from edgekd.runs import load_run, open_run
from edgekd.search.latency import LatencyModel
from edgekd.spaces.arch import Arch
from latency_tables.store import load_table, read_table, table_text

pytestmark = pytest.mark.whole  # whole commands


@dataclass(frozen=True)
class Inputs:
    """Files that a small search needs."""

    data: Path
    teacher: Path
    table: Path

    def search(self, *more: object) -> list[str]:
        """Word a search on them; `--no-teacher` among the options takes the teacher's place."""
        teacher = () if "--no-teacher" in more else ("--teacher", self.teacher)
        files = ("--data", self.data, *teacher, "--table", self.table)
        return ["search", *map(str, files), *map(str, more)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Little data, an ignorant teacher and a made-up table."""
    folder = tmp_path_factory.mktemp("inputs")
    data = write_data(folder / "data.npz", train=100)
    teacher = write_teacher(folder / "teacher.safetensors", data, epochs=0)
    runtime = {"runtime": "ai_edge_litert", "runtime_version": importlib.metadata.version("ai-edge-litert")}
    build = find_device("host").build_fingerprint
    key = dataclasses.replace(KEY, device="host", build_fingerprint=build, **runtime)
    return Inputs(data, teacher, write_table(folder / "table.jsonl", key))


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and give the environment and torch's thread count back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[[int, list[str]], str]:
    """Run a command that must end with a code, an empty stdout and one line of ours on stderr; give that line."""

    def run(code: int, arguments: list[str]) -> str:
        assert cli.run(arguments) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        return the_line(captured.err)

    return run


def the_line(stderr: str) -> str:
    """Find the one line that says what failed; progress may stand before it, nothing behind it."""
    assert "Traceback" not in stderr
    lines = stderr.splitlines()
    assert [line for line in lines if line.startswith("edgekd: ")] == lines[-1:]
    return lines[-1]


Fails = Callable[[int, list[str]], str]


@pytest.mark.parametrize(
    ("option", "wrong", "code", "hint"),
    [
        ("--device", "hots", 3, "host"),
        ("--space", "mnasnet-28", 2, "did you mean 'mnasnet-28-narrow'"),
        ("--engine", "akdd", 2, "did you mean 'akd'"),
        ("--method", "KD2", 2, "did you mean 'kd'"),
        ("--reward", "sofft", 2, "did you mean 'soft'"),
        ("--target-dtype", "int4", 2, "did you mean 'int8'"),
        ("--target-ms", "fast", 2, "auto, a number"),
        ("--target-ms", "nan", 2, "above 0"),
        ("--target-ms", "-1", 2, "above 0"),
        ("--target-ms", "1,fast", 2, "auto, a number"),
        ("--target-ms", "1,1.0", 2, "each target once"),
        ("--budget", "0", 2, "at least 1"),
        ("--budget-epochs", "-1", 2, "at least 0"),
        ("--measure", "tops", 2, "did you mean 'top-k'"),
        ("--reward-weight", "0.5", 2, "from -100 to 0"),
        ("--reward-weight", "-1000", 2, "from -100 to 0"),
        ("--stop-share", "1", 2, "below 1"),
        ("--proxy-method", "kdd", 2, "did you mean 'kd'"),
        ("--warm-start", "nowhere", 2, "no run folder"),
        ("--proxy-weights", "dist", 2, "is no weight"),
        ("--proxy-resolution", "100000", 2, "at most 4096"),
        ("--workers", "0", 2, "at least 1"),
        ("--workers", "10001", 2, "from 1 to 10000"),
        ("--gpus-per-worker", "1.5", 2, "a whole number"),
        ("--epochs", "0", 2, "at least 1"),
        ("--seed", "-1", 2, "at least 0"),
    ],
)
def test_an_unknown_or_impossible_option_is_refused_before_anything_begins(
    fails: Fails, inputs: Inputs, option: str, wrong: str, code: int, hint: str
) -> None:
    """One line with the value and what would be right; no run folder is begun that the right one would not fit."""
    line = fails(code, inputs.search(f"{option}={wrong}", "--out", "run"))
    assert wrong in line or wrong.rpartition(",")[2] in line
    assert hint in line
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("toml", "code", "hint"),
    [
        ("sede = 1", 2, "did you mean 'seed'"),
        ("[search]\nbugdet = 3", 2, "did you mean 'budget'"),
        ("[search]\nbaseline = 'randon'", 2, "did you mean 'random'"),
        ("[proxy]\nmethod = 'dits'", 2, "did you mean 'dist'"),
        ("[distil]\nmethod = 'kdd'", 2, "did you mean 'kd'"),
        ("[search]\nreward = 'sofft'", 2, "did you mean 'soft'"),
        ("device = 'hots'", 3, "host"),
        ("space = 'mnasnet-28'", 2, "did you mean 'mnasnet-28-narrow'"),
        ("space = 'mnasnet-224'", 2, "choose another space or data set"),
        ("data = 'none.npz'", 2, "no such file"),
        ("teacher = 'none.safetensors'", 2, "no such file"),
        ("seed = ", 2, "is not TOML"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_measured(
    fails: Fails, inputs: Inputs, toml: str, code: int, hint: str
) -> None:
    """Also what only a later stage needs: not after minutes of measuring and searching."""
    base = {"data": inputs.data, "teacher": inputs.teacher}
    given = "".join(f"{name} = '{value}'\n" for name, value in base.items() if not toml.startswith(name))
    Path("edgekd.toml").write_text(given + toml)
    assert hint in fails(code, ["run", "edgekd.toml"])
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["serach"], ["search", "--budgett", "3"], ["search", "--budget", "three"], ["distil"], ["data"], ["bench"]],
)
def test_words_that_are_no_command_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The parser's usage goes to stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.run(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: edgekd" in captured.err


@pytest.mark.slow  # the fastest of a whole space is looked for
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_an_infeasible_target_names_the_fastest_and_its_ms(fails: Fails, inputs: Inputs, dtype: str) -> None:
    """Exit 1; the ms are those of the architecture that is named, in that dtype."""
    line = fails(1, inputs.search("--target-ms", 0.0001, "--target-dtype", dtype, "--out", "run"))
    named = re.search(r"the fastest architecture, (\S+), is predicted at (\S+) ms", line)
    assert named is not None
    fastest = LatencyModel.of(NARROW, load_table(inputs.table)).predict(Arch.parse(named[1]), dtype)
    assert fastest.total_ms <= float(named[2]) <= fastest.total_ms + 1e-3  # rounded up: that target is feasible
    assert not Path("run/search.jsonl").exists()


@pytest.mark.slow  # the fastest of a whole space is looked for
def test_one_infeasible_target_of_several_is_refused(fails: Fails, inputs: Inputs) -> None:
    """Before anything is paid for the others."""
    line = fails(1, inputs.search("--target-ms", "1,0.0001,2", "--out", "run"))
    assert "target 0.0001 ms (int8) cannot be met" in line
    assert not Path("run").exists()


@pytest.mark.slow  # candidates are trained
def test_several_targets_are_one_study_that_can_be_extended(
    inputs: Inputs, simulated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a teacher, too; each target has its best reward, its best and the front; a budget of 1 is a search."""
    how = ("--no-teacher", "--engine", "random", "--proxy-images", 40, "--target-ms", "1,0.5", "--out", "run")
    found = {}
    for budget in (1, 3):
        assert cli.run(inputs.search(*simulated, *how, "--budget", budget, "--format", "json")) == 0
        found[budget] = json.loads(capsys.readouterr().out)
        assert [outcome["target_ms"] for outcome in found[budget]["outcomes"]] == [1.0, 0.5]
        assert {outcome["samples"] for outcome in found[budget]["outcomes"]} == {budget}
    assert found[3]["target_ms"] == 1.0
    for outcome in found[3]["outcomes"]:
        assert outcome["best_reward"]["reward"] >= outcome["best_under_target"]["reward"]
        assert outcome["pareto_front"]
    assert load_run(Path("run")).settings.proxy.method == "none"
    assert not list(Path("run").glob("teacher-logits-*"))
    assert cli.run(inputs.search(*simulated, *how, "--budget", 3)) == 0
    text = capsys.readouterr().out
    for part in (
        "target 1 ms (int8), 3 samples",
        "target 0.5 ms",
        "best reward",
        "best under target",
        "Pareto front of",
    ):
        assert part in text
    assert cli.run(inputs.search(*simulated, *how, "--budget", 2)) == 2
    assert "search.budget 3, which can be raised, not 2" in capsys.readouterr().err
    warm = ("--no-teacher", "--engine", "random", "--proxy-images", 40, "--target-ms", 2, "--warm-start", "run")
    assert cli.run(inputs.search(*simulated, *warm, "--budget", 1, "--out", "warm", "--format", "json")) == 0
    assert json.loads(capsys.readouterr().out)["outcomes"][0]["samples"] == 3 + 1


def test_missing_input_files_are_one_line(fails: Fails, inputs: Inputs) -> None:
    """Data, teacher, table, config, run, model: each is named with what to do about it."""
    assert "data none.npz: no such file" in fails(2, inputs.search("--data", "none.npz"))
    assert "no such file" in fails(2, inputs.search("--teacher", "none.safetensors"))
    assert "table none.jsonl does not exist; measure it" in fails(2, inputs.search("--table", "none.jsonl"))
    made_up = inputs.search("--table", "none.jsonl", "--device", "simulated-pixel4", "--space", "tiny-28")
    assert "with: edgekd table simulate pixel4 none.jsonl --space tiny-28" in fails(2, made_up)
    assert "config none.toml cannot be read" in fails(2, ["run", "none.toml"])
    assert "model none.tflite cannot be read" in fails(2, ["bench", "none.tflite"])
    assert "data none.npz: no such file" in fails(2, ["data", "export", "none.npz", "out.npz"])
    for command in ("distil", "distill", "export"):
        assert "none is no run folder" in fails(2, [command, "none"])
    assert "name the folder of an edgekd search" in fails(2, ["report", "none"])


def test_damaged_input_files_are_one_line(fails: Fails, inputs: Inputs) -> None:
    """Each is named; a table with the line that is wrong."""
    Path("damaged").write_bytes(b"PK\3\4 not what it seems\n\n")
    assert "data damaged: not a readable npz file" in fails(2, inputs.search("--data", "damaged"))
    assert "teacher damaged: not a readable safetensors file" in fails(2, inputs.search("--teacher", "damaged"))
    assert "damaged, line 1" in fails(2, inputs.search("--table", "damaged"))
    assert "is no .tflite file" in fails(2, ["bench", "damaged"])
    lines = inputs.table.read_text().splitlines(keepends=True)
    Path("table.jsonl").write_text("".join([*lines[:41], lines[41][:60] + "\n", *lines[42:]]))
    assert "table.jsonl, line 42" in fails(2, inputs.search("--table", "table.jsonl"))


@pytest.fixture
def begun(inputs: Inputs) -> Path:
    """A run that was begun and nothing more, in the folder `run`."""
    settings = Settings(data=str(inputs.data), teacher=str(inputs.teacher), table=str(inputs.table))
    return open_run(Path("run"), settings).folder


@pytest.mark.usefixtures("begun")
def test_stages_out_of_order_name_the_one_before(fails: Fails) -> None:
    """A run without a search cannot be distilled, exported or reported."""
    assert "has no winner.json yet; run edgekd search first" in fails(2, ["distil", "run"])
    assert "has no winner.json yet; run edgekd search first" in fails(2, ["export", "run"])
    assert "search.jsonl: cannot be read from run" in fails(2, ["report", "run"])


@pytest.mark.parametrize("name", ["run.json", "winner.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 50_000])
def test_a_damaged_run_file_is_one_line(fails: Fails, begun: Path, name: str, content: bytes) -> None:
    """Whatever the damage is."""
    (begun / name).write_bytes(content)
    for command in ("distil", "export"):
        fails(2, [command, "run"])


def test_a_table_of_another_space_is_one_line(fails: Fails, inputs: Inputs) -> None:
    """An operator that was never measured is never counted as 0 ms; the nearest row is named."""
    other = [line for line in inputs.table.read_text().splitlines(keepends=True) if "depthwise" not in line]
    Path("other.jsonl").write_text("".join(other))
    assert "no row for" in fails(2, inputs.search("--table", "other.jsonl", "--target-ms", "1"))


def test_a_table_of_another_device_is_one_line(fails: Fails, inputs: Inputs) -> None:
    """Its times say nothing about the device that the student is for."""
    contents = read_table(inputs.table)
    key = dataclasses.replace(contents.table.key, device="pixel4")
    Path("other.jsonl").write_text(table_text(key, contents.lines))
    assert "(device: 'pixel4' / 'host': table / now)" in fails(2, inputs.search("--table", "other.jsonl"))
    Path("other.jsonl").write_text(table_text(dataclasses.replace(contents.table.key, runtime="zzz"), contents.lines))
    assert "runtime: 'zzz' / 'ai_edge_litert'" in fails(2, inputs.search("--table", "other.jsonl"))


@pytest.fixture
def simulated(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Simulate a phone's table and give the words by which it is searched."""
    assert cli.run(["table", "simulate", "pixel4", "s.jsonl", "--space", "tiny-28"]) == 0
    capsys.readouterr()
    return ["--device", "simulated-pixel4", "--space", "tiny-28", "--table", "s.jsonl"]


def test_nothing_is_measured_on_a_simulated_device(fails: Fails, inputs: Inputs, simulated: list[str]) -> None:
    """It can be searched, where no target is met by magic; a whole run and an export are refused before they begin."""
    line = fails(1, inputs.search(*simulated, "--target-ms", 0.0001, "--out", "searched"))
    assert "cannot be met" in line
    Path("run.toml").write_text('device = "simulated-pixel4"\nspace = "tiny-28"\n')
    assert "simulated-pixel4 is simulated" in fails(2, ["run", "run.toml"])
    settings = Settings(device="simulated-pixel4", space="tiny-28", data=str(inputs.data), table="s.jsonl")
    open_run(Path("exported"), settings)
    assert "simulated-pixel4 is simulated" in fails(2, ["export", "exported"])
    assert not Path("runs").exists()


@pytest.mark.slow  # candidates are trained
def test_a_simulated_table_is_searched_and_the_result_says_so(
    inputs: Inputs, simulated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr while it searches, in the result and in winner.json."""
    how = ("--target-ms", 1, "--budget", 2, "--workers", 1, "--engine", "random", "--out", "run")
    words = inputs.search(*simulated, *how)
    assert cli.run(words) == 0
    printed = capsys.readouterr()
    assert "s.jsonl: SIMULATED, not measured" in printed.err
    assert "rows of the table are simulated" in printed.out
    rows = len(load_table(Path("s.jsonl")).rows)
    assert json.loads(Path("run/winner.json").read_text())["unmeasured"] == {"simulated": rows}


@pytest.mark.slow  # two commands up to their first file, and a file system
def test_a_folder_that_cannot_be_written_is_one_line(fails: Fails, inputs: Inputs, tmp_path: Path) -> None:
    """Of a run and of a table; on a file system that even root cannot write to."""
    with small_disk(tmp_path / "disk", 64 << 10) as folder:
        make_read_only(folder)
        for arguments in (
            inputs.search("--out", folder / "run"),
            ["profile", "--table", str(folder / "a" / "t.jsonl")],
        ):
            assert "cannot be written (Read-only file system); choose another" in fails(2, arguments)
        export = ["data", "export", str(inputs.data), str(folder / "out.npz")]
        assert "cannot write" in fails(1, export)


def test_a_file_in_the_way_of_a_folder_is_one_line(fails: Fails, inputs: Inputs) -> None:
    """The same without mounting anything."""
    Path("file").touch()
    assert "folder file cannot be written" in fails(2, inputs.search("--out", "file"))
    assert "cannot write none/out.npz" in fails(1, ["data", "export", str(inputs.data), "none/out.npz"])


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing_half(fails: Fails, inputs: Inputs, tmp_path: Path) -> None:
    """The run has begun, the teacher's logits did not fit: exit 1, and no part of them lies there."""
    with small_disk(tmp_path / "disk", 8 << 10) as folder:
        assert "No space left on device" in fails(1, inputs.search("--target-ms", "1", "--out", folder / "run"))
        assert names_in(folder / "run") == [".lock", "run.json"]
        line = fails(1, ["data", "export", str(inputs.data), str(folder / "out.npz")])
        assert "No space left on device" in line
        assert names_in(folder) == ["run"]


@pytest.mark.usefixtures("begun")
@pytest.mark.slow  # commands with all their input
def test_a_run_of_other_settings_is_one_line(fails: Fails, inputs: Inputs) -> None:
    """Same folder, other target: refused, naming the difference."""
    assert "search.target_ms 'auto', not 0.5" in fails(2, inputs.search("--target-ms", "0.5", "--out", "run"))


@pytest.mark.slow  # a command with all its input, up to its first file
def test_a_run_that_is_in_use_is_one_line(fails: Fails, inputs: Inputs) -> None:
    """Two edgekd in one folder would mix their lines."""
    Path("run").mkdir()
    with locked(Path("run")):
        assert "run folder run is in use" in fails(2, inputs.search("--out", "run"))


def test_devices_as_json_is_json_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list of devices names the host and its runtimes."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "9")  # where nobody listens: phones of the person who tests stay out
    assert cli.run(["devices", "--format", "json"]) == 0
    (host,) = json.loads(capsys.readouterr().out)
    assert host["name"] == "host"
    assert "ai_edge_litert" in host["runtimes"]


def test_ctrl_c_is_one_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it strikes; the line says how to go on."""

    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_devices, "list_attached", interrupted)
    assert cli.run(["devices"]) == 130
    assert the_line(capsys.readouterr().err) == "edgekd: interrupted; the same command goes on from here"


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not an error of ours keeps its traceback."""

    def broken(options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli_devices, "list_attached", broken)
    with pytest.raises(ZeroDivisionError):
        cli.run(["devices"])


def test_a_full_stdout_is_one_line() -> None:
    """A result that could not be written is a failure, not a success."""
    with Path("/dev/full").open("w") as full:
        done = edgekd("devices", folder=Path.cwd(), stdout=full)
        _, stderr = done.communicate()
    assert done.returncode == 1
    assert the_line(stderr) == "edgekd: cannot write the result to stdout: No space left on device"


def test_a_reader_that_went_away_is_no_failure() -> None:
    """As in `edgekd devices | head -0`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = edgekd("devices", folder=Path.cwd(), stdout=writing)
    os.close(writing)
    _, stderr = done.communicate()
    assert (done.returncode, stderr) == (0, "")


def test_without_torch_the_extra_is_named() -> None:
    """A search asks for the extra that holds torch; the commands that do not need torch work."""
    program = "import sys; sys.modules['torch'] = None; from edgekd import cli; cli.main(sys.argv[1:])"
    command = [sys.executable, "-c", program]
    done = subprocess.run([*command, "search"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert the_line(done.stderr) == "edgekd: torch is not installed; install it with: pip install 'edgekd[train]'"
    export = [*command, "data", "export", "none.npz", "out.npz"]
    assert "none.npz: no such file" in subprocess.run(export, capture_output=True, text=True, check=False).stderr


def test_help_imports_nothing_heavy() -> None:
    """--help of any command starts at once."""
    program = (
        "import sys\nfrom edgekd import cli\ntry: cli.run(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(*sorted({'torch', 'numpy', 'onnx', 'ai_edge_litert', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["--help"], ["search", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        assert done.stderr == "\n"
        assert re.search(r"edgekd", done.stdout)


@pytest.mark.slow
def test_a_search_is_interrupted_by_ctrl_c_and_goes_on(inputs: Inputs, tmp_path: Path) -> None:
    """SIGINT to the whole group, as a terminal sends it: 130, one line, no process left, every whole line kept."""
    more = ("--budget", 8, "--target-ms", 1, "--out", "run", "--epochs", 1, "--format", "json")
    process = edgekd(*inputs.search(*more), folder=tmp_path)
    wait_until(lambda: line_count(tmp_path / "run" / "search.jsonl") >= 3, process)
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (130, "")
    assert the_line(stderr) == "edgekd: interrupted; the same command goes on from here"
    assert all_end(below)
    kept = (tmp_path / "run" / "search.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    stdout, _ = edgekd(*inputs.search(*more), folder=tmp_path).communicate()
    assert json.loads(stdout)["target_ms"] == 1.0
    assert (tmp_path / "run" / "search.jsonl").read_bytes().startswith(kept)
    assert len(lines_of(tmp_path / "run" / "search.jsonl")) == 1 + 8


def same_always(line: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may differ between two runs of one study."""
    return {name: value for name, value in line.items() if name not in ("seconds", "host", "crc")}


@pytest.mark.slow  # Ray starts twice
def test_a_search_on_two_workers_that_is_killed_ends_as_an_undisturbed_one_on_one(
    inputs: Inputs, simulated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By SIGKILL: every sample is the same, times and hosts aside."""
    how = ("--engine", "random", "--proxy-images", 40, "--target-ms", "1,0.5", "--budget", 7, "--batch", 3)
    assert cli.run(inputs.search(*simulated, *how, "--out", "whole")) == 0
    capsys.readouterr()
    words = inputs.search(*simulated, *how, "--out", "killed", "--workers", 2)
    process = edgekd(*words, folder=tmp_path)
    wait_until(lambda: line_count(Path("killed/search.jsonl")) >= 1 + 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    _, stderr = (process := edgekd(*words, folder=tmp_path)).communicate()
    assert process.returncode == 0, stderr
    killed, whole = (lines_of(Path(name) / "search.jsonl") for name in ("killed", "whole"))
    assert list(map(same_always, killed)) == list(map(same_always, whole))
    assert len(whole) == 1 + 7
