"""Lines come out of a stream as they went in, however the stream was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ProtocolError
from device_agents.lines import LineBuffer
from device_agents.transport import MAX_LINE_BYTES


def taken(buffer: LineBuffer) -> list[bytes]:
    """Take every line that is there."""
    return list(iter(buffer.take, None))


@given(st.lists(st.binary(max_size=12)))
def test_lines_do_not_depend_on_how_the_stream_was_cut(chunks: list[bytes]) -> None:
    """Chunk by chunk the same lines come as from the whole, and what has no end yet waits."""
    buffer = LineBuffer("a test")
    lines = []
    for chunk in chunks:
        buffer.feed(chunk)
        lines += taken(buffer)
    *whole, rest = b"".join(chunks).split(b"\n")
    assert lines == whole
    assert len(buffer) == len(rest)


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), min_size=1))
def test_a_line_waits_for_its_newline(lines: list[bytes]) -> None:
    """Lines with newlines after each come out whole, and nothing is left."""
    buffer = LineBuffer("a test")
    buffer.feed(b"".join(line + b"\n" for line in lines))
    assert taken(buffer) == lines
    assert len(buffer) == 0


def test_the_longest_line_is_taken() -> None:
    """A line of exactly the limit is honest, in one chunk or in two that part before its newline."""
    for cut in (MAX_LINE_BYTES + 1, MAX_LINE_BYTES, 7):
        stream, buffer = b"x" * MAX_LINE_BYTES + b"\n", LineBuffer("a test")
        buffer.feed(stream[:cut])
        first = buffer.take()
        buffer.feed(stream[cut:])
        assert first or buffer.take() == stream[:-1]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nmore\n"])
def test_a_longer_line_is_refused_and_stays_refused(end: bytes) -> None:
    """One byte above the limit is a ProtocolError that names the speaker, with or without a newline, and again."""
    buffer = LineBuffer("the liar")
    buffer.feed(b"x" * (MAX_LINE_BYTES + 1) + end)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="the liar sent a line above"):
            buffer.take()
        buffer.feed(b"\n")


def test_lines_before_a_line_that_is_too_long_come_first() -> None:
    """What was said in order is not lost to what follows."""
    buffer = LineBuffer("a test")
    buffer.feed(b"good\n" + b"x" * (MAX_LINE_BYTES + 1))
    assert buffer.take() == b"good"
    with pytest.raises(ProtocolError):
        buffer.take()
