"""Predicting model files: what is refused, what is said beside the number, and the command that prints it."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import KEY, NARROW, conv, measurement, random_archs, table_for

from device_agents.engines import ENGINES
from device_agents.inventory import find_device
from edgekd import cli, cli_predict, predict
from edgekd.bench import DeviceChoice, Model
from edgekd.errors import DataError, UsageError
from edgekd.graph.ir import graph_in
from edgekd.graph.micro import random_model
from edgekd.graph.model_file import ModelFile, read_model
from edgekd.predict import CannotBeMeasured, check_device, doubts, predict_model, verify_device
from edgekd.spaces.layers import graph_of
from latency_tables.errors import OpNotInTable, OtherKey
from latency_tables.op_spec import OpSpec
from latency_tables.predictor import Predictor
from latency_tables.processors import PROCESSORS
from latency_tables.simulate import simulated_key
from latency_tables.store import LatencyTable, TableFile

pytestmark = pytest.mark.whole  # whole commands

OURS = replace(KEY, runtime="ai_edge_litert")  # as an engine of ours tells it
WHILE = OpSpec.parse("while;float32;in=1x4;out=1x4;@body_subgraph_index=2;@cond_subgraph_index=1")
FOLDED = OpSpec.parse("dequantize;float32;in=cfloat16:4x4;out=4x4")
NOW = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)  # a month after the made-up measurements


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    """Make a complete table of the narrow space."""
    return replace(table_for(NARROW), key=OURS)


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    """Write an int8 network of the narrow space to a file."""
    path = tmp_path / "net.tflite"
    path.write_bytes(random_model(graph_in(graph_of(NARROW, random_archs(NARROW, 1, seed=7)[0]), "int8")))
    return read_model(path)


def test_a_file_is_predicted_as_its_graph_is(table: LatencyTable, model: ModelFile) -> None:
    """Reading a file back gives the operators that made it, and the calibration of its dtype speaks for it."""
    graph = graph_in(graph_of(NARROW, random_archs(NARROW, 1, seed=7)[0]), "int8")
    assert model.dtype == "int8"
    assert predict_model(table, model, "bench") == Predictor(table, "int8").predict(graph.ops)


def test_what_was_never_measured_is_estimated_and_says_so(table: LatencyTable, model: ModelFile) -> None:
    """Without a row in the middle of its family the total hardly moves, the interval widens, the part is labelled."""
    whole = predict_model(table, model, "bench")
    gone = max((part for part in whole.parts if part.op.kind == "conv_2d"), key=lambda part: part.ms).op
    holed = replace(table, rows={key: row for key, row in table.rows.items() if key != gone.key})
    estimated = predict_model(holed, model, "bench")
    assert {part.how for part in estimated.parts if part.op == gone} <= {"interpolated", "fitted"}
    assert estimated.high_ms / estimated.total_ms > whole.high_ms / whole.total_ms
    assert sum(estimated.covered.values()) == pytest.approx(1)
    assert 0.5 < estimated.total_ms / whole.total_ms < 2


def test_an_operator_without_relatives_is_an_error_with_the_command_that_measures_it(
    table: LatencyTable, model: ModelFile
) -> None:
    """Nothing is counted as 0 ms: the message names operator, device and file."""
    holed = replace(table, rows={key: row for key, row in table.rows.items() if not key.startswith("conv_2d;int8")})
    with pytest.raises(OpNotInTable, match=f"edgekd profile --device bench --table t --model {model.path}"):
        predict_model(holed, model, "--device bench --table t")


def test_an_operator_that_no_model_can_be_made_of_is_told_as_such(table: LatencyTable) -> None:
    """No command would measure it, so the message has the reason instead of one."""
    model = ModelFile(Path("loop.tflite"), b"", (WHILE,))
    with pytest.raises(CannotBeMeasured, match=r"loop\.tflite: .* cannot be measured alone: .*other graphs") as caught:
        predict_model(table, model, "bench")
    assert "edgekd profile" not in str(caught.value)
    assert caught.value.op_key == WHILE.key


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (DeviceChoice("pixel4"), "device: 'bench' / 'pixel4'"),
        (DeviceChoice("bench", "native"), "engine: 'python' / 'native'"),
    ],
)
def test_a_table_of_something_else_is_refused(choice: DeviceChoice, reason: str, table: LatencyTable) -> None:
    """The message says what differs; the right name passes."""
    with pytest.raises(OtherKey, match=reason):
        check_device(table, Path("t.jsonl"), choice)
    check_device(table, Path("t.jsonl"), DeviceChoice("bench"))


def test_of_this_machine_everything_is_compared(table: LatencyTable) -> None:
    """A table of this machine's name, measured under another system and runtime, is refused for both."""
    ours = replace(table, key=replace(KEY, device="host", runtime="ai_edge_litert", runtime_version="0.0.1"))
    with pytest.raises(OtherKey, match=r"build_fingerprint: .*runtime_version: '0\.0\.1' / ") as caught:
        check_device(ours, Path("t.jsonl"), DeviceChoice("host"))
    assert "t.jsonl" in str(caught.value)


