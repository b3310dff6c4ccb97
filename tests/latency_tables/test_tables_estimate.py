"""Estimates: operators that were never measured, told from rows of their family, with honest intervals."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_tables.estimate import Estimator
from latency_tables.features import family_of, kin_of, output_shapes, sizes_of
from latency_tables.op_spec import OpSpec, TensorSpec

pytestmark = pytest.mark.slow  # fits surfaces to hundreds of rows, again and again

WIDTHS = (8, 16, 24, 40, 80, 112, 192, 320)
SIDES = (3, 6, 12, 24, 48)
TILE = 16  # channels that a kernel of the tests' world computes at once
SLOW_WIDTH = 40  # for which the library of the tests' world takes a poorer kernel


def conv(side: int, channels: int, out: int, kernel: int = 1, stride: int = 1, act: str = "none") -> OpSpec:
    shape = (1, side, side, channels)
    return OpSpec("conv_2d", (TensorSpec(shape),), "float32", out, (kernel, kernel), (stride, stride), act=act)


def depthwise(side: int, channels: int, kernel: int = 3) -> OpSpec:
    shape = (1, side, side, channels)
    return OpSpec("depthwise_conv_2d", (TensorSpec(shape),), "float32", channels, (kernel, kernel), act="relu6")


def true_ms(op: OpSpec) -> float:
    """Give what an operator takes in the tests' world, whose kernels compute sixteen channels at once."""
    sizes = sizes_of(op)
    channels = math.ceil(sizes.out_channels / TILE) * TILE
    macs = sizes.positions * channels * sizes.taps * sizes.group_channels
    slow = 1.4 if sizes.out_channels == SLOW_WIDTH else 1.0
    return 0.0004 + slow * macs / 4e7 + (sizes.in_elements + sizes.out_elements + sizes.weight_bytes) / 2e7


def measured(ops: Iterable[OpSpec], noise: float = 0.0, seed: int = 0) -> dict[OpSpec, float]:
    rng = random.Random(seed)
    return {op: true_ms(op) * math.exp(rng.gauss(0, noise)) for op in ops}


POINTWISE = [conv(*sizes) for sizes in itertools.product(SIDES, WIDTHS, WIDTHS)]


def error(estimator: Estimator, op: OpSpec) -> float:
    estimate = estimator.estimate(op)
    assert estimate is not None
    return abs(estimate.ms / true_ms(op) - 1)


