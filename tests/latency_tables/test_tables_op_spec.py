"""Operators in text: every key reads back as its operator, and nothing else is taken for a key."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latency_tables.errors import OpSyntaxError, TableError
from latency_tables.op_spec import ACTIVATIONS, OP_DTYPES, TENSOR_DTYPES, OpSpec, TensorSpec, check_key

dimensions = st.integers(1, 1 << 24)
pairs = st.tuples(dimensions, dimensions)
shapes = st.lists(dimensions, max_size=5).map(tuple)
operands = st.builds(TensorSpec, shapes, st.booleans(), st.sampled_from(["", *TENSOR_DTYPES]))
steering = st.lists(st.integers(-(1 << 31), 1 << 31), min_size=1, max_size=8).map(
    lambda values: TensorSpec((len(values),), constant=True, dtype="int32", values=tuple(values))
)
tensors = operands | steering
attributes = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_.:+\-]{1,9}", fullmatch=True),
    max_size=3,
)
specs = st.builds(
    OpSpec,
    kind=st.sampled_from(["conv_2d", "mean", "add"]) | st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True),
    inputs=st.lists(tensors, min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(OP_DTYPES),
    out_channels=st.just(0) | dimensions,
    kernel=pairs,
    stride=pairs,
    dilation=pairs,
    padding=st.sampled_from(["same", "valid"]),
    groups=dimensions,
    act=st.sampled_from(ACTIVATIONS),
    pad=st.just(()) | st.tuples(*[st.integers(0, 9)] * 4),
    then=st.sampled_from(ACTIVATIONS),
    out=st.lists(shapes, max_size=3).map(tuple),
    attributes=attributes.map(lambda found: tuple(sorted(found.items()))),
)


@pytest.mark.whole  # tries many
@given(specs)
@example(OpSpec("mean", (TensorSpec((1, 7, 7, 80)),), "int8"))
def test_a_key_reads_back_as_its_operator(spec: OpSpec) -> None:
    """OpSpec.parse is the inverse of key."""
    assert OpSpec.parse(spec.key) == spec
    check_key(spec.key)


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


@pytest.mark.whole  # tries many
@given(spec=specs, data=st.data())
def test_a_changed_key_is_refused_or_is_the_key_of_another_operator(spec: OpSpec, data: st.DataObject) -> None:
    """A character replaced, dropped or added never yields an operator that spells itself differently."""
    start = data.draw(st.integers(0, len(spec.key)))
    end = data.draw(st.integers(start, min(start + 2, len(spec.key))))
    put = data.draw(st.text(";=,xc0123456789.-_@():scalar \n" + "٣", max_size=3))
    assert _refused_or_canonical(spec.key[:start] + put + spec.key[end:])


def _refused_or_canonical(text: str) -> bool:
    """Read a text, and see that the quick check says the same of it."""
    try:
        check_key(text)
        checked = ""
    except OpSyntaxError as error:
        checked = str(error)
    try:
        return OpSpec.parse(text).key == text and not checked
    except OpSyntaxError as error:
        return str(error) == checked


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected kind"),
        ("conv_2d", "expected kind"),
        ("Conv_2D;float32;in=1x8", "expected kind"),
        ("conv_2d;float32;1x8", "expected kind"),
        ("conv_2d;float8;in=1x8", "float8"),
        ("conv_2d;float32;in=", "not a tensor"),
        ("conv_2d;float32;in=1x8,", "not a tensor"),
        ("conv_2d;float32;in=1x0", "not from 1"),
        ("conv_2d;float32;in=01x8", "canonical"),
        ("conv_2d;float32;in=1x-8", "not a tensor"),
        ("conv_2d;float32;in=1x٣", "not a tensor"),
        ("conv_2d;float32;in=1x99999999", "16777216"),
        ("conv_2d;float32;in=1x999999999999", "not a shape"),
        ("conv_2d;float32;in=float8:1x8", "float8"),
        ("pad;float32;in=1x8,cint32:2(1)", "1 values"),
        ("pad;float32;in=1x8,int32:1(1)", "no constant"),
        ("pad;float32;in=1x8;@b=1;@a=1", "alphabet"),
        ("pad;float32;in=1x8;@a=1;@a=1", "alphabet"),
        ("pad;float32;in=1x8;@a=1;pad=1x1x1x1", "canonical"),
        ("pad;float32;in=1x8;@a=a b", "unknown field"),
        ("conv_2d;float32;in=1x8;pad=1x1", "must have 4"),
        ("conv_2d;float32;in=1x8;kernel", "not name=value"),
        ("conv_2d;float32;in=1x8;kernel=3", "must have 2"),
        ("conv_2d;float32;in=1x8;out_channels=8x8", "must have 1"),
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
    for key in ("x" * 1_000_000, "pad;float32;in=1" + "x1" * 500_000):
        with pytest.raises(OpSyntaxError) as caught:
            OpSpec.parse(key)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("key", "shape", "size_bytes"),
    [
        ("conv_2d;float32;in=1x14x14x8;out_channels=16;kernel=3x5", (16, 3, 5, 8), 16 * 3 * 5 * 8 * 4),
        ("conv_2d;int8;in=1x14x14x8;out_channels=16;groups=4", (16, 1, 1, 2), 32),
        ("depthwise_conv_2d;int8;in=1x14x14x8;out_channels=8;kernel=5x5", (1, 5, 5, 8), 200),
        ("fully_connected;float32;in=1x1x1x80;out_channels=10", (10, 80), 3200),
        ("average_pool_2d;float32;in=1x14x14x8;kernel=3x3", (0,), 0),
        ("transpose_conv;float16;in=1x7x7x8;out_channels=4;kernel=2x2", (4, 2, 2, 8), 512),
        ("prelu;float32;in=1x7x7x8,c1x1x8", (0,), 32),
        ("dequantize;float32;in=cfloat16:3x3", (0,), 0),
    ],
)
def test_weights_follow_from_the_operator(key: str, shape: tuple[int, ...], size_bytes: int) -> None:
    """Shapes are TFLite's; a float takes four bytes, an int8 one."""
    spec = OpSpec.parse(key)
    assert spec.weight_shape == shape
    assert spec.weight_bytes == size_bytes


@pytest.mark.parametrize(
    ("key", "folded"),
    [
        ("dequantize;float32;in=cfloat16:8x1x1x4", True),
        ("densify;float16;in=cfloat16:8x1x1x4", True),
        ("dequantize;float32;in=int8:1x10", False),
        ("add;float32;in=c1x8,c1x8", False),
    ],
)
def test_only_the_unpacking_of_constants_is_folded(key: str, folded: bool) -> None:
    """Everything else costs something in every inference, whatever its operands are."""
    assert OpSpec.parse(key).is_folded == folded