@pytest.fixture
def here(table: LatencyTable) -> LatencyTable:
    """Pretend that a table was measured on this machine by its own engine."""
    device, version = find_device("host"), importlib.metadata.version("ai-edge-litert")
    named = replace(OURS, device="host", build_fingerprint=device.build_fingerprint, runtime_version=version)
    return replace(table, key=named)


@pytest.mark.parametrize("ask", [False, True])
def test_the_engine_that_is_named_is_compared_in_all_that_it_says_of_itself(here: LatencyTable, ask: bool) -> None:
    """Another engine, runtime, delegate or clock than would measure here now is refused, by whichever command asks."""
    path, host = Path("t.jsonl"), DeviceChoice("host")
    check_device(here, path, host, ask=ask)
    check_device(here, path, DeviceChoice("host", "python"), ask=ask)
    for engine, reason in (
        ("native", r"engine: 'python' / 'native'; runtime: 'ai_edge_litert' / 'litert_c'"),
        ("onnxruntime", r"engine: .* / 'onnxruntime'; runtime: .* / 'onnxruntime'; .*delegate: 'xnnpack' / 'cpu'"),
    ):
        with pytest.raises(OtherKey, match=reason):
            check_device(here, path, DeviceChoice("host", engine), ask=ask)
    for field, value in (
        ("engine", "imported"), ("engine", "native"), ("runtime", "zzz"), ("delegate", "gpu"), ("clock", "wall"),
        ("threads", 4), ("runtime_version", "0.0.1"),
    ):  # fmt: skip
        wrong = replace(here, key=replace(here.key, **{field: value}))
        with pytest.raises(OtherKey, match=f"{field}: {value!r} / "):
            check_device(wrong, path, host, ask=ask)


def test_what_engines_say_of_themselves_is_known_of_each() -> None:
    """A new engine has to be told here, too."""
    assert predict._RUNTIMES.keys() == ENGINES.keys()


def test_a_table_that_no_engine_measured_speaks_of_no_device(table: LatencyTable) -> None:
    """Whatever the key of an imported one says; nor does a simulated one by a real device's name."""
    for engine in ("imported", "simulated"):
        imported = replace(table, key=replace(OURS, engine=engine))
        for check in (check_device, verify_device):
            with pytest.raises(OtherKey, match=f"engine: '{engine}' / one of python, native"):
                check(imported, Path("t.jsonl"), DeviceChoice("bench"))


def test_a_simulated_table_speaks_of_its_own_device_alone(table: LatencyTable) -> None:
    """It is never looked for, and neither the real device nor this machine is answered from it."""
    simulated, path = replace(table, key=simulated_key(PROCESSORS["pixel4"])), Path("t.jsonl")
    check_device(simulated, path, DeviceChoice("simulated-pixel4"))
    check_device(simulated, path, DeviceChoice("simulated-pixel4"), ask=True)
    with pytest.raises(OtherKey):
        check_device(simulated, path, DeviceChoice("simulated-pixel4", "native"))
    for choice in (DeviceChoice("pixel4"), DeviceChoice("host")):
        with pytest.raises(UsageError, match="predict from it with --device simulated-pixel4"):
            check_device(simulated, path, choice, ask=True)


