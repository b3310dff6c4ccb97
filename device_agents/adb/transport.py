"""The transport to an Android device: commands over the shell protocol, files over the file service.

It works over any Connector, through the adb server or straight to the device, and does not know which.
A file is sent into a folder of its own beside its target, `.TOKEN.part`, and moved from there; many are moved by one
command. It measures nothing. Read next: `process.py`, `sync.py`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from device_agents import shell
from device_agents.adb.process import ShellProcess, run_to_end
from device_agents.adb.shell_v2 import ShellStream
from device_agents.adb.stream import Connector
from device_agents.adb.sync import Sending, SyncClient
from device_agents.errors import DeviceError, DeviceNotReady, InvalidRequest, TransportError
from device_agents.strict_json import clean_lines
from device_agents.transport import Completed
from device_agents.whole_file import whole_file

_OPEN_S = 20.0  # a phone that dozes takes some seconds to answer
_KILL_S = 10.0
_MOVE_S = 120.0  # many files on slow storage
_BATCH_FILES = 256  # moved by one command,
_BATCH_BYTES = 30_000  # whose line fits into a request to the adb server, 64 KiB
_MOVE = 'stage=$1; shift; cd "$stage" && mv -f -- "$@" .. && cd .. && rmdir "$stage"'
_DROP = 'rm -rf "$1"'


class AdbTransport:
    """Run commands on, and copy files to and from, the device that `connector` reaches."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._has_shell = False
        self._processes: list[ShellProcess] = []

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end; past `timeout_s` its whole group is ended and TransportTimeout raised."""
        shell_stream = self._shell(shell.watched_line(argv), argv[0], min(timeout_s, _OPEN_S))
        return run_to_end(shell_stream, self._end_group, timeout_s)

    def stream(self, argv: Sequence[str]) -> ShellProcess:
        """Start a process to speak with in lines."""
        process = ShellProcess(self._shell(shell.command_line(argv), argv[0], _OPEN_S), self._end_group)
        self._processes = [*(known for known in self._processes if not known.has_ended), process]
        return process

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device; `remote` is whole or absent at any moment."""
        self.push_all({remote: local})

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy many files, those of one folder together."""
        if not files:
            return
        client = SyncClient(self._connector.open("sync:", _OPEN_S), self._connector.name)
        try:
            for batch in _batches(files):
                self._push_batch(client, batch)
        finally:
            client.close()

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device; `local` is whole or absent at any moment."""
        client = SyncClient(self._connector.open("sync:", _OPEN_S), self._connector.name)
        try:
            with whole_file(local, durable=True) as beside, beside.open("xb") as sink:
                client.receive(remote, sink)
        except OSError as error:
            raise TransportError(f"cannot copy {remote} to {local}: {error.strerror}") from error
        finally:
            client.close()

    def close(self) -> None:
        """End every process that was started here, and the connection."""
        try:
            while self._processes:
                self._processes.pop().kill()
        finally:
            self._connector.close()

    def _shell(self, line: str, name: str, timeout_s: float) -> ShellStream:
        if not self._has_shell and "shell_v2" not in self._connector.features(timeout_s):
            raise DeviceNotReady(
                f"{self._connector.name} has no shell that gives exit codes; Android 7 or later is needed"
            )
        self._has_shell = True
        return ShellStream(self._connector.open(f"shell,v2,raw:{line}", timeout_s), name)

    def _end_group(self, group: int) -> None:
        stream = ShellStream(self._connector.open(f"shell,v2,raw:{shell.kill_line(group)}", _KILL_S), "kill")
        deadline = time.monotonic() + _KILL_S
        try:
            while stream.exit_code is None:
                stream.advance(deadline)
        finally:
            stream.close()

    def _push_batch(self, client: SyncClient, batch: _Batch) -> None:
        try:
            client.send_all(batch.files)
            self._do(_MOVE, batch.stage, *(PurePosixPath(file.target).name for file in batch.files))
        except BaseException:  # an interrupt, too, leaves nothing half done there
            client.close()
            with contextlib.suppress(DeviceError):  # the first error is the one to tell; the link may be lost
                self._do(_DROP, batch.stage)
            raise

    def _do(self, script: str, *arguments: str) -> None:
        done = self.run(["sh", "-c", script, "sh", *arguments], _MOVE_S)
        if done.exit_code != 0:
            lines = clean_lines(done.stderr.decode("utf-8", "replace"))
            reason = lines[-1] if lines else f"exit code {done.exit_code}"
            raise TransportError(f"cannot put files in place on {self._connector.name}: {reason}")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Files for one folder, and the folder beside them that they are sent into."""

    stage: str
    files: tuple[Sending, ...]

    @staticmethod
    def of(folder: PurePosixPath, members: Mapping[str, Path]) -> _Batch:
        """Choose a folder for files, local ones by their name."""
        stage = folder / f".{secrets.token_hex(8)}.part"
        files = (Sending(local, str(stage / name), str(folder / name)) for name, local in members.items())
        return _Batch(str(stage), tuple(files))


def _batches(files: Mapping[str, Path]) -> Iterator[_Batch]:
    """Group files by their folder into batches that one command line can name."""
    folders: dict[PurePosixPath, dict[str, Path]] = {}
    for remote, local in files.items():
        path = PurePosixPath(remote)
        if not path.is_absolute() or path.name in {"", ".."}:
            raise InvalidRequest(f"{remote!r} is no absolute path of a file on the device")
        folders.setdefault(path.parent, {})[path.name] = local
    for folder, members in folders.items():
        batch: dict[str, Path] = {}
        size = 0
        for name, local in members.items():
            size += len(shell.quoted(name).encode()) + 1
            if batch and (len(batch) == _BATCH_FILES or size > _BATCH_BYTES):
                yield _Batch.of(folder, batch)
                batch, size = {}, 0
            batch[name] = local
        yield _Batch.of(folder, batch)
