"""The commands `edgekd space list` and `edgekd space show`: what can be searched, and a built-in space as a file.

The spaces are spaces/mnasnet.py's, the file's form space_file.py's.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgekd.cli_output import print_result

if TYPE_CHECKING:
    from edgekd.spaces.space import Space

_TOML = "toml"
_OWN = "my-"  # before a built-in's name, which a user's space may not take


def register(commands: Any) -> None:
    """Add `space` and its actions to the parser's commands."""
    space = commands.add_parser(
        "space", help="list and show search spaces", description="List and show search spaces, built-in ones and files."
    )
    actions = space.add_subparsers(metavar="ACTION", required=True)
    _add(actions, "list", list_all, "name the built-in search spaces", ("text", "json"))
    show = _add(actions, "show", show_one, "show a space, or write it as a file to start from", ("text", "json", _TOML))
    show.add_argument("space", metavar="SPACE", help="a name that `edgekd space list` gives, or a .toml file")


def _add(
    actions: Any, name: str, command: Callable[[argparse.Namespace], None], text: str, forms: tuple[str, ...]
) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.add_argument("--format", choices=forms, default="text", help="how the result is printed on stdout")
    added.set_defaults(command=command)
    return added


def list_all(options: argparse.Namespace) -> None:
    """Run `edgekd space list`."""
    from edgekd.spaces.mnasnet import SPACES

    result = [_summary(space) for space in SPACES.values()]
    width = max(map(len, SPACES))
    text = [f"{space.name:{width}}  {_images(space)}, {_extent(space)}" for space in SPACES.values()]
    print_result({"spaces": result}, text, options.format)


def show_one(options: argparse.Namespace) -> None:
    """Run `edgekd space show`."""
    from edgekd.profile import all_ops
    from edgekd.spaces.mnasnet import SPACES, space_named
    from edgekd.spaces.space_toml import to_toml

    space = space_named(options.space)
    if options.format == _TOML:
        title = _OWN + space.name if space.name in SPACES else space.title
        print_result(None, to_toml(space, title).splitlines(), _TOML)
        return
    operators = Counter(op.dtype for op in all_ops(space))
    decisions = dict(zip(space.decision_names, space.decision_options, strict=True))
    result = _summary(space) | {"operators": dict(operators), "reference": str(space.reference()), "options": decisions}
    counted = ", ".join(f"{count} {dtype}" for dtype, count in operators.items())
    text = [f"{space.name}: {_images(space)}, {_extent(space)}", *_block_lines(space)]
    text += [f"  a table of it holds {counted} operators", f"  reference: {space.reference()}"]
    print_result(result, text, options.format)


def _summary(space: Space) -> dict[str, Any]:
    return {
        "name": space.name,
        "sha256": space.sha256,
        "resolution": space.resolution,
        "channels": space.in_channels,
        "classes": space.classes,
        "blocks": len(space.blocks),
        "decisions": len(space.decision_sizes),
        "size": space.size,
    }


def _images(space: Space) -> str:
    height, width, channels = space.input_shape[1:]
    return f"images {height}x{width}x{channels} of {space.classes} classes"


def _extent(space: Space) -> str:
    count = f"{space.size:,}" if space.size < 10**6 else f"{space.size:.1e}"
    blocks = f"{len(space.blocks)} block{'s' if len(space.blocks) > 1 else ''}"
    return f"{blocks}, {len(space.decision_sizes)} decisions, {count} architecture{'s' if space.size > 1 else ''}"


def _block_lines(space: Space) -> Iterator[str]:
    from edgekd.spaces.space import DECISIONS

    count = len(DECISIONS)
    per_block = [space.decision_options[start : start + count] for start in range(0, len(space.decision_sizes), count)]
    shared = {place for place, options in enumerate(zip(*per_block, strict=True)) if len(set(options)) == 1}
    if shared:
        yield f"  every block: {_options(per_block[0], shared)}"
    yield f"  stem: width {space.stem_width}, stride {space.stem_stride}"
    for number, (block, own) in enumerate(zip(space.blocks, per_block, strict=True), 1):
        rest = _options(own, set(range(count)) - shared)
        line = (
            f"  block {number}: width {block.width}, stride {block.stride}, reference layers {block.reference_layers}"
        )
        yield f"{line}, {rest}" if rest else line
    yield f"  head: width {space.head_width}" if space.head_width else "  head: nothing before the mean"


def _options(spelled: Sequence[tuple[str, ...]], places: set[int]) -> str:
    from edgekd.spaces.space import DECISIONS

    return ", ".join(f"{DECISIONS[place]} {' '.join(spelled[place])}" for place in sorted(places))
