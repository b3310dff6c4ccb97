"""Spaces as files: what is written reads back, what is wrong is told by file, key, value and what is allowed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import NARROW, random_archs

from edgekd.errors import ConfigError, UsageError
from edgekd.spaces.arch import CONV_OPS, SKIP_OPS, Arch
from edgekd.spaces.layers import graph_of, reachable_ops
from edgekd.spaces.mnasnet import SPACES, space_named
from edgekd.spaces.space import MNASNET_OPS, BlockOptions, Space
from edgekd.spaces.space_file import read_space, space_from
from edgekd.spaces.space_toml import to_toml

SMALL = """
name = "own"
resolution = 24
channels = 3
classes = 4
stem = { width = 8, stride = 2 }

[[blocks]]
width = 16
stride = 2
layers = [1, 2, 3]
"""


def read(text: str) -> Space:
    """Read a text as if it were a file."""
    return space_from(text, "space own.toml", SPACES)


def subsets(options: tuple[object, ...] | list[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """Draw some of the options, in any order."""
    return st.lists(st.sampled_from(options), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def block_options(draw: st.DrawFn) -> BlockOptions:
    """Draw a block with options in any order."""
    layers = draw(st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True))
    return BlockOptions(
        width=draw(st.integers(1, 16)),  # so that no layer is too large
        stride=draw(st.integers(1, 2)),
        layers=tuple(layers),
        reference_layers=draw(st.sampled_from(layers)),
        conv_ops=draw(subsets(CONV_OPS)),  # type: ignore[arg-type]  # of texts
        kernels=draw(subsets((1, 3, 5, 7, 9))),  # type: ignore[arg-type]  # of whole numbers
        se_ratios=draw(subsets((0.0, 0.0625, 0.25, 0.5, 0.99))),  # type: ignore[arg-type]  # of numbers
        skip_ops=draw(subsets(SKIP_OPS)),  # type: ignore[arg-type]  # of texts
        filters=draw(subsets((0.01, 0.3333, 1.0, 1.25, 9.99))),  # type: ignore[arg-type]  # of numbers
    )


sizes = st.tuples(st.integers(32, 96), st.integers(1, 4), st.integers(2, 1000), st.integers(1, 48), st.integers(1, 3))
spaces = st.builds(
    lambda sizes, blocks, head, multiple: Space("drawn", *sizes, tuple(blocks), head, multiple),
    sizes,
    st.lists(block_options(), min_size=1, max_size=4),
    st.integers(0, 64),
    st.integers(1, 16),
)


@pytest.mark.whole  # writes and reads a space in every example
@given(spaces)
def test_a_space_reads_back_from_its_text(space: Space) -> None:
    """Equal but for the edition in its name; written again it is the same text, and reads as the very same space."""
    text = to_toml(space)
    found = read(text)
    assert replace(found, name="drawn") == space
    assert found.name == f"drawn@{space.sha256[:8]}"
    assert to_toml(found) == text
    assert read(to_toml(found)) == found


@pytest.mark.whole  # writes and reads twenty spaces
@settings(max_examples=20)
@given(space=spaces, data=st.data())
def test_architectures_of_a_users_space_are_its_own(space: Space, data: st.DataObject) -> None:
    """Any option indices come back by way of the text, and the reference and the lightest are architectures of it."""
    found = read(to_toml(space))
    choices = data.draw(st.tuples(*(st.integers(0, size - 1) for size in found.decision_sizes)))
    arch = found.arch(choices)
    assert found.choices(Arch.parse(str(arch))) == choices
    assert found.arch(found.choices(found.reference())) == found.reference()
    assert found.arch(found.lightest).space == found.name


@pytest.mark.whole  # whole spaces
@pytest.mark.parametrize("name", SPACES)
def test_built_in_spaces_can_be_written_as_a_start(name: str) -> None:
    """The same content under a name of the user's, so that its graphs and operators are the same."""
    space = SPACES[name]
    mine = read(to_toml(space, "mine"))
    assert mine.sha256 == space.sha256
    for arch in random_archs(space, 3, seed=2):
        own = Arch(mine.name, arch.blocks)
        assert graph_of(mine, own) == graph_of(space, arch)


def test_what_a_file_leaves_out_has_defaults() -> None:
    """MnasNet's options, no head, multiples of eight, and the middle depth as the reference."""
    space = read(SMALL)
    block = space.blocks[0]
    assert block.conv_ops == MNASNET_OPS
    assert (block.kernels, block.se_ratios, block.skip_ops) == ((3, 5), (0.0, 0.25), SKIP_OPS)
    assert (block.reference_layers, block.filters) == (2, (0.75, 1.0, 1.25))
    assert (space.head_width, space.channel_multiple) == (0, 8)


def test_shared_options_are_those_of_blocks_that_say_nothing() -> None:
    """A block's own list comes before [options]."""
    text = f"{SMALL}kernels = [7]\n[[blocks]]\nwidth = 20\nstride = 1\nlayers = [1]\n[options]\nkernels = [3]\n"
    assert [block.kernels for block in read(text).blocks] == [(7,), (3,)]