def test_rows_left_out_are_told_by_their_family() -> None:
    """A fifth of the rows, hidden, is estimated within a few percent, and far better than by the nearest row."""
    hidden = set(random.Random(1).sample(POINTWISE, len(POINTWISE) // 5))
    estimator = Estimator(measured(op for op in POINTWISE if op not in hidden))
    errors = sorted(error(estimator, op) for op in hidden)
    assert sum(errors) / len(errors) < 0.03
    assert errors[len(errors) * 9 // 10] < 0.06


def test_channels_cost_as_the_next_whole_tile() -> None:
    """A width just above a multiple of the kernel's tile costs as the next multiple; no smooth curve has that."""
    widths = (8, 16, 24, 32, 48, 64, 96)
    rows = measured(conv(12, channels, out, 3) for channels in widths for out in (*widths, 12, 20, 36, 52, 72))
    estimator = Estimator(rows)
    below, above = estimator.estimate(conv(12, 32, 80, 3)), estimator.estimate(conv(12, 32, 81, 3))
    assert below is not None
    assert above is not None
    assert above.ms / below.ms == pytest.approx(96 / 80, rel=0.03)


def test_a_width_with_a_poorer_kernel_is_known_from_other_families() -> None:
    """No 5x5 row has the slow width, but 3x3 rows have, and so the 5x5 one is told right."""
    widths = WIDTHS[:6]
    ops = [conv(s, i, o, k) for s, i, o, k in itertools.product((6, 12, 24), widths, widths, (3, 5))]
    rows = measured(op for op in ops if op.kernel == (3, 3) or op.out_channels != SLOW_WIDTH)
    estimator = Estimator(rows)
    assert max(error(estimator, conv(side, 24, SLOW_WIDTH, 5)) for side in (6, 12, 24)) < 0.022


def test_intervals_hold_what_they_promise() -> None:
    """Of rows that were left out, with noise as of a measurement, about nine in ten are within the interval."""
    rows = measured(POINTWISE, noise=0.03)
    inside = []
    for seed in range(3):
        hidden = random.Random(seed).sample(POINTWISE, 60)
        estimator = Estimator({op: ms for op, ms in rows.items() if op not in hidden})
        for op in hidden:
            estimate = estimator.estimate(op)
            assert estimate is not None
            inside.append(abs(rows[op] / estimate.ms - 1) <= estimate.relative_error)
    assert 0.84 <= sum(inside) / len(inside) <= 0.97


def test_the_interval_of_a_width_that_was_never_measured_holds() -> None:
    """Where each width has a quirk of its own, which its hidden rows would have told, the interval allows for it."""
    rng = random.Random(3)
    quirks = {width: math.exp(rng.gauss(0, 0.05)) for width in WIDTHS}
    ops = [op for op in POINTWISE if 3 < op.inputs[0].shape[1] < 48]
    rows = {op: ms * quirks[op.inputs[0].shape[3]] for op, ms in measured(ops, noise=0.01, seed=4).items()}
    inside = []
    for width in WIDTHS[1:-1]:
        hidden = [op for op in ops if op.inputs[0].shape[3] == width]
        estimator = Estimator({op: ms for op, ms in rows.items() if op not in hidden})
        for op in hidden:
            estimate = estimator.estimate(op)
            assert estimate is not None
            assert estimate.how == "interpolated"
            inside.append(abs(rows[op] / estimate.ms - 1) <= estimate.relative_error)
    assert sum(inside) / len(inside) >= 0.8


@pytest.fixture(scope="module")
def pointwise() -> Estimator:
    return Estimator(measured(POINTWISE))


@pytest.mark.parametrize(
    ("op", "how"),
    [
        (conv(12, 80, 32), "interpolated"),
        (conv(10, 33, 100), "interpolated"),
        (conv(48, 320, 320), "interpolated"),
        (conv(96, 24, 24), "fitted"),
        (conv(12, 640, 24), "fitted"),
        (conv(12, 24, 640), "fitted"),
        (conv(2, 24, 24), "fitted"),
        (conv(12, 24, 24, act="relu6"), "fitted"),
        (conv(12, 24, 24, kernel=3), "fitted"),
    ],
    ids=lambda value: value.key if isinstance(value, OpSpec) else value,
)
def test_how_an_estimate_came_about_is_told(pointwise: Estimator, op: OpSpec, how: str) -> None:
    """Inside all sizes measured of the very family it is interpolated; beyond, or from other families, fitted."""
    estimate = pointwise.estimate(op)
    assert estimate is not None
    assert estimate.how == how


def test_another_resolution_is_within_its_interval() -> None:
    """Sizes beyond what was measured are told with the doubt that they deserve."""
    small = [op for op in POINTWISE if op.inputs[0].shape[1] <= 24]
    estimator = Estimator(measured(small, noise=0.01))
    for op in (conv(48, 16, 24), conv(64, 24, 16), conv(80, 40, 80)):
        estimate = estimator.estimate(op)
        assert estimate is not None
        assert abs(true_ms(op) / estimate.ms - 1) <= estimate.relative_error


def test_small_images_are_doubted_where_large_ones_tell_no_tile_of_rows() -> None:
    """Kernels compute several rows at once, which large images do not show; nine rows may take as long as sixteen."""
    large = [conv(side, i, o, 3) for side in (20, 40, 80) for i in WIDTHS[:6] for o in WIDTHS[:6]]
    estimate = Estimator(measured(large)).estimate(conv(3, 40, 80, 3))
    assert estimate is not None
    assert estimate.relative_error >= 16 / 9 - 1


def test_a_kind_without_rows_has_no_estimate() -> None:
    """Nothing is made up: another kind, or the kind in another dtype, is for the caller to have measured."""
    estimator = Estimator(measured(POINTWISE[:40]))
    assert estimator.estimate(depthwise(12, 24)) is None
    assert estimator.estimate(replace(POINTWISE[0], dtype="int8")) is None
    assert Estimator({}).estimate(POINTWISE[0]) is None


def test_custom_operators_are_known_by_their_code_alone() -> None:
    """Rows of one custom operator tell nothing of another."""
    tensor = (TensorSpec((1, 8, 8, 16)),)
    one, other = (OpSpec("custom", tensor, "float32", attributes=(("code", name),)) for name in ("One", "Other"))
    estimator = Estimator({one: 0.2})
    assert estimator.estimate(other) is None
    assert estimator.estimate(replace(one, inputs=(TensorSpec((1, 8, 8, 32)),))) is not None


def test_few_rows_tell_little_and_say_so() -> None:
    """From a single row an estimate grows with the size, and admits to know nearly nothing."""
    estimator = Estimator(measured([depthwise(12, 64)]))
    near, far = estimator.estimate(depthwise(12, 64)), estimator.estimate(depthwise(48, 64))
    assert near is not None
    assert far is not None
    assert near.ms == pytest.approx(true_ms(depthwise(12, 64)), rel=0.05)
    assert near.ms < far.ms < 16.01 * near.ms
    assert far.relative_error > 0.5
    assert far.how == "fitted"


@settings(deadline=None, max_examples=15)
@given(order=st.randoms(use_true_random=False), side=st.integers(1, 200), out=st.integers(1, 3000))
def test_the_order_of_rows_is_irrelevant_and_no_estimate_is_below_zero(
    order: random.Random, side: int, out: int
) -> None:
    """Rows in any order give the very same estimate, and its time and its error are above 0."""
    rows = list(measured(POINTWISE[::5], noise=0.05).items())
    op = conv(side, 24, out)
    expected = Estimator(dict(rows)).estimate(op)
    order.shuffle(rows)
    assert Estimator(dict(rows)).estimate(op) == expected
    assert expected is not None
    assert expected.ms > 0
    assert expected.relative_error > 0


def test_large_families_are_thinned() -> None:
    """More rows than one matrix shall hold are thinned, and still tell what lies between them."""
    ops = [conv(s, i, o) for s in (4, 7, 14, 28) for i in range(8, 180, 12) for o in range(8, 180, 14)]
    assert len(ops) > 700
    assert error(Estimator(measured(ops, noise=0.01)), conv(14, 60, 64)) < 0.05


def test_rows_of_no_time_are_refused() -> None:
    """A row of 0 ms has no logarithm; the message names it."""
    with pytest.raises(ValueError, match=r"conv_2d.* is not above 0"):
        Estimator({POINTWISE[0]: 0.0})


@pytest.mark.parametrize(
    ("key", "shape", "macs"),
    [
        ("conv_2d;float32;in=1x12x12x8;out_channels=16;kernel=3x3;stride=2x2", (1, 6, 6, 16), 6 * 6 * 16 * 9 * 8),
        ("conv_2d;int8;in=1x12x12x8;out_channels=16;kernel=3x3;groups=4", (1, 12, 12, 16), 12 * 12 * 16 * 9 * 2),
        (
            "conv_2d;float32;in=1x13x13x8;out_channels=4;kernel=3x3;stride=2x2;padding=valid;pad=1x0x1x0",
            (1, 6, 6, 4),
            6 * 6 * 4 * 9 * 8,
        ),
        (
            "conv_2d;float32;in=1x12x12x8;out_channels=4;kernel=3x3;dilation=2x2;padding=valid",
            (1, 8, 8, 4),
            8 * 8 * 4 * 72,
        ),
        ("depthwise_conv_2d;float32;in=1x12x12x8;out_channels=8;kernel=5x5", (1, 12, 12, 8), 12 * 12 * 8 * 25),
        ("transpose_conv;float32;in=1x6x6x8;out_channels=4;kernel=2x2;stride=2x2", (1, 12, 12, 4), 12 * 12 * 4 * 8),
        (
            "transpose_conv;float32;in=1x6x6x8;out_channels=4;kernel=3x3;stride=2x2;padding=valid",
            (1, 13, 13, 4),
            13 * 13 * 4 * 2 * 8,
        ),
        ("fully_connected;float32;in=1x1x1x64;out_channels=10", (1, 10), 640),
        ("mean;float32;in=1x7x7x32", (1, 1, 1, 32), 0),
        ("add;float32;in=1x7x7x32,1x1x1x32", (1, 7, 7, 32), 0),
        ("add;float32;in=1x7x1x32,1x1x9x1", (1, 7, 9, 32), 0),
        ("softmax;float32;in=1x10", (1, 10), 0),
        ("add;float32;in=1x7x7x3,1x7x7x2", (1, 7, 7, 3), 0),
        ("concatenation;float32;in=1x7x7x8,1x7x7x24;out=1x7x7x32;@axis=3", (1, 7, 7, 32), 0),
        ("batch_matmul;float32;in=1x4x8x16,1x4x16x5;out=1x4x8x5", (1, 4, 8, 5), 4 * 8 * 5 * 16),
        ("onnx_conv;float32;in=1x8x12x12,c16x8x3x3,c16;out=1x16x12x12", (1, 16, 12, 12), 12 * 12 * 16 * 72),
        ("onnx_gemm;float32;in=1x64,c10x64,c10;out=1x10", (1, 10), 640),
    ],
)
def test_the_work_of_an_operator_is_counted(key: str, shape: tuple[int, ...], macs: int) -> None:
    """Output shapes and multiply-accumulates follow from an operator's key, in short and in generic forms."""
    op = OpSpec.parse(key)
    assert output_shapes(op)[0] == shape
    assert sizes_of(op).macs == macs


def test_families_part_operators_that_run_other_kernels() -> None:
    """Sizes do not part a family; windows and activations do, within their kin; rank, groups and products of one row
    part kin.
    """
    one = conv(12, 24, 40)
    assert family_of(one) == family_of(conv(24, 80, 16))
    assert kin_of(one) == kin_of(conv(12, 24, 40, act="relu")) == kin_of(conv(12, 24, 40, stride=2))
    assert family_of(one) != family_of(conv(12, 24, 40, act="relu"))
    assert kin_of(one) != kin_of(conv(12, 24, 40, kernel=3))
    assert kin_of(one) != kin_of(conv(1, 24, 40))
    assert kin_of(one) != kin_of(replace(one, groups=2))


def test_constants_that_name_axes_part_families_and_those_that_name_sizes_do_not() -> None:
    """A mean over other axes is another family; a larger resize is more of the same."""
    channels, places = (f"mean;float32;in=1x8x8x16,cint32:1({axis});out=1x8x8" for axis in (3, 1))
    assert family_of(OpSpec.parse(channels)) != family_of(OpSpec.parse(places))
    small, large = (
        OpSpec.parse(f"resize_bilinear;float32;in=1x8x8x16,cint32:2({n}_{n});out=1x{n}x{n}x16") for n in (16, 32)
    )
    assert family_of(small) == family_of(large)


def test_generic_operators_are_told_from_theirs() -> None:
    """Rows of an operator in the generic form tell others of it, in proportion to their sizes."""
    shapes = [(side, channels) for side in SIDES for channels in WIDTHS]
    ops = {shape: OpSpec.parse(f"hard_swish;int8;in=1x{shape[0]}x{shape[0]}x{shape[1]}") for shape in shapes}
    rows = {op: 0.001 + side * side * channels / 1e6 for (side, channels), op in ops.items()}
    kept = {op: ms for op, ms in rows.items() if op is not ops[24, 80]}
    estimate = Estimator(kept).estimate(ops[24, 80])
    assert estimate is not None
    assert estimate.ms == pytest.approx(rows[ops[24, 80]], rel=0.05)


def test_a_hostile_size_gives_no_error() -> None:
    """An operator of more elements than there are atoms is estimated like any other: large."""
    huge = OpSpec.parse("relu;float32;in=" + "x".join(["16777216"] * 40))
    estimate = Estimator({OpSpec.parse("relu;float32;in=1x8x8x8"): 0.01}).estimate(huge)
    assert estimate is not None
    assert math.isfinite(estimate.ms)
