"""Files that appear whole: written beside their place, forced to the disk, and then named by the caller.

Whether the name may replace another file (a rename) or not (a link), and what an OSError becomes, is the caller's:
journal.py's here, and whoever else writes files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def written_beside(path: Path, parts: Iterable[bytes]) -> Iterator[Path]:
    """Give a file of that content in the folder of `path`, to be named within the context; else it is removed.

    Raises:
        OSError: the disk is full, the folder is missing or not writable.

    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        _sync_folder(path.parent)
    finally:  # also when the user interrupts; after a rename there is nothing of that name
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force a new name to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems sync no folders; the file itself is on the disk
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
