"""Reading files that others made: pairs, packed weights, custom and unknown operators, options, operands, long keys."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from examples import KEYS
from single import changed, file_of

from edgekd.errors import DataError
from edgekd.graph.micro import micro_model
from edgekd.graph.tflite_reader import network_dtype, read_ops
from latency_tables.op_spec import MAX_KEY, OpSpec

CONV = "conv_2d;float32;in=1x9x9x8;out_channels=8;kernel=3x3;padding=valid"
ONE_BY_ONE = "conv_2d;float32;in=1x9x9x8;out_channels=8"
PAD = "pad;float32;in=1x7x7x8,cint32:4x2({});out=1x9x9x8"
AROUND = PAD.format("0_0_1_1_1_1_0_0")
RELU = "relu;float32;in=1x9x9x8;out=1x9x9x8"


def keys(content: bytes) -> list[str]:
    """List the keys of a file's operators."""
    return [op.key for op in read_ops(content)]


def test_a_pad_of_zeros_before_a_window_is_measured_with_it() -> None:
    """The pair has the picture before the pad as its input; what is before and after stays."""
    found = keys(file_of(("add;float32;in=1x7x7x8,1x7x7x8", "a b", "sum"), (AROUND, "sum -", "p"), (CONV, "p", "conv")))
    assert found[0] == "add;float32;in=1x7x7x8,1x7x7x8"
    assert found[1:] == ["conv_2d;float32;in=1x7x7x8;out_channels=8;kernel=3x3;padding=valid;pad=1x1x1x1"]


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        (
            [(AROUND, "x -", "p"), (CONV, "p", "c"), (CONV, "p", "d"), ("add;float32;in=1x7x7x8,1x7x7x8", "c d", "e")],
            "",
        ),
        ([(AROUND, "x -", "p"), (CONV, "p", "c")], "p c"),
        ([(AROUND, "x -", "p"), (ONE_BY_ONE, "p", "c")], ""),
        ([(AROUND, "x -", "p"), ("add;float32;in=1x9x9x8,1x9x9x8", "p y", "c")], ""),
        ([("pad;float32;in=1x9x9x6,cint32:4x2(0_0_0_0_0_0_0_2);out=1x9x9x8", "x -", "p"), (CONV, "p", "c")], ""),
        ([("pad;float32;in=1x7x7x8,cint32:4x2;out=1x9x9x8", "x q", "p"), (CONV, "p", "c")], ""),
        ([("mirror_pad;float32;in=1x7x7x8,cint32:4x2(0_0_1_1_1_1_0_0);out=1x9x9x8", "x -", "p"), (CONV, "p", "c")], ""),
    ],
    ids=["two readers", "an output", "padding same", "no window", "channels", "computed amounts", "no zeros"],
)
def test_other_pads_are_operators_of_their_own(steps: list[tuple[str, str, str]], outputs: str) -> None:
    """Whatever is not a plain pair stays as the file has it."""
    steps = [(key.replace("cint32:4x2;", "int32:4x2;"), inputs, name) for key, inputs, name in steps]
    assert keys(file_of(*steps, outputs=outputs)) == [key for key, _, _ in steps]


def test_an_activation_is_measured_with_what_it_alone_reads() -> None:
    """Convolution, sum and pad alike; the second of two activations stands for itself."""
    found = keys(file_of((ONE_BY_ONE, "x", "c"), (RELU, "c", "r"), (RELU.replace("relu;", "relu6;"), "r", "s")))
    assert found == [f"{ONE_BY_ONE};then=relu", RELU.replace("relu;", "relu6;")]
    found = keys(file_of((AROUND, "x -", "p"), (CONV, "p", "c"), (RELU.replace("9x9", "7x7"), "c", "r")))
    assert found == ["conv_2d;float32;in=1x7x7x8;out_channels=8;kernel=3x3;padding=valid;pad=1x1x1x1;then=relu"]


def test_operators_between_a_pair_keep_their_place() -> None:
    """The pair stands where its first operator was, in execution order."""
    steps = [(ONE_BY_ONE, "x", "a"), (CONV, "x", "b"), (RELU, "a", "r")]
    assert keys(file_of(*steps, outputs="b r")) == [f"{ONE_BY_ONE};then=relu", CONV]


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ([(ONE_BY_ONE, "x", "c"), (RELU, "c", "r")], "c r"),
        ([(ONE_BY_ONE, "x", "c"), (RELU, "c", "r"), ("add;float32;in=1x9x9x8,1x9x9x8", "c r", "s")], ""),
        (
            [
                ("split;float32;in=cint32:scalar(3),1x9x9x16;out=1x9x9x8,1x9x9x8;@num_splits=2", "- x", "s"),
                (RELU, "s", "r"),
            ],
            "",
        ),
        ([(RELU, "x", "r")], ""),
    ],
    ids=["an output", "two readers", "one of two outputs", "the file's input"],
)
def test_other_activations_are_operators_of_their_own(steps: list[tuple[str, str, str]], outputs: str) -> None:
    """What is read elsewhere before the activation must be computed without it."""
    assert keys(file_of(*steps, outputs=outputs)) == [key for key, _, _ in steps]


