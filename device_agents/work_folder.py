"""The work folder on a device: made safe, filled by content hash, cleaned.

    models/HASH.tflite, .onnx, .bin         what is measured and the inputs of a check
    bin/HASH-NAME                           what serves there: runner, agent, libraries

What lies there already is known by the hash that the device computes now, never by name or size. One shell script,
which needs no Python there, does it on every kind of device. Nothing outside the folder is touched.
Read next: `session.py`, which measures with what was put here; `runner/edgekd_folder.sh` for the other end.
"""

from __future__ import annotations

import getpass
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import file_digest, sha256
from importlib.resources import files
from pathlib import Path

from device_agents.errors import DeviceNotReady, LinkLost, ProtocolError, TransportError
from device_agents.strict_json import clean_lines, excerpt
from device_agents.transport import Transport

_STORED = re.compile(
    r"(?P<sha256>[0-9a-f]{64}) (?P<size>\d{1,15}) "
    r"(?P<path>models/(?P<model>[0-9a-f]{64})\.(?:tflite|onnx|bin)|bin/(?P<prefix>[0-9a-f]{16})-[A-Za-z0-9._+-]{1,100})\Z"
)


_PIECE_BYTES = 16 << 20  # half a minute over a poor radio link, after which the host has to say that it is there


class WorkFolder:
    """A work folder at an absolute path on a device."""

    def __init__(self, transport: Transport, path: str, timeout_s: float = 60.0) -> None:
        self.path = path
        self._transport = transport
        self._timeout_s = timeout_s
        self._script = (files("device_agents.runner") / "edgekd_folder.sh").read_text(encoding="utf-8")
        self._stored: set[str] | None = None
        self.pushed_bytes = 0

    def prepare(self) -> None:
        """Make the folder and mend what a session that died has left there.

        Raises:
            DeviceNotReady: others can write to it, or it cannot be made.
            TransportError: the device could not be asked.

        """
        self._stored = None  # whatever it held before the link broke, or the device was started anew
        self._do("prepare")

    def free(self, owner: str) -> None:
        """End the process that holds the lock, if it is this owner's own: one whose link broke may not know yet."""
        self._do("free", owner)

    def bring(self, wanted: Mapping[str, Path]) -> None:
        """Push files before the lock is ours, again where another session took the folder away at its end just then."""
        try:
            self.put(wanted)
        except LinkLost:
            raise
        except (TransportError, DeviceNotReady):
            self.prepare()
            self.put(wanted)

    def put(self, wanted: Mapping[str, Path], on_piece: Callable[[], None] = lambda: None) -> None:
        """Push those files that do not lie there: local ones by their path in the folder, which carries their hash.

        `on_piece` is called now and then: many files over a slow link take minutes.
        """
        if self._stored is None:
            self._stored = set(self._ask_stored())
        missing = {path: local for path, local in wanted.items() if path not in self._stored}
        for piece, size_bytes in _pieces(missing):
            self._transport.push_all({f"{self.path}/{path}": local for path, local in piece.items()})
            self.pushed_bytes += size_bytes
            self._stored |= piece.keys()
            on_piece()

    def clean(self, keep_bytes: int) -> None:
        """Drop the oldest files until the rest has so many bytes; 0 removes all but installed packages.

        Does nothing while another session holds the folder.
        """
        self._do("clean", str(keep_bytes))

    def _ask_stored(self) -> Iterable[str]:
        for line in clean_lines(self._do("stored")):
            match = _STORED.match(line)
            if not match or not match["sha256"].startswith(match["model"] or match["prefix"]):
                raise ProtocolError(
                    f"expected a hash, a size and a path of the work folder, got {excerpt(line.encode())}"
                )
            yield match["path"]

    def _do(self, action: str, *arguments: str) -> str:
        argv = ["sh", "-c", self._script, "edgekd_folder", action, self.path, *arguments]
        done = self._transport.run(argv, self._timeout_s)
        if done.exit_code != 0:
            lines = clean_lines(done.stderr.decode("utf-8", "replace"))
            raise DeviceNotReady(lines[-1] if lines else f"cannot {action} {self.path}: exit code {done.exit_code}")
        return done.stdout.decode("utf-8", "replace")


def _pieces(files: Mapping[str, Path]) -> Iterator[tuple[dict[str, Path], int]]:
    """Cut files into pieces that end once they have _PIECE_BYTES, each with its size in bytes."""
    piece: dict[str, Path] = {}
    size_bytes = 0
    for path, local in files.items():
        piece[path] = local
        size_bytes += _size_bytes(local)
        if size_bytes >= _PIECE_BYTES:
            yield piece, size_bytes
            piece, size_bytes = {}, 0
    if piece:
        yield piece, size_bytes


def _size_bytes(local: Path) -> int:
    try:
        return local.stat().st_size
    except OSError:
        return 0  # to push it tells what is wrong with it


def model_path(digest: str, suffix: str = "tflite") -> str:
    """Say where in the folder a model lies, of an engine's own suffix, or with "bin" a blob of inputs."""
    return f"models/{digest}.{suffix}"


def program_path(name: str, local: Path) -> str:
    """Say where in the folder a file of an engine lies. Raises DeviceNotReady when it cannot be read here."""
    try:
        with local.open("rb") as file:
            digest = file_digest(file, sha256).hexdigest()
    except OSError as error:
        raise DeviceNotReady(f"{name}: {local} cannot be read here: {error.strerror}; give its right path") from error
    return f"bin/{digest[:16]}-{name}"


def owner_label() -> str:
    """Say in the device's lock who measures: a person's name on a machine, and a word that no other session has."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "someone"
    label = re.sub(r"[^A-Za-z0-9@._-]", "-", f"{user}@{socket.gethostname()}")[:80]
    return f"{label} {secrets.token_hex(4)}"
