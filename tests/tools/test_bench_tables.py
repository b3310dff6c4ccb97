"""tools/bench_tables.py: its statistics, its networks, what it measures and compares, and when a bar holds."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from fake_device import CALL_NS, FakeClock, HeldDevice, operators_ns
from hypothesis import given
from hypothesis import strategies as st
from synthetic import measurement

from device_agents.protocol import JobResult
from device_agents.session import Session
from edgekd import profile as profile_module
from edgekd.bench import ROUNDS, MeasuringFailed, Model
from edgekd.errors import DataError, UsageError
from edgekd.graph.ir import graph_in
from edgekd.graph.micro import random_model
from edgekd.graph.tflite_reader import read_ops
from edgekd.profile import calibration_archs
from edgekd.spaces.mnasnet import SPACES
from latency_tables.op_spec import DTYPES, OpSpec, TensorSpec
from latency_tables.schema import Measurement, Prediction
from latency_tables.store import load_table

pytestmark = pytest.mark.slow  # runs the whole tool on made-up devices

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))  # the tool's modules find each other there
    tables = importlib.import_module("bench_tables")
costs, errors, families, parts, workshop = (
    sys.modules[f"bench_{name}"] for name in ("costs", "errors", "families", "parts", "workshop")
)

milliseconds = st.floats(0.01, 1000)


class FakeBench(HeldDevice):
    """Stands for a device on which networks take the sum of their operators and one call; refuses what is named so.

    What is named opaque it runs, although edgekd cannot read it.
    """

    refused: ClassVar[str] = ""
    measured: ClassVar[list[Model]] = []
    noise: ClassVar[Iterator[float]] = itertools.repeat(1.0)

    def measure(self, models: Iterable[Model], rounds: int = ROUNDS) -> Iterator[Measurement]:
        failed = ""
        for model in models:
            if not model.suffix:
                raise UsageError(f"{model.name} is neither .tflite nor .onnx")
            try:
                ns = CALL_NS if "opaque" in model.name else CALL_NS + sum(operators_ns(model.content))
            except DataError:
                failed = model.name
                continue
            if self.refused and self.refused in model.name:
                failed = model.name
                continue
            self.measured.append(model)
            yield measurement(model.name, int(ns * next(self.noise)))
        if failed:
            raise MeasuringFailed(f"could not measure {failed}")

    def measure_settled(self, models: Sequence[Model], sentinel_ns: int) -> dict[str, Measurement]:
        assert models, "a session for nothing"
        assert sentinel_ns == measurement("any").sentinel_ns, "the machine of the table is asked for"
        return {row.subject: row for row in self.measure(models)}


@pytest.fixture
def fake_bench(monkeypatch: pytest.MonkeyPatch) -> type[FakeBench]:
    """Let the tool measure on the fake device, little of everything."""
    monkeypatch.setattr(FakeBench, "measured", [])
    monkeypatch.setattr(FakeBench, "refused", "")
    monkeypatch.setattr(profile_module, "BenchGroup", FakeBench)
    monkeypatch.setattr(workshop, "Bench", FakeBench)
    monkeypatch.setattr(workshop, "DeviceClock", FakeClock)
    monkeypatch.setattr(workshop, "space_named", lambda name: SPACES["tiny-28"])
    monkeypatch.setattr(workshop, "_corner", lambda block: block)
    monkeypatch.setattr(costs, "row_seconds", lambda folder, content: 1.0)
    monkeypatch.setattr(costs, "_per_second", lambda count, work: (work(), 2e6)[1])
    monkeypatch.setattr(costs, "_load_seconds", lambda path: 0.2)
    monkeypatch.setattr(costs, "LOAD_ROWS", 20)
    monkeypatch.setattr(tables, "QUICK", replace(workshop.QUICK, heldout=6, of_each_family=1, architectures=100))
    return FakeBench


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the tool as from the command line."""
    monkeypatch.setattr(sys, "argv", ["bench_tables.py", "--quick", *map(str, arguments)])
    return int(tables.main())


# --- the whole --------------------------------------------------------------------------------------------------------

ERRORS = {"mean_ape", "median_ape", "within_5", "within_5_high", "within_10", "spearman"}
METHODS = {"isolated_sum", "op_count_fit", "edgekd", "repeat"}
CELLS = {f"{dtype}@{px}" for dtype in ("float32", "int8") for px in (96, 160)}


