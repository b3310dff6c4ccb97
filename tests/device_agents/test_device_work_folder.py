"""Files come to a device in pieces, so that whoever pushes many of them over a slow link can say that it is there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents import work_folder
from device_agents.local import LocalTransport
from device_agents.work_folder import WorkFolder, model_path

pytestmark = pytest.mark.slow  # a shell tidies the folder


class CountingTransport(LocalTransport):
    """Keeps how many files came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[int] = []

    def push_all(self, files: Mapping[str, Path]) -> None:
        self.pushed.append(len(files))
        super().push_all(files)


def stored(folder: Path, contents: list[bytes]) -> dict[str, Path]:
    """Write files here and give them under their paths there."""
    found = {}
    for content in contents:
        digest = hashlib.sha256(content).hexdigest()
        found[model_path(digest)] = folder / digest
        found[model_path(digest)].write_bytes(content)
    return found


def test_many_bytes_are_pushed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each piece the host is asked to speak; what lies there is not pushed again."""
    monkeypatch.setattr(work_folder, "_PIECE_BYTES", 10)
    wanted = stored(tmp_path, [b"a" * 4, b"b" * 5, b"c" * 6, b"d" * 25, b"e"])
    transport, spoken = CountingTransport(), []
    folder = WorkFolder(transport, str(tmp_path / "edgekd-work"))
    folder.prepare()
    for _ in range(2):
        folder.put(wanted, lambda: spoken.append(len(transport.pushed)))
        assert transport.pushed == [3, 1, 1]
        assert spoken == [1, 2, 3]
        assert folder.pushed_bytes == 41
    assert all((tmp_path / "edgekd-work" / path).read_bytes() == local.read_bytes() for path, local in wanted.items())


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 40))
def test_pieces_hold_every_file_once_and_none_is_larger_than_it_must_be(sizes: list[int], limit: int) -> None:
    """A piece ends with the file that fills it."""
    names = {f"models/{number}": size for number, size in enumerate(sizes)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_folder, "_PIECE_BYTES", limit)
        patch.setattr(work_folder, "_size_bytes", lambda local: names[str(local)])
        pieces = list(work_folder._pieces({name: Path(name) for name in names}))
    assert [name for piece, _ in pieces for name in piece] == list(names)
    for piece, size_bytes in pieces:
        assert size_bytes == sum(names[name] for name in piece)
        assert size_bytes - names[list(piece)[-1]] < limit
    assert all(size_bytes >= limit for _, size_bytes in pieces[:-1])