def test_unpacked_weights_are_constants_and_their_unpacking_is_folded() -> None:
    """DENSIFY and DEQUANTIZE of constants cost an inference nothing, and what reads them has float16 weights."""
    prelu = "prelu;float16;in=1x7x7x8,c1x1x8;out=1x7x7x8"

    def pack_once_more(model: Any) -> None:
        graph = model.subgraphs[0]
        stored = graph.operators[0].inputs[0]
        dense = schema.TensorT()
        dense.shape, dense.type, dense.name = graph.tensors[stored].shape, schema.TensorType.FLOAT16, "dense"
        densify = schema.OperatorT()
        densify.opcodeIndex, densify.inputs, densify.outputs = len(model.operatorCodes), [stored], [len(graph.tensors)]
        graph.operators[0].inputs = [len(graph.tensors)]
        graph.tensors.append(dense)
        graph.operators.insert(0, densify)
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
        model.operatorCodes.append(code)

    plain = read_ops(micro_model(OpSpec.parse(prelu)))
    assert [op.key for op in plain] == ["dequantize;float32;in=cfloat16:1x1x8", prelu]
    packed = read_ops(changed(micro_model(OpSpec.parse(prelu)), pack_once_more))
    assert [op.key for op in packed] == ["densify;float32;in=cfloat16:1x1x8;out=1x1x8", *(op.key for op in plain)]
    assert [op.is_folded for op in packed] == [True, True, False]


def customised(model: Any, name: bytes | None, options: bytes = b"") -> None:
    """Make a file's only operator a custom one."""
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name
    operator = model.subgraphs[0].operators[0]
    operator.builtinOptionsType, operator.builtinOptions = 0, None
    operator.customOptions = np.frombuffer(options, np.uint8) if options else None


STRANGE = b"a name\n; with=anything"  # in letters that a key cannot hold


def digest(content: bytes) -> str:
    """Give the beginning of a hash, as attributes hold it."""
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "options", "attributes"),
    [
        (b"Mine", b"", "@code=Mine"),
        (b"Mine", b"\x01\x02", "@code=Mine;@options=hex:0102"),
        (b"Mine", bytes(65), f"@code=Mine;@options={digest(bytes(65))}"),
        (STRANGE, b"", f"@code=sha256:{digest(STRANGE)}"),
        (None, b"", "@code=unnamed"),
    ],
)
def test_a_custom_operator_is_told_by_its_name_and_options(name: bytes | None, options: bytes, attributes: str) -> None:
    """A name with other letters than a key may have is told apart by a hash; nothing is ever joined with it."""
    content = file_of((RELU, "x", "c"), (RELU.replace("relu;", "relu6;"), "c", "r"))
    first, second = keys(changed(content, lambda model: customised(model, name, options)))
    assert first == f"custom;float32;in=1x9x9x8;out=1x9x9x8;{attributes}"
    assert second == RELU.replace("relu;", "relu6;")


def test_an_operator_of_a_newer_schema_bears_its_number() -> None:
    """It can be told apart, and not be measured."""

    def change(model: Any) -> None:
        model.operatorCodes[0].builtinCode = 999

    (op,) = read_ops(changed(micro_model(OpSpec.parse(RELU)), change))
    assert op.key == RELU.replace("relu", "builtin_999")
    with pytest.raises(DataError, match="builtin_999 is not a builtin operator"):
        micro_model(op)


def test_an_unmeasurable_type_is_named() -> None:
    """Texts are no tensors of a vision model."""

    def change(model: Any) -> None:
        model.subgraphs[0].tensors[0].type = schema.TensorType.STRING

    with pytest.raises(DataError, match="tensor 0 is of the type string; edgekd knows float32, float16"):
        read_ops(changed(micro_model(OpSpec.parse(RELU)), change))


@pytest.mark.parametrize("axes", [[1, 2], [2, 1], [-3, -2]])
def test_a_global_mean_has_one_spelling(axes: list[int]) -> None:
    """However the file names height and width."""

    def change(model: Any) -> None:
        model.buffers[1].data = np.array(axes, "<i4").view(np.uint8)

    assert keys(changed(micro_model(OpSpec.parse("mean;int8;in=1x7x7x8")), change)) == ["mean;int8;in=1x7x7x8"]


