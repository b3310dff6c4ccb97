"""A line from a device is read strictly or refused with a ProtocolError."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ProtocolError
from device_agents.strict_json import MAX_TEXT, Fields, clean_lines, clean_text


@given(st.text())
def test_cleaned_text_is_printable_bounded_and_stable(text: str) -> None:
    """Cleaning leaves no control or format characters, keeps the limit, and changes nothing a second time."""
    cleaned = clean_text(text)
    assert len(cleaned) <= MAX_TEXT
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in cleaned)
    assert clean_text(cleaned) == cleaned


def test_terminal_escapes_do_not_survive() -> None:
    """A device cannot move the cursor or turn the text around on our terminal."""
    assert clean_text("a\x1b[2Jb\u202ec\r\n") == "a[2Jbc"


def test_lines_of_a_traceback_stay_apart() -> None:
    """Several lines become several cleaned texts without the empty ones."""
    assert clean_lines("first\n\n  second\x07\n") == ["first", "second"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"type": 3}',
        b'{"type": "a", "x": NaN}',
        b'{"type": "a", "x": -Infinity}',
        b'{"type": "a", "x": 1, "x": 2}',
        b'{"type": "a\xff"}',
        b'{"type": "a", "x": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_plain_object_is_refused(line: bytes) -> None:
    """Broken JSON, other values, constants that are no numbers, doubled fields and endless digits are refused."""
    with pytest.raises(ProtocolError):
        Fields.of(line, "a test")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(line: bytes) -> None:
    """Whatever a device sends, nothing but ProtocolError comes out."""
    try:
        fields = Fields.of(line, "a test")
    except ProtocolError:
        return
    assert fields.type == json.loads(line)["type"]


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, 11, [1], 1e999])
def test_an_integer_has_type_and_range(value: object) -> None:
    """Booleans, floats, texts and what is out of range are no integers."""
    with pytest.raises(ProtocolError, match=r"count is .* must be an integer from 0 to 10"):
        Fields("a test", {"type": "a", "count": value}).integer("count", 0, 10)


@given(st.integers(0, 10))
def test_an_integer_in_range_is_returned(value: int) -> None:
    """The value itself comes back."""
    assert Fields("a test", {"type": "a", "count": value}).integer("count", 0, 10) == value


@pytest.mark.parametrize("value", [[float("nan")], [1e9], [True], ["1"], [0.0] * 5, 3.0, None])
def test_a_list_of_numbers_is_bounded(value: object) -> None:
    """Wrong items and too many of them are refused."""
    with pytest.raises(ProtocolError):
        Fields("a test", {"type": "a", "temps": value}).numbers("temps", -100, 200, 4)


@pytest.mark.parametrize("value", ["yesterday", "2026-01-31 12:00:00Z", "2026-01-31T12:00:00+01:00", 1738324800])
def test_a_time_is_utc_by_rfc_3339(value: object) -> None:
    """Other forms and other zones are refused."""
    with pytest.raises(ProtocolError):
        Fields("a test", {"type": "a", "at": value}).timestamp("at")


def test_unknown_and_missing_fields_are_named() -> None:
    """The message says which fields are odd."""
    with pytest.raises(ProtocolError, match="extra, wanted"):
        Fields("a test", {"type": "a", "extra": 1}).expect("type", "wanted")


KINDS = ("red", "green")


@pytest.mark.parametrize("value", [None, "red", ["blue"], ["red", "red"], [["red"]], ["red", None], {"red": 1}])
def test_choices_are_a_list_of_known_texts(value: object) -> None:
    """Unknown, doubled and other items are refused."""
    with pytest.raises(ProtocolError, match=r"flags is .* must be some of red, green"):
        Fields("a test", {"type": "a", "flags": value}).choices("flags", KINDS)


@given(st.lists(st.sampled_from(KINDS), unique=True))
def test_known_choices_keep_their_order(value: list[str]) -> None:
    """Every combination comes back as it was."""
    assert Fields("a test", {"type": "a", "flags": value}).choices("flags", KINDS) == tuple(value)


@pytest.mark.parametrize("value", [None, "ab", [1], ["a"] * 4, {"a": 1}])
def test_texts_are_a_bounded_list(value: object) -> None:
    """Other items and too many of them are refused."""
    with pytest.raises(ProtocolError, match="at most 3 texts"):
        Fields("a test", {"type": "a", "outputs": value}).texts("outputs", 3)


@pytest.mark.parametrize("value", [None, {}, [1], [[]], [{}] * 4])
def test_objects_are_a_bounded_list(value: object) -> None:
    """Other items and too many of them are refused."""
    with pytest.raises(ProtocolError, match="at most 3 objects"):
        Fields("a test", {"type": "a", "nodes": value}).objects("nodes", 3)


def test_an_object_in_a_list_is_read_field_by_field() -> None:
    """A field inside is refused like one outside, with the list's name in the message; none may be given twice."""
    line = b'{"type": "a", "nodes": [{"runs": 1}, {"runs": -1}]}'
    first, second = Fields.of(line, "a test").objects("nodes", 3)
    assert first.integer("runs", 0, 10) == 1
    with pytest.raises(ProtocolError, match="a test: nodes: runs is -1"):
        second.integer("runs", 0, 10)
    with pytest.raises(ProtocolError):
        Fields.of(b'{"type": "a", "nodes": [{"runs": 1, "runs": 2}]}', "a test")