def over(table: LatencyTable, seconds: float) -> LatencyTable:
    """Make one of a table's rows later than all others."""
    key, row = next(iter(table.rows.items()))
    later = dt.datetime.fromisoformat(row.started_at) + dt.timedelta(seconds=seconds)
    return replace(table, rows={**table.rows, key: replace(row, started_at=later.isoformat())})


def test_doubts_are_told(table: LatencyTable) -> None:
    """A good young table raises none; one that is old, made up or uncalibrated says so."""
    brief_table, table = over(table, 12), over(table, 31)
    assert list(doubts(table, "int8", NOW)) == []
    (brief,) = doubts(brief_table, "int8", NOW)
    assert "all was measured within 12 s" in brief
    (old,) = doubts(table, "int8", NOW + dt.timedelta(days=700))
    assert "days ago" in old
    (uncalibrated,) = doubts(replace(table, calibrations={}), "int8", NOW)
    assert "calibrated" in uncalibrated
    poor = replace(table.calibrations["int8"], heldout_mean_error=0.113)
    (busy,) = doubts(replace(table, calibrations={"int8": poor}), "int8", NOW)
    assert "left out of the int8 calibration are 11 % off on average" in busy
    assert "others who used the machine" in busy
    row = measurement(conv().key, source="imported:somebody, 2020")
    (imported,) = doubts(replace(table, rows={conv().key: row}), "int8", NOW)
    assert "imported:somebody, 2020" in imported
    (simulated,) = doubts(replace(table, rows={conv().key: replace(row, source="simulated")}), "int8", NOW)
    assert "SIMULATED, not measured" in simulated
    timeless = replace(table, networks={}, rows={conv().key: measurement(conv().key, started_at="")}, calibrations={})
    assert len(list(doubts(timeless, "int8", NOW))) == 1  # that it has no networks


def test_a_fresh_row_makes_no_old_table_young(table: LatencyTable) -> None:
    """Its age is that of half of its rows, however many were completed yesterday."""
    later = NOW + dt.timedelta(days=700)
    fresh = {key: replace(table.rows[key], started_at=later.isoformat()) for key in list(table.rows)[:9]}
    (old,) = doubts(replace(table, rows=table.rows | fresh), "int8", later)
    assert "half of the table was measured 7" in old


