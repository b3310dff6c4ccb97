"""The nouns of a table: operator keys that read back, measurements and what is derived from them."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from synthetic import KEY, conv, measurement

from latency_tables.errors import OpSyntaxError, TableError
from latency_tables.schema import CONTENDED, DTYPES, THROTTLED, Measurement, OpSpec, TableKey, TensorSpec, merged

dimensions = st.integers(1, 1 << 24)
pairs = st.tuples(dimensions, dimensions)
tensors = st.builds(TensorSpec, st.lists(dimensions, min_size=1, max_size=5).map(tuple), st.booleans())
specs = st.builds(
    OpSpec,
    kind=st.sampled_from(["conv_2d", "mean", "add"]) | st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True),
    inputs=st.lists(tensors, min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(DTYPES),
    out_channels=st.just(0) | dimensions,
    kernel=pairs,
    stride=pairs,
    dilation=pairs,
    padding=st.sampled_from(["same", "valid"]),
    groups=dimensions,
    act=st.sampled_from(["none", "relu", "relu6"]),
)


@given(specs)
@example(OpSpec("mean", (TensorSpec((1, 7, 7, 80)),), "int8"))
def test_a_key_reads_back_as_its_operator(spec: OpSpec) -> None:
    """OpSpec.parse is the inverse of key."""
    assert OpSpec.parse(spec.key) == spec


def test_a_key_names_only_what_differs_from_the_defaults() -> None:
    """The text is in a fixed order, readable, and free of what does not matter to the kind."""
    spec = OpSpec("conv_2d", (TensorSpec((1, 28, 28, 8)),), "int8", 16, (3, 3), (2, 2), act="relu6")
    assert spec.key == "conv_2d;int8;in=1x28x28x8;out_channels=16;kernel=3x3;stride=2x2;act=relu6"
    gate = OpSpec("mul", (TensorSpec((1, 7, 7, 8)), TensorSpec((1, 1, 1, 8), constant=True)), "float32")
    assert gate.key == "mul;float32;in=1x7x7x8,c1x1x1x8"


@given(st.text(max_size=60) | st.text("conv_2d;float32;in=1x8,c;kernel=3stride", max_size=60))
def test_any_text_is_refused_or_is_a_key(text: str) -> None:
    """Nothing but OpSyntaxError comes out of a hostile text, and what is accepted is in its one canonical form."""
    assert _refused_or_canonical(text)


@given(spec=specs, data=st.data())
def test_a_changed_key_is_refused_or_is_the_key_of_another_operator(spec: OpSpec, data: st.DataObject) -> None:
    """A character replaced, dropped or added never yields an operator that spells itself differently."""
    start = data.draw(st.integers(0, len(spec.key)))
    end = data.draw(st.integers(start, min(start + 2, len(spec.key))))
    put = data.draw(st.text(";=,xc0123456789.-_ \n" + "٣", max_size=3))
    assert _refused_or_canonical(spec.key[:start] + put + spec.key[end:])


def _refused_or_canonical(text: str) -> bool:
    try:
        return OpSpec.parse(text).key == text
    except OpSyntaxError:
        return True


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected kind"),
        ("conv_2d", "expected kind"),
        ("Conv_2D;float32;in=1x8", "expected kind"),
        ("conv_2d;float32;1x8", "expected kind"),
        ("conv_2d;float16;in=1x8", "float16"),
        ("conv_2d;float32;in=", "not a shape"),
        ("conv_2d;float32;in=1x8,", "not a shape"),
        ("conv_2d;float32;in=1x0", "not a shape"),
        ("conv_2d;float32;in=01x8", "not a shape"),
        ("conv_2d;float32;in=1x-8", "not a shape"),
        ("conv_2d;float32;in=1x٣", "not a shape"),
        ("conv_2d;float32;in=1x99999999", "above 16777216"),
        ("conv_2d;float32;in=1x999999999999", "not a shape"),
        ("conv_2d;float32;in=1x8;kernel", "not name=value"),
        ("conv_2d;float32;in=1x8;kernel=3", "not a pair"),
        ("conv_2d;float32;in=1x8;out_channels=8x8", "canonical"),
        ("conv_2d;float32;in=1x8;act=swish", "unknown field act=swish"),
        ("conv_2d;float32;in=1x8;__class__=1", "unknown field"),
        ("conv_2d;float32;in=1x8;stride=1x1", "canonical"),
        ("conv_2d;float32;in=1x8;kernel=3x3;kernel=3x3", "canonical"),
        ("conv_2d;float32;in=1x8;stride=2x2;kernel=3x3", "canonical"),
    ],
)
def test_a_wrong_key_is_refused_with_its_reason(text: str, reason: str) -> None:
    """The message quotes the key and says what is wrong, on one line."""
    with pytest.raises(OpSyntaxError, match=reason) as caught:
        OpSpec.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TableError)


def test_a_long_hostile_key_is_not_repeated_in_full() -> None:
    """A megabyte of nonsense does not become a megabyte of message."""
    with pytest.raises(OpSyntaxError) as caught:
        OpSpec.parse("x" * 1_000_000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("key", "shape", "size_bytes"),
    [
        ("conv_2d;float32;in=1x14x14x8;out_channels=16;kernel=3x5", (16, 3, 5, 8), 16 * 3 * 5 * 8 * 4),
        ("conv_2d;int8;in=1x14x14x8;out_channels=16;groups=4", (16, 1, 1, 2), 32),
        ("depthwise_conv_2d;int8;in=1x14x14x8;out_channels=8;kernel=5x5", (1, 5, 5, 8), 200),
        ("fully_connected;float32;in=1x1x1x80;out_channels=10", (10, 80), 3200),
        ("average_pool_2d;float32;in=1x14x14x8;kernel=3x3", (0,), 0),
    ],
)
def test_weights_follow_from_the_operator(key: str, shape: tuple[int, ...], size_bytes: int) -> None:
    """Shapes are TFLite's; a float takes four bytes, an int8 one."""
    spec = OpSpec.parse(key)
    assert spec.weight_shape == shape
    assert spec.weight_bytes == size_bytes


