"""Archives that a Linux kernel unpacks into its first file system: cpio of the "newc" kind, as root's files.

Several archives one behind the other are one file system. Device nodes are left out.
Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"070701"
_END = "TRAILER!!!"
_FOLDER = stat.S_IFDIR | 0o755
_PROGRAM = stat.S_IFREG | 0o755


class Archive:
    """Writes one archive into `sink`; `close` ends it, and leaves the sink open."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def add_tree(self, source: Path, target: str) -> None:
        """Add what a folder holds at a path of the archive, "" for its root."""
        self.add_folders(target)
        for path in sorted(source.rglob("*")):
            status = path.lstat()
            if not stat.S_ISLNK(status.st_mode) and not path.is_dir() and not path.is_file():
                continue
            name = f"{target}/{path.relative_to(source)}".lstrip("/")
            self._add(name, status.st_mode, _content(path), int(status.st_mtime))

    def add_program(self, source: Path, target: str) -> None:
        """Add a file that can be run."""
        self.add_folders(str(Path(target).parent))
        self._add(target, _PROGRAM, source.read_bytes(), 0)

    def add_folders(self, path: str) -> None:
        """Add a folder and those that it lies in; one that is there already stays as it is."""
        folder = Path(path)
        for each in (*reversed(folder.parents), folder):
            if each.name:
                self._add(str(each), _FOLDER, b"", 0)

    def close(self) -> None:
        """Write the end."""
        self._add(_END, 0, b"", 0)

    def _add(self, name: str, mode: int, content: bytes, mtime: int) -> None:
        encoded = name.encode() + b"\0"
        #         inode      owner, group, links         size          devices     name's size   checksum
        numbers = (0, mode, 0, 0, 1, mtime, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = _MAGIC + b"".join(b"%08x" % number for number in numbers) + encoded
        self._sink.write(_padded(header))
        self._sink.write(_padded(content))


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