@pytest.mark.parametrize("ops", [(), (FOLDED,)], ids=["no operators", "folded ones"])
def test_a_file_that_computes_nothing_is_told_as_such(
    ops: tuple[OpSpec, ...], table_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is divided by its 0 ms."""
    monkeypatch.setattr(cli_predict, "read_models", lambda options: [ModelFile(Path("net.tflite"), b"", ops)])
    words = ["predict", "net.tflite", "--device", "bench", "--table", str(table_file)]
    assert cli.run(words) == 0
    assert capsys.readouterr().out == "net.tflite: 0 ms on bench: nothing is computed in an inference\n"
    assert cli.run([*words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["net.tflite"]["total_ms"] == 0


@pytest.fixture
def kept_as(table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Work in a folder of the test, and put the table where profile keeps those of a name."""
    monkeypatch.chdir(tmp_path)

    def keep(name: str) -> Path:
        Path("tables").mkdir()
        return table_file.rename(Path("tables") / name)

    return keep


def test_a_rough_table_is_found_by_the_flag_that_made_it(
    model: ModelFile, kept_as: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Predict looks where profile wrote, with --quick and without, and else says what is there."""
    quick = kept_as("bench-mnasnet-28-narrow-quick.jsonl")
    words = ["predict", str(model.path), "--device", "bench"]
    assert cli.run(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{quick} is there: predict from it with --quick" in error
    assert f"--device bench --table tables/bench-mnasnet-28-narrow.jsonl --model {model.path}" in error
    assert cli.run([*words, "--quick"]) == 0
    assert f"{model.path}: " in capsys.readouterr().out


@pytest.mark.parametrize(("device", "is_slip"), [("bnech", True), ("bench2", True), ("host", False), ("pixel4", False)])
def test_a_slip_in_a_device_s_name_is_told_from_another_device(
    device: str, is_slip: bool, model: ModelFile, kept_as: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the device's part of a table's name counts: space and engine are the same in most of them."""
    kept_as("bench-mnasnet-28-narrow.jsonl")
    assert cli.run(["predict", str(model.path), "--device", device]) == 2
    assert ("did you mean --device bench?" in capsys.readouterr().err) == is_slip


@pytest.mark.parametrize(("device", "meant"), [("hots", "host"), ("pixle4", "pixel4")])
def test_a_slip_in_a_known_name_is_told_without_any_table(
    device: str, meant: str, model: ModelFile, kept_as: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that would measure it would not find such a device either."""
    kept_as("bench-mnasnet-96.jsonl")
    assert cli.run(["predict", str(model.path), "--device", device]) == 2
    assert f"did you mean --device {meant}?" in capsys.readouterr().err


def test_models_are_distrusted(tmp_path: Path) -> None:
    """A missing file, a text, a cut model: one line that names the file."""
    with pytest.raises(UsageError, match=r"none\.tflite cannot be read"):
        read_model(tmp_path / "none.tflite")
    for name, content in (("a.tflite", b"\x1c\0\0\0TFL3"), ("b.onnx", b"no model"), ("c.tflite", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_model(tmp_path / name)
        is_tflite = content[4:8] == b"TFL3"
        assert Model(name, content).suffix == ("tflite" if is_tflite else "")


@pytest.fixture
def table_file(model: ModelFile, tmp_path: Path, table: LatencyTable) -> Path:
    """Write a table with all of the model's operators."""
    path = tmp_path / "table.jsonl"
    file = TableFile(path, OURS)
    for op in dict.fromkeys(model.ops):
        file.add_row(table.rows[op.key])
    file.add_calibration("int8", table.calibrations["int8"])
    return path


def test_the_command_prints_total_interval_and_parts(
    model: ModelFile, table_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As text with the slowest operators first, as JSON with every part in execution order."""
    words = ["predict", str(model.path), "--device", "bench", "--table", str(table_file)]
    assert cli.run([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"][str(model.path)]
    assert found["low_ms"] < found["total_ms"] < found["high_ms"]
    assert [part["op"] for part in found["parts"]] == [op.key for op in model.ops]
    assert found["covered"] == {"table": pytest.approx(1)}
    assert cli.run([*words, "--ops", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    slowest = max(found["parts"], key=lambda part: part["ms"])
    assert f"{found['total_ms']:.4g} ms on bench" in lines[0]
    assert slowest["op"] in lines[2]
    assert len(lines) == 4


def test_the_command_refuses_with_one_line(
    model: ModelFile, table_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Another device's table, one that is not there or has nothing, a count below 0: exit code 2 and the reason."""
    TableFile(tmp_path / "empty.jsonl", OURS)
    cases = [
        (["--device", "rpi4", "--table", str(table_file)], "'bench' / 'rpi4'"),
        (["--device", "bench"], "tables/bench-mnasnet-28-narrow.jsonl"),
        (["--device", "bench", "--table", str(tmp_path / "empty.jsonl")], "edgekd profile --device bench --table"),
        (["--device", "bench", "--table", str(table_file), "--ops", "-1"], "--ops is -1, must be 0 or more"),
    ]
    for words, reason in cases:
        assert cli.run(["predict", str(model.path), *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert reason in printed.err.splitlines()[-1]


def test_two_formats_need_two_commands(model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One engine runs .tflite files and another .onnx files, so one table cannot speak of both."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    path = tmp_path / "net.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert cli.run(["predict", str(model.path), str(path), "--device", "bench"]) == 2
    assert "both formats" in capsys.readouterr().err
