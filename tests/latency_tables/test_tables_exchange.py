"""Other tools' tables, in and out: names and means come back, and what cannot be trusted is refused with its line."""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import KEY, conv, measurement
from table_files import OPS, filled

from latency_tables.errors import FileDamaged, FileExists, NotExportable, TableError
from latency_tables.exporters import WRITERS, export_table, mean_ms
from latency_tables.foreign import fbnet_fields, fbnet_op, ofa_name, ofa_op
from latency_tables.importers import READERS, Provenance, import_table
from latency_tables.op_spec import OpSpec
from latency_tables.store import LatencyTable, load_table

PROVENANCE = Provenance(
    "ProxylessNAS, mobile_trim.yaml", replace(KEY, device="pixel1", engine="imported", clock="wall")
)

# as ProxylessNAS's and Once-for-All's own readers spell their questions
BLOCKS = [
    "Conv-input:224x224x3-output:112x112x32",
    "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
    "expanded_conv-input:28x28x40-output:28x28x40-expand:6-kernel:7-stride:1-idskip:1",
    "expanded_conv-input:56x56x24-output:28x28x40-expand:72-kernel:5-stride:2-idskip:0-se:1-hs:0",
    "Conv_1-input:7x7x320-output:7x7x1280",
    "AvgPool2D-input:7x7x960-output:1x1x960",
    "Conv_2-input:1x1x960-output:1x1x1280",
    "Logits-input:7x7x1280-output:1000",
]
FOREIGN = {name: {"count": 60 + i, "mean": 5.138 / (i + 1), "var": 0.0003 * i} for i, name in enumerate(BLOCKS)}

