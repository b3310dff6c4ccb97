"""The names of a space's decisions and their options, told from the text forms of architectures.

An architecture's text lists its blocks between slashes and a block's decisions between underscores, so names need no
more than a few samples; a built-in space adds the options that no sample has. Next: regions.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from edgekd.report.data import Study
from edgekd.report.errors import RunFileError
from edgekd.report.regions import Decision
from edgekd.spaces.mnasnet import SPACES

MOST_OPTIONS = 1_000  # in all; MnasNet's space has 117, and an encoding has a column an option
_PARTS = ("op", "kernel", "SE", "skip", "layers", "filters")  # of a block, in the order of its text


def decisions_of(studies: Sequence[Study]) -> tuple[Decision, ...]:
    """Name the decisions of the space that all these studies searched.

    Raises:
        RunFileError: a header claims more options than any space has.

    """
    sizes = studies[0].header.decision_sizes
    if sum(sizes) > MOST_OPTIONS:
        raise RunFileError("the study's header", f"decision_sizes has {sum(sizes)} options, more than {MOST_OPTIONS}")
    options = [[f"option {place}" for place in range(size)] for size in sizes]
    names = [f"decision {place + 1}" for place in range(len(sizes))]
    unknown = {(place, option) for place, size in enumerate(sizes) for option in range(size)}
    samples = ((s.choices, s.arch) for study in studies for s in study.samples)
    for choices, arch in itertools.chain(_of_space(studies[0].header.space, sizes), samples):
        blocks = [block.split("_") for block in arch.partition(":")[2].split("/")]
        words = [word for block in blocks for word in block]
        if len(words) != len(sizes) or not unknown:
            break  # a space of other text, whose decisions bear numbers; or nothing is left to be learnt
        if {len(block) for block in blocks} == {len(_PARTS)}:
            names = [f"block {number} {part}" for number in range(1, len(blocks) + 1) for part in _PARTS]
        for known, choice, word in zip(options, choices, words, strict=True):
            known[choice] = word
        unknown.difference_update(enumerate(choices))
    return tuple(Decision(name, tuple(known)) for name, known in zip(names, options, strict=True))


def _of_space(name: str, sizes: Sequence[int]) -> Iterator[tuple[tuple[int, ...], str]]:
    """Give architectures of a built-in space that together have every option; none of another space."""
    space = SPACES.get(name)
    if space is None or space.decision_sizes != tuple(sizes):
        return
    for place in range(max(sizes)):
        choices = tuple(min(place, size - 1) for size in sizes)
        yield choices, str(space.arch(choices))


def flat_options(decisions: Iterable[Decision]) -> list[tuple[str, str]]:
    """List (decision, option) in the order of one-hot encodings."""
    return [(decision.name, option) for decision in decisions for option in decision.options]
