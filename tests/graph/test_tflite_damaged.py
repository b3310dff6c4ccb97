"""Distrusted files: whatever bytes come in, the reader answers with operators or with one DataError, and soon."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from single import changed
from synthetic import conv

from edgekd.errors import DataError
from edgekd.graph.micro import micro_model
from edgekd.graph.tflite_reader import read_ops
from latency_tables.op_spec import OpSpec

GATE = OpSpec.parse("mul;int8;in=1x7x7x4,1x1x1x4")
MEAN = OpSpec.parse("mean;float32;in=1x7x7x4")
FULL = [
    "conv_2d;float16;in=1x5x5x2;out_channels=2;kernel=3x3;padding=valid;pad=0x1x0x1;then=relu",
    "strided_slice;float32;in=1x4x4x2,cint32:4(0_0_0_0),cint32:4(1_2_2_2),cint32:4(1_1_1_1);out=1x2x2x2;@end_mask=1",
    "split;uint8;in=cint32:scalar(3),1x4x4x4;out=1x4x4x2,1x4x4x2;@num_splits=2",
    "squeeze;float32;in=1x1x1x4;out=1x4;@squeeze_dims=1_2",
    "fully_connected;dynamic_int8;in=1x1x1x8;out_channels=3",
]
FILES = [micro_model(op) for op in (conv(4), conv(4, dtype="int8"), GATE, MEAN, *map(OpSpec.parse, FULL))]
HANG_SECONDS = 20  # reading one of these takes milliseconds


@contextmanager
def watchdog() -> Iterator[None]:
    """Turn a hang into a failure."""

    def bark(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the reader hangs")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(content: bytes) -> None:
    """Read; only DataError may come out, or operators whose keys can be read again."""
    with watchdog():
        try:
            ops = read_ops(content)
        except DataError:
            return
    assert [OpSpec.parse(op.key) for op in ops] == ops


@given(st.binary(max_size=400))
def test_garbage_is_refused(content: bytes) -> None:
    """Bytes without the identifier are no .tflite file; with it they are still distrusted."""
    with pytest.raises(DataError):
        read_ops(content.replace(b"TFL3", b"TFLX"))
    check(content[:4] + b"TFL3" + content[4:])


@pytest.mark.whole  # a hundred files are read
@settings(max_examples=100)
@given(content=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(content: bytes, share: float) -> None:
    """Cut anywhere, it does not raise anything else, nor is it read beyond its end."""
    check(content[: int(len(content) * share)])


@pytest.mark.slow  # 300 files are read
@settings(max_examples=300)
@given(content=st.sampled_from(FILES), data=st.data())
def test_flipped_bits_raise_nothing_else(content: bytes, data: st.DataObject) -> None:
    """Up to four bytes changed anywhere, offsets and lengths included."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(changed))


@pytest.mark.slow
@pytest.mark.parametrize("value", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_every_single_byte_may_be_wrong(value: int) -> None:
    """Each byte of a whole file set to values that make offsets zero, negative or huge."""
    for content in FILES:
        for position in range(len(content)):
            check(content[:position] + bytes([value]) + content[position + 1 :])


def with_operator(name: str, values: list[int]) -> Callable[[Any], None]:
    """Give a change of one field of a file's first operator."""

    def change(model: Any) -> None:
        setattr(model.subgraphs[0].operators[0], name, values)

    return change


@pytest.mark.parametrize("index", [-2, -1, 99, 1 << 30])
@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_an_index_out_of_range_is_not_counted_from_the_end(field: str, index: int) -> None:
    """Python's negative indices must not turn a damaged file into another operator."""
    with pytest.raises(DataError, match="damaged"):
        read_ops(changed(FILES[0], with_operator(field, [index])))


@pytest.mark.parametrize("index", [1, 99, (1 << 31) - 1])
def test_an_operator_code_out_of_range_is_refused(index: int) -> None:
    """As is a buffer that is not there."""
    with pytest.raises(DataError, match=f"operator code {index}"):
        read_ops(changed(FILES[0], with_operator("opcodeIndex", index)))

    def change(model: Any) -> None:
        model.subgraphs[0].tensors[0].buffer = index + 10

    with pytest.raises(DataError, match=f"buffer {index + 10}"):
        read_ops(changed(FILES[0], change))


@pytest.mark.parametrize("shape", [[1, 0, 14, 4], [1, -3, 14, 4], [1, 14, 14, 1 << 30], [1] * 9, []])
def test_an_impossible_shape_is_refused(shape: list[int]) -> None:
    """What is read could be measured: each dimension is positive and of a sane size."""

    def change(model: Any) -> None:
        model.subgraphs[0].tensors[0].shape = shape

    with pytest.raises(DataError, match="damaged"):
        read_ops(changed(FILES[0], change))


def test_weights_without_channels_do_not_divide_by_zero() -> None:
    """A kernel of the shape (8, 3, 3, 0) is damage, not groups."""

    def change(model: Any) -> None:
        model.subgraphs[0].tensors[1].shape = [8, 3, 3, 0]

    with pytest.raises(DataError, match="damaged"):
        read_ops(changed(FILES[0], change))


def test_operators_that_read_themselves_or_each_other_end_the_reading() -> None:
    """A circle of unpacking operators unpacks nothing; a circle of pairs is joined at most once."""

    def unpack_itself(model: Any) -> None:
        operator = model.subgraphs[0].operators[0]
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
        operator.inputs = operator.outputs = [0]

    with watchdog():
        (op,) = read_ops(changed(FILES[3], unpack_itself))
    assert not op.is_folded
    relu = micro_model(OpSpec.parse("relu;float32;in=1x7;then=relu6;out=1x7"))

    def circle(model: Any) -> None:
        first, second = model.subgraphs[0].operators
        first.inputs, model.subgraphs[0].outputs = second.outputs, []

    with watchdog():
        assert 1 <= len(read_ops(changed(relu, circle))) <= 2


@pytest.mark.whole  # writes thousands of operators
def test_a_small_file_cannot_ask_for_much_time() -> None:
    """A vector of a million operators that are all the same one is refused by its length; so are a thousand inputs."""

    def many(model: Any) -> None:
        model.subgraphs[0].operators *= (1 << 14) + 1

    with watchdog(), pytest.raises(DataError, match="16385 operators; at most 16384"):
        read_ops(changed(FILES[3], many))
    with watchdog(), pytest.raises(DataError, match="1000 inputs; at most 256"):
        read_ops(changed(FILES[3], with_operator("inputs", [0] * 1000)))


def test_a_hostile_size_is_not_made_into_a_model() -> None:
    """An operator of terabytes can be read, but nobody tries to measure it."""

    def change(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors[:1]:
            tensor.shape = [1 << 20, 1 << 20, 1 << 20, 4]

    (op,) = read_ops(changed(FILES[0], change))
    with watchdog(), pytest.raises(DataError, match="elements, and at most"):
        micro_model(op)


def test_a_file_without_a_graph_is_refused() -> None:
    """The first graph of a file is the one that runs."""

    def change(model: Any) -> None:
        model.subgraphs = []

    with pytest.raises(DataError, match="it holds no graph"):
        read_ops(changed(FILES[0], change))


def test_a_constant_shorter_than_its_shape_is_refused() -> None:
    """Values are not taken from beyond their end."""

    def change(model: Any) -> None:
        for buffer in model.buffers[1:]:
            buffer.data = buffer.data[:-1]

    with pytest.raises(DataError, match="a constant of the shape"):
        read_ops(changed(FILES[5], change))
