"""Files that survive: atomic replacement, hashes, and one lock a run folder. Journals are latency_tables.journal's.

Foreign errors (a full disk, a folder that cannot be written) become one clear line here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekd.errors import EdgekdError, UsageError
from latency_tables.beside import written_beside


class CannotWrite(EdgekdError):
    """The disk is full or the folder is not writable; nothing that was there is lost."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror or error}; what was there before is unchanged")


def write_atomic(path: Path, content: bytes | str | Iterator[bytes]) -> None:
    """Write beside, fsync, rename: at every moment the path holds the old content or the new.

    What is too large for memory is given as an iterator of its parts.

    Raises:
        CannotWrite: the disk is full, the folder is missing or not writable.

    """
    data = content.encode() if isinstance(content, str) else content
    parts = [data] if isinstance(data, bytes) else data
    try:
        with written_beside(path, parts) as temporary:
            temporary.replace(path)
    except OSError as error:
        raise CannotWrite(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents, and see that it can be written to.

    Raises:
        UsageError: it cannot be made or written to.

    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(f"folder {path} cannot be written ({error.strerror or error}); choose another") from error


def sha256_of(path: Path) -> str:
    """Give a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however that ends.

    Raises:
        UsageError: another process holds it.

    """
    path = folder / ".lock"
    try:
        file = path.open("a")
    except OSError as error:
        raise CannotWrite(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"run folder {folder} is in use by another edgekd; wait for it or choose another"
            ) from error
        yield