def test_a_space_may_be_like_a_built_in_one() -> None:
    """What the file says replaces what the other has; options replace those of all its blocks."""
    space = read('name = "flowers"\nlike = "mnasnet-96"\nclasses = 37\n[options]\nconv_ops = ["fused3", "basic"]\n')
    base = SPACES["mnasnet-96"]
    blocks = tuple(replace(block, conv_ops=("fused3", "basic")) for block in base.blocks)
    assert space == replace(base, name=space.name, classes=37, blocks=blocks)
    assert any(node.name == "block1.layer0.first" for node in graph_of(space, space.arch((1,) + (0,) * 41)).nodes)


def test_two_editions_of_a_file_are_two_spaces(tmp_path: Path) -> None:
    """Architectures of the one are not taken for the other's, even where the text would fit, and their ids differ."""
    path = tmp_path / "own.toml"
    path.write_text(SMALL)
    before = space_named(str(path))
    path.write_text(SMALL.replace("width = 16", "width = 24"))
    after = space_named(str(path))
    assert before.title == after.title == "own"
    assert before.reference().blocks == after.reference().blocks
    assert before.reference().arch_id != after.reference().arch_id
    with pytest.raises(UsageError, match=r"not of space own@.*its file was changed since"):
        after.choices(before.reference())


def test_comments_and_order_do_not_make_another_edition() -> None:
    """The hash is of what the space is, not of how the file spells it."""
    spelled = SMALL.replace("layers = [1, 2, 3]", "layers = [1, 2, 3]  # a comment\nfilters = [0.75, 1, 1.25]")
    assert read(spelled) == read(SMALL)


WRONG = [
    ("name = 'own'", "name = 'mnasnet-96'", "name is 'mnasnet-96'; that is a built-in space's"),
    ("name = 'own'", "name = 'a:b'", "name is 'a:b'; it must be 1 to 32 letters"),
    ("name = 'own'", "name = 'a@b'", "name is 'a@b'; it must be 1 to 32 letters"),
    ("name = 'own'", "name = ''", "name is ''; it must be"),
    ("name = 'own'", "name = 3", "name is 3; it must be a text"),
    ("name = 'own'", "", "name is missing"),
    ("name = 'own'", "name = 'own'\nlike = 'mnasnet-69'", "like is 'mnasnet-69'; did you mean 'mnasnet-96'?"),
    ("name = 'own'", "name = 'own'\nversion = 2", "version is 2; this edgekd reads version 1"),
    ("name = 'own'", "name = 'own'\nversion = true", "version is True"),
    ("resolution = 24", "resolutoin = 24", "resolution is missing"),
    ("channels = 3", "channels = 3\nclases = 2", "unknown key 'clases': did you mean 'classes'?"),
    ("resolution = 24", "resolution = 24.0", "resolution is 24.0; it must be a whole number from 4 to 4096"),
    ("resolution = 24", "resolution = 100_000", "resolution is 100000; it must be a whole number from 4 to 4096"),
    ("classes = 4", "classes = true", "classes is True; it must be a whole number"),
    ("classes = 4", "classes = 1", "classes is 1; it must be a whole number from 2"),
    ("stem = { width = 8, stride = 2 }", "stem = 8", r"stem is 8; it must be a section \[stem\]"),
    ("stem = { width = 8, stride = 2 }", "stem = { width = 8 }", "stem: stride is missing"),
    ("stride = 2 }", "stride = 2, act = 'relu' }", "stem: unknown key 'act': known: stride, width"),
    ("width = 16", "width = 0", "block 1: width is 0; it must be a whole number from 1"),
    ("width = 16", "width = 16\nkernels = [3, 4]", r"block 1: kernels is \[3, 4\]; 4 is none of 1, 3, 5, 7, 9"),
    ("width = 16", "width = 16\nkernels = []", r"block 1: kernels is \[\]; it must be a list of at least one"),
    ("width = 16", "width = 16\nkernels = 3", "block 1: kernels is 3; it must be a list"),
    ("width = 16", "width = 16\nkernels = [3, 3]", r"block 1: kernels is \[3, 3\]; each option may stand there once"),
    ("width = 16", "width = 16\nconv_ops = ['mb9']", "conv_ops is .*'mb9': did you mean 'mb[36]'.*known: basic, conv"),
    ("width = 16", "width = 16\nconv_ops = [3]", r"conv_ops is \[3\]; 3: .*known: basic"),
    ("width = 16", "width = 16\nskip_ops = ['pol']", "skip_ops is .*'pol': did you mean 'pool'"),
    ("width = 16", "width = 16\nse_ratios = [1.0]", "se_ratios is .*1.0 is no number from 0.0 to 0.99"),
    ("width = 16", "width = 16\nse_ratios = [nan]", "se_ratios is .*nan is no number"),
    ("width = 16", "width = 16\nfilters = [inf]", "filters is .*inf is no number"),
    ("width = 16", "width = 16\nfilters = [0.33333]", "filters is .*0.33333 is no number .* at most 4 digits"),
    ("width = 16", "width = 16\nfilters = ['1']", "filters is .*'1' is no number"),
    ("width = 16", "width = 16\nfilters = [1, 1.0]", r"filters is \[1.0, 1.0\]; each option may stand there once"),
    ("layers = [1, 2, 3]", "layers = [0]", "block 1: layers is 0; it must be a whole number from 1 to 99"),
    ("layers = [1, 2, 3]", "layers = [1]\nreference_layers = 2", "reference_layers is 2; it must be one of layers, 1"),
    ("[[blocks]]", "[blocks]", r"blocks is \{.*; it must be one or more sections \[\[blocks\]\]"),
    ("[[blocks]]", "[options]\nkernel = [3]\n[[blocks]]", "options: unknown key 'kernel': did you mean 'kernels'?"),
    ("classes = 4", "classes = 4\nclasses = 5", "is not TOML"),
]


