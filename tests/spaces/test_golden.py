"""Golden: texts, ids, graphs, operators and hashes of the built-in spaces never change, because files hold them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

import pytest

from edgekd.graph.ir import Node
from edgekd.profile import calibration_archs
from edgekd.spaces.layers import graph_of, reachable_ops
from edgekd.spaces.mnasnet import SPACES

# by space: hashes of 21 ids, of those architectures' graphs, of the reachable operators, of the calibration networks
GOLDEN = {
    "tiny-28": ("02b858174d89aa33", "942afb21e49ec040", "268e76ef7c974075", "bc4106183badc8fb"),
    "mnasnet-28-narrow": ("b6270b2f6d58c321", "df2a3e826566312a", "67213a4c5a00b377", "0bacf142aab160d9"),
    "mnasnet-32": ("4ec03e116245cbb8", "8f8cb5e8515c0e04", "ec35b297b8f15bdf", "d1940420d7db1a84"),
    "mnasnet-96": ("4c858b9965fc86a6", "f11d9e638d19f580", "ce5e64100d0e7b6a", "6c4f9f63f66fcb8b"),
    "mnasnet-160": ("d4dc6ba4d9fb7bca", "826e0f3997ed1ec1", "c1b8d3cd225d6b5c", "bac4cb6d2f910776"),
    "mnasnet-224": ("5b4a80f9d7cd476e", "3359b894329b2888", "2143823799ef0b4a", "c2150ab6bf337011"),
}

CONTENTS = {
    "tiny-28": "662f6de250fa927c",
    "mnasnet-28-narrow": "13e2412331602714",
    "mnasnet-32": "ea8cb9d981ad67db",
    "mnasnet-96": "466d3874d34b49c8",
    "mnasnet-160": "53e9c36e96e7c010",
    "mnasnet-224": "b89061fb509135b3",
}


def digest(lines: Iterable[str]) -> str:
    """Hash lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def spelled(node: Node) -> str:
    """Spell all that a node is."""
    return f"{node.name} {node.op.key} {','.join(node.inputs)} {node.out_shape} {node.norm}"


def test_every_built_in_space_is_held() -> None:
    """A new space brings its golden values."""
    assert GOLDEN.keys() == CONTENTS.keys() == SPACES.keys()


# their operators take their time to be listed, those of the large spaces over half a second
DEAR = {"mnasnet-28-narrow": pytest.mark.whole} | dict.fromkeys(
    ("mnasnet-32", "mnasnet-96", "mnasnet-160", "mnasnet-224"), pytest.mark.slow
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=DEAR[n]) if n in DEAR else n for n in GOLDEN])
def test_what_files_hold_of_a_space_never_changes(name: str) -> None:
    """Ids name students, keys name rows, tables hold the calibration networks, and the graphs are the artifacts."""
    space = SPACES[name]
    rng = random.Random(5)
    drawn = [space.arch([rng.randrange(size) for size in space.decision_sizes]) for _ in range(20)]
    archs = [space.reference(), *drawn]
    assert GOLDEN[name] == (
        digest(arch.arch_id for arch in archs),
        digest(spelled(node) for arch in archs for node in graph_of(space, arch).nodes),
        digest(op.key for op in reachable_ops(space)),
        digest(map(str, calibration_archs(space))),
    )


@pytest.mark.parametrize("name", CONTENTS)
def test_the_hash_of_a_spaces_content_never_changes(name: str) -> None:
    """Study headers and the names of users' spaces hold it."""
    assert SPACES[name].sha256.startswith(CONTENTS[name])