@given(st.lists(st.integers(1, 10**9), min_size=1), st.integers(1, 1000))
def test_derived_times_come_from_the_raw_samples(samples: list[int], extra: int) -> None:
    """The fastest and the median sample in ms, on the table's clock and on the wall's."""
    wall = tuple(ns + extra for ns in samples)
    made = measurement("x", samples_ns=tuple(samples), wall_samples_ns=wall)
    assert made.quiet_ms == min(samples) / 1e6
    assert made.median_ms == statistics.median(samples) / 1e6
    assert made.wall_median_ms == pytest.approx(made.median_ms + extra / 1e6)
    assert made.quiet_ms <= made.median_ms


def test_attempts_join_with_all_their_samples() -> None:
    """Samples add up in order, flags unite, and the faster sentinel counts: its samples are there too."""
    first = measurement("x", 1000, sentinel_ns=9000, flags=("contended",))
    second = measurement("x", 800, sentinel_ns=5000, attempt=2)
    both = merged(first, second)
    assert both.samples_ns == first.samples_ns + second.samples_ns
    assert both.wall_samples_ns == first.wall_samples_ns + second.wall_samples_ns
    assert (both.sentinel_ns, both.attempt, both.flags) == (5000, 2, ("contended",))
    assert both.quiet_ms == second.quiet_ms


@pytest.mark.parametrize("flag", [THROTTLED, CONTENDED])
def test_disturbed_samples_on_the_wall_go_once_there_are_others(flag: str) -> None:
    """Whichever attempt was the quiet one, its samples and its sentinel are kept alone."""
    quiet, bad = (measurement("x", ns, wall_samples_ns=(ns + 20, ns, ns + 10)) for ns in (1000, 900))
    bad = replace(bad, sentinel_ns=9000, flags=(flag,))
    assert merged(bad, replace(quiet, attempt=2)) == replace(quiet, attempt=2)
    assert merged(quiet, replace(bad, attempt=2)) == replace(quiet, attempt=2)


@pytest.mark.parametrize(("earlier", "later", "known"), [(0, 7000, 7000), (7000, 0, 7000), (0, 0, 0)])
def test_an_unknown_sentinel_does_not_count_as_the_fastest(earlier: int, later: int, known: int) -> None:
    """0 stands for unknown, not for infinitely fast."""
    pair = measurement("x", sentinel_ns=earlier), measurement("x", sentinel_ns=later, attempt=2)
    assert merged(*pair).sentinel_ns == known


@pytest.mark.parametrize(
    "later", [measurement("y", attempt=2), measurement("x", attempt=1), measurement("x", attempt=3)]
)
def test_only_successive_attempts_at_one_subject_join(later: Measurement) -> None:
    """Another subject, the same attempt again and a gap are refused."""
    with pytest.raises(ValueError, match="does not follow attempt 1 at x"):
        merged(measurement("x"), later)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TableKey)])
def test_keys_name_what_differs(field: str) -> None:
    """Each field of the key is compared, and the message holds both values."""
    other = dataclasses.replace(KEY, **{field: 4 if field == "threads" else "other"})
    assert KEY.differences(other) == [f"{field}: {getattr(KEY, field)!r} / {getattr(other, field)!r}"]


def test_equal_keys_do_not_differ() -> None:
    """Two tables of one device are comparable."""
    assert KEY.differences(dataclasses.replace(KEY)) == []
    assert conv().key == conv().key
