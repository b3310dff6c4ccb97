"""Architectures: their text and their decisions read back, and ids follow from the text."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import NARROW

from edgekd.errors import UsageError
from edgekd.spaces.arch import CONV_OPS, SKIP_OPS, Arch, Block
from edgekd.spaces.mnasnet import SPACES

blocks = st.builds(
    Block,
    conv_op=st.sampled_from(CONV_OPS),
    kernel=st.integers(1, 9),
    se_ratio=st.sampled_from([0.0, 0.0625, 0.125, 0.25, 0.5]),
    skip_op=st.sampled_from(SKIP_OPS),
    layers=st.integers(1, 99),
    filters=st.sampled_from([0.5, 0.75, 1.0, 1.25, 2.0]),
)
archs = st.builds(Arch, st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), st.lists(blocks, min_size=1).map(tuple))


@given(archs)
def test_an_architecture_reads_back_from_its_text(arch: Arch) -> None:
    """Arch.parse is the inverse of str, also for blocks that no known space offers."""
    assert Arch.parse(str(arch)) == arch


def test_the_text_is_readable() -> None:
    """Operator, kernel, squeeze, skip, layers and filters of each block, after the space's name."""
    text = "mnasnet-28-narrow:mb6_k3_se0_identity_l1_f1/dsconv_k5_se0.25_pool_l2_f0.75"
    arch = Arch.parse(text)
    assert str(arch) == text
    assert arch.blocks[1] == Block("dsconv", 5, 0.25, "pool", 2, 0.75)


@given(archs, archs)
def test_ids_are_of_the_text(one: Arch, other: Arch) -> None:
    """12 hexadecimal digits, equal for equal architectures and different for different ones."""
    assert len(one.arch_id) == 12
    assert int(one.arch_id, 16) >= 0
    assert (one.arch_id == other.arch_id) == (one == other)
    assert Arch.parse(str(one)).arch_id == one.arch_id


def test_ids_never_change() -> None:
    """Files are named by them, so an id of today is the id of next year."""
    assert NARROW.reference().arch_id == "93ee8c661185"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mnasnet",
        ":mb6_k3_se0_identity_l1_f1",
        "s:",
        "s:mb6_k3_se0_identity_l1_f1/",
        "s:mb9_k3_se0_identity_l1_f1",
        "s:mb6_k3_se0_identity_l1",
        "s:mb6_k3_se0_jump_l1_f1",
        "s:mb6_k٣_se0_identity_l1_f1",
        "s:mb6_k3_se0_identity_l01_f1",
        "s:mb6_k3_se0_identity_l1_f1.0",
        "s:mb6_k3_se0.250_identity_l1_f1",
        "s:mb6_k3_se0.0_identity_l1_f1",
        "s:mb6_k3_se0_identity_l1_f1\n",
        "s: mb6_k3_se0_identity_l1_f1",
        "s:" + "x" * 100_000,
    ],
)
def test_a_text_that_str_does_not_write_is_refused(text: str) -> None:
    """One architecture has one text, so two spellings cannot pass for two architectures."""
    with pytest.raises(UsageError) as caught:
        Arch.parse(text)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40) | st.text("s:mbk3_0identylf1.25/", max_size=60))
def test_any_text_is_refused_or_is_its_own(text: str) -> None:
    """Nothing but UsageError comes out of a hostile text."""
    with suppress(UsageError):
        assert str(Arch.parse(text)) == text


@pytest.mark.whole  # forty architectures of every space
@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=40)
@given(data=st.data())
def test_choices_and_architectures_are_inverse(name: str, data: st.DataObject) -> None:
    """Any option indices make an architecture that gives the same indices, also by way of its text."""
    space = SPACES[name]
    choices = data.draw(st.tuples(*(st.integers(0, size - 1) for size in space.decision_sizes)))
    arch = space.arch(choices)
    assert space.choices(arch) == choices
    assert space.choices(Arch.parse(str(arch))) == choices
