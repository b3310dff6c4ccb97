"""Files over an SSH connection, by SFTP: many at once, each whole or absent at any moment.

It copies single files to the paths it is given; it makes no folders. Read next: `whole_file.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import asyncssh

from device_agents.errors import LinkLost, TransportError, TransportTimeout
from device_agents.ssh_link import SshLink
from device_agents.strict_json import clean_text
from device_agents.whole_file import part_name, whole_file

_IN_FLIGHT = 32  # files; each costs some round trips, and a server's open files are limited
_REMOVE_S = 5.0
_START_S = 30.0  # a server of files starts in milliseconds, on an emulated device in a second
_STALL_S = 60.0  # without one block moving: flash storage pauses for seconds, not for a minute


async def push_files(link: SshLink, files: Mapping[str, Path]) -> None:
    """Copy local files to paths on the device; a failure ends the others too, and leaves no half of a file."""
    sftp = await _sftp(link)
    turn, moved = asyncio.Semaphore(_IN_FLIGHT), asyncio.Event()

    async def push(remote: str, local: Path) -> None:
        async with turn:
            await _push_one(link, sftp, remote, local, lambda *_: moved.set())

    copies = [asyncio.create_task(push(remote, local)) for remote, local in files.items()]
    try:
        await _await_all(copies, moved)
    finally:
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


async def _await_all(copies: Sequence[asyncio.Task[None]], moved: asyncio.Event) -> None:
    """Wait for copies, or for the first that fails; `moved` is set by each block that the device has taken.

    Raises TransportTimeout when it takes none any more.
    """
    waiting = set(copies)
    while waiting:
        moved.clear()
        done, waiting = await asyncio.wait(waiting, timeout=_STALL_S, return_when=asyncio.FIRST_EXCEPTION)
        for copy in done:
            copy.result()
        if not done and not moved.is_set():
            raise TransportTimeout(f"the device took nothing for {_STALL_S:g} s; is its storage stuck?")


async def pull_file(link: SshLink, remote: str, local: Path) -> None:
    """Copy one file from the device."""
    sftp = await _sftp(link)
    try:
        with whole_file(local, durable=True) as beside:
            await sftp.get(remote, beside, follow_symlinks=True, sparse=False)
    except asyncssh.Error as error:
        raise _failure(link, error, f"cannot copy {remote} from the device: {_reason(error)}") from error
    except OSError as error:
        raise _failure(link, error, f"cannot write {local}: {error.strerror or error}") from error


async def _push_one(
    link: SshLink, sftp: asyncssh.SFTPClient, remote: str, local: Path, note: Callable[[bytes, bytes, int, int], None]
) -> None:
    folder, name = posixpath.split(remote)
    beside = posixpath.join(folder, part_name(name))
    try:
        executable = local.stat().st_mode & 0o100
        await sftp.put(local, beside, follow_symlinks=True, sparse=False, progress_handler=note)
        if executable:
            await sftp.chmod(beside, 0o755)
        await sftp.posix_rename(beside, remote)
    except BaseException as error:
        await _remove(sftp, beside)
        if isinstance(error, asyncssh.Error):
            room = await _room(sftp, folder, local)
            raise _failure(
                link, error, f"cannot copy {local} to {remote} on the device: {room or _reason(error)}"
            ) from error
        if isinstance(error, OSError):
            raise _failure(link, error, f"cannot copy {local}: {error.strerror or error}") from error
        raise


async def _sftp(link: SshLink) -> asyncssh.SFTPClient:
    if link.sftp is None:
        try:
            async with asyncio.timeout(_START_S):
                link.sftp = await link.connection.start_sftp_client()
        except TimeoutError as error:
            raise TransportTimeout(
                f"the device's server of files (SFTP) did not start within {_START_S:g} s"
            ) from error
        except (asyncssh.Error, OSError) as error:
            message = f"the device serves no files (SFTP): {clean_text(str(error))}; install openssh-sftp-server there"
            raise _failure(link, error, message) from error
    return link.sftp


async def _remove(sftp: asyncssh.SFTPClient, path: str) -> None:
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(_REMOVE_S):
            await sftp.remove(path)


async def _room(sftp: asyncssh.SFTPClient, folder: str, local: Path) -> str:
    """Say that there was no room for a file, if so: SFTP itself says "failure" for that and for much else."""
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(_REMOVE_S):
            space = await sftp.statvfs(folder or ".")
        free_bytes, size_bytes = space.bavail * space.frsize, local.stat().st_size
        if free_bytes < size_bytes or space.favail == 0:
            return f"no space left there, {free_bytes} bytes are free and {size_bytes} are needed"
    return ""


def _failure(link: SshLink, error: Exception, message: str) -> TransportError:
    """Tell a lost link from a failure; an SFTP server that ended is started anew by the next transfer."""
    if isinstance(error, (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost)):
        link.sftp = None
    if link.is_lost():
        return LinkLost("the connection to the device was lost during a copy")
    return TransportError(message)


def _reason(error: asyncssh.Error) -> str:
    return clean_text(" ".join(str(error.reason).split())) or type(error).__name__  # the device's own words
