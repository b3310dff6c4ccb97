"""A file on this machine that is whole or absent at any moment: written beside its place, then moved there.

It does not make folders. Read next: `local.py` and `ssh_files.py`, whose copies it finishes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(target: Path, *, durable: bool) -> Iterator[Path]:
    """Give a path to write to; at the end of the block that file becomes `target`, or goes when the block failed.

    A durable one survives a power cut that comes later; what can be copied again need not.
    """
    beside = target.with_name(part_name(target.name))
    try:
        yield beside
        if durable:
            with beside.open("rb") as written:
                os.fsync(written.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def part_name(name: str) -> str:
    """Return a name for the unfinished file, which no other copy of the same file has."""
    return f".{name}.{secrets.token_hex(4)}.part"