def test_everything_at_once_gives_exactly_the_promised_figures(
    fake_bench: type[FakeBench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that adds up is foretold too well for a 90 % interval; all other bars hold, and the file tells all."""
    assert run(monkeypatch, "--json", tmp_path / "out.json", "--two-threads") == 1, capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    two_threads = {"float32@160", "int8@160"}
    for part, cells, rough in (
        ("heldout", CELLS, {"quick"}),
        ("heldout_loaded", CELLS, set()),
        ("two_threads", two_threads, set()),
    ):
        assert set(found[part]) == cells
        for methods in found[part].values():
            assert set(methods) == METHODS | rough
            assert all(set(figures) == ERRORS for figures in methods.values())
            assert methods["repeat"]["mean_ape"] == 0.0
            assert methods["edgekd"]["mean_ape"] < 0.5
    assert set(found["other_family"]) == set(DTYPES)
    assert all(set(of["edgekd"]) == ERRORS | {"interval_coverage"} for of in found["other_family"].values())
    assert set(found["device_seconds"]) == {"edgekd", "quick", "process_per_row", "process_per_quick_row"}
    assert set(found["predictions_per_s"]) == {"single", "vectorised", "dict_sum"}
    assert found["interval_coverage"] == 1.0
    assert found["load_table_5000_s"] == 0.2
    assert found["missed_bars"] == ["interval_coverage 1 is above 0.95"]
    assert "third_party" not in found
    assert {"cpu", "cores", "load_before", "load_after"} <= set(found["machine"])


def test_a_missed_bar_ends_with_one_and_is_named(
    fake_bench: type[FakeBench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code tells a script, the last line a person, the file both."""
    monkeypatch.setattr(costs, "_load_seconds", lambda path: 0.4)
    assert run(monkeypatch, "--parts", "load_table", "--json", tmp_path / "out.json") == 1
    assert capsys.readouterr().out.rstrip().endswith("missed: load_table_5000_s 0.4 is above 0.3")
    assert len(json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["missed_bars"]) == 1


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped part must not look like a run without missed bars."""
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "--parts", "heldout,load")
    assert caught.value.code == 2
    assert "unknown part 'load'; known: device_seconds, heldout" in capsys.readouterr().err


def test_measuring_again_is_compared_with_the_same_reference(
    fake_bench: type[FakeBench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sessions 1, 4 and 2 % slower than the first make a repeat error of 2 %, their median; the table is exact."""
    shop = workshop.Workshop(tmp_path, replace(tables.QUICK, pairs=3))
    shop.profiled(96)
    shop.rough(96)
    count = shop.scale.heldout
    slower = itertools.chain.from_iterable([factor] * count for factor in (1.0, 1.01, 1.04, 1.02))
    monkeypatch.setattr(fake_bench, "noise", slower)
    cell = tables.Cell.measured(shop, 96, "float32", tables.ALONE)
    assert next(slower, None) is None, "nothing else was measured"
    assert cell.stats["repeat"]["mean_ape"] == pytest.approx(2.0, abs=0.05)
    assert cell.stats["edgekd"]["mean_ape"] < 0.5
    assert cell.ms["repeat_2"] == pytest.approx([1.04 * ms for ms in cell.ms["reference"]], rel=1e-3)


@pytest.mark.parametrize(("argument", "value"), [("--held-out", "0"), ("--pairs", "-1"), ("--pairs", "two")])
def test_a_count_is_an_integer_from_one(
    argument: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None at all must not silently mean the default."""
    with pytest.raises(SystemExit):
        run(monkeypatch, f"{argument}={value}")
    assert f"argument {argument}: {value!r} is not an integer from 1" in capsys.readouterr().err


def test_counts_that_are_named_replace_the_defaults() -> None:
    """One held-out network is one; what is not named stays."""
    scale = tables._scale(tables._options(["--held-out", "1"]))
    assert scale == replace(workshop.FULL, heldout=1)
    assert tables._scale(tables._options(["--px", "96"])) == replace(workshop.FULL, resolutions=(96,))


def test_a_resolution_that_no_space_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message says which are known."""
    with pytest.raises(SystemExit):
        tables._options(["--px", "96,97"])
    assert "unknown resolution '97'; known: 96,160" in capsys.readouterr().err


# --- files of other authors -------------------------------------------------------------------------------------------


@pytest.fixture
def contents() -> dict[str, bytes]:
    """Give files of two networks of other families."""
    return {name: random_model(graph) for name, graph in families.family_graphs(96, 1).items()}


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def third_party(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> tuple[int, dict[str, Any]]:
    """Run the part alone; give the exit code and what the file holds."""
    code = run(monkeypatch, "--parts", "load_table", "--third-party", folder, "--json", tmp_path / "out.json")
    return code, json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


def test_the_runtime_says_which_files_of_other_authors_count(
    fake_bench: type[FakeBench], contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it cannot run, a file that is no model among it, is no miss and is named; equal files count once."""
    files = {
        "again/good.tflite": contents["resnet-16"],
        "good.tflite": contents["resnet-16"],
        "cannot.tflite": contents["mobilenet-v3-small-0.5"],
        "damaged.tflite": contents["resnet-16"][:5000],
        "empty.tflite": b"",
    }
    monkeypatch.setattr(fake_bench, "refused", "cannot.tflite")
    code, result = third_party(monkeypatch, tmp_path, written(tmp_path / "files", files))
    found = result["third_party"]
    assert code == 0
    assert (found["models"], found["missed"], found["within_10"]) == (1, {}, 1.0)
    assert found["interval_coverage"] in (0.0, 1.0)
    assert {name.partition("@")[0] for name in found["refused"]} == {"cannot.tflite", "damaged.tflite", "empty.tflite"}
    assert [name.partition("@")[0] for name in result["third_party_ms"]] == ["again/good.tflite"]


def test_a_file_that_runs_and_cannot_be_predicted_is_a_miss(
    fake_bench: type[FakeBench], contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that cannot be read halves the share beside one that is foretold, and is named with the reason."""
    files = {"good.tflite": contents["resnet-16"], "opaque.tflite": contents["resnet-16"][:5000]}
    code, result = third_party(monkeypatch, tmp_path, written(tmp_path / "files", files))
    found = result["third_party"]
    assert (found["models"], found["within_10"], found["within_5"]) == (2, 0.5, 0.5)
    ((name, reason),) = found["missed"].items()
    assert name.startswith("opaque.tflite@")
    assert "opaque.tflite" in reason
    assert code == 1
    assert result["missed_bars"] == ["third_party.within_10 0.5 is below 0.9"]


def test_an_operator_that_cannot_be_measured_alone_makes_a_miss_of_its_file_only(
    fake_bench: type[FakeBench], contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other file's operators are measured all the same; without a row of its kind nothing is estimated."""
    files = {"good.tflite": contents["resnet-16"], "hard.tflite": contents["mobilenet-v3-small-0.5"]}
    monkeypatch.setattr(fake_bench, "refused", "hard_swish;")
    _, result = third_party(monkeypatch, tmp_path, written(tmp_path / "files", files))
    found = result["third_party"]
    assert (found["models"], found["within_10"]) == (2, 0.5)
    ((name, reason),) = found["missed"].items()
    assert name.startswith("hard.tflite@")
    assert "no row for hard_swish" in reason


def test_where_nothing_can_be_predicted_the_share_is_none(
    fake_bench: type[FakeBench], contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is 0, not an error and not missing; nothing is measured then."""
    folder = written(tmp_path / "files", {"opaque.tflite": contents["resnet-16"][:5000]})
    code, result = third_party(monkeypatch, tmp_path, folder)
    assert code == 1
    assert (result["third_party"]["models"], result["third_party"]["within_10"]) == (1, 0.0)


def test_a_folder_that_is_not_there_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after half an hour of measuring."""
    with pytest.raises(SystemExit):
        run(monkeypatch, "--third-party", tmp_path / "nowhere")
    assert "nowhere' is not a folder" in capsys.readouterr().err


# --- bars -------------------------------------------------------------------------------------------------------------


def heldout(
    edgekd: Mapping[str, float] = {}, repeat: Mapping[str, float] = {}, quick_mean_ape: float = 2.0
) -> dict[str, Any]:
    """Give a result of one cell in which every bar is reached exactly, and changes to it."""
    at_the_bars = {"mean_ape": 1.5, "median_ape": 1.0, "within_5_high": 0.99, "spearman": 0.995}
    methods = {
        "isolated_sum": {"mean_ape": 2.0},
        "op_count_fit": {"mean_ape": 9.0},
        "edgekd": at_the_bars | dict(edgekd),
        "quick": {"mean_ape": quick_mean_ape},
        "repeat": {"mean_ape": 0.9, "median_ape": 0.7} | dict(repeat),
    }
    return {"heldout": {"int8@96": methods}}


def device_seconds(**seconds: float) -> dict[str, Any]:
    """Give what tables cost beside 58 s of a process a row, and 29 s for the rows of a quick one."""
    return {"device_seconds": {**seconds, "process_per_row": 58.0, "process_per_quick_row": 29.0}}


AT_THE_BARS = heldout() | {
    "other_family": {"int8": {"edgekd": {"mean_ape": 5.0, "within_10": 0.95}}},
    "device_seconds": {"edgekd": 2.0, "quick": 1.0, "process_per_row": 60.0, "process_per_quick_row": 30.0},
    "predictions_per_s": {"single": 1.0, "vectorised": 1e6, "dict_sum": 1.0},
    "load_table_5000_s": 0.3,
    "two_threads": heldout({"mean_ape": 99.0})["heldout"],
    "third_party": {"models": 3, "within_10": 0.9},
    "interval_coverage": 0.95,
}


def test_a_bar_that_is_just_reached_holds() -> None:
    """The bars are the least that is asked for; two threads have none."""
    assert tables.missed_bars(AT_THE_BARS) == []
    assert tables.missed_bars({"interval_coverage": 0.85}) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (heldout({"mean_ape": 1.6}), "heldout.int8@96.edgekd.mean_ape 1.6 is above 1.5"),
        (heldout({"median_ape": 1.1}), "heldout.int8@96.edgekd.median_ape 1.1 is above 1"),
        (heldout({"within_5_high": 0.98}), "heldout.int8@96.edgekd.within_5_high 0.98 is below 0.99"),
        (heldout({"spearman": 0.99}), "heldout.int8@96.edgekd.spearman 0.99 is below 0.995"),
        (heldout({"mean_ape": 2.1}, {"mean_ape": 2.0, "median_ape": 2.0}), "mean_ape beside isolated_sum's 2.1"),
        (heldout({}, {"mean_ape": 1.0, "median_ape": 0.5}), "heldout.int8@96.edgekd.median_ape 1 is above 0.75"),
        ({"heldout_loaded": heldout({"spearman": 0.9})["heldout"]}, "heldout_loaded.int8@96.edgekd.spearman"),
        ({"other_family": {"int8": {"edgekd": {"mean_ape": 5.1, "within_10": 1.0}}}}, "int8.edgekd.mean_ape 5.1"),
        ({"other_family": {"int8": {"edgekd": {"mean_ape": 1.0, "within_10": 0.9}}}}, "int8.edgekd.within_10 0.9"),
        ({"third_party": {"models": 10, "within_10": 0.8}}, "third_party.within_10 0.8 is below 0.9"),
        ({"interval_coverage": 0.84}, "interval_coverage 0.84 is below 0.85"),
        ({"interval_coverage": 0.96}, "interval_coverage 0.96 is above 0.95"),
        (device_seconds(edgekd=2.0, quick=0.5), "device_seconds ratio 29 is below 30"),
        (device_seconds(edgekd=1.0, quick=1.0), "device_seconds ratio of --quick 29 is below 30"),
        (heldout(quick_mean_ape=2.1), "heldout.int8@96.quick.mean_ape beside isolated_sum's 2.1 is above 2"),
        ({"predictions_per_s": {"vectorised": 9e5}}, "predictions_per_s.vectorised 9e+05"),
    ],
)
def test_each_missed_bar_is_named_with_its_value(changes: dict[str, Any], named: str) -> None:
    """A result below one bar says which and by how much."""
    missed = tables.missed_bars(changes)
    assert any(named in text for text in missed), missed


def test_on_a_noisy_machine_the_bars_follow_what_measuring_again_gives() -> None:
    """From a repeat error of 1 % on, the errors may be half as large again, and no larger."""
    noisy = {"mean_ape": 1.25, "median_ape": 1.0}
    assert tables.missed_bars(heldout({"mean_ape": 1.875, "median_ape": 1.5}, noisy)) == []
    (missed,) = tables.missed_bars(heldout({"mean_ape": 1.88, "median_ape": 1.5}, noisy))
    assert "mean_ape 1.88 is above 1.875" in missed


# --- statistics -------------------------------------------------------------------------------------------------------


def test_errors_are_relative_to_what_was_measured() -> None:
    """Off by 0, 4, 5 and 20 %: percent for errors, shares for what is within, the limits themselves included."""
    found = errors.errors_of([1.0, 0.96, 2.1, 1.2], [1.0, 1.0, 2.0, 1.0])
    assert found["mean_ape"] == pytest.approx(7.25)
    assert found["median_ape"] == pytest.approx(4.5)
    assert found["within_10"] == 0.75
    assert found["spearman"] == pytest.approx(errors.spearman([1.0, 0.96, 2.1, 1.2], [1.0, 1.0, 2.0, 1.0]))


def test_a_miss_is_within_nothing() -> None:
    """Two good predictions beside two misses are half; the errors are those of what was predicted."""
    found = errors.errors_of([1.0, 2.0], [1.0, 2.0], 2)
    assert found["within_5"] == found["within_10"] == 0.5
    assert found["within_5_high"] == pytest.approx(errors.wilson_high(2, 4))
    assert found["mean_ape"] == 0.0


def test_coverage_counts_what_is_inside_an_interval_and_on_its_ends() -> None:
    """From 0.9 to 1.2 of a prediction of 1: four of six."""
    one = Prediction(1.0, 0.9, 1.2, ())
    assert errors.interval_coverage([one] * 6, [0.89, 0.9, 1.0, 1.1, 1.2, 1.21]) == pytest.approx(4 / 6)


@given(st.lists(milliseconds, min_size=2, unique=True))
def test_a_perfect_prediction_is_perfect_in_every_figure(measured: list[float]) -> None:
    """No error, all within, ranks equal."""
    found = errors.errors_of(measured, measured)
    assert found["mean_ape"] == found["median_ape"] == 0.0
    assert found["within_5"] == found["within_5_high"] == found["within_10"] == 1.0
    assert found["spearman"] == pytest.approx(1.0)


def test_the_upper_end_of_a_share_is_wilsons() -> None:
    """Of none in ten it is z²/(n + z²), and a few misses of two hundred still may be a true 99 %."""
    assert errors.wilson_high(0, 10) == pytest.approx(0.2775, abs=1e-4)
    assert errors.wilson_high(5, 10) == pytest.approx(0.7634, abs=1e-4)
    assert errors.wilson_high(196, 200) > 0.99 > errors.wilson_high(194, 200)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_upper_end_is_between_the_share_and_one(pair: tuple[int, int]) -> None:
    """It is never below what was seen, and grows with it."""
    hits, count = pair
    assert hits / count <= errors.wilson_high(hits, count) + 1e-12
    assert errors.wilson_high(hits, count) <= 1.0
    if hits:
        assert errors.wilson_high(hits - 1, count) < errors.wilson_high(hits, count) + 1e-12


@given(st.lists(milliseconds, min_size=2, unique=True), st.randoms(use_true_random=False))
def test_ranks_ignore_the_scale_and_the_order_of_networks(values: list[float], rng: Any) -> None:
    """Any growing function of a list ranks it alike; its reverse ranks it the other way round."""
    assert errors.spearman(values, [value**3 for value in values]) == pytest.approx(1.0)
    assert errors.spearman(values, [-value for value in values]) == pytest.approx(-1.0)
    other = [rng.random() for _ in values]
    order = rng.sample(range(len(values)), len(values))
    shuffled = errors.spearman([values[i] for i in order], [other[i] for i in order])
    assert shuffled == pytest.approx(errors.spearman(values, other))


def test_equal_values_share_their_rank_and_a_constant_has_none() -> None:
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: a known coefficient. A prediction that never changes tells nothing."""
    assert errors.spearman([1, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert errors.spearman([3, 3, 3], [1, 2, 3]) == 0.0


def test_an_operator_count_fit_finds_the_cost_of_each_group() -> None:
    """Networks that cost exactly so much an operator are predicted exactly."""
    cost = np.array([0.2, 0.7, 0.3, 0.05, 0.4])

    def network(counts: Iterable[int]) -> list[OpSpec]:
        tensor = (TensorSpec((1, 8, 8, 8)),)
        kinds = (
            OpSpec("conv_2d", tensor, "float32", 8),
            OpSpec("conv_2d", tensor, "float32", 8, (3, 3)),
            OpSpec("depthwise_conv_2d", tensor, "float32", 8, (3, 3)),
            OpSpec("mean", tensor, "float32"),
        )
        return [op for op, count in zip(kinds, counts, strict=True) for _ in range(count)]

    counts = np.random.default_rng(0).integers(1, 9, (12, 4))
    ms = [float(cost @ (*row, 1)) for row in counts.tolist()]
    fit = errors.OpCountFit.of([network(row) for row in counts.tolist()], ms)
    assert fit.predict_ms(network((2, 0, 5, 1))) == pytest.approx(float(cost @ (2, 0, 5, 1, 1)))


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("px", workshop.RESOLUTIONS)
def test_no_network_is_both_calibrated_on_and_held_out(px: int, tmp_path: Path) -> None:
    """The full run's networks are as many as promised, distinct, and unknown to the calibration."""
    shop = workshop.Workshop(tmp_path, workshop.FULL)
    held_out = shop._held_out_archs(shop.space(px))
    assert len(set(held_out)) == len(held_out) == 200
    assert workshop.FULL.calibration <= 20
    for count in (workshop.FULL.calibration, workshop.ROUGH.networks):
        assert not set(held_out) & set(calibration_archs(shop.space(px), count))


def test_another_seed_holds_out_other_networks(tmp_path: Path) -> None:
    """What a study chooses by must not be what the bars are judged by; the same seed gives the same networks."""
    shops = [workshop.Workshop(tmp_path, workshop.FULL, seed) for seed in (1, 1, 2)]
    one, same, other = (shop._held_out_archs(shop.space(96)) for shop in shops)
    assert one == same
    assert not set(one) & set(other)


def test_a_space_without_enough_networks_is_an_error(tmp_path: Path) -> None:
    """Drawing ends, and says so."""
    shop = workshop.Workshop(tmp_path, replace(workshop.QUICK, heldout=60))
    with pytest.raises(RuntimeError, match="fewer than 60 networks to hold out"):
        shop._held_out_archs(SPACES["tiny-28"])


def test_a_quick_run_takes_a_corner_of_each_space_with_its_reference(tmp_path: Path) -> None:
    """The reference is among the calibration networks, so it must be there; most else need not."""
    shop = workshop.Workshop(tmp_path, workshop.QUICK)
    for px in workshop.RESOLUTIONS:
        space, full = shop.space(px), workshop.Workshop(tmp_path, workshop.FULL).space(px)
        assert space.arch(space.choices(space.reference())) == full.reference()
        assert space.size < full.size


def test_networks_are_written_once(fake_bench: type[FakeBench], tmp_path: Path) -> None:
    """The second time the same files are given, untouched, and each holds the operators that it is said to hold."""
    shop = workshop.Workshop(tmp_path, tables.QUICK)
    first = shop.held_out(96, "float32")
    stamps = [file.path.stat().st_mtime_ns for file in first]
    assert shop.held_out(96, "float32") == first
    assert [file.path.stat().st_mtime_ns for file in first] == stamps
    assert all(tuple(read_ops(file.path.read_bytes())) == file.ops for file in first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", range(3))
def test_networks_of_other_families_are_what_they_say_and_run(family: int, dtype: str) -> None:
    """A file of each family holds the graph's operators and gives finite numbers in the real runtime."""
    name, build = families.FAMILIES[family][0]
    graph = graph_in(build(96), dtype)
    content = random_model(graph)
    assert read_ops(content) == list(graph.ops), name
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    image = np.random.default_rng(0).standard_normal((1, 96, 96, 3), np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    assert np.isfinite(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])).all()


def test_other_families_hold_what_they_are_known_for() -> None:
    """Twenty networks or more of different sizes, with residual sums, grouped convolutions, splits and hard-swishes."""
    graphs = families.family_graphs(96)
    kinds = {name: {op.kind for op in graph.ops} for name, graph in graphs.items()}
    assert len(graphs) >= 20
    assert len({graph.macs for graph in graphs.values()}) == len(graphs)
    assert {"conv_2d", "add", "max_pool_2d"} <= kinds["resnet-16"]
    assert {"split", "concatenation", "transpose", "depthwise_conv_2d"} <= kinds["shufflenet-v2-116"]
    assert max(op.groups for op in graphs["shufflenet-v1-g4"].ops) == 4
    assert {"hard_swish", "mul", "mean"} <= kinds["mobilenet-v3-large-1.0"]


# --- conditions and clocks --------------------------------------------------------------------------------------------


def test_a_core_is_kept_busy_while_the_block_runs_and_not_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """The neighbour uses the processor, also while this process sleeps, and ends with the block, whatever happened.

    It ends with its input, which a killed process closes, too.
    """
    started = []
    popen = workshop.subprocess.Popen

    def remembered(*args: Any, **kwargs: Any) -> Any:
        started.append(popen(*args, **kwargs))
        return started[-1]

    def watch() -> None:
        with workshop.ALONE.held(), workshop.Condition(loaded=True).held():
            deadline = time.monotonic() + 30
            while used_ticks(started[0].pid) < 2 and time.monotonic() < deadline:
                pass
            assert used_ticks(started[0].pid) >= 2
            raise KeyboardInterrupt

    monkeypatch.setattr(workshop.subprocess, "Popen", remembered)
    with pytest.raises(KeyboardInterrupt):
        watch()
    assert [process.returncode for process in started] == [0]


def used_ticks(pid: int) -> int:
    """Read how much processor time a process has used."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11])


def result_of(subject: str) -> JobResult:
    """Make what a device answers for a job."""
    return JobResult(subject, "ok")


def test_the_clock_runs_from_the_first_push_to_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time before the first batch and after the last row does not count, time between batches does."""
    now = itertools.count(100.0)
    monkeypatch.setattr(workshop.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(Session, "measure", lambda session, names: map(result_of, names))
    measure = cast("Callable[..., Iterator[JobResult]]", Session.measure)
    with workshop.DeviceClock() as clock:
        timed = cast("Callable[..., Iterator[JobResult]]", Session.measure)
        assert list(timed("session", ["a", "b"])) == [result_of("a"), result_of("b")]
        next(now)
        assert list(timed("session", ["c"])) == [result_of("c")]
    assert clock.seconds_for("abc") == 4.0, (
        "one tick a look at the clock: 100 the start, 101 and 102 rows, 104 the last"
    )
    assert cast("Callable[..., Iterator[JobResult]]", Session.measure) is measure


def test_a_clock_that_did_not_see_every_row_has_no_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that measured past it must not look fast."""
    monkeypatch.setattr(Session, "measure", lambda session, names: map(result_of, names))
    with workshop.DeviceClock() as clock:
        assert len(list(cast("Callable[..., Iterator[JobResult]]", Session.measure)("session", ["a"]))) == 1
    with pytest.raises(RuntimeError, match="1 rows were measured past the clock, which may not tell: b"):
        clock.seconds_for("ab")


def test_a_host_has_the_threads_that_it_is_given() -> None:
    """All else is this machine's."""
    one, two = workshop.Host().find(), workshop.Host(threads=2).find()
    assert replace(one, threads=2) == two


def test_the_made_up_table_is_one_that_loads(tmp_path: Path) -> None:
    """So many distinct rows of real operators, each with all its samples on both clocks."""
    costs.write_table(tmp_path / "table.jsonl", 100)
    table = load_table(tmp_path / "table.jsonl")
    assert len(table.rows) == 100
    assert {len(row.samples_ns) for row in table.rows.values()} == {costs.LOAD_SAMPLES}
    assert {len(row.wall_samples_ns) for row in table.rows.values()} == {costs.LOAD_SAMPLES}
    assert len(set(itertools.chain.from_iterable(row.samples_ns for row in table.rows.values()))) > 1000


def test_a_load_is_timed_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the whole table, and a table of another length is an error instead of a time."""
    costs.write_table(tmp_path / "table.jsonl", 30)
    monkeypatch.setattr(costs, "LOAD_ROWS", 30)
    assert costs._load_seconds(tmp_path / "table.jsonl") > 0
    monkeypatch.setattr(costs, "LOAD_ROWS", 31)
    with pytest.raises(RuntimeError, match="30 rows of 31"):
        costs._load_seconds(tmp_path / "table.jsonl")