def test_a_matrix_product_is_spelled_as_the_runtime_sees_it() -> None:
    """The input of a fully connected operator on more dimensions is a matrix of rows as long as the weights are."""

    def change(model: Any) -> None:
        tensors = model.subgraphs[0].tensors
        tensors[0].shape, tensors[-1].shape = [1, 2, 7, 8], [1, 2, 7, 5]
        model.subgraphs[0].operators[0].builtinOptions.keepNumDims = True

    content = micro_model(OpSpec.parse("fully_connected;float32;in=14x8;out_channels=5"))
    assert keys(changed(content, change)) == ["fully_connected;float32;in=14x8;out_channels=5"]


def test_a_missing_bias_and_missing_operands_do_not_count_from_the_end() -> None:
    """-1 stands for no tensor."""

    def change(model: Any) -> None:
        operator = model.subgraphs[0].operators[0]
        operator.inputs = [*operator.inputs[:2], -1]

    assert keys(changed(micro_model(OpSpec.parse(CONV)), change)) == [CONV]


def test_slices_to_the_end_have_values_that_a_key_can_hold() -> None:
    """64-bit ends mean the same as the largest 32-bit one."""
    key = "slice;float32;in=1x8,cint64:2(0_0),cint64:2(1_8);out=1x8"

    def change(model: Any) -> None:
        model.buffers[2].data = np.array([-1, (1 << 63) - 1], "<i8").view(np.uint8)

    (op,) = read_ops(changed(micro_model(OpSpec.parse(key)), change))
    assert op.inputs[2].values == (-1, (1 << 31) - 1)


def test_a_key_that_is_too_long_is_told_apart_by_a_hash() -> None:
    """A concatenation of sixty maps stays within a job's name; another one of sixty has another hash."""
    found = []
    for last in (7, 8):
        shapes = [(1, 128, 128, 16)] * 59 + [(1, 128, 128, last)]
        text = ",".join("x".join(map(str, shape)) for shape in shapes)
        key = f"concatenation;float32;in={text};out=1x128x128x{59 * 16 + last};@axis=3"
        assert len(key) > MAX_KEY
        names = " ".join(f"x{number}" for number in range(60))
        (op,) = read_ops(file_of((key, names, "all")))
        assert len(op.key) <= MAX_KEY
        assert op.kind == "concatenation"
        found.append(op)
    assert found[0].attributes != found[1].attributes
    with pytest.raises(DataError, match="too long"):
        micro_model(found[0])


def test_options_are_spelled_in_the_letters_of_a_key() -> None:
    """Floats as they were written, lists with underscores, names that do not fit by a hash."""
    found = {
        key: dict(read_ops(micro_model(OpSpec.parse(key)))[0].attributes)
        for key in KEYS
        if key.startswith(("leaky_relu;float32", "squeeze;float32", "mirror_pad;float32"))
    }
    assert {"alpha": "0.1"} in found.values()
    assert {"squeeze_dims": "1_2"} in found.values()
    assert {"mode": "1"} in found.values()

    def change(model: Any) -> None:
        options = schema.StableHLOCompositeOptionsT()
        options.name, options.decompositionSubgraphIndex = b"odml.group norm", 1
        options.compositeAttributes = np.zeros(100_000, np.uint8)
        operator = model.subgraphs[0].operators[0]
        operator.builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
        operator.builtinOptions2 = options
        model.operatorCodes[0].builtinCode = schema.BuiltinOperator.STABLEHLO_COMPOSITE

    (op,) = read_ops(changed(micro_model(OpSpec.parse(RELU)), change))
    attributes = dict(op.attributes)
    assert op.kind == "stablehlo_composite"
    assert attributes["decomposition_subgraph_index"] == "1"
    assert attributes["name"].startswith("sha256:")
    assert attributes["composite_attributes"].startswith("sha256:")
    with pytest.raises(DataError, match="other graphs of its file"):
        micro_model(op)


@pytest.mark.parametrize(
    ("ops", "dtype"),
    [
        ([], "float32"),
        (["conv_2d;int8;in=1x9x9x8;out_channels=8", "softmax;float32;in=1x8;out=1x8"], "int8"),
        (["conv_2d;uint8;in=1x9x9x8;out_channels=8"], "int8"),
        (["conv_2d;dynamic_int8;in=1x9x9x8;out_channels=8"], "float32"),
        (["conv_2d;float16;in=1x9x9x8;out_channels=8", "dequantize;int8;in=c8x1x1x8"], "float32"),
        (["conv_2d;int8;in=1x9x9x8;out_channels=8", "fully_connected;float32;in=1x80;out_channels=10"], "float32"),
        (
            ["add;int8;in=1x8,1x8", "add;int8;in=1x8,1x8", "dequantize;int8;in=1x8", "relu;float32;in=1x8;out=1x8"],
            "int8",
        ),
    ],
)
def test_most_of_the_weights_say_which_calibration_speaks_for_a_file(ops: list[str], dtype: str) -> None:
    """What unpacks weights at loading has no say; without weights the operators are counted."""
    assert network_dtype(map(OpSpec.parse, ops)) == dtype
