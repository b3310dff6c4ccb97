"""The commands `edgekd space ...`: what they print, and a built-in space as the start of a user's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd import cli, cli_spaces
from edgekd.cli_measure import default_table
from edgekd.errors import UnknownName
from edgekd.profile import all_ops
from edgekd.spaces.mnasnet import SPACES, space_named

Says = Callable[..., str]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Run a `space` command and give its stdout."""

    def run(*arguments: str) -> str:
        parser = argparse.ArgumentParser()
        cli_spaces.register(parser.add_subparsers())
        options = parser.parse_args(["space", *arguments])
        options.command(options)
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


def test_the_list_names_every_built_in_space(says: Says) -> None:
    """A line each, and in JSON with the hash of its content."""
    assert [line.split()[0] for line in says("list").splitlines()] == list(SPACES)
    listed = json.loads(says("list", "--format", "json"))["spaces"]
    assert [space["name"] for space in listed] == list(SPACES)
    assert all(space["sha256"] == SPACES[space["name"]].sha256 for space in listed)


@pytest.mark.whole  # lists the operators of a whole space
def test_a_space_is_shown_with_what_can_be_chosen(says: Says) -> None:
    """Images, size, shared and own options of each block, and how many operators a table of it holds."""
    text = says("show", "mnasnet-28-narrow")
    assert "images 28x28x1 of 10 classes, 7 blocks, 42 decisions, 1.2e+18 architectures" in text
    assert "every block: conv_op conv dsconv mb3 mb6, kernel 3 5" in text
    assert "block 4: width 24, stride 1, reference layers 4, layers 3 4 5" in text
    assert f"{len(all_ops(SPACES['mnasnet-28-narrow'], ('float32',)))} float32" in text


def test_a_shown_space_has_its_decisions_in_json(says: Says) -> None:
    """By name, with the options as architectures' texts spell them."""
    shown = json.loads(says("show", "tiny-28", "--format", "json"))
    assert shown["options"]["block2.conv_op"] == ["mb3", "mb6"]
    assert (shown["size"], shown["decisions"]) == (64, 12)
    assert shown["reference"] == str(SPACES["tiny-28"].reference())


@pytest.mark.whole  # lists the operators of a whole space
def test_a_built_in_space_written_out_is_a_space_of_ones_own(says: Says, tmp_path: Path) -> None:
    """Under a name that is free, of the same content; shown again, the same file."""
    path = tmp_path / "mine.toml"
    path.write_text(says("show", "mnasnet-32", "--format", "toml"))
    mine = space_named(str(path))
    assert mine.title == "my-mnasnet-32"
    assert mine.sha256 == SPACES["mnasnet-32"].sha256
    assert says("show", str(path), "--format", "toml") == path.read_text()
    assert mine.name in says("show", str(path))


def test_an_unknown_space_is_refused(says: Says) -> None:
    """With the nearest name."""
    with pytest.raises(UnknownName, match="did you mean 'mnasnet-32'"):
        says("show", "mnasnet-33")


def test_a_wrong_file_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line: nothing on stdout, and file, key, value and what is allowed on stderr."""
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nlike = "tiny-28"\n[options]\nconv_ops = ["bassic"]\n')
    assert cli.run(["space", "show", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "mine.toml: options: conv_ops is ['bassic']; 'bassic': did you mean 'basic'? known: basic, " in captured.err


def test_the_default_table_of_a_users_space_is_of_that_edition(tmp_path: Path) -> None:
    """Wherever the file lies, the table's name tells title and hash, and an edited file gets another table."""
    path = tmp_path / "mine.toml"
    options = argparse.Namespace(device="pixel4", device_engine="", space=str(path))
    tables = []
    for classes in (10, 12):
        path.write_text(f'name = "own"\nlike = "tiny-28"\nclasses = {classes}\n')
        tables.append(default_table(options))
        assert tables[-1] == Path("tables") / f"pixel4-own@{space_named(str(path)).sha256[:8]}.jsonl"
    assert tables[0] != tables[1]
    options.space = "tiny-28"
    assert default_table(options) == Path("tables/pixel4-tiny-28.jsonl")
