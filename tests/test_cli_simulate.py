"""`edgekd table simulate`: a table without a device, judged by what is published, and marked as simulated."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from edgekd.cli_simulate import add_simulate, simulate
from edgekd.errors import UnknownName
from edgekd.graph.ir import graph_in
from edgekd.published import FIGURES, operators
from edgekd.search.latency import LatencyModel
from edgekd.simulate import compare, interval_error, processor_named
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from latency_tables.errors import OtherSettings
from latency_tables.features import output_shapes, sizes_of
from latency_tables.store import load_table

pytestmark = pytest.mark.whole  # whole commands

TINY = "tiny-28"


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    add_simulate(parser)
    parser.add_argument("--format", default="text")
    simulate(parser.parse_args(arguments))


@pytest.fixture
def table_path(tmp_path: Path) -> Path:
    return tmp_path / "tables" / "pixel4.jsonl"


def test_the_table_covers_the_space_and_predicts(table_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every architecture of the space has a prediction with a wide interval, in both dtypes."""
    run("pixel4", str(table_path), "--space", TINY)
    space, table = space_named(TINY), load_table(table_path)
    model = LatencyModel.of(space, table)
    for dtype in ("float32", "int8"):
        prediction = model.predict(space.reference(), dtype)
        ops = graph_in(graph_of(space, space.reference()), dtype).ops
        assert prediction.total_ms == pytest.approx(sum(table.rows[op.key].quiet_ms for op in ops))
        assert prediction.high_ms > 1.2 * prediction.total_ms
    assert "SIMULATED" in capsys.readouterr().err


def test_every_row_and_the_key_say_simulated(table_path: Path) -> None:
    """No row is taken for a measured one, nor the table for one of the phone."""
    run("pixel4", str(table_path), "--space", TINY)
    table = load_table(table_path)
    assert {row.source for row in table.rows.values()} == {"simulated"}
    assert table.key.device == "simulated-pixel4"
    assert not table.networks


def test_the_result_shows_the_error_against_published_figures(
    table_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result names each published network with its figure, source and error, as text and as JSON."""
    run("rpi4", str(table_path), "--space", TINY, "--dtype", "int8")
    text = capsys.readouterr().out
    run("rpi4", str(table_path), "--space", TINY, "--dtype", "int8", "--format", "json")
    result = json.loads(capsys.readouterr().out)
    figures = [figure for figure in FIGURES if figure.dtype == "int8"]
    assert [row["published_ms"] for row in result["published"]] == [figure.ms for figure in figures]
    assert all(figure.network in text and figure.source in text for figure in figures)
    assert result["interval_error"].keys() == {"int8"}
    assert result["rows"] == len(load_table(table_path).rows)


def test_a_further_run_adds_only_what_lacks(table_path: Path) -> None:
    """The same command changes nothing; another dtype completes the file."""
    run("pixel4", str(table_path), "--space", TINY, "--dtype", "float32")
    before = table_path.read_bytes()
    run("pixel4", str(table_path), "--space", TINY, "--dtype", "float32")
    assert table_path.read_bytes() == before
    run("pixel4", str(table_path), "--space", TINY)
    assert table_path.read_bytes().startswith(before)
    assert load_table(table_path).calibrations.keys() == {"float32", "int8"}


def test_a_table_of_another_device_is_not_mixed_in(table_path: Path) -> None:
    """A file begun for one device refuses another's rows."""
    run("pixel4", str(table_path), "--space", TINY)
    with pytest.raises(OtherSettings):
        run("rpi5", str(table_path), "--space", TINY)


def test_names_and_aliases_are_those_of_the_catalogue() -> None:
    """A device is found by its alias; of one without figures, the host among them, the message names those with."""
    assert processor_named("raspberry-pi-4") is processor_named("RPi4")
    for name in ("host", "galaxy-s21", "nothing"):
        with pytest.raises(UnknownName, match="pixel4"):
            processor_named(name)


# Multiply-accumulates in millions, as the papers tell them: MobileNetV1 table 4, MobileNetV2 table 4, MobileNetV3
# table 3; the minimalistic one as the README of its checkpoints.
@pytest.mark.parametrize(
    ("network", "macs_m"),
    [
        ("mobilenet-v1", 569),
        ("mobilenet-v2", 300),
        ("mobilenet-v3-large", 219),
        ("mobilenet-v3-small", 56),
        ("mobilenet-v3-large-minimalistic", 209),
    ],
)
def test_published_networks_are_the_published_ones(network: str, macs_m: float) -> None:
    """Their work is what their papers tell, and each ends in a thousand classes."""
    ops = operators(network, "float32")
    assert sum(sizes_of(op).macs for op in ops) / 1e6 == pytest.approx(macs_m, rel=0.02)
    assert output_shapes(ops[-1]) == ((1, 1000),)
    assert {op.dtype for op in operators(network, "int8")} == {"int8"}


def test_the_simulation_is_as_near_to_what_is_published_as_it_says() -> None:
    """No published figure is missed by more than the interval, and the mean error is far below it."""
    compared = compare()
    assert len(compared) == len(FIGURES)
    assert all(
        abs(c.error) <= interval_error(processor_named(c.figure.device), c.figure.dtype) + 1e-9 for c in compared
    )
    assert sum(abs(c.error) for c in compared) / len(compared) < 0.15


def test_what_was_fitted_to_published_figures_is_judged_by_networks_left_out(
    table_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The int8 share is as well chosen for its figures as any; tables keep the errors of fits without the network."""
    run("pixel3", str(table_path), "--space", TINY)
    text = capsys.readouterr().out
    fits, compared = load_table(table_path).calibrations, {dtype: compare([dtype]) for dtype in ("float32", "int8")}
    means = {d: sum(abs(c.error) for c in of) / len(of) for d, of in compared.items()}
    left_out = {d: sum(abs(c.left_out_error) for c in of) / len(of) for d, of in compared.items()}
    assert left_out["float32"] == means["float32"]
    assert left_out["int8"] > means["int8"]
    assert {dtype: fit.heldout_mean_error for dtype, fit in fits.items()} == pytest.approx(left_out)
    assert f"int8: mean error {100 * means['int8']:.0f} %, fitted to these, {100 * left_out['int8']:.0f} %" in text
    assert f"float32: mean error {100 * means['float32']:.0f} %, nothing fitted" in text


def test_a_device_of_which_nothing_is_published_is_doubted_more() -> None:
    """The interval of a device without figures is wider than that of any with."""
    known = {c.figure.device for c in compare(["float32"])}
    assert "pixel4" not in known
    widest = max(interval_error(processor_named(device), "float32") for device in known)
    assert interval_error(processor_named("pixel4"), "float32") > widest
