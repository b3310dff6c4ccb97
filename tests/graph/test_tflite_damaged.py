"""Distrusted files: whatever bytes come in, the reader answers with operators or with one DataError, and soon."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import conv

from edgekd.errors import DataError
from edgekd.graph.micro import micro_model
from edgekd.graph.tflite_reader import read_ops
from latency_tables.op_spec import OpSpec

GATE = OpSpec.parse("mul;int8;in=1x7x7x4,1x1x1x4")
FILES = [micro_model(op) for op in (conv(4), conv(4, dtype="int8"), GATE, OpSpec.parse("mean;float32;in=1x7x7x4"))]
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


@settings(max_examples=60)
@given(content=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(content: bytes, share: float) -> None:
    """Cut anywhere, it does not raise anything else, nor is it read beyond its end."""
    check(content[: int(len(content) * share)])


@settings(max_examples=200)
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


def packed(model: schema.ModelT) -> bytes:
    """Pack a changed model again."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_unknown_operator_is_named() -> None:
    """The message says which one, and which are known."""
    model = schema.ModelT.InitFromPackedBuf(FILES[3], 0)
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SOFTMAX
    with pytest.raises(DataError, match="operator SOFTMAX is not one that edgekd knows; known: conv_2d"):
        read_ops(packed(model))


def test_an_unknown_tensor_type_is_named() -> None:
    """float16 tensors are not measured, so they are not read as something else."""
    model = schema.ModelT.InitFromPackedBuf(FILES[3], 0)
    model.subgraphs[0].tensors[0].type = schema.TensorType.FLOAT16
    with pytest.raises(DataError, match="operator mean works on tensor type 1; edgekd knows float32 and int8"):
        read_ops(packed(model))


@pytest.mark.parametrize("index", [-1, 99])
def test_an_index_out_of_range_is_not_counted_from_the_end(index: int) -> None:
    """Python's negative indices must not turn a damaged file into another operator."""
    model = schema.ModelT.InitFromPackedBuf(FILES[0], 0)
    model.subgraphs[0].operators[0].outputs = [index]
    with pytest.raises(DataError, match="damaged"):
        read_ops(packed(model))


@pytest.mark.parametrize("shape", [[1, 0, 14, 4], [1, -3, 14, 4], [1, 14, 14, 1 << 30]])
def test_an_impossible_shape_is_refused(shape: list[int]) -> None:
    """What is read could be measured: each dimension is positive and of a sane size."""
    model = schema.ModelT.InitFromPackedBuf(FILES[0], 0)
    model.subgraphs[0].tensors[0].shape = shape
    with pytest.raises(DataError, match="damaged"):
        read_ops(packed(model))


def test_weights_without_channels_do_not_divide_by_zero() -> None:
    """A kernel of the shape (8, 3, 3, 0) is damage, not groups."""
    model = schema.ModelT.InitFromPackedBuf(FILES[0], 0)
    model.subgraphs[0].tensors[1].shape = [8, 3, 3, 0]
    with pytest.raises(DataError, match="damaged"):
        read_ops(packed(model))
