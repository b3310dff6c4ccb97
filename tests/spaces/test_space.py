"""Spaces: what they hold is as specified, and what is not of a space is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import NARROW, every_arch, tiny_space

from edgekd.errors import UnknownName, UsageError
from edgekd.profile import CALIBRATION_NETWORKS, all_ops, calibration_archs
from edgekd.spaces.arch import Arch, Block
from edgekd.spaces.mnasnet import SPACES, space_named
from edgekd.spaces.space import BlockOptions, round_channels

REFERENCE_LAYERS = (1, 2, 3, 4, 3, 3, 1)

MNASNETS = [space for name, space in SPACES.items() if name.startswith("mnasnet-")]
all_spaces = pytest.mark.parametrize("space", MNASNETS, ids=lambda space: space.name)


@all_spaces
def test_the_reference_is_mnasnet_without_squeeze(space: object) -> None:
    """Seven blocks of mb6, kernel 3, no SE, identity skips, 1-2-3-4-3-3-1 layers, filters ×1."""
    assert space.reference().blocks == tuple(  # type: ignore[attr-defined]  # parametrize knows no types
        Block("mb6", 3, 0.0, "identity", layers, 1.0) for layers in REFERENCE_LAYERS
    )


@all_spaces
def test_each_block_offers_the_decisions_of_the_literature(space: object) -> None:
    """Operators, kernels, squeezes, skips, filters, and one layer fewer or more than the reference."""
    for block, layers in zip(space.blocks, REFERENCE_LAYERS, strict=True):  # type: ignore[attr-defined]
        assert block.decisions == (
            ("conv", "dsconv", "mb3", "mb6"),
            (3, 5),
            (0.0, 0.25),
            ("none", "identity", "pool"),
            tuple(n for n in (layers - 1, layers, layers + 1) if n > 0),
            (0.75, 1.0, 1.25),
        )


def test_the_narrow_space_fits_small_grey_images() -> None:
    """28x28x1 in, 10 classes, four-channel steps, a last feature map of 4x4, widths that grow from block to block."""
    assert NARROW.input_shape == (1, 28, 28, 1)
    assert (NARROW.classes, NARROW.channel_multiple) == (10, 4)
    assert math.ceil(28 / (NARROW.stem_stride * math.prod(block.stride for block in NARROW.blocks))) == 4
    widths = [block.width for block in NARROW.blocks]
    assert widths == sorted(set(widths))
    assert all(width % 4 == 0 and width <= 80 for width in widths)


def test_the_tiny_space_has_few_operators() -> None:
    """Fewer than a hundred, so that even an emulated device measures them in minutes; and enough distinct networks."""
    tiny = SPACES["tiny-28"]
    assert len(all_ops(tiny)) < 100
    assert len(calibration_archs(tiny)) == CALIBRATION_NETWORKS


def test_the_large_spaces_differ_in_their_resolution_alone() -> None:
    """One reference network at three sizes of image."""
    large = [SPACES[f"mnasnet-{size}"] for size in (96, 160, 224)]
    assert [space.resolution for space in large] == [96, 160, 224]
    assert len({replace(space, name="", resolution=0) for space in large}) == 1
    assert [block.width for block in large[0].blocks] == [16, 24, 40, 80, 112, 192, 320]
    assert [block.stride for block in large[0].blocks] == [1, 2, 2, 2, 1, 2, 1]


def test_the_space_for_cifar_keeps_its_features() -> None:
    """32x32x3 in, 10 classes, MnasNet's widths, and a last feature map of 4x4 instead of the 1x1 of five strides."""
    space, large = SPACES["mnasnet-32"], SPACES["mnasnet-96"]
    assert (space.input_shape, space.classes, space.head_width) == ((1, 32, 32, 3), 10, 1280)
    assert [block.width for block in space.blocks] == [block.width for block in large.blocks]
    assert math.ceil(32 / (space.stem_stride * math.prod(block.stride for block in space.blocks))) == 4


def test_decisions_have_names_and_spelled_options() -> None:
    """Six names a block, blocks from 1, beside as many lists of options as architectures' texts spell them."""
    space = tiny_space()
    assert len(space.decision_names) == len(space.decision_options) == len(space.decision_sizes) == 12
    assert [len(options) for options in space.decision_options] == list(space.decision_sizes)
    named = dict(zip(space.decision_names, space.decision_options, strict=True))
    assert list(named)[:2] == ["block1.conv_op", "block1.kernel"]
    assert list(named)[-1] == "block2.filters"
    assert named["block1.se_ratio"] == ("0", "0.25")
    assert named["block2.layers"] == ("1", "3")
    choices = tuple(size - 1 for size in space.decision_sizes)
    last = str(space.arch(choices).blocks[1])
    assert last == "mb3_k3_se0.25_pool_l3_f2"
    assert all(options[-1] in last for name, options in named.items() if name.startswith("block2."))


def test_the_content_of_a_space_has_one_hash() -> None:
    """The same for the same values whatever their type or the name, another for any other value."""
    plain = replace(NARROW.blocks[0], filters=(1.0,), se_ratios=(0.0,))
    whole = replace(NARROW.blocks[0], filters=(1,), se_ratios=(0,))
    one, other = (replace(NARROW, name=name, blocks=(b,)) for name, b in (("one", plain), ("other", whole)))
    assert one.sha256 == other.sha256
    changed = [
        replace(one, **{key: 96}) for key in ("resolution", "in_channels", "classes", "stem_width", "head_width")
    ]
    changed += [replace(one, blocks=(replace(plain, **{key: value}),)) for key, value in OTHER_OPTIONS.items()]
    assert len({space.sha256 for space in (one, *changed)}) == 1 + len(changed)


