"""The shell's frames, cut anywhere and by anyone; paths and file messages."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.adb.shell_v2 import EXIT, MAX_FRAME_BYTES, STDERR, STDOUT, FrameReader, frame
from device_agents.adb.stream import Duplex
from device_agents.adb.transport import _batches
from device_agents.errors import InvalidRequest, LinkLost, ProtocolError, TransportTimeout

FRAMES = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40)), max_size=8)


@given(FRAMES, st.lists(st.integers(0, 400), max_size=8))
def test_frames_are_read_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """Each stream's bytes come in order, and no frame is needed whole."""
    data = b"".join(frame(kind, content) for kind, content in frames) + frame(EXIT, b"\x07")
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader, incoming = FrameReader("test"), bytearray()
    got = {STDOUT: b"", STDERR: b"", EXIT: b""}
    for start, end in itertools.pairwise(edges):
        incoming += data[start:end]
        for kind, piece in reader.pieces(incoming):
            got[kind] += piece
    for kind in (STDOUT, STDERR):
        assert got[kind] == b"".join(content for one, content in frames if one == kind)
    assert got[EXIT] == b"\x07"
    assert not incoming


@given(st.binary(max_size=64))
def test_noise_is_frames_or_a_protocol_error(noise: bytes) -> None:
    """Nothing else is raised, and nothing is made up."""
    incoming = bytearray(noise)
    try:
        pieces = list(FrameReader("test").pieces(incoming))
    except ProtocolError:
        return
    assert sum(len(piece) for _, piece in pieces) + len(incoming) <= len(noise)


def test_the_longest_frame_is_read() -> None:
    """The limit itself is allowed, and one more is not."""
    reader = FrameReader("test")
    data = bytearray(frame(STDOUT, bytes(MAX_FRAME_BYTES)))
    assert sum(len(piece) for _, piece in reader.pieces(data)) == MAX_FRAME_BYTES
    with pytest.raises(ProtocolError):
        list(reader.pieces(bytearray(frame(STDOUT, bytes(MAX_FRAME_BYTES + 1)))))


class Narrow:
    """A stream that takes three bytes for every two that were read from it, and says what it took."""

    def __init__(self, to_read: bytes) -> None:
        self.to_read = to_read
        self.taken = b""
        self.room = 0

    def read(self, limit: int) -> bytes | None:
        chunk, self.to_read = self.to_read[: min(2, limit)], self.to_read[2:]
        self.room = 3
        return chunk

    def write(self, data: memoryview) -> int:
        count = min(self.room, len(data))
        self.taken += bytes(data[:count])
        self.room = 0
        return count

    def wait(self, timeout_s: float, *, to_read: bool, to_write: bool) -> bool:
        return False

    def close(self) -> None:
        self.to_read = b""


def test_both_directions_move_so_that_neither_waits_for_the_other() -> None:
    """A peer that takes more only while it is read from blocks nobody."""
    stream = Narrow(b"0123456789")
    duplex = Duplex(stream, "test")
    duplex.queue(b"abcdefghijkl")
    while duplex.unsent:
        duplex.advance(0.0)
    assert stream.taken == b"abcdefghijkl"
    assert duplex.take(8, 0.0) == b"01234567"
    with pytest.raises(LinkLost):
        duplex.take(3, 0.0)


def test_nothing_moving_is_a_timeout() -> None:
    """The deadline is kept when the stream has nothing."""

    class Silent(Narrow):
        def read(self, limit: int) -> bytes | None:
            return None

    with pytest.raises(TransportTimeout):
        Duplex(Silent(b""), "test").advance(0.0)


@pytest.mark.parametrize("path", ["relative", "/", "/folder/..", ""])
def test_what_is_no_path_of_a_file_is_refused(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequest):
        list(_batches({path: tmp_path_factory.getbasetemp()}))


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda name: name not in {".", ".."}
)


@pytest.mark.whole  # many draws
@given(st.lists(st.tuples(st.sampled_from(["/a", "/a/b"]), NAMES), min_size=1, max_size=600, unique=True))
def test_batches_hold_each_file_once_and_fit_into_a_line(paths: list[tuple[str, str]]) -> None:
    """Every file is in one batch of its own folder, sent beside its target."""
    files = {f"{folder}/{name}": name for folder, name in paths}
    batches = list(_batches(files))  # type: ignore[arg-type] # names stand for local paths
    targets = [file.target for batch in batches for file in batch.files]
    assert sorted(targets) == sorted(files)
    for batch in batches:
        assert {file.target.rpartition("/")[0] for file in batch.files} == {batch.stage.rpartition("/")[0]}
        assert all(file.path == f"{batch.stage}/{file.target.rpartition('/')[2]}" for file in batch.files)
        assert sum(len(file.path) for file in batch.files) < 60_000