@pytest.mark.parametrize(("old", "new", "reason"), WRONG)
def test_what_is_wrong_is_told_in_one_line(old: str, new: str, reason: str) -> None:
    """Where, which key, which value, what is allowed and the nearest name; exit code 2."""
    text = SMALL.replace('"', "'").replace(old, new)
    assert text != SMALL.replace('"', "'")
    with pytest.raises(ConfigError, match=f"^space own.toml[: ].*{reason}") as caught:
        read(text)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 400


def blocks_of(count: int, stride: int = 1, more: str = "") -> str:
    """Spell a space of so many blocks."""
    block = f"[[blocks]]\nwidth = 16\nstride = {stride}\nlayers = [1, 2, 3]\n{more}\n"
    return SMALL.partition("[[blocks]]")[0] + count * block


def test_features_that_vanish_are_refused() -> None:
    """A stride on features of 1x1 halves nothing; the message names the block."""
    assert read(blocks_of(4, stride=2)).name.startswith("own@")  # 24, 12, 6, 3, 2, 1
    with pytest.raises(ConfigError, match=r"block 5 has stride 2, but its features are 1x1 already; .* above 24"):
        read(blocks_of(5, stride=2))


def test_a_huge_resolution_is_refused_by_the_layer_that_does_not_fit() -> None:
    """An operator that could not even be measured alone; the message says where and what to lower."""
    large = blocks_of(1).replace("resolution = 24", "resolution = 4096")
    with pytest.raises(ConfigError, match=r"block 1 with .* million values, 134 million at most .* resolution of 4096"):
        read(large)
    with pytest.raises(ConfigError, match="lower the resolution of 24 or the widths"):
        read(blocks_of(1).replace("width = 16", "width = 16_384"))


def test_too_many_options_or_blocks_are_refused() -> None:
    """Combinations that nobody could list, and texts that do not fit into a job's id."""
    many = ", ".join(f"{(100 + i) / 100:.2f}" for i in range(200))
    with pytest.raises(ConfigError, match=r"block 1 has 9600 combinations .* 2000 at most"):
        read(blocks_of(1, more=f"filters = [{many}]"))
    with pytest.raises(ConfigError, match=r"text has up to .* 450 at most are possible; use fewer than 40 blocks"):
        read(blocks_of(40))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "is not UTF-8"),
        (b"name = [" + b"[" * 5000, "is not TOML"),
        (b"#" * (1 << 21), "more than 1048576 bytes"),
        (b"", "name is missing"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """Missing, binary, endlessly nested, huge, empty: one line with the path."""
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"own.toml.*{reason}"):
        read_space(path, SPACES)


def test_a_folder_is_no_space(tmp_path: Path) -> None:
    """A path that ends in .toml and cannot be read as a file."""
    (tmp_path / "own.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        space_named(str(tmp_path / "own.toml"))


@given(st.text(max_size=60) | st.text("nameliketock[]={}\"'.,0123456789\n ", max_size=120))
def test_any_text_is_a_space_or_one_clear_error(text: str) -> None:
    """Nothing but ConfigError comes out of a hostile file."""
    with suppress(ConfigError):
        read(text)


TOML_VALUES = st.one_of(
    *(st.just(v) for v in ("-1", "0", "1e400", "true", "''", "'x'", "[]", "{}", "1979-05-27", "[[1]]", "nan", "9" * 40))
)


@given(line=st.integers(1, SMALL.count("\n") - 1), value=TOML_VALUES)
def test_any_wrong_value_is_one_clear_error(line: int, value: str) -> None:
    """Every line of a sound file with any kind of value: nothing but ConfigError."""
    lines = SMALL.splitlines()
    key, equals, _ = lines[line].partition("=")
    lines[line] = f"{key}= {value}" if equals else lines[line]
    with suppress(ConfigError):
        read("\n".join(lines))


def test_a_users_space_is_laid_out_like_any_other() -> None:
    """Every operator of its architectures is among those that a table of it holds."""
    space = read(SMALL.replace("layers =", "conv_ops = ['fused3', 'basic']\nlayers ="))
    listed = set(reachable_ops(space))
    assert {op for arch in random_archs(space, 60, 1) for op in graph_of(space, arch).ops} <= listed
    assert space.sha256 != NARROW.sha256