# as the lookup table of mobile-vision holds operators of Caffe2
RECORD: dict[str, Any] = {
    "op_type": "Int8ConvRelu",
    "op_args": [
        'name: "Y_scale"\nf: 0.0236\n',
        'name: "kernels"\nints: 3\nints: 3\n',
        'name: "order"\ns: "NHWC"\n',
        'name: "stride"\ni: 2\n',
    ],
    "input_shapes": [[1, 112, 112, 32], [32, 3, 3, 1], [32]],
    "input_dtypes": [6, 6, 2],
    "runtime_us_p0": 350.0,
    "runtime_us_p10": 355.0,
    "runtime_us_p50": 363.0,
    "runtime_us_p90": 390.5,
    "runtime_us_p100": 512.0,
    "device": "SM-G950U-7.0-24",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the path of a foreign file to be written."""
    return tmp_path / "foreign"


def imported(file: Path, form: str) -> LatencyTable:
    """Import a foreign file into a table beside it."""
    out = file.with_name("imported.jsonl")
    out.unlink(missing_ok=True)
    table = import_table(file, form, PROVENANCE, out)
    assert load_table(out) == table
    return table


# --- there and back ---------------------------------------------------------------------------------------------------


def test_a_proxylessnas_table_comes_back_with_its_names_and_means(file: Path, tmp_path: Path) -> None:
    """Means to the nanosecond, counts as they were; a variance is not known any more, and so not claimed."""
    file.write_text(yaml.safe_dump(FOREIGN))
    table = imported(file, "ofa-yaml")
    out = tmp_path / "out.yaml"
    assert export_table(table, "ofa-yaml", out) == len(FOREIGN)
    back = yaml.safe_load(out.read_text())
    assert back.keys() == FOREIGN.keys()
    for name, fields in FOREIGN.items():
        assert back[name] == {"count": fields["count"], "mean": pytest.approx(fields["mean"], abs=5.1e-7)}


def test_a_block_is_no_operator_of_ours(file: Path) -> None:
    """It is of a kind of its own, with its numbers as attributes, and its row says where it comes from."""
    name = BLOCKS[3]
    file.write_text(yaml.safe_dump({name: {"mean": 1.5}}))
    (row,) = imported(file, "ofa-yaml").rows.values()
    key = "ofa_expanded_conv;float32;in=1x56x56x24;out=1x28x28x40;@expand=72;@hs=0;@idskip=0;@kernel=5;@se=1;@stride=2"
    assert row.subject == key
    assert row.samples_ns == row.wall_samples_ns == (1_500_000,)
    assert (row.source, row.started_at) == ("imported:ProxylessNAS, mobile_trim.yaml", "")


def test_both_yaml_styles_are_read(file: Path) -> None:
    """A flow mapping a line, or a block mapping."""
    flow = f"{BLOCKS[0]}: {{count: 3, mean: 2.5, var: 1.0e-05}}\n"
    block = f"{BLOCKS[1]}:\n  count: 3\n  mean: 3\n"
    file.write_text(flow + block)
    assert [row.quiet_ms for row in imported(file, "ofa-yaml").rows.values()] == [2.5, 3.0]


numbers = st.integers(0, 99).map(str)
shapes = st.lists(st.integers(1, 999), min_size=1, max_size=3).map(lambda dims: "x".join(map(str, dims)))


@given(st.sampled_from(["Conv", "Conv_1", "expanded_conv"]), shapes, shapes, st.sampled_from([0, 4, 6]), st.data())
def test_any_block_name_comes_back(kind: str, input_: str, output: str, count: int, data: st.DataObject) -> None:
    """ofa_name is the inverse of ofa_op."""
    names = ("expand", "kernel", "stride", "idskip", "se", "hs")[:count]
    text = "-".join([kind, f"input:{input_}", f"output:{output}", *(f"{n}:{data.draw(numbers)}" for n in names)])
    op = ofa_op(text, "int8")
    assert ofa_name(op) == text
    assert OpSpec.parse(op.key) == op


def test_an_fbnet_record_comes_back(file: Path, tmp_path: Path) -> None:
    """Type, arguments, shapes and types of the inputs; its median; not what its own reader ignores."""
    file.write_text(json.dumps(RECORD) + "\n\n")
    table = imported(file, "fbnet")
    (row,) = table.rows.values()
    assert row.quiet_ms == 0.363
    assert row.subject.startswith(
        "fbnet_int8convrelu;int8;in=1x112x112x32,32x3x3x1,32;@arg_kernels=ints:3_3;@arg_order=s:"
    )
    out = tmp_path / "out.json"
    export_table(table, "fbnet", out)
    kept = {name: RECORD[name] for name in ("op_type", "input_shapes", "input_dtypes", "runtime_us_p50")}
    assert json.loads(out.read_text()) == kept | {"op_args": RECORD["op_args"][1:], "device": "pixel1"}


def test_further_fbnet_records_of_an_operator_are_further_attempts(file: Path) -> None:
    """Its own reader averages them."""
    again = RECORD | {"runtime_us_p50": 365.0}
    file.write_text(json.dumps(RECORD) + "\n" + json.dumps(again))
    (row,) = imported(file, "fbnet").rows.values()
    assert (row.attempt, row.samples_ns) == (2, (363_000, 365_000))


@pytest.mark.whole  # writes and reads sixty files
@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 10**12)), min_size=1, max_size=5, unique_by=lambda r: r[0])
)
@pytest.mark.parametrize("form", sorted(READERS))
def test_our_own_rows_survive_every_format(
    tmp_path_factory: pytest.TempPathFactory, form: str, rows: list[tuple[int, int]]
) -> None:
    """Keys come back equal and means (fbnet: medians) to the nanosecond, and a second round changes nothing."""
    assert READERS.keys() == WRITERS.keys()
    folder = tmp_path_factory.mktemp("exchange")
    ops = [conv(channels, dtype="int8") for channels, _ in rows]
    measured = {op.key: measurement(op.key, ns) for op, (_, ns) in zip(ops, rows, strict=True)}
    export_table(LatencyTable(KEY, measured), form, folder / "a")
    table = import_table(folder / "a", form, PROVENANCE, folder / "a.jsonl")
    assert table.rows.keys() == measured.keys()
    centre = statistics.median if form == "fbnet" else statistics.fmean
    assert all(abs(table.rows[key].samples_ns[0] - centre(row.samples_ns)) <= 1 for key, row in measured.items())
    export_table(table, form, folder / "b")
    assert import_table(folder / "b", form, PROVENANCE, folder / "b.jsonl").rows == table.rows


def test_a_csv_says_all_that_is_known_of_a_row(tmp_path: Path) -> None:
    """One line a row, with a header; a table of a program of columns reads it as it is."""
    table = filled(tmp_path / "t.jsonl").table
    export_table(table, "csv", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as text:
        first, *others = list(csv.DictReader(text))
    assert len(others) == 2
    assert first == {
        "key": OPS[0].key,
        "mean_ms": "0.00101",
        "median_ms": "0.00101",
        "min_ms": "0.001",
        "max_ms": "0.00102",
        "samples": "3",
        "inferences": "450",
        "attempts": "1",
        "started_at": "2026-01-02T03:04:05Z",
        "source": "measured",
        "flags": "",
    }
    assert mean_ms(table.rows[OPS[0].key]) == 0.00101


# --- what is refused --------------------------------------------------------------------------------------------------

BLOCK = BLOCKS[1]
WRONG_YAML = [
    ("", "line 1: this is not a mapping"),
    ("- 1\n", "line 1: this is not a mapping"),
    (f"{BLOCK}: 5\n", "line 1: this is not a mapping"),
    (f"{BLOCK}: {{mean: 1}}\n{BLOCK}: {{mean: 1}}\n", "line 2: 'expanded_conv.* is there twice"),
    (f"{BLOCK}: {{mean: 1, mean: 2}}\n", "line 1: 'mean' is there twice"),
    (f"{BLOCK}: {{count: 1}}\n", "line 1: a block must have mean"),
    (f"{BLOCK}: {{mean: 1, median: 2}}\n", "line 1: a block must have mean"),
    (f"{BLOCK}:\n  mean: 1\n  count: 0\n", "line 1: a count of 0"),
    (f"{BLOCK}: {{mean: 1, count: 1.5}}\n", "line 1: a count of 0"),
    (f"{BLOCK}:\n  count: 1\n  mean: -0.5\n", "line 1: a mean of -0.5 ms is not from 1 ns"),
    (f"{BLOCK}: {{mean: 0}}\n", "line 1: a mean of 0.0 ms"),
    (f"{BLOCK}: {{mean: 1.0e+300}}\n", r"line 1: 1e\+300 is not a finite number up to 10"),
    (f"{BLOCK}:\n  count: 1\n  mean: .nan\n", "line 3: '.nan' is not a number"),
    (f"{BLOCK}: {{mean: .inf}}\n", "line 1: '.inf' is not a number"),
    (f"{BLOCK}: {{mean: {'9' * 400}}}\n", "line 1: inf is not a finite number"),
    (f"{BLOCK}: {{mean: [1]}}\n", "line 1: this is not a mapping"),
    (f"{BLOCK}: {{mean: 1_000}}\n", "line 1: '1_000' is not a number"),
    (f"{BLOCK}: {{mean: !!python/object/apply:os.system [echo]}}\n", "line 1: this is not a mapping"),
    (f"{BLOCK}: {{mean: !!str 1}}\n", "line 1: this is not a mapping"),
    (f"{BLOCK}: &a {{mean: 1}}\n{BLOCKS[2]}: *a\n", "line 2: this is not a mapping"),
    (f"{BLOCK}: {{mean: 1}}\n---\n{BLOCK}: {{mean: 1}}\n", "line 2: this is not a mapping"),
    ("Pool-input:1x1x1-output:1x1x1: {mean: 1}\n", "line 1: block .* is none of Conv, Conv_1"),
    ("Conv-output:1x1x1-input:1x1x1: {mean: 1}\n", "line 1: block .* has not the fields"),
    ("Conv-input:1x1x0-output:1x1x1: {mean: 1}\n", "line 1: input:1x1x0 in block .* is no shape"),
    ("Conv-input:1x99999999x3-output:1x1x1: {mean: 1}\n", "line 1: .*16777216"),
    (f"{BLOCK}1e9: {{mean: 1}}\n", "line 1: idskip:01e9 in block"),
    (f"{BLOCK}-se:0: {{mean: 1}}\n", "line 1: block .* has not the fields"),
    ("conv_2d;float32: {mean: 1}\n", "line 1: operator key"),
    ("1: {mean: 1}\n", "line 1: block '1' is none of"),
    ("? [a]\n: {mean: 1}\n", "line 1: this is not a mapping"),
    ("<<: {mean: 1}\n", "line 1: block '<<' is none of"),
    (f"{BLOCK}: {{mean: 1\n", "line 2: no YAML"),
    ("\tx: 1\n", "line 1: no YAML"),
    ("[" * 100_000, "line 1: this is not a mapping"),
    ("{a: " * 100_000, "line 1: "),
    (f"{BLOCK}: " + "[" * 100_000, "line 1: this is not a mapping"),
    ("a: \x07", "line 1: no YAML"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG_YAML)
def test_a_wrong_yaml_is_refused_with_its_line(file: Path, text: str, reason: str) -> None:
    """No object is made of what it asks for, and no table is begun."""
    file.write_text(text)
    refused(file, "ofa-yaml", reason)


def without(name: str) -> dict[str, Any]:
    """Leave a field of the record out."""
    return {key: value for key, value in RECORD.items() if key != name}


WRONG_RECORDS = [
    (without("runtime_us_p50"), "field 'runtime_us_p50' is missing"),
    (without("op_args"), "field 'op_args' is missing"),
    (RECORD | {"speed": 1}, "unknown field 'speed'"),
    (RECORD | {"runtime_us_p50": -1}, "a mean of -0.001 ms"),
    (RECORD | {"runtime_us_p50": True}, "'True' is not a number"),
    (RECORD | {"runtime_us_p50": "1"}, "'1' is not a number"),
    (RECORD | {"runtime_us_p50": 10**400}, "1000.* is not a finite number"),
    (RECORD | {"runtime_us_p50": None}, "'None' is not a number"),
    (RECORD | {"device": "other"}, "device 'other' is not that of the first row"),
    (RECORD | {"device": 5}, "device '5' is not that"),
    (RECORD | {"op_type": "a b"}, "op_type 'a b' is no operator's name"),
    (RECORD | {"op_type": 5}, "op_type '5'"),
    (RECORD | {"op_args": "stride"}, "op_args is not a list of texts"),
    (RECORD | {"op_args": [1]}, "op_args is not a list of texts"),
    (RECORD | {"op_args": ["stride: 2"]}, "argument 'stride: 2' is not of the form"),
    (RECORD | {"op_args": ['name: "a"\ni: 1\nf: 2\n']}, "holds several values"),
    (RECORD | {"op_args": ['name: "a"\ni: 1\ni: 2\n']}, "holds several values"),
    (RECORD | {"op_args": ['name: "a"\ns: "two words"\n']}, "operator key|unknown field"),
    (RECORD | {"op_args": ['name: "edgekd_key"\ns: "conv_2d;float32;in=1x8"\n']}, "the record is not that of its"),
    (RECORD | {"input_shapes": [[1, 2]]}, "not two lists of the same length"),
    (RECORD | {"input_shapes": [], "input_dtypes": []}, "not two lists"),
    (RECORD | {"input_shapes": [[1], [1], ["1"]]}, "something else than lists of integers"),
    (RECORD | {"input_shapes": [[1], [1], 5]}, "something else than lists of integers"),
    (RECORD | {"input_shapes": [[0], [1], [1]]}, "operator key"),
    (RECORD | {"input_shapes": [[-1], [1], [1]]}, "operator key"),
    (RECORD | {"input_shapes": [[10**9], [1], [1]]}, "operator key"),
    (RECORD | {"input_dtypes": [1, 1, True]}, "input_dtypes is not a list of integers"),
]


@pytest.mark.parametrize(("record", "reason"), WRONG_RECORDS)
def test_a_wrong_fbnet_record_is_refused_with_its_line(file: Path, record: dict[str, Any], reason: str) -> None:
    """The third line, behind a right one."""
    file.write_text(json.dumps(RECORD) + "\n\n" + json.dumps(record) + "\n")
    refused(file, "fbnet", f"line 3: .*({reason})")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("NaN", "NaN is no number"), ("[", "no JSON"), ('{"a":' * 100_000, "no JSON"), ("[]", "no JSON")],
)
def test_a_fbnet_line_that_is_no_json_is_refused(file: Path, text: str, reason: str) -> None:
    """However deep it is nested."""
    file.write_text(f'{{"op_type": {text}}}\n' if text == "NaN" else text + "\n")
    refused(file, "fbnet", f"line 1: .*{reason}")


CSV = "key,mean_ms\n" + OPS[0].key
WRONG_CSV = [
    ("", "line 1: the first line must name key and mean_ms"),
    ("key\n", "line 1: the first line"),
    ("key,mean_ms,colour\n", "line 1: the first line"),
    ("key,mean_ms,key\n", "line 1: the first line"),
    ("key,mean_ms\n", "line 1: there are no rows"),
    (f"{CSV}\n", "line 2: 1 cells and 2 columns"),
    (f"{CSV},1,2\n", "line 2: 3 cells"),
    (f"{CSV},fast\n", "line 2: 'fast' is not a number"),
    (f"{CSV},nan\n", "line 2: 'nan' is not a number"),
    (f"{CSV},-1\n", "line 2: a mean of -1.0 ms"),
    (f"{CSV},1e-7\n", "line 2: a mean of 1e-07 ms is not from 1 ns"),
    (f"{CSV},1\n{OPS[0].key},1\n", "line 3: .* is there twice"),
    ("key,mean_ms\nconv,1\n", "line 2: operator key"),
    ('key,mean_ms\n"conv,1\n', "line [23]: unexpected end of data"),
    (f"key,mean_ms,inferences\n{OPS[0].key},1,0.5\n", "line 2: a count of 0"),
    ("key,mean_ms\n" + "x" * 200_000 + ",1\n", "line 2: field larger than"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG_CSV)
def test_a_wrong_csv_is_refused_with_its_line(file: Path, text: str, reason: str) -> None:
    """Columns, cells, keys and numbers."""
    file.write_text(text)
    refused(file, "csv", reason)


@pytest.mark.whole  # reads 64 MB
@pytest.mark.parametrize("form", sorted(READERS))
def test_a_file_that_is_not_there_or_no_text_is_refused(file: Path, form: str) -> None:
    """A missing file, a folder, and bytes that are no UTF-8, with the line of the first."""
    refused(file, form, "cannot be read: No such file")
    refused(file.parent, form, "cannot be read: Is a directory")
    file.write_bytes(b"a\nb\xff")
    refused(file, form, "line 2: a byte is not of UTF-8")
    with file.open("wb") as large:
        large.truncate(1 << 30)
    refused(file, form, "line 1: more than 67108864 bytes")


@pytest.mark.slow  # 150 files are made and read
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.integers(0, 10**6), st.integers(0, 10**6), st.binary(max_size=4))
def test_whatever_a_foreign_file_holds_only_our_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, form: str, start: int, length: int, put: bytes
) -> None:
    """Bytes replaced, dropped or added anywhere: a table that reads back, or one line of refusal."""
    folder = tmp_path_factory.mktemp("hostile")
    whole = {"ofa-yaml": yaml.safe_dump(FOREIGN), "fbnet": json.dumps(RECORD) + "\n", "csv": f"{CSV},1.5\n"}[
        form
    ].encode()
    start %= len(whole)
    (folder / "in").write_bytes(whole[:start] + put + whole[start + length % 5 :])
    try:
        table = import_table(folder / "in", form, PROVENANCE, folder / "out.jsonl")
    except TableError:
        assert not (folder / "out.jsonl").exists()
    else:
        assert load_table(folder / "out.jsonl") == table


def refused(file: Path, form: str, reason: str) -> None:
    """See that a file is refused for a reason, and that no table is begun."""
    out = file.parent / "refused.jsonl"
    with pytest.raises(FileDamaged, match=reason) as caught:
        import_table(file, form, PROVENANCE, out)
    assert len(str(caught.value)) < 1000
    assert not out.exists()


def test_an_existing_table_or_file_is_never_overwritten(file: Path, tmp_path: Path) -> None:
    """Neither by an import nor by an export."""
    file.write_text(yaml.safe_dump(FOREIGN))
    before = file.read_bytes()
    with pytest.raises(FileExists):
        import_table(file, "ofa-yaml", PROVENANCE, file)
    with pytest.raises(FileExists):
        export_table(imported(file, "ofa-yaml"), "csv", file)
    assert file.read_bytes() == before


def test_two_rows_of_one_name_are_not_exported(tmp_path: Path) -> None:
    """ProxylessNAS's names say no dtype; the message says what holds both rows."""
    ops = [ofa_op(BLOCK, dtype) for dtype in ("float32", "int8")]
    table = LatencyTable(KEY, {op.key: measurement(op.key) for op in ops})
    with pytest.raises(
        NotExportable, match="cannot be written as ofa-yaml: another row has the same name there; export to"
    ):
        export_table(table, "ofa-yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export_table(table, "csv", tmp_path / "out") == 2


def test_an_operator_of_ours_is_named_by_its_key_in_a_record() -> None:
    """With Caffe2's codes for its inputs' types."""
    fields = fbnet_fields(OPS[2])
    assert fields["op_type"] == "conv_2d"
    assert fields["input_dtypes"] == [7]
    assert fbnet_op(fields) == OPS[2]


def test_without_pyyaml_the_other_formats_work(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ofa-yaml needs it; the error names the module, for the command line to name the extra."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    file.write_text(f"{CSV},1.5\n")
    assert imported(file, "csv").rows
    attempts: list[Callable[[], object]] = [
        lambda: import_table(file, "ofa-yaml", PROVENANCE, file.with_name("o")),
        lambda: export_table(LatencyTable(KEY), "ofa-yaml", file.with_name("o")),
    ]
    for attempt in attempts:
        with pytest.raises(ModuleNotFoundError) as caught:
            attempt()
        assert caught.value.name == "yaml"