OTHER_OPTIONS: dict[str, Any] = {
    "width": 96,
    "stride": 2,
    "layers": (1, 2, 3),
    "reference_layers": 2,
    "conv_ops": ("basic",),
    "kernels": (5, 3),
    "se_ratios": (0.5,),
    "skip_ops": ("pool",),
    "filters": (0.5,),
}


def test_the_reference_is_an_architecture_of_its_space() -> None:
    """Where the usual one is not among the options, what is nearest to it."""
    options = BlockOptions(
        16,
        1,
        (4, 2),
        2,
        ("fused3", "basic"),
        kernels=(7, 5),
        se_ratios=(0.5, 0.25),
        skip_ops=("pool",),
        filters=(2, 0.5),
    )
    space = replace(NARROW, name="odd", blocks=(options,))
    assert str(space.reference()) == "odd:fused3_k5_se0.25_pool_l2_f0.5"
    assert space.arch(space.choices(space.reference())) == space.reference()


def test_the_lightest_architecture_is_found_in_any_order_of_options() -> None:
    """The fewest multiplications, the smallest kernel, squeeze, depth and width, and no skip."""
    options = BlockOptions(
        16, 1, (4, 2), 2, ("fused6", "mb3", "conv"), kernels=(7, 5), skip_ops=("pool", "none"), filters=(2.0, 0.5)
    )
    space = replace(NARROW, name="odd", blocks=(options,))
    assert str(space.arch(space.lightest)) == "odd:conv_k5_se0_none_l2_f0.5"


def test_a_space_of_one_architecture_is_a_space() -> None:
    """One option a decision and one block: choices of zeros, the reference, and nothing else."""
    options = BlockOptions(8, 2, (2,), 2, ("mb3",), (3,), (0.0,), ("none",), (1.0,))
    space = replace(NARROW, name="single", blocks=(options,))
    assert (space.size, space.decision_sizes) == (1, (1,) * 6)
    assert space.arch((0,) * 6) == space.reference()
    assert space.lightest == (0,) * 6
    with pytest.raises(UsageError, match="do not fit"):
        space.arch((1, *[0] * 5))


def test_the_size_counts_every_architecture() -> None:
    """A small space, enumerated, holds as many distinct architectures as it says."""
    space = tiny_space()
    assert space.size == len(set(every_arch(space))) == 32 * 16
    assert NARROW.size == math.prod(NARROW.decision_sizes)
    assert len(NARROW.decision_sizes) == 6 * 7


@pytest.mark.parametrize("name", ["mnasnet-28-narow", "mnasnet", "MNASNET-224", ""])
def test_an_unknown_space_is_refused_with_the_known_ones(name: str) -> None:
    """A typing error gets the nearest name, and all of them."""
    with pytest.raises(UnknownName, match=f"unknown space {name!r}: .*known: mnasnet-160") as caught:
        space_named(name)
    if name == "mnasnet-28-narow":
        assert "did you mean 'mnasnet-28-narrow'?" in str(caught.value)
    assert caught.value.exit_code == 2


def test_known_spaces_are_found_by_their_own_name() -> None:
    """The name in a file leads to the space that wrote it."""
    assert all(space_named(name) is space and space.name == name for name, space in SPACES.items())


@pytest.mark.parametrize("choices", [(), (0,) * 41, (0,) * 43, (-1, *[0] * 41), (4, *[0] * 41)])
def test_choices_that_do_not_fit_are_refused(choices: tuple[int, ...]) -> None:
    """Too few, too many, negative, and beyond the last option."""
    with pytest.raises(UsageError, match="do not fit space mnasnet-28-narrow"):
        NARROW.arch(choices)


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        (SPACES["mnasnet-224"].reference(), "is not of space mnasnet-28-narrow"),
        (Arch(NARROW.name, NARROW.reference().blocks[:6]), "with 7 blocks"),
        (Arch(NARROW.name, (Block("mb6", 7, 0.0, "none", 1, 1.0), *NARROW.reference().blocks[1:])), "block 1 .* 7 is"),
        (Arch(NARROW.name, (*NARROW.reference().blocks[:6], Block("mb6", 3, 0.5, "none", 1, 1.0))), "block 7 .* 0.5"),
    ],
)
def test_an_architecture_of_another_space_is_refused(arch: Arch, reason: str) -> None:
    """The message says which block has which value that is not an option."""
    with pytest.raises(UsageError, match=reason):
        NARROW.choices(arch)


@pytest.mark.parametrize(
    ("channels", "multiple", "rounded"),
    [(3, 4, 4), (5, 4, 4), (6, 4, 8), (10, 4, 12), (0.1, 8, 8), (12, 8, 16), (11.9, 8, 8), (20, 8, 24), (400, 8, 400)],
)
def test_channels_round_half_up_to_a_multiple(channels: float, multiple: int, rounded: int) -> None:
    """By hand, with at least one multiple."""
    assert round_channels(channels, multiple) == rounded


@given(channels=st.floats(0.01, 1e4), multiple=st.integers(1, 64))
def test_rounded_channels_are_the_nearest_multiple(channels: float, multiple: int) -> None:
    """Divisible, at least one multiple, and no further away than half of one."""
    rounded = round_channels(channels, multiple)
    assert rounded % multiple == 0
    assert rounded >= multiple
    assert rounded == multiple or abs(rounded - channels) <= multiple / 2 + 1e-9


def test_a_blocks_channels_follow_its_filters() -> None:
    """Reference width × filters, in steps of four: 20 × 0.75, 1 and 1.25."""
    space = replace(NARROW, blocks=(replace(NARROW.blocks[0], width=20),))
    assert [space.channels(0, filters) for filters in (0.75, 1.0, 1.25)] == [16, 20, 24]
