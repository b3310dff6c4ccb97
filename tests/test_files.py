"""Files that survive: full disks, folders that cannot be written, two processes at once."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import make_read_only, names_in
from synthetic import small_disk

from edgekd.errors import UsageError
from edgekd.files import CannotWrite, locked, make_folder, sha256_of, write_atomic

LIMITED = """
import resource, sys
from pathlib import Path
from edgekd.files import CannotWrite, write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_atomic(Path(sys.argv[1]), b"n" * 100_000)
except CannotWrite as error:
    print(error)
"""

HOLDER = """
import sys
from pathlib import Path
from edgekd.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_content_is_replaced_whole(tmp_path: Path) -> None:
    """Bytes and text, new and old; no other file is left beside it."""
    path = tmp_path / "file"
    for content in (b"\x00\xff", "grüße\n", b""):
        write_atomic(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names_in(tmp_path) == ["file"]


def test_content_can_be_given_in_parts(tmp_path: Path) -> None:
    """What is too large for memory; where the parts end with an error, the old content stays."""
    path = tmp_path / "file"
    write_atomic(path, (bytes([i]) * 3 for i in range(4)))
    assert path.read_bytes() == b"\0\0\0\1\1\1\2\2\2\3\3\3"
    with pytest.raises(ZeroDivisionError):
        write_atomic(path, (bytes([1 // i]) for i in (1, 0)))
    assert path.read_bytes() == b"\0\0\0\1\1\1\2\2\2\3\3\3"
    assert names_in(tmp_path) == ["file"]


def test_a_new_file_has_the_users_usual_mode(tmp_path: Path) -> None:
    """As if it had been opened for writing: others may read a manifest as the umask allows."""
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """On a real file system without space: one clear line, the old content, no temporary file."""
    with small_disk(tmp_path / "disk", 64 << 10) as folder:
        path = folder / "file"
        write_atomic(path, b"old" * 1000)
        with pytest.raises(CannotWrite, match=r"cannot write .*file: No space left on device; what was there before"):
            write_atomic(path, b"new" * 100_000)
        assert path.read_bytes() == b"old" * 1000
        assert names_in(folder) == ["file"]
        write_atomic(path, b"new" * 1000)
        assert path.read_bytes() == b"new" * 1000


def test_a_file_size_limit_leaves_the_old_content(tmp_path: Path) -> None:
    """The same where nothing can be mounted: the operating system cuts the write off at 5,000 bytes."""
    path = tmp_path / "file"
    write_atomic(path, b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {path}: File too large; what was there before is unchanged\n"
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in mid-write: the old content and nothing else."""

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    write_atomic(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_missing_folder_or_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    """The message names the path and the system's reason."""
    with pytest.raises(CannotWrite, match="none/file: No such file or directory"):
        write_atomic(tmp_path / "none" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWrite, match="folder: Is a directory"):
        write_atomic(tmp_path / "folder", b"")
    assert names_in(tmp_path) == ["folder"]


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    """Making one that exists is fine, and leaves nothing in it."""
    folder = tmp_path / "a" / "b"
    make_folder(folder)
    make_folder(folder)
    assert names_in(folder) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file in the way, for one."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(UsageError, match=r"cannot be written .*choose another"):
            make_folder(path)


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    """Told by writing to it, which even root cannot on a file system that is mounted so."""
    with small_disk(tmp_path / "disk", 64 << 10) as folder:
        make_read_only(folder)
        with pytest.raises(UsageError, match=r"cannot be written \(Read-only file system\)"):
            make_folder(folder)
        with pytest.raises(CannotWrite, match="Read-only file system"):
            write_atomic(folder / "file", b"")
        with pytest.raises(CannotWrite, match="Read-only file system"), locked(folder):
            pass


def test_the_hash_is_sha_256(tmp_path: Path) -> None:
    """Of the content, whatever its size."""
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    """The lock goes with its process, even one that is killed; nothing stale is left to remove."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"run folder {tmp_path} is in use by another edgekd"), locked(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with locked(tmp_path):
        pass


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    """The same process may lock again, also after a failure."""
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path), pytest.raises(UsageError, match="in use"), locked(tmp_path):
        pass
