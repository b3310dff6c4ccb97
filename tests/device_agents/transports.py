"""The ways to a device that the contract is tested over, each with a real peer: nothing is mocked.

`Peer` is what a contract test needs to know of a device. Every command a contract test sends is one that a POSIX
shell, an Android phone and a busybox board all have.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest
from requirements import require

from device_agents.addresses import Address
from device_agents.local import LocalTransport
from device_agents.ssh import SshTransport
from device_agents.ssh_link import SshOptions
from device_agents.transport import RemoteProcess, Transport

# HOME is set so that no start-up file of the account's shell is read: they take as long as they like.
_SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv HOME={folder}
{subsystem}
"""


@dataclass(frozen=True)
class Peer:
    """A device to test a transport with; what it is asked to write goes into `folder`, an empty folder there."""

    open: Callable[[], Transport]
    folder: str
    small_disk: str  # a folder with room for less than 2 MiB
    cut: Callable[[], None] | None = None  # breaks every connection to it; None where there is none to break


class Witness:
    """Tells when all that a command started has ended: they hold a pipe open that `cat` reads on the device.

    It looks over a transport of its own, so that it still sees when the one under test is closed or broken.
    """

    _numbers = itertools.count()

    def __init__(self, peer: Peer, transport: Transport) -> None:
        self._path = f"{peer.folder}/witness-{next(self._numbers)}"
        done = transport.run(["mkfifo", self._path], 20)
        assert done.exit_code == 0, done
        self._reader: RemoteProcess = transport.stream(["cat", self._path])

    def seen(self, script: str) -> list[str]:
        """Return the argv of a shell script whose processes all hold the pipe, and that says "here" into it."""
        return ["sh", "-c", f'exec 9<>"$0"; echo here >&9; {script}', self._path]

    def started(self) -> bool:
        """Wait until the script runs."""
        return self._reader.read_line(20) == b"here"

    def says(self, timeout_s: float) -> bytes | None:
        """Return the next line that the script wrote to its descriptor 9."""
        return self._reader.read_line(timeout_s)

    def ended(self) -> bool:
        """Wait until nobody holds the pipe any more."""
        return self._reader.read_line(20) is None


@dataclass
class Sshd:
    """A plain OpenSSH server of this machine, on a free port of the loopback, with keys of its own."""

    folder: Path
    port: int
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address("ssh", getpass.getuser(), "127.0.0.1", self.port)

    @property
    def known_as(self) -> str:
        """Its name in known_hosts."""
        return f"[127.0.0.1]:{self.port}"

    @property
    def host_line(self) -> str:
        """The line of known_hosts that trusts it."""
        return f"{self.known_as} {(self.folder / 'host_key.pub').read_text()}"

    def options(self, folder: Path) -> SshOptions:
        """Return what lets one in; nothing of the user's own ssh configuration is read."""
        known_hosts, config = folder / "known_hosts", folder / "ssh_config"
        known_hosts.write_text(self.host_line)
        config.touch()
        return SshOptions(key=self.folder / "client_key", known_hosts=known_hosts, config=config)

    def sessions(self) -> list[int]:
        """Return the server's processes that serve connections; not the one that listens, nor what they started."""
        return [pid for pid in _descendants(self.process.pid) if _program(pid) == "sshd"]

    def end_sessions(self) -> None:
        """Break every connection."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Let the connections of now answer nothing during the block, as if a cable had been pulled."""
        sessions = self.sessions()
        assert sessions
        for pid in sessions:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in sessions:
                os.kill(pid, signal.SIGCONT)


def start_sshd(folder: Path, settings: str = "") -> Sshd:
    """Start a server and wait until it listens; settings given here come before those of all servers."""
    program = find_program("sshd", "openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # an empty folder that a server of root insists on
    write_key(folder / "host_key")
    write_key(folder / "client_key")
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "sshd_config"
    subsystem = "" if "Subsystem" in settings else "Subsystem sftp internal-sftp"  # it may be said only once
    config.write_text(f"{settings}\n{_SSHD_CONFIG.format(port=port, folder=folder, subsystem=subsystem)}")
    process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE, text=True)
    server = Sshd(folder, port, process)
    listening = threading.Event()
    threading.Thread(target=_keep_log, args=(server, listening), daemon=True).start()
    assert listening.wait(20), server.log
    assert process.poll() is None, server.log
    return server


def stop_sshd(server: Sshd) -> None:
    """End a server and the sessions it serves."""
    server.end_sessions()
    server.process.kill()
    server.process.wait(20)


def find_program(name: str, package: str) -> str:
    """Return the path of a program that tests need; it is looked for where only root finds it, too."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.fail(f"this test needs {name}; install {package} (nothing of it has to run)")
    return path


def ssh_tool(name: str, *arguments: str) -> str:
    """Run a program of the OpenSSH client and return what it wrote; fail when it fails."""
    command = [find_program(name, "openssh-client"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write_key(path: Path, kind: str = "ssh-ed25519") -> None:
    """Write a new key pair, the private one readable for us alone."""
    key = asyncssh.generate_private_key(kind)
    path.touch(0o600)
    key.write_private_key(path)
    key.write_public_key(path.with_suffix(".pub"))


def _keep_log(server: Sshd, listening: threading.Event) -> None:
    assert server.process.stderr is not None
    with server.process.stderr as lines:
        for line in lines:
            server.log.append(line)
            if "Server listening" in line:
                listening.set()
    listening.set()  # it ended, which start_sshd tells


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for child in _children(pid):
        found += [child, *_descendants(child)]
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


@pytest.fixture(scope="session", name="sshd")
def run_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One SSH server for all tests; what a test breaks of it are its connections only."""
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    stop_sshd(server)


@pytest.fixture(scope="session", name="small_disk")
def mount_small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder of this machine on a file system of 1 MiB."""
    folder = tmp_path_factory.mktemp("small_disk")
    mount, umount = find_program("mount", "mount"), find_program("umount", "mount")
    command = [mount, "-t", "tmpfs", "-o", "size=1m,mode=0777", "edgekd-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"no small disk: only root may mount one here ({done.stderr.strip()})")
    yield str(folder)
    subprocess.run([umount, "--lazy", str(folder)], check=True)


@pytest.fixture
def local(tmp_path: Path, small_disk: str) -> Peer:
    """Give the machine that the tests run on."""
    folder = tmp_path / "device"
    folder.mkdir()
    return Peer(LocalTransport, str(folder), small_disk)


@pytest.fixture
def ssh_transport(tmp_path: Path, small_disk: str, sshd: Sshd) -> Peer:
    """Give the same machine by way of an SSH server."""
    folder = tmp_path / "device"
    folder.mkdir()
    options = sshd.options(tmp_path)
    return Peer(lambda: SshTransport(sshd.address, options), str(folder), small_disk, sshd.end_sessions)
